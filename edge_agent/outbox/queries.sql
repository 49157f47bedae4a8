-- Named statements that read, or keep the derived and auxiliary tables.

-- name: by_id
SELECT * FROM verifications WHERE id = :id

-- name: by_seq
SELECT * FROM verifications WHERE seq = :seq

-- name: newest
SELECT * FROM verifications WHERE seq < :before ORDER BY seq DESC LIMIT :limit

-- name: newest_in_state
SELECT * FROM verifications WHERE state = :state AND seq < :before ORDER BY seq DESC LIMIT :limit

-- name: newest_of_caller
SELECT * FROM verifications WHERE caller = :caller AND seq < :before ORDER BY seq DESC LIMIT :limit

-- name: newest_of_caller_in_state
SELECT * FROM verifications WHERE caller = :caller AND state = :state AND seq < :before
ORDER BY seq DESC LIMIT :limit

-- A verdict is the last thing that is audited about a verification, so the audit log has their order.
-- name: verdicts_of_user
SELECT * FROM verifications INDEXED BY verifications_by_user
WHERE user_hmac = :user_hmac AND erased = 0 AND state IN ('verified', 'not_verified')
ORDER BY audit_seq DESC LIMIT :limit

-- name: count_states
SELECT state, number FROM state_counts

-- name: oldest_with_picture
SELECT * FROM verifications WHERE image_bytes > 0 ORDER BY seq LIMIT 1

-- Nobody but the holder of a lease touches a leased row; a live capture is not evicted.
-- name: oldest_to_evict
SELECT * FROM verifications
WHERE image_bytes > 0 AND seq > :after AND lease_token IS NULL AND state NOT IN ('captured', 'matching')
ORDER BY seq LIMIT 1

-- The pictures that may expire.
-- name: oldest_first
SELECT seq, created_running_s, created_boot_id FROM verifications INDEXED BY verifications_with_picture
WHERE image_bytes > 0 AND seq > :after AND lease_token IS NULL ORDER BY seq

-- What waited and need not any more stands in line again; so `claimable` never walks past those that wait.
-- name: ready_lanes
UPDATE lanes SET ready_running_s = 0
WHERE environment = :environment AND ready_running_s > 0 AND ready_running_s <= :running_s

-- The heads that may be forwarded now, the live ones first, then the oldest. A user is left out while one of its
-- captures is leased, while it stands before the camera, and while a PUT of another capture may still land.
-- name: claimable
SELECT l.head_seq FROM lanes AS l
WHERE l.environment = :environment AND l.ready_running_s = 0
    AND NOT EXISTS (SELECT 1 FROM verifications AS v WHERE v.user_hmac = l.user_hmac
        AND v.lease_token IS NOT NULL AND v.lease_until_running_s > :running_s)
    AND (l.live OR NOT EXISTS (SELECT 1 FROM verifications AS v INDEXED BY verifications_by_user
        WHERE v.user_hmac = l.user_hmac AND v.erased = 0 AND v.state = 'searching'))
    AND NOT EXISTS (SELECT 1 FROM upload_marks AS u JOIN verifications AS h ON h.seq = l.head_seq
        WHERE u.user_hmac = l.user_hmac AND u.verification_id <> h.id AND u.until_running_s > :running_s)
ORDER BY l.live DESC, l.head_seq

-- name: quarantined
SELECT max(until_running_s) AS until_s FROM upload_marks
WHERE user_hmac = :user_hmac AND verification_id <> :id AND until_running_s > :running_s

-- name: leased_of_user
SELECT * FROM verifications WHERE user_hmac = :user_hmac AND lease_token IS NOT NULL

-- name: next_ready
SELECT min(ready_running_s) AS ready_s FROM lanes WHERE environment = :environment

