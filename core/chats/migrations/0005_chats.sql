-- Conversations. Deleting is for good: the database runs with secure_delete.
CREATE TABLE chats (
    id TEXT PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    deployment TEXT NOT NULL,
    options TEXT NOT NULL,
    on_full TEXT NOT NULL DEFAULT 'ask',
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX chats_by_owner ON chats (owner_uid, updated_at);
CREATE TABLE turns (
    id TEXT PRIMARY KEY,
    chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    n INTEGER NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    asked_at REAL NOT NULL,
    raw_offset INTEGER NOT NULL DEFAULT 0,
    forget INTEGER NOT NULL DEFAULT 0,
    figures TEXT NOT NULL DEFAULT '{}',
    UNIQUE (chat, n)
) STRICT, WITHOUT ROWID;
