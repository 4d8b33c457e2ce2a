-- The outbound end: what each channel's figures became, in gapless order, and what each storefront has heard of it.
-- depends: 20261121_02_service

-- migrate: apply

-- One row a channel that somebody reads. `positions` is how far into the ledger of each shard the deltas go, -1
-- where the figures were never read. Whoever publishes must name `last_id` and `positions` that they continue.
CREATE TABLE channel_head (
    channel text CONSTRAINT channel_head_pkey PRIMARY KEY,
    last_id bigint NOT NULL DEFAULT 0,
    pruned_id bigint NOT NULL DEFAULT 0,
    positions bigint[] NOT NULL DEFAULT '{-1}'
);

-- The figure of each SKU as it was last published: the snapshot that `channel_head.last_id` continues.
CREATE TABLE channel_figure (
    channel text NOT NULL,
    sku text NOT NULL,
    available bigint NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT channel_figure_pkey PRIMARY KEY (channel, sku)
);

CREATE TABLE channel_delta (
    channel text NOT NULL,
    id bigint NOT NULL,
    sku text NOT NULL,
    available bigint NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT channel_delta_pkey PRIMARY KEY (channel, id)
);

-- Only the secret itself can sign, so this table is as confidential as the secrets. `delta_id` is how far the
-- deltas were taken over, NULL where every figure is still to be; `paused_until` is what the storefront asked for.
CREATE TABLE storefront (
    name text CONSTRAINT storefront_pkey PRIMARY KEY,
    channel text NOT NULL,
    url text NOT NULL,
    secret text NOT NULL,
    state text NOT NULL DEFAULT 'active',
    delta_id bigint,
    paused_until timestamptz,
    last_error text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 1,
    CONSTRAINT storefront_state_known CHECK (state IN ('active', 'gone'))
);

-- The newest figure that a storefront should have, and the newest that it is known to have. While a push is on its
-- way the row is claimed until a time by which the push has surely ended.
CREATE TABLE storefront_delivery (
    storefront text NOT NULL
        CONSTRAINT storefront_delivery_storefront_known REFERENCES storefront (name) ON DELETE CASCADE,
    sku text NOT NULL,
    available bigint NOT NULL,
    wanted_version bigint NOT NULL,
    wanted_at timestamptz NOT NULL DEFAULT now(),
    undelivered_since timestamptz NOT NULL DEFAULT now(),
    delivered_version bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz,
    last_error text NOT NULL DEFAULT '',
    CONSTRAINT storefront_delivery_pkey PRIMARY KEY (storefront, sku),
    CONSTRAINT storefront_delivery_state_known CHECK (state IN ('pending', 'failing', 'delivered'))
);

CREATE INDEX storefront_delivery_due ON storefront_delivery (storefront, next_attempt_at)
    WHERE state <> 'delivered';

-- migrate: rollback

DROP TABLE storefront_delivery;
DROP TABLE storefront;
DROP TABLE channel_delta;
DROP TABLE channel_figure;
DROP TABLE channel_head;
