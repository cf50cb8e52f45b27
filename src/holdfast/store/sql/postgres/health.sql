-- name: health.settings
-- How the server keeps what it commits: 2 when it is safe on disk before the answer.
SELECT 'wal', CASE
    WHEN current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'
     AND current_setting('synchronous_commit') IN ('on', 'remote_apply')
    THEN 2 ELSE 0 END

-- name: health.damage
-- Pages whose checksum was wrong, where the server counts them; one line saying `ok` if none.
SELECT CASE WHEN coalesce(checksum_failures, 0) = 0 THEN 'ok'
    ELSE checksum_failures || ' pages of the database have a wrong checksum' END
FROM pg_stat_database WHERE datname = current_database()
