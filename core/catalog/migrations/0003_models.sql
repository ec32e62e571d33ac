-- A named model's one version: an immutable set of files, content-addressed in models/objects.
CREATE TABLE models (
    name TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
