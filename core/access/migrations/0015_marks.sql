-- Deployments that are sensitive, by name: the mark outlives the deployment, so that removing it is no way around.
CREATE TABLE marks (
    deployment TEXT PRIMARY KEY,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
