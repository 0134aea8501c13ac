-- Search in the texts of events. Events keep no index of their text, as that would cost more than all the rest of making them;
-- closed ranges of ids have a table beside, event_text_<segment>, with their texts and an index of their trigrams.
CREATE TABLE event_text_segment (
    segment  integer PRIMARY KEY,
    first_id bigint NOT NULL,
    next_id  bigint NOT NULL CHECK (next_id > first_id)  -- the next segment begins there
);
