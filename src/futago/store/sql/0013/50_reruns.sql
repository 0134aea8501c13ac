-- Ended runs that were begun again under a key: the same key never begins one twice.
CREATE TABLE job_rerun (
    rerun_key  text PRIMARY KEY,
    session_id bigint NOT NULL REFERENCES job_session ON DELETE CASCADE,
    job_name   text NOT NULL,    -- from where; empty: from all that had failed
    jobs       text[] NOT NULL,  -- what ran again
    asked_utc  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON job_rerun (session_id);
