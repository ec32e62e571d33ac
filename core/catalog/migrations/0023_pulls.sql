-- Pulls on their way, and the last of those that are over: a daemon that ends is no end of them. No token is in here.
CREATE TABLE pulls (
    id TEXT PRIMARY KEY,
    started_at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
