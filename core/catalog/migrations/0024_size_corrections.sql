-- What a launch took when it was ready, beside what the formula alone had said: what sizing learns from.
CREATE TABLE size_seen (
    launch TEXT PRIMARY KEY,
    arch TEXT NOT NULL,
    engine TEXT NOT NULL,
    build TEXT NOT NULL,
    model TEXT NOT NULL,
    planned INTEGER NOT NULL,
    measured INTEGER NOT NULL DEFAULT 0,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX size_seen_by ON size_seen (arch, engine, build, at);
-- Nothing is learned for these until somebody says so again.
CREATE TABLE size_revoked (
    arch TEXT NOT NULL,
    engine TEXT NOT NULL,
    build TEXT NOT NULL,
    at REAL NOT NULL,
    by TEXT NOT NULL,
    PRIMARY KEY (arch, engine, build)
) STRICT, WITHOUT ROWID;
