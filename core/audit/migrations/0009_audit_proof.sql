-- Public keys that signed the chain, and checkpoints of it; docs/audit.md has what is signed. The same lines stand in
-- audit.proof beside the database, which is written after these.
CREATE TABLE audit_keys (
    number INTEGER PRIMARY KEY,
    line TEXT NOT NULL
) STRICT;
CREATE TABLE audit_checkpoints (
    number INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    line TEXT NOT NULL
) STRICT;
CREATE INDEX audit_checkpoints_by_seq ON audit_checkpoints (seq);
CREATE TRIGGER audit_keys_keeps_rows BEFORE DELETE ON audit_keys BEGIN
    SELECT raise(ABORT, 'keys of the audit trail are never removed');
END;
CREATE TRIGGER audit_keys_keeps_content BEFORE UPDATE ON audit_keys BEGIN
    SELECT raise(ABORT, 'keys of the audit trail are never changed');
END;
CREATE TRIGGER audit_keys_only_appends BEFORE INSERT ON audit_keys
WHEN EXISTS (SELECT 1 FROM audit_keys WHERE number >= NEW.number) BEGIN
    SELECT raise(ABORT, 'keys of the audit trail are never replaced');
END;
CREATE TRIGGER audit_checkpoints_keeps_rows BEFORE DELETE ON audit_checkpoints BEGIN
    SELECT raise(ABORT, 'checkpoints are never removed');
END;
CREATE TRIGGER audit_checkpoints_keeps_content BEFORE UPDATE ON audit_checkpoints BEGIN
    SELECT raise(ABORT, 'checkpoints are never changed');
END;
CREATE TRIGGER audit_checkpoints_only_appends BEFORE INSERT ON audit_checkpoints
WHEN EXISTS (SELECT 1 FROM audit_checkpoints WHERE number >= NEW.number) BEGIN
    SELECT raise(ABORT, 'checkpoints are never replaced');
END;
