-- name: decisions_of
-- How many entries of each kind the ledger has for the reservations whose ids begin with $1.
SELECT kind, count(*) FROM ledger WHERE subject LIKE $1 || '-%' GROUP BY kind;

-- name: ledger_rows
-- How many entries there are.
SELECT count(*) FROM ledger;
