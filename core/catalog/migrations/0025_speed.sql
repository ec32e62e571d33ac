-- What `corral nodes bench` measured of a host, the last one only.
CREATE TABLE host_benches (
    node TEXT PRIMARY KEY,
    at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Measured curves of `corral models bench`, by the content of a model.
CREATE TABLE benches (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    node TEXT NOT NULL,
    at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX benches_by_model ON benches (sha256, at);
-- What was seen of a model beside what was reckoned; users are counted by powers of two (1, 2, 4, …).
CREATE TABLE speeds_seen (
    node TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    engine TEXT NOT NULL,
    threads INTEGER NOT NULL,
    users INTEGER NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('decode', 'prefill')),
    data TEXT NOT NULL,
    PRIMARY KEY (node, sha256, engine, threads, users, what)
) STRICT, WITHOUT ROWID;
