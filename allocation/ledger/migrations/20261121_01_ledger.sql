-- The ledger and its heads: the durable truth, and the lock that decides who may write it.
-- depends:

-- migrate: apply

-- One row a shard. Whoever appends must name the epoch and the end that they continue.
CREATE TABLE shard_head (
    shard smallint CONSTRAINT shard_head_pkey PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    last_sequence bigint NOT NULL DEFAULT 0,
    last_hash text NOT NULL DEFAULT '',
    run_id text NOT NULL DEFAULT '',
    replication_id text NOT NULL DEFAULT '',
    -- The Postgres that this was taken over on: system identifier and timeline.
    taken_on text NOT NULL DEFAULT '',
    taken_at timestamptz NOT NULL DEFAULT now()
);

-- One row a decision, never changed. `body` is the journal entry as the gate wrote it, byte for byte: what the
-- hash covers. The other columns repeat parts of it for people who read with SQL.
CREATE TABLE ledger (
    shard smallint NOT NULL,
    sequence bigint NOT NULL,
    epoch bigint NOT NULL,
    at_ms bigint NOT NULL,
    kind smallint NOT NULL,
    subject text NOT NULL,
    hash text NOT NULL,
    body bytea NOT NULL,
    CONSTRAINT ledger_pkey PRIMARY KEY (shard, sequence)
);

CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The ledger is append-only.';
END $$;

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

-- migrate: rollback

DROP TABLE ledger;
DROP TABLE shard_head;
DROP FUNCTION refuse_ledger_change;
