-- name: layout
-- How many shards there are; no row where nobody has said so yet.
SELECT shards FROM layout;

-- name: is_used
-- Whether anything has been decided yet.
SELECT EXISTS (SELECT FROM shard_head WHERE last_sequence > 0);

-- name: lay_out
-- Say once how many shards there are.
INSERT INTO layout (shards) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: claim
-- Claim the keys $1 for the requests with fingerprints $2, on the shards $3 (as '0.2'), with the packed commands $4.
-- Those that several shards have a part of are looked after from $5 seconds on. Gives the keys that were free, with
-- the time of that look.
INSERT INTO claim (key, fingerprint, shards, request, settle_at)
SELECT
    key, fingerprint, string_to_array(shards, '.')::smallint[], request,
    CASE WHEN request <> '' THEN now() + make_interval(secs => $5) END
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS wanted (key, fingerprint, shards, request)
ON CONFLICT (key) DO NOTHING
RETURNING key, settle_at;

-- name: find
-- The claims for the keys $1.
SELECT key, fingerprint, shards, request, extract(EPOCH FROM made_at)::float8 * 1000 AS made_at_ms, settle_at
FROM claim WHERE key = ANY($1::text[]);

-- name: drop
-- Forget the claim for key $1, unless it is for another request than $2 by now.
DELETE FROM claim WHERE key = $1 AND fingerprint = $2;

-- name: put
-- Have key $1 claimed now for the request $2, on the shards $3, with the packed command $4.
INSERT INTO claim (key, fingerprint, shards, request) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO UPDATE SET shards = excluded.shards, made_at = now();

-- name: expect
-- Have the claim for key $1 looked after in $2 seconds, and give the time.
UPDATE claim SET settle_at = now() + make_interval(secs => $2) WHERE key = $1 RETURNING settle_at;

-- name: settled
-- Nothing is to be done about the keys $1, unless somebody has begun something since the look at $2 was asked for.
UPDATE claim SET settle_at = NULL
FROM unnest($1::text[], $2::timestamptz[]) AS done (key, settle_at)
WHERE claim.key = done.key AND claim.settle_at = done.settle_at;

-- name: take_unsettled
-- At most $1 claims that nobody has settled in time; nobody else is given them for $2 seconds.
UPDATE claim SET settle_at = now() + make_interval(secs => $2)
WHERE key IN (
    SELECT key FROM claim WHERE settle_at < now() ORDER BY settle_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING key, fingerprint, shards, request, extract(EPOCH FROM made_at)::float8 * 1000 AS made_at_ms, settle_at;

-- name: take_unseen
-- At most $1 settled claims that nobody has looked at for $2 seconds; the next look is as far away.
UPDATE claim SET seen_at = now()
WHERE key IN (
    SELECT key FROM claim
    WHERE seen_at < now() - make_interval(secs => $2) AND settle_at IS NULL
    ORDER BY seen_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING key, fingerprint, shards, request, extract(EPOCH FROM made_at)::float8 * 1000 AS made_at_ms, settle_at;
