-- What should run.
CREATE TABLE deployments (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    wanted TEXT NOT NULL CHECK (wanted IN ('running', 'stopped')),
    generation INTEGER NOT NULL,
    plan TEXT NOT NULL,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- What each replica came to, so that a new daemon goes on where the last one stopped.
CREATE TABLE replicas (
    id TEXT PRIMARY KEY,
    deployment TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    since REAL NOT NULL,
    restarts INTEGER NOT NULL,
    next_try REAL,
    launch TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Every launch id is committed before its process exists; the secret is the engine's key for this launch.
CREATE TABLE launches (
    id TEXT PRIMARY KEY,
    replica TEXT NOT NULL,
    generation INTEGER NOT NULL,
    secret TEXT NOT NULL,
    effect TEXT NOT NULL,
    request TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    code INTEGER,
    signal INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    lines TEXT NOT NULL DEFAULT '[]',
    peak_rss INTEGER NOT NULL DEFAULT 0,
    plan_bytes INTEGER NOT NULL DEFAULT 0,
    rss_planned INTEGER NOT NULL DEFAULT 0,
    rss_measured INTEGER NOT NULL DEFAULT 0,
    ready_at REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX launches_by_replica ON launches (replica, started_at);
