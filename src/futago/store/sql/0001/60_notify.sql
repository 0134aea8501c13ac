-- Notification objects as declared, and the outbox: one row per event and notification, claimed, sent, marked.

CREATE TABLE notification (
    notification_name text PRIMARY KEY CHECK (notification_name <> ''),
    channel           text NOT NULL CHECK (channel IN ('mail')),
    spec              jsonb NOT NULL,  -- the Notification object as written and checked (inventory/definitions.py)
    version           bigint NOT NULL DEFAULT 1,
    created_utc       timestamptz NOT NULL DEFAULT now()
);

-- waiting -> claimed -> sent; a refused sending goes back to waiting with a later try; failed: given up, visible.
CREATE TABLE outbox (
    outbox_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id              bigint NOT NULL REFERENCES event ON DELETE CASCADE,
    notification          text NOT NULL,
    state                 text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'claimed', 'sent', 'failed')),
    claim_epoch           bigint,
    claimed_by            text,  -- one run of the engine: a claim of another run is nobody's any more
    claimed_utc           timestamptz,
    attempts              integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_try_utc          timestamptz NOT NULL DEFAULT now(),
    possible_duplicate    boolean NOT NULL DEFAULT false,  -- an earlier sending may have reached its receiver
    sent_utc              timestamptz,
    error                 text NOT NULL DEFAULT '',
    created_utc           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (event_id, notification)
);
CREATE INDEX outbox_to_send ON outbox (next_try_utc, outbox_id) WHERE state IN ('waiting', 'claimed');
