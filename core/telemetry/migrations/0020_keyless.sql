-- Programs without a key stood there as `nobody`, which is also a user of most hosts.
UPDATE usage_lines SET user = '(no key)' WHERE uid < 0 AND user = 'nobody';
UPDATE usage_rollups SET user = '(no key)' WHERE uid < 0 AND user = 'nobody';
