-- name: schedule.put
-- Record what a program declares; the next time stays unless the times themselves changed.
INSERT INTO holdfast.schedules (name, task, input, cron, timezone, next_at, options)
VALUES (:name, :task, :input, :cron, :timezone, :next_at, :options)
ON CONFLICT (name) DO UPDATE SET
    task = excluded.task, input = excluded.input, options = excluded.options,
    cron = excluded.cron, timezone = excluded.timezone,
    next_at = CASE
        WHEN schedules.cron = excluded.cron AND schedules.timezone = excluded.timezone
        THEN schedules.next_at ELSE excluded.next_at END

-- name: schedule.coming
-- Schedules that aren't paused, and in how many seconds each is due.
SELECT
    name, task, input, cron, timezone, next_at, last_at, options, paused, last_task,
    next_at - extract(epoch FROM clock_timestamp())::float8
FROM holdfast.schedules
WHERE paused = 0 AND name = ANY (ARRAY(SELECT json_array_elements_text(:names::json)))
ORDER BY next_at

-- name: schedule.advance
-- Take a time that is due, unless somebody else has or the schedule was changed.
UPDATE holdfast.schedules SET last_at = next_at, next_at = :next_at
WHERE name = :name AND next_at = :due_at AND paused = 0 AND cron = :cron AND timezone = :timezone
RETURNING 1

-- name: schedule.set_last_task
-- Remember which task was submitted.
UPDATE holdfast.schedules SET last_task = :task_id WHERE name = :name

-- name: schedule.list
-- Every schedule.
SELECT name, task, input, cron, timezone, next_at, last_at, options, paused, last_task
FROM holdfast.schedules ORDER BY name

-- name: schedule.set
-- Pause a schedule or let it go on.
UPDATE holdfast.schedules SET next_at = :next_at, paused = :paused WHERE name = :name

-- name: schedule.remove
-- Forget a schedule.
DELETE FROM holdfast.schedules WHERE name = :name
