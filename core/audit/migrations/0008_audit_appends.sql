-- INSERT OR REPLACE removes the row that is in its way without asking the triggers that refuse a DELETE.
CREATE TRIGGER audit_only_appends BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq) BEGIN
    SELECT raise(ABORT, 'audit records are never replaced');
END;
