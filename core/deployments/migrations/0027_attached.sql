-- The server that a deployment is attached to may be at an address of the internet alone: whoever named it may no other.
ALTER TABLE deployments ADD COLUMN public INTEGER NOT NULL DEFAULT 0;
