-- An index says what it holds in words that only those who want it use. Everything that runs, or
-- waits, must not be read for one item of it. An older program works on; it may read more than it must.

DROP INDEX holdfast.work_items_leased;
CREATE INDEX work_items_leased ON holdfast.work_items (lease_owner) WHERE lease_owner IS NOT NULL;

DROP INDEX holdfast.work_items_wake;
CREATE INDEX work_items_wake ON holdfast.work_items (wake_at) WHERE wake_at IS NOT NULL;

DROP INDEX holdfast.work_items_waiting_of_root;
CREATE INDEX work_items_waiting_of_root ON holdfast.work_items (root_id)
WHERE status = 'waiting' AND wait IS NOT NULL;
