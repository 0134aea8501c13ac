-- Calendars of business days, the business date that a session belongs to, and what people do to running sessions.

CREATE TABLE calendar (
    calendar_name text PRIMARY KEY CHECK (calendar_name <> ''),
    spec          jsonb NOT NULL,  -- the Calendar object as written and checked (jobs/schedule_definitions.py)
    version       bigint NOT NULL DEFAULT 1,
    created_utc   timestamptz NOT NULL DEFAULT now()
);

-- A schedule counts from the change of its calendar, too: what the old one had closed was never promised.
CREATE FUNCTION calendar_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE schedule SET changed_utc = now() WHERE spec->>'calendar' = NEW.calendar_name;
    RETURN NEW;
END $$;
CREATE TRIGGER calendar_changed AFTER UPDATE OF spec ON calendar FOR EACH ROW
    WHEN (OLD.spec IS DISTINCT FROM NEW.spec) EXECUTE FUNCTION calendar_changed();

ALTER TABLE job_session ADD COLUMN business_date date;  -- null: none, as when a person started it

ALTER TABLE job_run
    ADD COLUMN is_held boolean NOT NULL DEFAULT false,      -- it waits for a person's release, too
    ADD COLUMN is_stopping boolean NOT NULL DEFAULT false,  -- a person wants it ended; the agent is told until it has
    DROP CONSTRAINT job_run_state_check,
    ADD CONSTRAINT job_run_state_check CHECK (state IN
        ('waiting', 'ordered', 'running', 'normal', 'warning', 'abnormal', 'unknown', 'not-run', 'skipped'));

-- What a person asked for. The engine decides, and writes what became of it in the transaction of its effects.
CREATE TABLE job_operation (
    operation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id   bigint NOT NULL REFERENCES job_session ON DELETE CASCADE,
    job_name     text NOT NULL DEFAULT '',  -- empty: the whole session
    operation    text NOT NULL CHECK (operation IN ('hold', 'release', 'skip', 'stop')),
    asked_by     text NOT NULL,
    asked_utc    timestamptz NOT NULL DEFAULT now(),
    decided_utc  timestamptz,
    refusal      text NOT NULL DEFAULT ''  -- why it was refused; empty: it was done
);
CREATE INDEX job_operation_open ON job_operation (operation_id) WHERE decided_utc IS NULL;