-- name: drop_lane
DELETE FROM lanes WHERE user_hmac = :user_hmac AND environment = :environment
    AND NOT EXISTS (SELECT 1 FROM verifications AS v INDEXED BY verifications_by_lane
        WHERE v.user_hmac = :user_hmac AND v.environment = :environment
            AND v.state IN ('captured', 'matching', 'pending', 'provisionally_verified'))

-- The head waits for its own back-off and for the end of its user's quarantines. Too early a time only makes
-- `claimable` look again; nothing is written while nothing changes.
-- name: set_lane
INSERT INTO lanes (user_hmac, environment, head_seq, live, ready_running_s)
SELECT user_hmac, environment, seq, live, CASE WHEN ready_s > :running_s THEN ready_s ELSE 0 END
FROM (SELECT v.user_hmac, v.environment, v.seq, v.state IN ('captured', 'matching') AS live,
        max(v.next_attempt_running_s, coalesce((SELECT max(u.until_running_s) FROM upload_marks AS u
            WHERE u.user_hmac = v.user_hmac AND u.verification_id <> v.id AND u.lease_token IS NULL), 0)) AS ready_s
    FROM verifications AS v INDEXED BY verifications_by_lane
    WHERE v.user_hmac = :user_hmac AND v.environment = :environment
        AND v.state IN ('captured', 'matching', 'pending', 'provisionally_verified')
    ORDER BY (v.state IN ('captured', 'matching')) DESC, v.seq LIMIT 1)
WHERE true
ON CONFLICT (user_hmac, environment) DO UPDATE
SET head_seq = excluded.head_seq, live = excluded.live, ready_running_s = excluded.ready_running_s
WHERE head_seq <> excluded.head_seq OR live <> excluded.live OR ready_running_s <> excluded.ready_running_s

-- name: drop_lanes
DELETE FROM lanes

-- name: lanes_to_build
SELECT DISTINCT user_hmac, environment FROM verifications
WHERE state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- What a crash may have left in a state that only a running daemon can hold.
-- name: left_by_crash
SELECT seq FROM verifications WHERE state IN ('searching', 'captured', 'matching')
UNION SELECT seq FROM verifications INDEXED BY one_lease_per_user WHERE lease_token IS NOT NULL
ORDER BY seq

-- name: queue
SELECT coalesce(sum(number), 0) AS depth FROM state_counts
WHERE state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- name: leased
SELECT count(*) AS number FROM verifications WHERE lease_token IS NOT NULL

-- name: totals
SELECT items, bytes FROM payload_totals WHERE one = 1

-- name: insert_payload
INSERT INTO payloads (seq, row_key, bytes, picture) VALUES (:seq, :row_key, :bytes, :picture)

-- name: payload
SELECT row_key, picture FROM payloads WHERE seq = :seq

-- name: delete_payload
DELETE FROM payloads WHERE seq = :seq

-- name: user
SELECT * FROM users WHERE user_hmac = :user_hmac

-- name: insert_user
INSERT INTO users (user_hmac, key_generation, wrapped_key, user_id)
VALUES (:user_hmac, :generation, :wrapped_key, :user_id)

-- name: delete_user
DELETE FROM users WHERE user_hmac = :user_hmac

-- name: to_erase
SELECT * FROM verifications WHERE user_hmac = :user_hmac AND erased = 0 LIMIT :limit

-- name: begin_erasure
INSERT INTO erasures (user_hmac, audit_seq) VALUES (:user_hmac, :audit_seq) ON CONFLICT DO NOTHING

-- name: erasures
SELECT user_hmac FROM erasures

-- name: end_erasure
DELETE FROM erasures WHERE user_hmac = :user_hmac

-- name: idempotency
SELECT * FROM idempotency WHERE key_hmac = :key_hmac

-- name: insert_idempotency
INSERT INTO idempotency (key_hmac, body_hmac, verification_id, created_at, created_synchronised, created_boot_id,
    created_running_s, mac_generation, mac)
VALUES (:key_hmac, :body_hmac, :verification_id, :created_at, :created_synchronised, :created_boot_id,
    :created_running_s, :mac_generation, :mac)

