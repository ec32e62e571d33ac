-- What a deployment wants is in its spec (`chat`, `chat:live`, `chat@3`); this is the version that it got.
ALTER TABLE deployments ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
