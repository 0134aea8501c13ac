-- Calendars of business days, and the business date that a session belongs to.

CREATE TABLE calendar (
    calendar_name text PRIMARY KEY CHECK (calendar_name <> ''),
    spec          jsonb NOT NULL,  -- the Calendar object as written and checked (jobs/schedule_definitions.py)
    version       bigint NOT NULL DEFAULT 1,
    created_utc   timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE job_session ADD COLUMN business_date date;  -- null: none, as when a person started it
