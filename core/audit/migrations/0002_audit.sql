-- The chain. Records are appended and never changed; docs/audit.md has the encoding that `hash` is taken over.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    actor TEXT NOT NULL,
    uid INTEGER NOT NULL,
    through TEXT NOT NULL,
    verb TEXT NOT NULL,
    object TEXT NOT NULL,
    request TEXT NOT NULL,
    effect TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('intent', 'done', 'refused', 'failed', 'interrupted')),
    reason TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_object ON audit (object, seq);
CREATE INDEX audit_by_actor ON audit (actor, seq);
CREATE INDEX audit_by_effect ON audit (effect) WHERE effect != '';
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN
    SELECT raise(ABORT, 'audit records are never removed');
END;
CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit BEGIN
    SELECT raise(ABORT, 'audit records are never changed');
END;
