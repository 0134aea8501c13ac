-- Requests signed as GitHub signs them hold no time, so what was taken once is remembered: a copy starts nothing, on
-- whichever member and however late it comes. Rows outlive the sessions that they started.
CREATE TABLE trigger_delivery (
    trigger_name text NOT NULL REFERENCES job_trigger ON DELETE CASCADE,
    mac          bytea NOT NULL CHECK (octet_length(mac) = 32),
    delivery     text CHECK (delivery <> ''),  -- what the sender calls it; it is not signed
    session_id   bigint NOT NULL,  -- which it started; it may be gone
    taken_utc    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (trigger_name, mac),
    UNIQUE (trigger_name, delivery)
);
