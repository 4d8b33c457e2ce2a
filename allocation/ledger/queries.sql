-- name: head
-- Where the ledger of shard $1 ends, who may append to it, and whether a standby must have it too.
SELECT
    epoch, last_sequence, last_hash, run_id, replication_id, taken_on,
    current_setting('synchronous_standby_names') <> '' AS replicated
FROM shard_head WHERE shard = $1;

-- name: confirm_head
-- Write the head of shard $1 as it is: what this commit waits for, everything before it has reached too.
UPDATE shard_head SET last_sequence = last_sequence
WHERE shard = $1
RETURNING epoch, last_sequence, last_hash, run_id, replication_id, taken_on;

-- name: create_head
-- The first head of shard $1; a shard that has one keeps it.
INSERT INTO shard_head (shard) VALUES ($1) ON CONFLICT (shard) DO NOTHING;

-- name: append
-- Compare-and-set the head of shard $1 at epoch $2 from ($3, $4) to ($5, $6), and insert the entries with it:
-- both or neither. Nothing is inserted where the head is not the one expected.
WITH moved AS (
    UPDATE shard_head SET last_sequence = $5, last_hash = $6
    WHERE shard = $1 AND epoch = $2 AND last_sequence = $3 AND last_hash = $4
    RETURNING shard, epoch
)
INSERT INTO ledger (shard, epoch, sequence, at_ms, kind, subject, hash, body)
SELECT moved.shard, moved.epoch, $3 + place, at_ms, kind, subject, hash, body
FROM
    moved,
    unnest($7::bigint[], $8::smallint[], $9::text[], $10::text[], $11::bytea[])
    WITH ORDINALITY AS entry (at_ms, kind, subject, hash, body, place);

-- name: take_over
-- Raise the epoch of shard $1 above its own and above $4: from this commit on nobody who holds an older one can
-- append. On a restored ledger the gate may know a higher epoch than the head does.
-- A shard that was closed is not to be had.
UPDATE shard_head
SET epoch = greatest(epoch, $4) + 1, run_id = $2, replication_id = $3, taken_on = $5, taken_at = now()
WHERE shard = $1 AND closed_reason IS NULL
RETURNING epoch, last_sequence, last_hash, run_id, replication_id, taken_on;

-- name: read
-- The entries of shard $1 after sequence $2, at most $3 of them.
SELECT sequence, body FROM ledger WHERE shard = $1 AND sequence > $2 ORDER BY sequence LIMIT $3;

-- name: read_with_hash
-- As read, with the hash of each entry, for an audit.
SELECT sequence, hash, body FROM ledger WHERE shard = $1 AND sequence > $2 ORDER BY sequence LIMIT $3;

-- name: hash_at
-- The hash of entry $2 of shard $1.
SELECT hash FROM ledger WHERE shard = $1 AND sequence = $2;

-- name: durability
-- The settings without which a commit is not durable. The one that sessions may choose is chosen as it is found, so
-- that an operator who changes it meanwhile changes it for later connections alone, which are looked at anew.
SELECT
    current_setting('fsync'), current_setting('full_page_writes'),
    set_config('synchronous_commit', current_setting('synchronous_commit'), false);

-- name: server
-- Which Postgres this is, and on which timeline: a standby that is promoted begins another one. One that has not
-- been promoted yet has no position to write at, and answers with an error.
SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) FROM pg_control_system();

-- name: bound_lock_wait
-- Wait for a lock this many milliseconds at most.
SELECT set_config('lock_timeout', $1, FALSE);

-- name: lock_take_over
-- Let one process at a time take shard $1 over; held until the connection ends.
SELECT pg_advisory_lock(7261, $1);

-- name: show_life
-- Whoever takes shard $1 over is at work.
UPDATE shard_head SET taker_seen_at = clock_timestamp() WHERE shard = $1;

-- name: taker_lives
-- Whether somebody was at work taking shard $1 over within the last $2 milliseconds.
SELECT coalesce(taker_seen_at > clock_timestamp() - make_interval(secs => $2 / 1000.0), FALSE)
FROM shard_head WHERE shard = $1;

