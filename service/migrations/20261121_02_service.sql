-- What the process keeps beside the ledger: API keys and the names of SKUs.
-- depends:

-- migrate: apply

CREATE TABLE api_key (
    key_id text CONSTRAINT api_key_pkey PRIMARY KEY,
    secret_hash bytea NOT NULL CONSTRAINT api_key_secret_hash_unique UNIQUE,
    name text NOT NULL,
    scopes text[] NOT NULL,
    channels text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Names promise nothing, so they do not go through the gate.
CREATE TABLE sku_name (
    sku text CONSTRAINT sku_name_pkey PRIMARY KEY,
    name text NOT NULL
);

-- migrate: rollback

DROP TABLE sku_name;
DROP TABLE api_key;
