-- Checkpoints: what the ledger folds to at some of its entries, so that a rebuild need not begin at the first.
-- depends: 20261121_01_ledger

-- migrate: apply

-- One row a checkpoint: what was folded up to entry `sequence`, whose hash was `hash`. `digests` has the SHA-256 of
-- each part, in order. It is a copy of what the ledger says: to lose it costs time, nothing else.
CREATE TABLE checkpoint (
    shard smallint NOT NULL,
    sequence bigint NOT NULL,
    hash text NOT NULL,
    digests text[] NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT checkpoint_pkey PRIMARY KEY (shard, sequence)
);

-- The parts come before the row that names them, in one transaction. `key` is the key of the gate that a part belongs
-- in, 0 for the part that says what the others are.
CREATE TABLE checkpoint_part (
    shard smallint NOT NULL,
    sequence bigint NOT NULL,
    part integer NOT NULL,
    key smallint NOT NULL,
    body bytea NOT NULL,
    CONSTRAINT checkpoint_part_pkey PRIMARY KEY (shard, sequence, part),
    CONSTRAINT checkpoint_part_checkpoint_fkey FOREIGN KEY (shard, sequence) REFERENCES checkpoint
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

-- To compress them takes longer than to read them.
ALTER TABLE checkpoint_part ALTER COLUMN body SET STORAGE EXTERNAL;

-- migrate: rollback

DROP TABLE checkpoint_part;
DROP TABLE checkpoint;
