-- name: schedule.put
-- Record what a program declares; the next time stays unless the times themselves changed.
INSERT INTO schedules (name, task, input, cron, timezone, next_at, options)
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
    next_at - :now
FROM schedules
WHERE paused = 0 AND name IN (SELECT value FROM json_each(:names))
ORDER BY next_at

-- name: schedule.advance
-- Take a time that is due, unless somebody else has or the schedule was changed.
UPDATE schedules SET last_at = next_at, next_at = :next_at
WHERE name = :name AND next_at = :due_at AND paused = 0 AND cron = :cron AND timezone = :timezone
RETURNING 1

-- name: schedule.set_last_task
-- Remember which task was submitted.
UPDATE schedules SET last_task = :task_id WHERE name = :name

-- name: schedule.list
-- Every schedule.
SELECT name, task, input, cron, timezone, next_at, last_at, options, paused, last_task
FROM schedules ORDER BY name

-- name: schedule.set
-- Pause a schedule or let it go on.
UPDATE schedules SET next_at = :next_at, paused = :paused WHERE name = :name

-- name: schedule.remove
-- Forget a schedule.
DELETE FROM schedules WHERE name = :name
