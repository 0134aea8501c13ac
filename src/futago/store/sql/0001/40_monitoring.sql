-- Monitors as declared, the state of each (monitor, host), and the samples.

CREATE TABLE monitor (
    monitor_name text PRIMARY KEY CHECK (monitor_name <> ''),
    kind         text NOT NULL CHECK (kind IN ('ping', 'tcp', 'syslog', 'snmptrap')),
    spec         jsonb NOT NULL,  -- the Monitor object as written and checked (inventory/definitions.py)
    scope_name   text NOT NULL,   -- '*': every host
    is_enabled   boolean NOT NULL DEFAULT true,
    version      bigint NOT NULL DEFAULT 1,
    created_utc  timestamptz NOT NULL DEFAULT now()
);

-- `failures` counts results in a row that speak against the present status; `next_due_utc` is the first instant
-- that has not been probed, so another member goes on exactly there.
CREATE TABLE monitor_state (
    monitor_name text NOT NULL REFERENCES monitor ON DELETE CASCADE,
    host_name    text NOT NULL REFERENCES host ON DELETE CASCADE,
    status       text NOT NULL CHECK (status IN ('unknown', 'ok', 'warning', 'critical')),
    since_utc    timestamptz NOT NULL,
    failures     integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    next_due_utc timestamptz NOT NULL,
    PRIMARY KEY (monitor_name, host_name)
);

-- No key: a wall clock that was set back may give the same instant twice. That nothing is written twice is kept by
-- monitor_state: samples are written only together with the step of `next_due_utc` that they belong to.
CREATE TABLE sample (
    monitor_name text NOT NULL,
    host_name    text NOT NULL,
    at_utc       timestamptz NOT NULL,  -- when the probe began
    value        double precision,      -- round trip in milliseconds; null when there was none
    ok           boolean NOT NULL
);
CREATE INDEX sample_by_pair ON sample (monitor_name, host_name, at_utc);
