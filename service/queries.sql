-- name: add_key
-- Store the hash of key $1.
INSERT INTO api_key (key_id, secret_hash, name, scopes, channels) VALUES ($1, $2, $3, $4, $5);

-- name: revoke_key
-- End key $1.
UPDATE api_key SET revoked_at = now() WHERE key_id = $1 AND revoked_at IS NULL;

-- name: list_keys
SELECT key_id, name, scopes, channels, created_at, revoked_at FROM api_key ORDER BY created_at;

-- name: live_keys
SELECT key_id, secret_hash, scopes, channels FROM api_key WHERE revoked_at IS NULL;

-- name: put_name
-- Remember the name of SKU $1.
INSERT INTO sku_name (sku, name) VALUES ($1, $2)
ON CONFLICT (sku) DO UPDATE SET name = excluded.name;

-- name: get_name
SELECT name FROM sku_name WHERE sku = $1;
