-- Whose an event is: the owner role of the net that it tells of; empty: everybody's. Only job control's events have one.
ALTER TABLE event ADD COLUMN owner_role text NOT NULL DEFAULT '';

UPDATE event e SET owner_role = s.owner_role FROM job_session s
 WHERE s.owner_role <> '' AND e.source = 'job' AND e.detail->>'session_id' = s.session_id::text;
