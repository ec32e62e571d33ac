-- What was said is sealed with a key of its owner's, which is wrapped with the master key (core/chats/sealed.py). A chat
-- without a key is from before: its plain columns are sealed and emptied by the daemon (core/chats/sealing.py).
CREATE TABLE chat_keys (
    id TEXT PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    owner TEXT NOT NULL,
    master TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    made_at REAL NOT NULL,
    UNIQUE (owner_uid, owner)
) STRICT, WITHOUT ROWID;
ALTER TABLE chats ADD COLUMN key TEXT REFERENCES chat_keys (id);
ALTER TABLE chats ADD COLUMN sealed BLOB;
ALTER TABLE turns ADD COLUMN asked BLOB;
ALTER TABLE turns ADD COLUMN answered BLOB;
CREATE TABLE chat_holds (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    uid INTEGER NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    at REAL NOT NULL,
    UNIQUE (kind, uid, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE chat_retention (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    days INTEGER,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
