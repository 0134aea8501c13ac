-- Nets inside nets, conditions, delays, retries, queues, approvals: what a session and its runs need to know of them.

CREATE TABLE job_unit (
    unit_name   text PRIMARY KEY CHECK (unit_name <> ''),
    spec        jsonb NOT NULL,  -- the JobUnit object (jobs/definitions.py)
    version     bigint NOT NULL DEFAULT 1,
    created_utc timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE job_queue (
    queue_name  text PRIMARY KEY CHECK (queue_name <> ''),
    spec        jsonb NOT NULL,  -- the JobQueue object (jobs/control_definitions.py)
    version     bigint NOT NULL DEFAULT 1,
    created_utc timestamptz NOT NULL DEFAULT now()
);

-- What is fixed for a session when it is made: whose day's work it is, which calendars are closed on that day, how long
-- its jobs took before. And its variables: parameters, and what jobs have set.
ALTER TABLE job_session
    ADD COLUMN day          date,
    ADD COLUMN is_suspended boolean NOT NULL DEFAULT false,  -- nothing in it begins until a person resumes it
    ADD COLUMN variables    jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN shut         text[] NOT NULL DEFAULT '{}',
    ADD COLUMN typical_s    jsonb NOT NULL DEFAULT '{}',     -- job name: [mean, deviation]
    ADD COLUMN owner_role   text NOT NULL DEFAULT '';
UPDATE job_session SET day = coalesce(business_date, (created_utc AT TIME ZONE 'UTC')::date);
ALTER TABLE job_session ALTER COLUMN day SET NOT NULL;
CREATE INDEX job_session_old ON job_session (ended_utc) WHERE ended_utc IS NOT NULL;

-- Nets have runs, too: `kind` net, no host. ready: it may start at `ready_utc`, or when its queue has a place.
ALTER TABLE job_run
    ADD COLUMN kind         text NOT NULL DEFAULT 'command',
    ADD COLUMN tries        integer NOT NULL DEFAULT 0,          -- how often it has been tried again by itself
    ADD COLUMN ready_utc    timestamptz,
    ADD COLUMN is_suspended boolean NOT NULL DEFAULT false,      -- of a net: nothing in it begins
    ADD COLUMN is_late      boolean NOT NULL DEFAULT false,      -- its delay has been dealt with
    ADD COLUMN is_stuck     boolean NOT NULL DEFAULT false,      -- its conditions cannot be met: it waits for a person
    ADD COLUMN owner_role   text NOT NULL DEFAULT '',
    DROP CONSTRAINT job_run_state_check,
    ADD CONSTRAINT job_run_state_check CHECK (state IN
        ('waiting', 'ready', 'ordered', 'running', 'normal', 'warning', 'abnormal', 'unknown', 'not-run', 'skipped'));

ALTER TABLE job_operation
    ADD COLUMN status text NOT NULL DEFAULT '',  -- of `end`, with the end value
    ADD COLUMN value  integer,
    ADD COLUMN note   text NOT NULL DEFAULT '',  -- what the person wrote about it
    DROP CONSTRAINT job_operation_operation_check,
    ADD CONSTRAINT job_operation_operation_check CHECK (operation IN
        ('hold', 'release', 'skip', 'stop', 'suspend', 'resume', 'force', 'end', 'approve', 'reject'));
CREATE INDEX job_operation_by_session ON job_operation (session_id);
