-- name: decisions_of
-- How many entries of each kind the ledger has for the reservations whose ids begin with $1.
SELECT kind, count(*) FROM ledger WHERE subject LIKE $1 || '-%' GROUP BY kind;

-- name: ledger_rows
-- How many entries there are.
SELECT count(*) FROM ledger;

-- name: set_head
-- Let the ledger of shard $1 end, under epoch $2, at sequence $3 with hash $4.
UPDATE shard_head SET epoch = $2, last_sequence = $3, last_hash = $4 WHERE shard = $1;

-- name: analyse_ledger
-- What Postgres does by itself some time after so many rows.
VACUUM (ANALYZE) ledger;

-- name: make_database
-- An empty database for the state before.
CREATE DATABASE before;
