-- What subjects may use of the gateway: users, groups, teams, keys, models, deployments, and everyone by himself.
CREATE TABLE limits (
    subject TEXT PRIMARY KEY,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
