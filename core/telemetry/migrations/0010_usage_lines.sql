-- One line a request; no content. What has been summed up (`usage_state`.rolled) goes by `seq`, which no clock moves and
-- which is never given out twice (AUTOINCREMENT): also when every line was removed since.
CREATE TABLE usage_lines (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    time REAL NOT NULL,
    uid INTEGER NOT NULL,
    user TEXT NOT NULL,
    groupname TEXT NOT NULL,
    key TEXT NOT NULL DEFAULT '',
    deployment TEXT NOT NULL,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    node TEXT NOT NULL,
    replica TEXT NOT NULL,
    launch TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER,
    cached_tokens INTEGER,
    answer_tokens INTEGER,
    estimated INTEGER NOT NULL,
    queue_s REAL NOT NULL,
    first_byte_s REAL,
    first_token_s REAL,
    total_s REAL NOT NULL,
    core_s REAL NOT NULL
) STRICT;
CREATE INDEX usage_lines_by_time ON usage_lines (time);
INSERT INTO usage_lines (
    id, time, uid, user, groupname, deployment, model, version, node, replica, launch, path, status, outcome, requests,
    prompt_tokens, cached_tokens, answer_tokens, estimated, queue_s, first_byte_s, total_s, core_s
)
SELECT
    json_extract(data, '$.id'), time, json_extract(data, '$.uid'), 'uid:' || json_extract(data, '$.uid'), '',
    deployment, json_extract(data, '$.model'), 0, '', json_extract(data, '$.replica'), json_extract(data, '$.launch'),
    json_extract(data, '$.path'), json_extract(data, '$.status'), json_extract(data, '$.outcome'), 1,
    json_extract(data, '$.prompt_tokens'), json_extract(data, '$.cached_tokens'),
    json_extract(data, '$.answer_tokens'), coalesce(json_extract(data, '$.estimated'), 0),
    coalesce(json_extract(data, '$.queue_s'), 0), json_extract(data, '$.first_byte_s'),
    coalesce(json_extract(data, '$.total_s'), 0), 0
FROM usage WHERE json_valid(data) ORDER BY time;
DROP TABLE usage;
-- Sums by hour (span 3600) and by day (86400) of UTC. `start` is the first second. Times are whole microseconds, so
-- that a sum does not depend on its order; first_token and total hold JSON, {bucket: requests} (core/telemetry/times.py).
CREATE TABLE usage_rollups (
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    user TEXT NOT NULL,
    groupname TEXT NOT NULL,
    key TEXT NOT NULL,
    deployment TEXT NOT NULL,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    node TEXT NOT NULL,
    replica TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    answer_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    queue_us INTEGER NOT NULL,
    core_us INTEGER NOT NULL,
    first_token TEXT NOT NULL,
    total TEXT NOT NULL,
    PRIMARY KEY (span, start, uid, user, groupname, key, deployment, model, version, node, replica, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_state (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
