-- What the intake has done so far: positions in both members' journals and the state of the merge. Written in the same
-- transaction as the effects of the messages, so that a new primary goes on at exactly that point.

-- One row per incarnation of a member's receiver: everything up to `sequence` has had its effect.
CREATE TABLE intake_position (
    member_name text NOT NULL,
    incarnation text NOT NULL,
    sequence    bigint NOT NULL,
    updated_utc timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (member_name, incarnation)
);

-- One row. `revision` grows by one with every batch: a batch commits only onto the revision it was made from, so a
-- batch whose outcome was unknown and the one made after it can never both count.
CREATE TABLE intake_state (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    revision bigint NOT NULL,
    state    bytea NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
INSERT INTO intake_state (revision, state) VALUES (0, '');

-- Copies that still wait for their twin from the other member, in chunks of (hash, time): docs/internals/intake.md.
CREATE TABLE intake_unmatched (
    chunk_id    bigint PRIMARY KEY,
    member_name text NOT NULL,
    pool        text NOT NULL CHECK (pool IN ('recent', 'late')),
    entries     bytea NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 4000);
ALTER TABLE intake_unmatched ALTER COLUMN entries SET STORAGE EXTERNAL;
