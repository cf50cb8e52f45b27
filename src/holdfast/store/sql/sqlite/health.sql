-- name: health.settings
-- How the connection that is asked keeps what it commits.
SELECT (SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous)

-- name: health.damage
-- What is wrong with the file, a line each; one line saying `ok` when nothing is.
SELECT * FROM pragma_quick_check
