-- minimum server version: 24.8
-- What was appended since an instant is found without reading all that came before: a part that has nothing
-- of it is not opened. All who follow the log ask so: rollups, and queries for what is beyond them.

ALTER TABLE {database}.events {on_cluster} ADD INDEX IF NOT EXISTS appended appended_at TYPE minmax GRANULARITY 64;

ALTER TABLE {database}.events {on_cluster} MATERIALIZE INDEX appended;
