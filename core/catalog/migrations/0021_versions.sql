-- A name has versions; the number of one that is gone is never given again.
CREATE TABLE model_names (
    name TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- A version is an immutable set of files and what it is served with; `header` is what its file says of itself.
CREATE TABLE model_versions (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    data TEXT NOT NULL,
    header TEXT NOT NULL DEFAULT '{}',
    template TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (model, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE model_aliases (
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE model_changes (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    at REAL NOT NULL,
    by TEXT NOT NULL,
    what TEXT NOT NULL,
    version INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX model_changes_by_model ON model_changes (model, id);
-- What is stored by content: a file, or the folder of a split model. Which versions are made of it, they say.
CREATE TABLE objects (
    sha256 TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    tier TEXT NOT NULL DEFAULT 'home',
    state TEXT NOT NULL DEFAULT 'stored',
    added_at REAL NOT NULL,
    verified_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE version_objects (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    sha256 TEXT NOT NULL REFERENCES objects (sha256),
    PRIMARY KEY (model, version, sha256),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX version_objects_by_object ON version_objects (sha256);
-- Runs of `models verify`, so that the next daemon goes on where this one ended.
CREATE TABLE verifications (
    id INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    started_by TEXT NOT NULL,
    models TEXT NOT NULL,
    ended_at REAL,
    state TEXT NOT NULL,
    found TEXT NOT NULL DEFAULT '[]'
) STRICT;
INSERT INTO model_names SELECT name, 1 FROM models;
INSERT INTO model_versions (model, version, sha256, data) SELECT name, 1, sha256, data FROM models;
INSERT INTO model_aliases SELECT name, 'live', 1 FROM models;
INSERT INTO objects (sha256, bytes, added_at)
    SELECT sha256, json_extract(data, '$.bytes'), max(json_extract(data, '$.imported_at')) FROM models GROUP BY sha256;
INSERT INTO version_objects SELECT name, 1, sha256 FROM models;
INSERT INTO model_changes (model, at, by, what, version, detail)
    SELECT name, json_extract(data, '$.imported_at'), json_extract(data, '$.imported_by'), 'added', 1, json_extract(data, '$.origin') FROM models
    ORDER BY json_extract(data, '$.imported_at');
DROP TABLE models;