-- name: upload_mark
SELECT * FROM upload_marks WHERE image_name = :image_name

-- name: upload_marks
SELECT * FROM upload_marks

-- name: upload_marks_of_lease
SELECT * FROM upload_marks WHERE user_hmac = :user_hmac AND lease_token = :token

-- name: set_upload_mark
INSERT INTO upload_marks (image_name, user_hmac, verification_id, lease_token, until_running_s, mac_generation, mac)
VALUES (:image_name, :user_hmac, :verification_id, :lease_token, :until_running_s, :mac_generation, :mac)
ON CONFLICT (image_name) DO UPDATE
SET lease_token = excluded.lease_token, until_running_s = excluded.until_running_s,
    mac_generation = excluded.mac_generation, mac = excluded.mac

-- name: drop_upload_mark
DELETE FROM upload_marks WHERE image_name = :image_name

-- name: prune_upload_marks
DELETE FROM upload_marks WHERE until_running_s < :running_s

-- name: failures
SELECT * FROM failures WHERE at_running_s > :since_s ORDER BY seq

-- name: insert_failure
INSERT INTO failures (user_hmac, kind, terminal, at_running_s, mac_generation, mac)
VALUES (:user_hmac, :kind, :terminal, :at_running_s, :mac_generation, :mac)

-- name: prune_failures
DELETE FROM failures WHERE at_running_s < :before_s

-- name: meta
SELECT value, mac FROM meta WHERE name = :name

-- name: set_meta
INSERT INTO meta (name, value, mac) VALUES (:name, :value, :mac)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, mac = excluded.mac

-- name: check_values
SELECT generation, check_value FROM device_keys

-- name: insert_device_key
INSERT INTO device_keys (generation, check_value, created_at) VALUES (:generation, :check_value, :created_at)

-- name: secrets
SELECT name, generation, key_generation, sealed FROM secrets

-- name: insert_secret
INSERT INTO secrets (name, generation, key_generation, sealed) VALUES (:name, :generation, :key_generation, :sealed)

-- name: audit_head
SELECT * FROM audit ORDER BY seq DESC LIMIT 1

-- name: audit_anchor
SELECT * FROM audit_anchors WHERE reason <> 'salvage' ORDER BY seq DESC LIMIT 1

-- name: append_audit
INSERT INTO audit (seq, at, synchronised, boot_id, boottime_s, running_s, instance_id, event, verification_id,
    user_hmac, from_state, to_state, detail, key_generation, mac)
VALUES (:seq, :at, :synchronised, :boot_id, :boottime_s, :running_s, :instance_id, :event, :verification_id,
    :user_hmac, :from_state, :to_state, :detail, :key_generation, :mac)

-- name: waiting
SELECT v.* FROM lanes AS l JOIN verifications AS v ON v.seq = l.head_seq
WHERE l.environment = :environment AND l.ready_running_s > :running_s

-- name: all_verifications
SELECT * FROM verifications ORDER BY seq

-- name: all_idempotency
SELECT * FROM idempotency

-- name: all_upload_marks
SELECT * FROM upload_marks

-- name: all_failures
SELECT * FROM failures

-- name: audit_record
SELECT verification_id, to_state FROM audit WHERE seq = :seq

-- name: later_audit
SELECT 1 FROM audit WHERE verification_id = :id AND seq > :seq LIMIT 1

-- Derived tables, rebuilt at every start.

-- name: drop_state_counts
DELETE FROM state_counts

-- name: count_states_anew
INSERT INTO state_counts (state, number) SELECT state, count(*) FROM verifications GROUP BY state

-- A row has a picture exactly while its image_bytes are not 0; the pictures themselves are not read for this.
-- name: total_anew
UPDATE payload_totals SET (items, bytes) = (
    SELECT count(*), coalesce(sum(image_bytes), 0) FROM verifications WHERE image_bytes > 0)
WHERE one = 1

-- Salvage of a damaged outbox.

