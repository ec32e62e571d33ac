-- Folders that models are stored in; `home` lies beside the database. `away` says why one is not there now.
CREATE TABLE tiers (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    capacity INTEGER NOT NULL DEFAULT 0 CHECK (capacity >= 0),
    away TEXT NOT NULL DEFAULT '',
    landing INTEGER NOT NULL DEFAULT 0,
    spill TEXT NOT NULL DEFAULT '',
    demote_days REAL NOT NULL DEFAULT 0,
    demote_to TEXT NOT NULL DEFAULT '',
    demoted_at REAL,
    cold REAL,
    warm REAL,
    measured_at REAL,
    added_at REAL NOT NULL,
    added_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tiers (name, id, path, landing, added_at, added_by) VALUES ('home', 'home', '', 1, 0, 'corral');
-- Space that was promised before its first byte was written; with what is stored it never exceeds a capacity.
CREATE TABLE tier_reservations (
    id TEXT PRIMARY KEY,
    tier TEXT NOT NULL REFERENCES tiers (name),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    what TEXT NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
-- The last load of a version from a tier: from the engine's start until it was ready.
CREATE TABLE loads (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    tier TEXT NOT NULL,
    at REAL NOT NULL,
    seconds REAL NOT NULL,
    bytes INTEGER NOT NULL,
    cached REAL,
    engine TEXT NOT NULL,
    PRIMARY KEY (model, version, tier)
) STRICT, WITHOUT ROWID;
ALTER TABLE objects ADD COLUMN used_at REAL;
CREATE INDEX objects_by_tier ON objects (tier);
