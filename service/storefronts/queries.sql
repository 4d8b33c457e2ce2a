-- name: put
-- Set storefront $1 to channel $2, address $3 and, where it has none yet, secret $4; $5 replaces the one it has.
-- What it is to hear begins anew.
INSERT INTO storefront (name, channel, url, secret) VALUES ($1, $2, $3, coalesce($5, $4))
ON CONFLICT (name) DO UPDATE SET channel = excluded.channel, url = excluded.url,
    secret = coalesce($5, storefront.secret), state = 'active', delta_id = NULL, paused_until = NULL,
    last_error = '', revision = storefront.revision + 1
RETURNING revision;

-- name: forget_deliveries
-- Nothing was delivered to storefront $1 yet.
DELETE FROM storefront_delivery WHERE storefront = $1;

-- name: delete
DELETE FROM storefront WHERE name = $1;

-- name: list
-- Every storefront, or the one named $1, with what it has heard. Never its secret.
SELECT storefront.name, storefront.channel, storefront.url, storefront.state, storefront.delta_id,
    coalesce(nullif(storefront.last_error, ''), failing.last_error, '') AS last_error, counts.pending, counts.failing,
    counts.delivered, extract(epoch FROM now() - counts.undelivered_since)::float8 AS oldest_undelivered_age_seconds
FROM storefront
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
        count(*) FILTER (WHERE state = 'failing') AS failing,
        count(*) FILTER (WHERE state = 'delivered') AS delivered,
        min(undelivered_since) FILTER (WHERE state <> 'delivered') AS undelivered_since
    FROM storefront_delivery WHERE storefront = storefront.name
) AS counts
LEFT JOIN LATERAL (
    SELECT delivery.last_error FROM storefront_delivery AS delivery
    WHERE delivery.storefront = storefront.name AND delivery.state = 'failing'
    ORDER BY delivery.next_attempt_at DESC LIMIT 1
) AS failing ON true
WHERE $1::text IS NULL OR storefront.name = $1
ORDER BY storefront.name;

-- name: active
-- Every storefront that wants to hear, and where its channel's deltas end.
SELECT storefront.name, storefront.channel, storefront.url, storefront.secret, storefront.revision,
    storefront.delta_id, coalesce(storefront.paused_until > now(), false) AS paused,
    channel_head.last_id, channel_head.pruned_id
FROM storefront LEFT JOIN channel_head ON channel_head.channel = storefront.channel AND channel_head.positions[1] >= 0
WHERE storefront.state = 'active';

-- name: take_all
-- Let storefront $1 hear every figure of its channel $2, where delta $3 (NULL: none) is how far it is.
WITH moved AS (
    UPDATE storefront SET delta_id = channel_head.last_id FROM channel_head
    WHERE storefront.name = $1 AND storefront.channel = $2 AND storefront.delta_id IS NOT DISTINCT FROM $3::bigint
        AND channel_head.channel = $2
    RETURNING storefront.name
)
INSERT INTO storefront_delivery AS delivery (storefront, sku, available, wanted_version)
SELECT moved.name, figure.sku, figure.available, figure.version
FROM moved JOIN channel_figure AS figure ON figure.channel = $2
ON CONFLICT (storefront, sku) DO UPDATE SET available = excluded.available,
    wanted_version = excluded.wanted_version, wanted_at = now(),
    undelivered_since = CASE delivery.state WHEN 'delivered' THEN now() ELSE delivery.undelivered_since END,
    next_attempt_at = CASE delivery.state WHEN 'delivered' THEN now() ELSE delivery.next_attempt_at END,
    state = CASE delivery.state WHEN 'delivered' THEN 'pending' ELSE delivery.state END
WHERE delivery.wanted_version < excluded.wanted_version;

-- name: take_deltas
-- Let storefront $1 hear the newest figure of each SKU of channel $2 between deltas $3 and $4.
WITH moved AS (
    UPDATE storefront SET delta_id = $4 WHERE name = $1 AND channel = $2 AND delta_id = $3 RETURNING name
),
newest AS (
    SELECT DISTINCT ON (sku) sku, available, version, created_at FROM channel_delta
    WHERE channel = $2 AND id > $3 AND id <= $4 ORDER BY sku, id DESC
)
INSERT INTO storefront_delivery AS delivery (storefront, sku, available, wanted_version, wanted_at, undelivered_since)
SELECT moved.name, newest.sku, newest.available, newest.version, newest.created_at, newest.created_at
FROM moved, newest
ON CONFLICT (storefront, sku) DO UPDATE SET available = excluded.available,
    wanted_version = excluded.wanted_version, wanted_at = excluded.wanted_at,
    undelivered_since =
        CASE delivery.state WHEN 'delivered' THEN excluded.undelivered_since ELSE delivery.undelivered_since END,
    next_attempt_at = CASE delivery.state WHEN 'delivered' THEN now() ELSE delivery.next_attempt_at END,
    state = CASE delivery.state WHEN 'delivered' THEN 'pending' ELSE delivery.state END
WHERE delivery.wanted_version < excluded.wanted_version;

-- name: claim
-- Take up to $2 figures that storefront $1 is due to hear, for $3 seconds; nobody else has them meanwhile.
WITH due AS (
    SELECT sku FROM storefront_delivery
    WHERE storefront = $1 AND state <> 'delivered' AND next_attempt_at <= now()
        AND (claimed_until IS NULL OR claimed_until < now())
    ORDER BY next_attempt_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE storefront_delivery AS delivery SET claimed_until = now() + make_interval(secs => $3)
FROM due WHERE delivery.storefront = $1 AND delivery.sku = due.sku
RETURNING delivery.sku, delivery.available, delivery.wanted_version,
    (extract(epoch FROM delivery.wanted_at) * 1000)::bigint AS changed_at_ms, delivery.claimed_until;

-- name: delivered
-- Storefront $1 has version $3 of SKU $2, pushed under claim $4. Where a newer one is wanted by now it is due at
-- once; so it is where the claim had run out, since this push may have come after the one of another process.
UPDATE storefront_delivery SET
    delivered_version = greatest(delivered_version, $3),
    state = CASE WHEN wanted_version > $3 OR claimed_until IS DISTINCT FROM $4 THEN 'pending' ELSE 'delivered' END,
    undelivered_since = CASE WHEN wanted_version > $3 THEN wanted_at ELSE undelivered_since END,
    claimed_until = CASE WHEN claimed_until = $4 THEN NULL ELSE claimed_until END,
    attempts = 0, last_error = '', next_attempt_at = now()
WHERE storefront = $1 AND sku = $2;

-- name: failed
-- SKU $2 did not reach storefront $1 under claim $3, because of $4; after $5 seconds, or a doubled and scattered
-- pause between $6 and $7 seconds, it is tried again.
UPDATE storefront_delivery SET state = 'failing', attempts = attempts + 1, last_error = $4, claimed_until = NULL,
    next_attempt_at = now() + make_interval(
        secs => coalesce($5, least($7, $6 * power(2, least(attempts, 30))) * (0.5 + random() / 2))
    )
WHERE storefront = $1 AND sku = $2 AND claimed_until = $3;

-- name: pause
-- Leave storefront $1 alone for $2 seconds.
UPDATE storefront SET paused_until = now() + make_interval(secs => $2) WHERE name = $1;

-- name: end
-- Storefront $1 of revision $2 wants nothing more, because of $3.
UPDATE storefront SET state = 'gone', last_error = $3 WHERE name = $1 AND revision = $2;
