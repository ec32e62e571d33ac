-- A seal stands for records that lie in a signed archive file (docs/audit.md, Archives). What no seal covers is never
-- removed; that a seal is signed is found by who verifies.
CREATE TABLE audit_seals (
    number INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    file TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    line TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_seals_keeps_rows BEFORE DELETE ON audit_seals BEGIN
    SELECT raise(ABORT, 'seals of the audit trail are never removed');
END;
CREATE TRIGGER audit_seals_keeps_content BEFORE UPDATE ON audit_seals BEGIN
    SELECT raise(ABORT, 'seals of the audit trail are never changed');
END;
CREATE TRIGGER audit_seals_only_appends BEFORE INSERT ON audit_seals
WHEN EXISTS (SELECT 1 FROM audit_seals WHERE number >= NEW.number) BEGIN
    SELECT raise(ABORT, 'seals of the audit trail are never replaced');
END;
DROP TRIGGER audit_keeps_rows;
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_seals WHERE last >= OLD.seq) BEGIN
    SELECT raise(ABORT, 'audit records are never removed');
END;