-- name: next_anchor
SELECT * FROM audit_anchors WHERE seq > :after AND reason = 'salvage' ORDER BY seq LIMIT 1

-- name: last_audit_of
SELECT seq, event, to_state FROM audit WHERE verification_id = :id ORDER BY seq DESC LIMIT 1

-- name: destroyed_after
SELECT 1 FROM audit WHERE user_hmac = :user_hmac AND event = 'user_destroyed' AND seq > :seq LIMIT 1

-- What the audit log tells of and no row is there for.
-- name: audited_without_row
SELECT a.verification_id, a.user_hmac, a.event, a.to_state FROM audit AS a
WHERE a.verification_id IS NOT NULL
    AND a.seq = (SELECT max(b.seq) FROM audit AS b WHERE b.verification_id = a.verification_id)
    AND NOT EXISTS (SELECT 1 FROM verifications AS v WHERE v.id = a.verification_id)
ORDER BY a.seq

-- A tombstone without an id is of a verification whose row retention has removed.
-- name: promised_without_row
SELECT DISTINCT verification_id FROM idempotency AS i
WHERE verification_id <> '' AND NOT EXISTS (SELECT 1 FROM verifications AS v WHERE v.id = i.verification_id)
    AND NOT EXISTS (SELECT 1 FROM audit AS a WHERE a.verification_id = i.verification_id)

-- name: destruction
SELECT user_hmac FROM audit WHERE seq = :seq AND event = 'user_destroyed'

-- name: drop_lease_index
DROP INDEX one_lease_per_user

-- name: without_idempotency
SELECT count(*) AS number FROM verifications WHERE id NOT IN (SELECT verification_id FROM idempotency)

-- name: forget_sequence
DELETE FROM sqlite_sequence WHERE name = :name

-- name: set_sequence
INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)

-- name: asides
SELECT name, value, mac FROM meta WHERE name >= 'aside:' AND name < 'aside;'

-- name: forget_meta
DELETE FROM meta WHERE name = :name

-- Rotation of the device key (rotation.py). What was done already drops out by its generation; `after` passes by what
-- does not authenticate and is left alone.

-- name: reseal_secret
UPDATE secrets SET key_generation = :key_generation, sealed = :sealed WHERE name = :name AND generation = :generation

-- name: sealed_meta
SELECT name, value, mac FROM meta WHERE mac IS NOT NULL

-- name: anchors
SELECT * FROM audit_anchors ORDER BY seq

-- name: audit_up_to
SELECT seq, mac FROM audit WHERE seq <= :seq ORDER BY seq DESC LIMIT 1

-- name: resign_anchor
UPDATE audit_anchors SET key_generation = :generation, mac = :mac WHERE seq = :seq

-- name: users_to_rewrap
SELECT * FROM users WHERE key_generation < :generation AND user_hmac > :after ORDER BY user_hmac LIMIT :batch

-- name: rewrap_user
UPDATE users SET key_generation = :generation, wrapped_key = :wrapped_key WHERE user_hmac = :user_hmac

-- name: verifications_to_reseal
SELECT * FROM verifications WHERE mac_generation < :generation AND seq > :after ORDER BY seq LIMIT :batch

-- name: idempotency_to_reseal
SELECT * FROM idempotency WHERE mac_generation < :generation AND key_hmac > :after ORDER BY key_hmac LIMIT :batch

-- name: upload_marks_to_reseal
SELECT * FROM upload_marks WHERE mac_generation < :generation AND image_name > :after ORDER BY image_name LIMIT :batch

-- name: failures_to_reseal
SELECT * FROM failures WHERE mac_generation < :generation AND seq > :after ORDER BY seq LIMIT :batch

-- name: reseal_verifications
UPDATE verifications SET mac_generation = :mac_generation, mac = :mac WHERE seq = :seq

-- name: reseal_idempotency
UPDATE idempotency SET mac_generation = :mac_generation, mac = :mac WHERE key_hmac = :key_hmac

