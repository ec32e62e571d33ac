-- Programs with a name of their own, which act through API keys and belong to a user or a team.
CREATE TABLE service_accounts (
    name TEXT PRIMARY KEY,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
