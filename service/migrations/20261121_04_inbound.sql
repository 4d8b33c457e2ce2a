-- The inbound end: who may send movements signed, and every delivery until it is applied or given up.
-- depends: 20261121_02_service

-- migrate: apply

-- A signature can only be checked with the secret itself, so this table is as confidential as the secrets.
CREATE TABLE webhook_source (
    name text CONSTRAINT webhook_source_pkey PRIMARY KEY,
    adapter text NOT NULL,
    secret text NOT NULL,
    older_secret text,
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz
);

-- `is_other_body` where the id had come before, with another body: a dead letter beside the first delivery.
CREATE TABLE inbound_event (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT inbound_event_pkey PRIMARY KEY,
    source text NOT NULL,
    webhook_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL,
    state text NOT NULL DEFAULT 'received'
        CONSTRAINT inbound_event_state_known CHECK (state IN ('received', 'applied', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    reason text,
    applied_at timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    retried_at timestamptz,
    retried_by text,
    is_other_body boolean NOT NULL DEFAULT false
);

CREATE UNIQUE INDEX inbound_event_delivery_unique ON inbound_event (source, webhook_id) WHERE NOT is_other_body;
CREATE UNIQUE INDEX inbound_event_other_body_unique ON inbound_event (source, webhook_id, sha256(body))
    WHERE is_other_body;
CREATE INDEX inbound_event_waiting ON inbound_event (id) WHERE state = 'received';
CREATE INDEX inbound_event_dead ON inbound_event (id) WHERE state = 'dead';
CREATE INDEX inbound_event_applied ON inbound_event (applied_at) WHERE state = 'applied';

-- Every process learns of a new or revoked key or secret at once, instead of at its next look.
CREATE FUNCTION announce_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ringfence_credentials', '');
    RETURN NULL;
END $$;

CREATE TRIGGER api_key_is_announced AFTER INSERT OR UPDATE OR DELETE ON api_key
    FOR EACH STATEMENT EXECUTE FUNCTION announce_credentials();

CREATE TRIGGER webhook_source_is_announced AFTER INSERT OR UPDATE OR DELETE ON webhook_source
    FOR EACH STATEMENT EXECUTE FUNCTION announce_credentials();

-- migrate: rollback

DROP TRIGGER webhook_source_is_announced ON webhook_source;
DROP TRIGGER api_key_is_announced ON api_key;
DROP FUNCTION announce_credentials;
DROP TABLE inbound_event;
DROP TABLE webhook_source;
