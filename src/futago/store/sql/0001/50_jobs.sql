-- Job nets and schedules as declared, and what became of them: sessions of nets, runs of jobs.

CREATE TABLE job_net (
    net_name    text PRIMARY KEY CHECK (net_name <> ''),
    spec        jsonb NOT NULL,  -- the JobNet object as written and checked (jobs/definitions.py)
    version     bigint NOT NULL DEFAULT 1,
    created_utc timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE schedule (
    schedule_name text PRIMARY KEY CHECK (schedule_name <> ''),
    spec          jsonb NOT NULL,  -- the Schedule object
    version       bigint NOT NULL DEFAULT 1,
    created_utc   timestamptz NOT NULL DEFAULT now(),
    changed_utc   timestamptz NOT NULL DEFAULT now()
);

-- A changed schedule counts from its change: instants of the new text that lie before it were never promised.
CREATE FUNCTION schedule_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_utc := now();
    RETURN NEW;
END $$;
CREATE TRIGGER schedule_changed BEFORE UPDATE OF spec ON schedule FOR EACH ROW
    WHEN (OLD.spec IS DISTINCT FROM NEW.spec) EXECUTE FUNCTION schedule_changed();

-- Up to which instant a schedule's due instants have been dealt with.
CREATE TABLE schedule_state (
    schedule_name text PRIMARY KEY REFERENCES schedule ON DELETE CASCADE,
    counted_utc   timestamptz NOT NULL
);

-- A running session keeps the definition it started with, whatever is applied meanwhile. One row per content.
CREATE TABLE job_definition (
    digest text PRIMARY KEY,  -- sha256 of spec::text
    spec   jsonb NOT NULL
);

CREATE TABLE job_session (
    session_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    net_name    text NOT NULL,
    digest      text NOT NULL REFERENCES job_definition,
    state       text NOT NULL DEFAULT 'starting'
                CHECK (state IN ('starting', 'running', 'normal', 'warning', 'abnormal', 'unknown')),
    trigger     text NOT NULL,
    trigger_key text UNIQUE,  -- an instant of a schedule starts a net exactly once
    created_utc timestamptz NOT NULL DEFAULT now(),
    started_utc timestamptz,
    ended_utc   timestamptz,
    epoch       bigint  -- in which it was last moved
);
CREATE INDEX job_session_open ON job_session (session_id) WHERE state IN ('starting', 'running');
CREATE INDEX job_session_by_net ON job_session (net_name, session_id);

-- All runs of a session exist from its start, so a run id is never made twice for one attempt.
-- ordered: the order may have been sent; running: the agent has it on disk; not-run: its conditions cannot be met any more.
CREATE TABLE job_run (
    run_id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    session_id  bigint NOT NULL REFERENCES job_session ON DELETE CASCADE,
    job_name    text NOT NULL,
    host_name   text NOT NULL,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN
                ('waiting', 'ordered', 'running', 'normal', 'warning', 'abnormal', 'unknown', 'not-run')),
    attempt     integer NOT NULL DEFAULT 1,
    exit_code   integer,
    ordered_utc timestamptz,
    started_utc timestamptz,  -- by the host's clock, as ended_utc
    ended_utc   timestamptz,
    output      text,  -- the end of it
    output_bytes bigint,
    detail      text,
    epoch       bigint,  -- in which it was ordered
    UNIQUE (session_id, job_name, attempt)
);
CREATE INDEX job_run_open ON job_run (host_name) WHERE state IN ('ordered', 'running');
