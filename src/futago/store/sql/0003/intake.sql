-- Repeats that are suppressed, the compiled patterns, and received messages that are kept for search.

-- One row for each event whose repeats make no event yet. Written in the transaction of the positions, so that a new
-- primary suppresses exactly what the old one would have. Times are of the merge's common axis.
CREATE TABLE intake_repeat (
    repeat_key bytea PRIMARY KEY,  -- digest of monitor, pattern, host, and what the pattern's `by` names
    since_ns   bigint NOT NULL,    -- the event
    until_ns   bigint NOT NULL,    -- from then on a repeat is an event again
    suppressed bigint NOT NULL,
    last_event bytea NOT NULL      -- what the newest repeat would have said, for the summary
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- What hyperscan made of a set of patterns: a member that becomes primary need not compile them.
CREATE TABLE intake_automaton (
    digest   bytea PRIMARY KEY,  -- of the patterns, of hyperscan's version and of the processor's features
    content  bytea NOT NULL,
    made_utc timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE intake_automaton ALTER COLUMN content SET STORAGE EXTERNAL;

-- One row: the version of the definitions that the intake works with, in the words of intake_rules_version().
CREATE TABLE intake_rules (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    version   text NOT NULL,
    fault     text NOT NULL DEFAULT '',  -- why newer ones are not at work
    since_utc timestamptz NOT NULL DEFAULT now()
);
INSERT INTO intake_rules (version) VALUES ('');

-- Differs after any change of what the intake must know: message monitors, hosts, scopes.
CREATE FUNCTION intake_rules_version() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ',
        (SELECT count(*) || ':' || coalesce(sum(hashtextextended(monitor_name, version)), 0)
         FROM monitor WHERE kind IN ('syslog', 'snmptrap') AND is_enabled),
        (SELECT count(*) || ':' || coalesce(sum(hashtextextended(host_name, version)), 0) FROM host WHERE is_registered),
        (SELECT count(*) || ':' || coalesce(sum(hashtextextended(scope_name, version)), 0) FROM scope))
$$;

-- Kept messages, in segments: a segment is a partition, of one day and a bounded number of rows. New messages go to the
-- newest segment, which has no search index; when it is closed it gets one, and it is dropped as a whole.
CREATE TABLE message_segment (
    segment    integer PRIMARY KEY,
    day        date NOT NULL,               -- of the wall clock when it was opened
    first_id   bigint NOT NULL,
    next_id    bigint NOT NULL,
    from_utc   timestamptz NOT NULL,        -- times of receipt of what is in it
    to_utc     timestamptz NOT NULL,
    is_closed  boolean NOT NULL DEFAULT false,
    is_indexed boolean NOT NULL DEFAULT false
);

CREATE TABLE message (
    segment      integer NOT NULL,
    message_id   bigint NOT NULL,           -- in the order in which they had their effect
    received_utc timestamptz NOT NULL,
    host_name    text NOT NULL,
    address      inet NOT NULL,
    kind         text NOT NULL,             -- syslog, snmptrap
    severity     smallint,                  -- of syslog: 0 emergency ... 7 debug
    text         text NOT NULL
) PARTITION BY LIST (segment);

-- Trigrams find any part of a text. The extension is part of the Debian package of the server; without it search reads
-- every message.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
    END IF;
END $$;
