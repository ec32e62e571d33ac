-- One line a request, as the gateway spooled it; no content.
CREATE TABLE usage (
    gateway TEXT NOT NULL,
    batch INTEGER NOT NULL,
    line INTEGER NOT NULL,
    time REAL NOT NULL,
    deployment TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (gateway, batch, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_deployment ON usage (deployment, time);
-- How far each gateway launch's batches are committed: repeats are dropped by it.
CREATE TABLE usage_mark (
    gateway TEXT PRIMARY KEY,
    n INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
