-- People, programs and what they did. Secrets are kept as hashes only: argon2id for what people choose, SHA-256 for what we draw at random.

CREATE TABLE account (
    account_name  text PRIMARY KEY CHECK (account_name ~ '^[a-z][a-z0-9._-]{0,62}$'),
    password_hash text NOT NULL,
    access_role   text NOT NULL CHECK (access_role IN ('admin', 'operator', 'reader')),
    is_enabled    boolean NOT NULL DEFAULT true,
    created_utc   timestamptz NOT NULL DEFAULT now()
);

-- A login. A row, so that it survives a switch; the cookie holds the secret whose hash is the key.
CREATE TABLE login_session (
    secret_hash  bytea PRIMARY KEY CHECK (octet_length(secret_hash) = 32),
    account_name text NOT NULL REFERENCES account ON DELETE CASCADE,
    address      inet,
    created_utc  timestamptz NOT NULL DEFAULT now(),
    expires_utc  timestamptz NOT NULL
);
CREATE INDEX login_session_expires ON login_session (expires_utc);

CREATE TABLE api_token (
    token_name   text PRIMARY KEY,
    secret_hash  bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    account_name text NOT NULL REFERENCES account ON DELETE CASCADE,
    created_utc  timestamptz NOT NULL DEFAULT now(),
    expires_utc  timestamptz
);

-- Who changed what. The row commits together with the change; for an operation of the pair it commits before the operation begins.
CREATE TABLE audit (
    audit_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_utc       timestamptz NOT NULL DEFAULT now(),
    account_name text NOT NULL,
    via          text NOT NULL CHECK (via IN ('session', 'token', 'login')),
    address      inet,
    action       text NOT NULL,
    subject      text NOT NULL DEFAULT '',
    detail       jsonb
);

-- Idempotency keys of posted events: the same key of the same account is the same event. `repeated` counts the repetitions; counting them is a
-- write on purpose, because the answer to a repetition must wait for the standby just as the first answer did.
CREATE TABLE api_event_key (
    account_name text NOT NULL,
    event_key    text NOT NULL CHECK (length(event_key) BETWEEN 1 AND 200),
    event_id     bigint NOT NULL,
    fingerprint  bytea NOT NULL,
    repeated     integer NOT NULL DEFAULT 0,
    created_utc  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_name, event_key)
);
CREATE INDEX api_event_key_created ON api_event_key (created_utc);
