-- Queries by queue and handler must not come to use this one, which has to be read past other handlers.
-- An older program sorts what it finds instead.

DROP INDEX work_items_ready;
