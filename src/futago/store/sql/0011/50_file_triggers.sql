-- What a trigger that waits for files has seen. A change of it, and the session that it starts, commit together; `turn` is
-- drawn anew with each change, so who writes from an older sight writes nothing.
CREATE SEQUENCE trigger_watch_turn;

CREATE TABLE trigger_watch (
    trigger_name text PRIMARY KEY REFERENCES job_trigger ON DELETE CASCADE,
    watched      text NOT NULL,                     -- which files: another text begins anew
    turn         bigint NOT NULL DEFAULT nextval('trigger_watch_turn'),
    since_utc    timestamptz,                       -- null: its directory has not been read yet
    fault        text NOT NULL DEFAULT ''           -- why it cannot be read now
);

CREATE TABLE trigger_file (
    trigger_name text NOT NULL REFERENCES trigger_watch ON DELETE CASCADE,
    file_name    text NOT NULL,  -- below the directory
    identity     text NOT NULL,  -- what the trigger's question looks at (jobs/file_watch.py)
    PRIMARY KEY (trigger_name, file_name)
);
