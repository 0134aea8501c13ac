-- MIB modules that were loaded, and custom traps as a kind of monitor.

CREATE SEQUENCE mib_version;

CREATE TABLE mib (
    mib_name   text PRIMARY KEY CHECK (mib_name <> ''),
    file_name  text NOT NULL,
    source     text NOT NULL,        -- of the file that it was in: what later ones import from
    imports    text[] NOT NULL,      -- of the loaded ones
    compiled   jsonb NOT NULL,       -- a Module (intake/mib_names.py)
    version    bigint NOT NULL DEFAULT nextval('mib_version'),
    loaded_by  text NOT NULL,
    loaded_utc timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE monitor
    DROP CONSTRAINT monitor_kind_check,
    ADD CONSTRAINT monitor_kind_check CHECK (kind IN ('ping', 'tcp', 'syslog', 'snmptrap', 'customtrap'));

CREATE OR REPLACE FUNCTION intake_rules_version() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ',
        (SELECT count(*) || ':' || coalesce(sum(hashtextextended(monitor_name, version)), 0)
         FROM monitor WHERE kind IN ('syslog', 'snmptrap', 'customtrap') AND is_enabled),
        (SELECT count(*) || ':' || coalesce(sum(hashtextextended(host_name, version)), 0) FROM host WHERE is_registered),
        (SELECT count(*) || ':' || coalesce(sum(hashtextextended(scope_name, version)), 0) FROM scope))
$$;
