-- What can be read and checked without the key, on a read-only connection. Nothing here authenticates anything.
-- Only columns that every schema version has are named.

-- name: count_states
SELECT state, count(*) AS number FROM verifications GROUP BY state

-- name: count_pictures
SELECT count(*) AS items, coalesce(sum(bytes), 0) AS bytes FROM payloads

-- name: totals
SELECT items, bytes FROM payload_totals WHERE one = 1

-- name: queue
SELECT count(*) FILTER (WHERE NOT parked) AS depth, count(*) FILTER (WHERE parked) AS parked,
    count(*) FILTER (WHERE lease_token IS NOT NULL) AS leased FROM verifications WHERE image_bytes > 0

-- name: with_picture
SELECT * FROM verifications
WHERE image_bytes > 0 AND seq < :before AND (:only_parked IS NULL OR parked = :only_parked)
ORDER BY seq DESC LIMIT :limit

-- name: oldest_with_picture
SELECT * FROM verifications WHERE image_bytes > 0 ORDER BY seq LIMIT 1

-- name: by_id
SELECT * FROM verifications WHERE id = :id

-- name: audit_of
SELECT * FROM audit WHERE verification_id = :id ORDER BY seq

-- name: audit_size
SELECT count(*) AS records, max(seq) AS last FROM audit

-- name: audit_record
SELECT * FROM audit WHERE seq = :seq

-- name: audit_anchor
SELECT coalesce(max(seq), 0) AS seq FROM audit_anchors

-- The first record that follows neither the one before it, nor what retention has cut off, nor a gap that a salvage left.
-- name: audit_gap
SELECT seq, before FROM (SELECT seq, lag(seq, 1, (SELECT coalesce(max(seq), 0) FROM audit_anchors
        WHERE reason <> 'salvage')) OVER (ORDER BY seq) AS before FROM audit) AS r
WHERE seq <> before + 1
    AND NOT EXISTS (SELECT 1 FROM audit_anchors AS a WHERE a.reason = 'salvage' AND a.seq = r.seq - 1 AND a.seq > r.before)
ORDER BY seq LIMIT 1

-- name: saved_clock
SELECT value FROM meta WHERE name = 'clock'

-- A state row says that a picture is stored, and none is, or one of another size.
-- name: pictures_missing
SELECT v.id FROM verifications AS v LEFT JOIN payloads AS p ON p.seq = v.seq
WHERE v.image_bytes > 0 AND (p.seq IS NULL OR p.bytes <> v.image_bytes) ORDER BY v.seq LIMIT :limit

-- A picture is stored that no state row speaks of.
-- name: pictures_left_over
SELECT p.seq FROM payloads AS p LEFT JOIN verifications AS v ON v.seq = p.seq
WHERE v.seq IS NULL OR v.image_bytes = 0 ORDER BY p.seq LIMIT :limit

-- Who waits has a picture; who ended has none, unless parked.
-- name: states_without_sense
SELECT id, state FROM verifications
WHERE (state IN ('captured', 'matching', 'pending', 'provisionally_verified')) + (parked = 1)
    <> (image_bytes > 0) ORDER BY seq LIMIT :limit

-- The state is not the one that the row's last audit record tells of, or a later record tells of another.
-- name: states_not_audited
SELECT v.id FROM verifications AS v LEFT JOIN audit AS a ON a.seq = v.audit_seq
WHERE v.audit_seq > :anchor AND (a.seq IS NULL OR a.verification_id <> v.id OR a.to_state <> v.state
    OR EXISTS (SELECT 1 FROM audit AS later WHERE later.verification_id = v.id AND later.seq > v.audit_seq))
ORDER BY v.seq LIMIT :limit
