-- name: catalogue.tables
-- The tables there are.
SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name

-- name: catalogue.place
-- Where the database is: the same for whoever has it open, whatever the URL. None in memory.
SELECT nullif(file, '') FROM pragma_database_list WHERE name = 'main'

-- name: catalogue.columns
-- The columns of a table: name, type, and place in its key.
SELECT name, lower(type), CASE WHEN pk > 0 THEN pk END FROM pragma_table_info(:table) ORDER BY cid

-- name: copy.lock
-- Nothing, for {table}: who writes has the database to itself.
SELECT 1 WHERE NULL

-- name: copy.sizes
-- How large the next rows of a table are, in bytes.
SELECT {size} FROM {table} WHERE {behind} ORDER BY {key} LIMIT :limit

-- name: copy.rows
-- The next rows of a table.
SELECT {columns} FROM {table} WHERE {behind} ORDER BY {key} LIMIT :limit

-- name: copy.put
-- One row more.
INSERT INTO {table} ({columns}) VALUES ({values})

-- name: copy.arrive
-- Wait until the rows so far have arrived.
SELECT 1

-- name: copy.analyze
-- Nothing, for {table}: plans don't depend on counts here.
SELECT 1 WHERE NULL

-- name: copy.running
-- Work items that are being executed.
SELECT task_id, item_id FROM work_items WHERE status = 'running' AND lease_owner IS NOT NULL LIMIT 10

-- name: copy.workers
-- Every worker that is remembered.
SELECT worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at
FROM workers ORDER BY slot

-- name: copy.seal
-- No Holdfast opens this database again: see `SEALED`.
PRAGMA user_version = 1000000
