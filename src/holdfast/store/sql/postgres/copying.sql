-- name: catalogue.tables
-- The tables there are.
SELECT relname FROM pg_class
WHERE relkind IN ('r', 'p')
  AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'holdfast.tasks'::regclass)
ORDER BY relname

-- name: catalogue.place
-- Which database and schema of which server: the same for whoever has it open, whatever the URL.
SELECT concat_ws(' ', 'holdfast.tasks'::regclass::oid, current_database(), pg_postmaster_start_time())

-- name: catalogue.columns
-- The columns of a table: name, type, and place in its key.
SELECT attname, typname, array_position(indkey::int2[], attnum)
FROM pg_attribute
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary
WHERE attrelid = ('holdfast.' || :table)::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum

-- name: copy.lock
-- Nobody but this transaction writes the table.
LOCK TABLE holdfast.{table} IN EXCLUSIVE MODE

-- name: copy.sizes
-- How large the next rows of a table are, in bytes.
SELECT {size} FROM holdfast.{table} WHERE {behind} ORDER BY {key} LIMIT :limit

-- name: copy.rows
-- The next rows of a table.
SELECT {columns} FROM holdfast.{table} WHERE {behind} ORDER BY {key} LIMIT :limit

-- name: copy.put
-- One row more.
INSERT INTO holdfast.{table} ({columns}) VALUES ({values})

-- name: copy.arrive
-- Wait until the rows so far have arrived.
SELECT 1

-- name: copy.analyze
-- Count what is there now, for good plans from the start.
ANALYZE holdfast.{table}

-- name: copy.running
-- Work items that are being executed.
SELECT task_id, item_id FROM holdfast.work_items WHERE status = 'running' AND lease_owner IS NOT NULL LIMIT 10

-- name: copy.workers
-- Every worker that is remembered.
SELECT worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at, process
FROM holdfast.workers ORDER BY slot

-- name: copy.seal
-- No Holdfast opens this database again: see `SEALED`.
UPDATE holdfast.meta SET value = '1000000' WHERE name = 'reader_version'

-- name: engine.set_secret_key
-- The key that secrets are digested with.
UPDATE holdfast.meta SET value = :value::text WHERE name = 'secret_key'
