-- API keys. `hash` is all that is kept of a secret; `old_hash` is that of before the last rotation, for a while.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    old_hash TEXT UNIQUE,
    at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
