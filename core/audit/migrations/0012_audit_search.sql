-- A filter over a million records answers within a keystroke: by verb, by what went wrong, by time.
CREATE INDEX audit_by_verb ON audit (verb, seq);
CREATE INDEX audit_by_time ON audit (time);
CREATE INDEX audit_by_trouble ON audit (outcome, seq) WHERE outcome NOT IN ('done', 'intent');
