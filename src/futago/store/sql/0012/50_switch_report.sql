-- What became of what job control had open when a member took it up, once in each epoch (jobs/switch_report.py).
CREATE TABLE job_switch_report (
    epoch       bigint PRIMARY KEY,
    member_name text NOT NULL,        -- who took it up
    taken_utc   timestamptz NOT NULL, -- when
    told_utc    timestamptz NOT NULL DEFAULT now(),
    report      jsonb NOT NULL        -- counts, and hosts that were not heard
);
