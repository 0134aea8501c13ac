-- What starts a net beside schedules and people: an event of a monitor, or a request from outside.

CREATE TABLE job_trigger (
    trigger_name text PRIMARY KEY CHECK (trigger_name <> ''),
    spec         jsonb NOT NULL,  -- the Trigger object (jobs/trigger_definitions.py)
    version      bigint NOT NULL DEFAULT 1,
    created_utc  timestamptz NOT NULL DEFAULT now()
);

-- The secret with which requests from outside come. Drawn by us, so a plain hash keeps it.
CREATE TABLE trigger_secret (
    trigger_name text PRIMARY KEY REFERENCES job_trigger ON DELETE CASCADE,
    secret_hash  bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    created_utc  timestamptz NOT NULL DEFAULT now()
);

-- An event that a trigger waits for, and the intent to start the net, commit together; the row goes with the session's making.
CREATE TABLE trigger_firing (
    firing_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    trigger_name text NOT NULL,
    event_id     bigint NOT NULL
);

CREATE FUNCTION event_fires() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM job_trigger) THEN
        INSERT INTO trigger_firing (trigger_name, event_id)
        SELECT t.trigger_name, e.event_id FROM new_event e JOIN job_trigger t
            ON t.spec->'event'->>'monitor' = e.monitor_name AND (t.spec->>'enabled')::boolean
            AND (jsonb_array_length(t.spec->'event'->'priority') = 0 OR t.spec->'event'->'priority' ? e.priority)
        ORDER BY e.event_id, t.trigger_name;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER event_fires AFTER INSERT ON event REFERENCING NEW TABLE AS new_event
    FOR EACH STATEMENT EXECUTE FUNCTION event_fires();