-- name: read_page
-- The entries of shard $1 after sequence $2 up to $3: how many there are, and their bodies one after the other. One
-- value for all of them is read five times as fast as a row each.
SELECT count(*), coalesce(string_agg(body, ''::bytea ORDER BY sequence), ''::bytea)
FROM ledger WHERE shard = $1 AND sequence > $2 AND sequence <= $3;

-- name: checkpoints
-- The checkpoints of shard $1 up to sequence $2 that the ledger agrees with and that have all their parts, the newest
-- first.
SELECT
    checkpoint.sequence, checkpoint.hash, ledger.at_ms, checkpoint.digests,
    extract(EPOCH FROM checkpoint.taken_at)::float8 * 1000 AS taken_at_ms
FROM checkpoint JOIN ledger USING (shard, sequence, hash)
WHERE
    checkpoint.shard = $1 AND checkpoint.sequence <= $2
    AND cardinality(digests) = (
        SELECT count(*) FROM checkpoint_part AS part
        WHERE part.shard = checkpoint.shard AND part.sequence = checkpoint.sequence
    )
ORDER BY checkpoint.sequence DESC;

-- name: checkpoint_part
-- Part $3 of the checkpoint of shard $1 at sequence $2.
SELECT key, body FROM checkpoint_part WHERE shard = $1 AND sequence = $2 AND part = $3;

-- name: lock_checkpoints
-- Let one process at a time write checkpoints of shard $1; held until the transaction ends.
SELECT pg_advisory_xact_lock(7262, $1);

-- name: drop_checkpoints
-- Make room for a checkpoint of shard $1 at sequence $2: drop one that is there already, and those of another history.
DELETE FROM checkpoint
WHERE
    shard = $1
    AND (
        sequence = $2
        OR NOT EXISTS (
            SELECT FROM ledger
            WHERE ledger.shard = $1 AND ledger.sequence = checkpoint.sequence AND ledger.hash = checkpoint.hash
        )
    );

-- name: add_part
-- Part $3 of the checkpoint of shard $1 at sequence $2: it belongs in key $4.
INSERT INTO checkpoint_part (shard, sequence, part, key, body) VALUES ($1, $2, $3, $4, $5);

-- name: add_checkpoint
-- The checkpoint of shard $1 at sequence $2, whose hash is $3; its parts have the digests $4.
INSERT INTO checkpoint (shard, sequence, hash, digests) VALUES ($1, $2, $3, $4);

-- name: keep_checkpoints
-- Keep the newest $2 checkpoints of shard $1.
DELETE FROM checkpoint
WHERE shard = $1 AND sequence NOT IN (
    SELECT sequence FROM checkpoint WHERE shard = $1 ORDER BY sequence DESC LIMIT $2
);

-- name: closed_reason
-- Why shard $1 was closed; NULL where it is open.
SELECT closed_reason FROM shard_head WHERE shard = $1;

-- name: close_shard
-- Close shard $1: whoever appends holds an older epoch from here on. The one in between is for the gate alone, so
-- that nobody finds it at the epoch of the head.
UPDATE shard_head SET epoch = epoch + 2, closed_reason = $2
WHERE shard = $1 AND closed_reason IS NULL
RETURNING epoch - 1;

-- name: reopen_shard
-- Let shard $1 be taken over again.
UPDATE shard_head SET closed_reason = NULL
WHERE shard = $1 AND closed_reason IS NOT NULL
RETURNING shard;

-- name: take_turn
-- Whether this connection may verify shard $1; one at a time may, until it ends.
SELECT pg_try_advisory_lock(7263, $1);

-- name: record_drift
-- What was found at sequence $2 of shard $1: fields that the gate tells otherwise than the ledger.
INSERT INTO drift (shard, sequence, key, field, gate, ledger)
SELECT $1, $2, found.key, found.field, found.gate, found.ledger
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS found (key, field, gate, ledger);
