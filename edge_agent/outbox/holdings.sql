-- What is held of persons, counted by purpose; no content is read, and no key is needed. Each statement gives one row:
-- items, bytes, users, with_consent (NULL where it makes no sense), and of the oldest item: since, running_s, boot_id.
-- That a consent was referred to stands in the `create` record of the log, as a keyed hash.

-- name: capture
SELECT count(*) AS items, coalesce(sum(v.image_bytes), 0) AS bytes, count(DISTINCT v.user_hmac) AS users,
    coalesce(sum(EXISTS (SELECT 1 FROM audit AS a WHERE a.verification_id = v.id AND a.event = 'create'
        AND instr(a.detail, '"consent": "') > 0)), 0) AS with_consent,
    min(v.seq), v.created_at AS since, v.created_running_s AS running_s, v.created_boot_id AS boot_id
FROM verifications AS v WHERE v.image_bytes > 0

-- name: template
SELECT count(*) AS items, coalesce(sum(length(embedding)), 0) AS bytes, count(DISTINCT user_hmac) AS users,
    count(*) AS with_consent, min(seq), made_at AS since, made_running_s AS running_s, made_boot_id AS boot_id
FROM templates

-- name: provisional
SELECT count(*) AS items, NULL AS bytes, count(DISTINCT user_hmac) AS users, NULL AS with_consent,
    min(at) AS since, NULL AS running_s, NULL AS boot_id
FROM (SELECT user_hmac, NULL AS at FROM provisional_answers UNION ALL SELECT user_hmac, at FROM provisional_blocks)

-- name: verdict
SELECT count(*) AS items, coalesce(sum(coalesce(length(v.private), 0) + coalesce(length(v.error_detail), 0)), 0) AS bytes,
    count(DISTINCT v.user_hmac) AS users,
    coalesce(sum(EXISTS (SELECT 1 FROM audit AS a WHERE a.verification_id = v.id AND a.event = 'create'
        AND instr(a.detail, '"consent": "') > 0)), 0) AS with_consent,
    min(v.audit_seq), coalesce(l.at, v.created_at) AS since, coalesce(l.running_s, v.created_running_s) AS running_s,
    coalesce(l.boot_id, v.created_boot_id) AS boot_id
FROM verifications AS v LEFT JOIN audit AS l ON l.seq = v.audit_seq
WHERE v.erased = 0 AND v.image_bytes = 0
    AND v.state NOT IN ('searching', 'captured', 'matching', 'pending', 'provisionally_verified')

-- name: audit
SELECT (SELECT count(*) FROM audit) AS items, NULL AS bytes, NULL AS users, NULL AS with_consent,
    at AS since, running_s, boot_id
FROM audit ORDER BY seq LIMIT 1

-- name: lockout
SELECT count(*) AS items, NULL AS bytes, count(DISTINCT user_hmac) AS users, NULL AS with_consent,
    NULL AS since, min(at_running_s) AS running_s, NULL AS boot_id
FROM failures

-- name: idempotency
SELECT count(*) AS items, NULL AS bytes, NULL AS users, NULL AS with_consent,
    created_at AS since, min(created_running_s) AS running_s, created_boot_id AS boot_id
FROM idempotency