-- name: reseal_upload_marks
UPDATE upload_marks SET mac_generation = :mac_generation, mac = :mac WHERE image_name = :image_name

-- name: reseal_failures
UPDATE failures SET mac_generation = :mac_generation, mac = :mac WHERE seq = :seq

-- name: drop_row_keys
DELETE FROM secrets WHERE name = 'row' AND generation < :generation

-- name: drop_device_keys
DELETE FROM device_keys WHERE generation < :generation

-- A page that was split or joined keeps copies of the cells that left it, in its unused middle, where secure_delete
-- does not reach. Taking every row out frees the pages, which are then overwritten as a whole.

-- name: take_users_out
CREATE TEMP TABLE taken_out AS SELECT * FROM users

-- name: empty_users
DELETE FROM users

-- name: put_users_back
INSERT INTO users SELECT * FROM taken_out ORDER BY user_hmac

-- name: forget_taken_out
DROP TABLE temp.taken_out

-- What an operator asks for (custody.py, proof.py).

-- What holds a picture, the newest first; `only_parked` NULL = parked or not.
-- name: with_picture
SELECT * FROM verifications
WHERE image_bytes > 0 AND seq < :before AND (:only_parked IS NULL OR parked = :only_parked)
ORDER BY seq DESC LIMIT :limit

-- name: audit_of
SELECT * FROM audit WHERE verification_id = :id ORDER BY seq

-- name: audit_part
SELECT * FROM audit WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: verifications_after
SELECT * FROM verifications WHERE seq > :after ORDER BY seq LIMIT :limit

-- The offline policy (templates.py, provisional.py).

-- name: insert_template
INSERT INTO templates (id, user_hmac, verification_id, environment, model, quality, made_at, made_boot_id,
    made_running_s, embedding, mac_generation, mac)
VALUES (:id, :user_hmac, :verification_id, :environment, :model, :quality, :made_at, :made_boot_id,
    :made_running_s, :embedding, :mac_generation, :mac)

-- name: templates_of_user
SELECT * FROM templates WHERE user_hmac = :user_hmac ORDER BY seq

-- name: template
SELECT * FROM templates WHERE id = :id

-- name: template_ages
SELECT seq, id, user_hmac, made_boot_id, made_running_s FROM templates

-- name: delete_template
DELETE FROM templates WHERE seq = :seq

-- name: delete_templates_of_user
DELETE FROM templates WHERE user_hmac = :user_hmac

-- name: count_templates
SELECT count(*) AS templates, count(DISTINCT user_hmac) AS users FROM templates

-- name: insert_provisional_answer
INSERT INTO provisional_answers (user_hmac, verification_id, at_boot_id, at_running_s, mac_generation, mac)
VALUES (:user_hmac, :verification_id, :at_boot_id, :at_running_s, :mac_generation, :mac)

-- name: provisional_answers_of_user
SELECT * FROM provisional_answers WHERE user_hmac = :user_hmac

-- name: prune_provisional_answers
DELETE FROM provisional_answers WHERE at_running_s < :before_s

-- name: set_provisional_block
INSERT INTO provisional_blocks (user_hmac, why, verification_id, at, mac_generation, mac)
VALUES (:user_hmac, :why, :verification_id, :at, :mac_generation, :mac)
ON CONFLICT (user_hmac) DO UPDATE
SET why = excluded.why, verification_id = excluded.verification_id, at = excluded.at,
    mac_generation = excluded.mac_generation, mac = excluded.mac

-- name: provisional_block
SELECT why FROM provisional_blocks WHERE user_hmac = :user_hmac

-- name: lift_provisional_block
DELETE FROM provisional_blocks WHERE user_hmac = :user_hmac

-- name: count_provisional_blocks
SELECT count(*) AS users FROM provisional_blocks

-- name: unconfirmed
SELECT coalesce(sum(number), 0) AS number FROM state_counts WHERE state = 'provisionally_verified'

