-- minimum server version: 24.8
-- A migration of its own: once this has run, `event_keys` can't be filled from `events` any more.

ALTER TABLE {database}.events {on_cluster} DROP COLUMN IF EXISTS key_hash;
