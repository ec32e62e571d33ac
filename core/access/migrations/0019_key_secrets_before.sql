-- Secrets of API keys that were rotated away, by hash: whoever finds one is told whose it was (`corral keys whose`).
CREATE TABLE key_secrets_before (
    hash TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    away_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO key_secrets_before (hash, key, away_at)
SELECT old_hash, id, coalesce(json_extract(data, '$.rotated_at'), at) FROM keys WHERE old_hash IS NOT NULL;
