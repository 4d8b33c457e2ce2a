-- Many shards: how many there are, and which of them have what a key asked for.
-- depends: 20261121_01_ledger

-- migrate: apply

-- One row, written once: which shard has a SKU follows from the number.
CREATE TABLE layout (
    only_row boolean CONSTRAINT layout_pkey PRIMARY KEY DEFAULT true CHECK (only_row),
    shards smallint NOT NULL CHECK (shards BETWEEN 1 AND 1024)
);

-- One row a key, where there are many shards. `request` is the packed command where several of them have a part of it.
CREATE TABLE claim (
    key text CONSTRAINT claim_pkey PRIMARY KEY,
    fingerprint text NOT NULL,
    shards smallint[] NOT NULL,
    request bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    -- When somebody should look whether its shards agree; NULL where they do.
    settle_at timestamptz,
    -- When somebody last looked whether it is still needed.
    seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX claim_to_settle ON claim (settle_at) WHERE settle_at IS NOT NULL;
CREATE INDEX claim_by_sight ON claim (seen_at);

-- Two processes that take one shard over side by side undo each other's work: the second waits while the first shows
-- that it lives.
ALTER TABLE shard_head ADD COLUMN taker_seen_at timestamptz;

-- migrate: rollback

ALTER TABLE shard_head DROP COLUMN taker_seen_at;
DROP TABLE claim;
DROP TABLE layout;
