-- What is managed (hosts, scopes) and what happened (events): the two tables that every column shares.

CREATE TABLE host (
    host_name      text PRIMARY KEY CHECK (host_name <> ''),
    address        inet UNIQUE,
    is_registered  boolean NOT NULL,  -- false: it spoke to us, nobody declared it
    has_agent      boolean NOT NULL DEFAULT false,
    agent_seen_utc timestamptz,
    version        bigint NOT NULL DEFAULT 1,
    created_utc    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scope (
    scope_name  text PRIMARY KEY CHECK (scope_name <> ''),
    version     bigint NOT NULL DEFAULT 1,
    created_utc timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scope_host (
    scope_name text NOT NULL REFERENCES scope ON DELETE CASCADE,
    host_name  text NOT NULL REFERENCES host ON DELETE CASCADE,
    PRIMARY KEY (scope_name, host_name)
);
CREATE INDEX scope_host_by_host ON scope_host (host_name);

-- `notify` names Notification objects: because it is a column of the event, a status change and the intent to
-- notify commit together. `selected_utc`: when the notify column has made outbox rows of it.
CREATE TABLE event (
    event_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_utc timestamptz NOT NULL,
    recorded_utc timestamptz NOT NULL DEFAULT now(),
    priority     text NOT NULL CHECK (priority IN ('info', 'warning', 'critical', 'unknown')),
    source       text NOT NULL CHECK (source IN ('message', 'monitor', 'job', 'api', 'pair')),
    monitor_name text,
    host_name    text,
    message      text NOT NULL,
    detail       jsonb,
    epoch        bigint NOT NULL,
    notify       text[],
    selected_utc timestamptz
);
CREATE INDEX event_to_select ON event (event_id) WHERE notify IS NOT NULL AND selected_utc IS NULL;
CREATE INDEX event_by_monitor ON event (monitor_name, event_id);
CREATE INDEX event_by_host ON event (host_name, event_id);
