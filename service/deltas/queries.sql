-- name: create_head
-- The head of channel $1, at positions $2; a channel that has one keeps it.
INSERT INTO channel_head (channel, positions) VALUES ($1, $2) ON CONFLICT (channel) DO NOTHING;

-- name: head
-- Where the deltas of channel $1 end.
SELECT last_id, pruned_id, positions FROM channel_head WHERE channel = $1;

-- name: lock_head
-- As head, and nobody else publishes until the transaction ends.
SELECT last_id, pruned_id, positions FROM channel_head WHERE channel = $1 FOR UPDATE;

-- name: publish
-- Compare-and-set the head of channel $1 at ($2, $3) to positions $4, and give each figure of ($5, $6, $7) that
-- differs from what was published the next id. No row: the head is not the one expected, and nothing was done.
-- One row of NULLs: no figure differs.
WITH changed AS (
    SELECT figure.sku, figure.available, figure.version,
        $2 + row_number() OVER (ORDER BY figure.version, figure.sku) AS id
    FROM unnest($5::text[], $6::bigint[], $7::bigint[]) AS figure (sku, available, version)
    LEFT JOIN channel_figure AS published ON published.channel = $1 AND published.sku = figure.sku
    WHERE published.sku IS NULL
        OR (published.version < figure.version AND published.available <> figure.available)
),
moved AS (
    UPDATE channel_head SET last_id = last_id + (SELECT count(*) FROM changed), positions = $4
    WHERE channel = $1 AND last_id = $2 AND positions = $3
    RETURNING channel
),
kept AS (
    INSERT INTO channel_figure (channel, sku, available, version)
    SELECT moved.channel, changed.sku, changed.available, changed.version FROM moved, changed
    ON CONFLICT (channel, sku) DO UPDATE SET available = excluded.available, version = excluded.version
),
published AS (
    INSERT INTO channel_delta (channel, id, sku, available, version)
    SELECT moved.channel, changed.id, changed.sku, changed.available, changed.version FROM moved, changed
    RETURNING id, sku, available, version
)
SELECT published.id, published.sku, published.available, published.version
FROM moved LEFT JOIN published ON true ORDER BY published.id;

-- name: fill
-- The first figures of channel $1; nobody can have followed it before, so they are no deltas.
INSERT INTO channel_figure (channel, sku, available, version)
SELECT $1, figure.* FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS figure (sku, available, version)
ON CONFLICT (channel, sku) DO UPDATE SET available = excluded.available, version = excluded.version;

-- name: move_head
-- Set the head of channel $1 to positions $2; the caller has locked it.
UPDATE channel_head SET positions = $2 WHERE channel = $1;

-- name: read
-- The deltas of channel $1 after id $2, at most $3 of them.
SELECT id, sku, available, version FROM channel_delta WHERE channel = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: figures
-- Every published figure of channel $1.
SELECT sku, available, version FROM channel_figure WHERE channel = $1 ORDER BY sku;

-- name: channels
SELECT channel FROM channel_head;

-- name: prune
-- Forget deltas of channel $1 that are older than $2 seconds, at most $3 of them.
WITH old AS (
    SELECT max(id) AS id FROM (
        SELECT id, created_at FROM channel_delta WHERE channel = $1 ORDER BY id LIMIT $3
    ) AS oldest WHERE created_at < now() - make_interval(secs => $2)
),
moved AS (
    UPDATE channel_head SET pruned_id = old.id FROM old WHERE channel = $1 AND old.id > pruned_id
)
DELETE FROM channel_delta USING old WHERE channel_delta.channel = $1 AND channel_delta.id <= old.id;