-- name: audited_answer
SELECT 1 FROM audit WHERE verification_id = :id AND event = 'answer' LIMIT 1

-- name: all_templates
SELECT * FROM templates

-- name: all_provisional_answers
SELECT * FROM provisional_answers

-- name: all_provisional_blocks
SELECT * FROM provisional_blocks

-- name: templates_to_reseal
SELECT * FROM templates WHERE mac_generation < :generation AND seq > :after ORDER BY seq LIMIT :batch

-- name: provisional_answers_to_reseal
SELECT * FROM provisional_answers WHERE mac_generation < :generation AND seq > :after ORDER BY seq LIMIT :batch

-- name: provisional_blocks_to_reseal
SELECT * FROM provisional_blocks WHERE mac_generation < :generation AND user_hmac > :after
ORDER BY user_hmac LIMIT :batch

-- name: reseal_templates
UPDATE templates SET mac_generation = :mac_generation, mac = :mac WHERE seq = :seq

-- name: reseal_provisional_answers
UPDATE provisional_answers SET mac_generation = :mac_generation, mac = :mac WHERE seq = :seq

-- name: reseal_provisional_blocks
UPDATE provisional_blocks SET mac_generation = :mac_generation, mac = :mac WHERE user_hmac = :user_hmac

-- name: newest_verdict_of_state
SELECT verdict_at FROM verifications INDEXED BY verifications_by_state
WHERE state = :state ORDER BY seq DESC LIMIT 1

-- Retention (sweep.py).

-- name: span
SELECT coalesce(min(seq), 1) AS first, coalesce(max(seq), 0) AS last FROM verifications

-- What ended and still names somebody, with the moment of its last change.
-- name: ended_between
SELECT v.seq, coalesce(a.running_s, v.created_running_s) AS running_s, coalesce(a.boot_id, v.created_boot_id) AS boot_id
FROM verifications AS v LEFT JOIN audit AS a ON a.seq = v.audit_seq
WHERE v.seq > :after AND v.seq <= :upto AND v.erased = 0 AND v.image_bytes = 0
    AND v.state NOT IN ('searching', 'captured', 'matching', 'pending', 'provisionally_verified')
ORDER BY v.seq

-- The oldest record of the log, and those that may go with it.
-- name: oldest_audit
SELECT seq, running_s, boot_id FROM audit ORDER BY seq LIMIT :limit

-- What is not erased (or ended) refers to a record of the log, which stays with it.
-- name: first_audit_in_use
SELECT min(audit_seq) AS seq FROM verifications
WHERE erased = 0 OR image_bytes > 0
    OR state IN ('searching', 'captured', 'matching', 'pending', 'provisionally_verified')

-- name: audit_up_to_and_with
SELECT * FROM audit WHERE seq <= :last ORDER BY seq

-- name: drop_anchors
DELETE FROM audit_anchors WHERE seq <= :last

-- name: insert_anchor
INSERT INTO audit_anchors (seq, chain_mac, reason, at, key_generation, mac)
VALUES (:seq, :chain_mac, :reason, :at, :key_generation, :mac)

-- name: drop_audit
DELETE FROM audit WHERE seq <= :last

-- The rows whose last record is among those up to `last`.
-- name: outlived
SELECT v.seq FROM audit AS a JOIN verifications AS v ON v.id = a.verification_id
WHERE a.seq <= :last AND v.audit_seq = a.seq

-- name: tombstones_of_outlived
SELECT * FROM idempotency WHERE verification_id IN (
    SELECT v.id FROM audit AS a JOIN verifications AS v ON v.id = a.verification_id
    WHERE a.seq <= :last AND v.audit_seq = a.seq)

-- name: unlink_tombstone
UPDATE idempotency SET verification_id = '', mac_generation = :mac_generation, mac = :mac WHERE key_hmac = :key_hmac

-- name: drop_verification
DELETE FROM verifications WHERE seq = :seq
