-- name: cache.hit
-- A usable output, counted.
UPDATE holdfast.llm_cache SET hits = hits + 1
WHERE namespace = :namespace AND key = :key::bytea AND payload IS NOT NULL
  AND (expires_at IS NULL OR expires_at > :now)
RETURNING payload, model, input_tokens, output_tokens, cost, created_at

-- name: cache.reserve
-- Reserve the generation of a missing or expired output for one caller.
INSERT INTO holdfast.llm_cache (namespace, key, model, holder, created_at)
VALUES (:namespace, :key::bytea, :model, :holder, :now)
ON CONFLICT (namespace, key) DO UPDATE SET
    model = excluded.model, payload = NULL, holder = excluded.holder, hits = 0,
    created_at = excluded.created_at, expires_at = NULL
WHERE llm_cache.payload IS NOT NULL AND llm_cache.expires_at <= :now
RETURNING 1

-- name: cache.holder
-- Who generates an output.
SELECT holder FROM holdfast.llm_cache WHERE namespace = :namespace AND key = :key::bytea

-- name: cache.fill
-- Store what the holder generated.
UPDATE holdfast.llm_cache SET
    payload = :payload, holder = NULL, input_tokens = :input_tokens,
    output_tokens = :output_tokens, cost = :cost, created_at = :created_at,
    expires_at = :expires_at
WHERE namespace = :namespace AND key = :key::bytea AND holder = :holder
RETURNING 1

-- name: cache.give_up
-- Drop a reservation.
DELETE FROM holdfast.llm_cache
WHERE namespace = :namespace AND key = :key::bytea AND holder = :holder AND payload IS NULL

-- name: cache.invalidate
-- Forget outputs, and reservations, so that what they give isn't kept.
DELETE FROM holdfast.llm_cache
WHERE namespace = :namespace
  AND (:key::bytea IS NULL OR key = :key::bytea) AND (:model IS NULL OR model = :model)
RETURNING payload IS NOT NULL

-- name: counter.add
-- Add to a counter.
INSERT INTO holdfast.counters (name, writer, value) VALUES (:name, :writer, :value)
ON CONFLICT (name, writer) DO UPDATE SET value = counters.value + excluded.value

-- name: counter.sums
-- Every counter, over all writers.
SELECT name, sum(value) FROM holdfast.counters GROUP BY name ORDER BY name

-- name: cache.reservation
-- Who generates an output right now.
SELECT holder, created_at FROM holdfast.llm_cache
WHERE namespace = :namespace AND key = :key::bytea AND payload IS NULL AND holder IS NOT NULL
