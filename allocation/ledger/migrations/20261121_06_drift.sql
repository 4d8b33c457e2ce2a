-- What the verification of a shard has found, and a shard that is closed because no rebuild could mend it.
-- depends: 20261121_01_ledger

-- migrate: apply

-- While there is a reason, nobody can take the shard over.
ALTER TABLE shard_head ADD COLUMN closed_reason text;

-- One row a field that the gate told otherwise than the ledger at `sequence`; NULL where one of them had none.
-- What one look has found shares `found_at`.
CREATE TABLE drift (
    drift_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT drift_pkey PRIMARY KEY,
    shard smallint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    sequence bigint NOT NULL,
    key text NOT NULL,
    field text NOT NULL,
    gate text,
    ledger text
);

CREATE INDEX drift_by_time ON drift (shard, found_at);

-- migrate: rollback

DROP TABLE drift;
ALTER TABLE shard_head DROP COLUMN closed_reason;
