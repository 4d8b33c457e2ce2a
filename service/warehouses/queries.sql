-- name: add_source
-- Store source $1, read by adapter $2, with its first secret $3; nothing where there is one of that name.
INSERT INTO webhook_source (name, adapter, secret) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING;

-- name: rotate_source
-- Sign source $1 with $2 from now on, and accept what its secret until now signs; at most two at a time.
UPDATE webhook_source SET older_secret = secret, secret = $2, rotated_at = now()
WHERE name = $1 AND older_secret IS NULL;

-- name: retire_source
-- Stop to accept the older secret of source $1.
UPDATE webhook_source SET older_secret = NULL WHERE name = $1 AND older_secret IS NOT NULL;

-- name: list_sources
-- Every source, without its secrets.
SELECT name, adapter, older_secret IS NOT NULL AS has_older_secret, created_at, rotated_at
FROM webhook_source ORDER BY name;

-- name: live_sources
SELECT name, adapter, secret, older_secret FROM webhook_source;

-- name: store_event
-- Store the delivery with id $2 of source $1 and body $3; nothing where it is there already.
INSERT INTO inbound_event (source, webhook_id, body) VALUES ($1, $2, $3)
ON CONFLICT (source, webhook_id) WHERE NOT is_other_body DO NOTHING;

-- name: store_other_body
-- Store body $3 as a dead letter for reason $4 where the delivery with id $2 of source $1 is there with another
-- one; nothing where this one is there already.
INSERT INTO inbound_event (source, webhook_id, body, state, reason, is_other_body)
SELECT $1, $2, $3, 'dead', $4, true
FROM inbound_event WHERE source = $1 AND webhook_id = $2 AND NOT is_other_body AND body <> $3
ON CONFLICT (source, webhook_id, sha256(body)) WHERE is_other_body DO NOTHING;

-- name: claim_events
-- The oldest deliveries that wait, at most $1. The lock on their rows is the claim: it ends with the
-- transaction, so what a process had claimed when it was killed is free again at once.
SELECT id, source, webhook_id, body, attempts,
    floor(extract(epoch FROM received_at) * 1000)::bigint AS received_at_ms
FROM inbound_event
WHERE state = 'received' AND next_attempt_at <= now()
ORDER BY id LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: mark_applied
-- Delivery $1 has been applied.
UPDATE inbound_event
SET state = 'applied', applied_at = now(), attempts = attempts + 1, reason = NULL WHERE id = $1;

-- name: mark_dead
-- Delivery $1 cannot be applied, for reason $2.
UPDATE inbound_event SET state = 'dead', attempts = attempts + 1, reason = $2 WHERE id = $1;

-- name: mark_waiting
-- Delivery $1 met fault $2 and is tried again in $3 seconds.
UPDATE inbound_event
SET attempts = attempts + 1, reason = $2, next_attempt_at = now() + make_interval(secs => $3) WHERE id = $1;

-- name: list_dead
-- The dead letters after id $1, at most $2, with the first $3 bytes of their bodies.
SELECT id, source, webhook_id, received_at, attempts, reason, substring(body FOR $3) AS body_start
FROM inbound_event WHERE state = 'dead' AND id > $1 ORDER BY id LIMIT $2;

-- name: retry_dead
-- Let dead letter $1 be tried again, as $2 asks for.
UPDATE inbound_event
SET state = 'received', next_attempt_at = now(), retried_at = now(), retried_by = $2
WHERE id = $1 AND state = 'dead';

-- name: retry_all_dead
-- Let every dead letter be tried again, as $1 asks for.
UPDATE inbound_event
SET state = 'received', next_attempt_at = now(), retried_at = now(), retried_by = $1
WHERE state = 'dead';

-- name: prune_applied
-- Forget deliveries that were applied more than $1 seconds ago, at most $2 of them.
DELETE FROM inbound_event WHERE id IN (
    SELECT id FROM inbound_event WHERE state = 'applied' AND applied_at < now() - make_interval(secs => $1)
    ORDER BY applied_at LIMIT $2 FOR UPDATE SKIP LOCKED
);

-- name: state_of_event
SELECT state FROM inbound_event WHERE id = $1;

-- name: count_events
-- How many deliveries wait, and how many are dead letters.
SELECT count(*) FILTER (WHERE state = 'received') AS waiting, count(*) FILTER (WHERE state = 'dead') AS dead
FROM inbound_event WHERE state <> 'applied';
