-- Every change of a verification: one named statement each, with the states it may start from in its WHERE.
-- A statement that changes no row lost a race; the caller then reports what the row has become. The row's mac and
-- audit_seq are renewed by `seal` in the same transaction.

-- name: insert
INSERT INTO verifications (id, user_hmac, caller, environment, state, created_at, created_synchronised,
    created_boot_id, created_boottime_s, created_running_s, search_timeout_s, verdict_timeout_s, private,
    updated_at, audit_seq, mac_generation, mac)
VALUES (:id, :user_hmac, :caller, :environment, 'searching', :now, :synchronised,
    :boot_id, :boottime_s, :running_s, :search_timeout_s, :verdict_timeout_s, :private,
    :now, 0, 0, x'')

-- name: seal
UPDATE verifications SET audit_seq = :audit_seq, mac_generation = :generation, mac = :mac WHERE seq = :seq

-- The best shot becomes durable. Loses against a cancel that came first.
-- name: capture
UPDATE verifications
SET state = 'captured', captured_at = :now, deadline_boot_id = :boot_id,
    deadline_boottime_s = :boottime_s + verdict_timeout_s, image_sha256 = :image_sha256,
    image_bytes = :image_bytes, private = :private, updated_at = :now
WHERE seq = :seq AND state = 'searching'

-- name: cancel
UPDATE verifications SET state = 'cancelled', updated_at = :now
WHERE seq = :seq AND state = 'searching'

-- name: reject
UPDATE verifications SET state = 'rejected', reasons = :reasons, updated_at = :now
WHERE seq = :seq AND state = 'searching'

-- name: fail
UPDATE verifications SET state = 'failed', error_code = :code, error_detail = :error_detail, updated_at = :now
WHERE seq = :seq AND state = 'searching'

-- The verdict did not come in time; forwarding goes on, a lease stays.
-- name: pend
UPDATE verifications SET state = 'pending', updated_at = :now
WHERE seq = :seq AND state IN ('captured', 'matching')

-- The unique index on leases makes a second lease of the same user impossible, whatever the caller thinks.
-- name: lease
UPDATE verifications
SET state = CASE state WHEN 'captured' THEN 'matching' ELSE state END, attempts = attempts + 1,
    lease_token = :token, lease_instance = :instance_id, lease_until_running_s = :until_s, updated_at = :now
WHERE seq = :seq AND lease_token IS NULL
    AND state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- name: renew
UPDATE verifications SET lease_until_running_s = :until_s, updated_at = :now
WHERE seq = :seq AND lease_token = :token

-- A PUT begins.
-- name: upload
UPDATE verifications SET image_name = :image_name, updated_at = :now
WHERE seq = :seq AND lease_token = :token

-- name: release
UPDATE verifications
SET state = CASE state WHEN 'matching' THEN 'captured' ELSE state END, lease_token = NULL, lease_instance = NULL,
    lease_until_running_s = NULL, next_attempt_running_s = :next_attempt_s, error_code = :code,
    error_detail = :error_detail, error_status = :status, updated_at = :now,
    transients = CASE :failure WHEN 'transient' THEN transients + 1 WHEN 'conflict' THEN 0 ELSE transients END,
    conflicts = conflicts + (:failure = 'conflict')
WHERE seq = :seq AND lease_token = :token

-- A lease that ran out or belongs to a dead instance.
-- name: void_lease
UPDATE verifications
SET state = CASE state WHEN 'matching' THEN 'captured' ELSE state END, lease_token = NULL, lease_instance = NULL,
    lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq AND lease_token IS NOT NULL

-- Only the holder of the lease brings a verdict, and only while the capture still waits for one.
-- name: verdict
UPDATE verifications
SET state = CASE WHEN :positive THEN 'verified' ELSE 'not_verified' END, positive = :positive,
    contradicted = (:answered AND NOT :positive), similarity = :similarity,
    matched_field = :matched_field, http_status = :http_status, image_name = :image_name,
    verdict_at = :now, verdict_boot_id = :boot_id, verdict_boottime_s = :boottime_s,
    late = (deadline_boot_id <> :boot_id OR :boottime_s > deadline_boottime_s),
    error_code = NULL, error_detail = NULL, error_status = NULL, image_bytes = 0,
    lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq AND lease_token = :token
    AND state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- The offline policy says yes, under the lease of the attempt that did not get through; the lease goes on. In the same
-- transaction the answer is counted.
-- name: answer
UPDATE verifications SET state = 'provisionally_verified', reasons = '', updated_at = :now
WHERE seq = :seq AND lease_token = :token AND state IN ('captured', 'matching')

-- The offline policy says why it does not answer. Whom it concerns is pending at once; a verdict may still come in time.
-- name: withhold
UPDATE verifications
SET state = CASE WHEN :pending THEN 'pending' ELSE state END, reasons = :reasons, updated_at = :now
WHERE seq = :seq AND lease_token = :token AND state IN ('captured', 'matching')

-- Set aside with its picture: only an audited `reopen` queues it again.
-- name: park
UPDATE verifications
SET state = 'failed', parked = 1, error_code = :code, error_detail = :error_detail, error_status = :status,
    lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq AND lease_token = :token
    AND state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- name: reopen
UPDATE verifications
SET state = 'pending', parked = 0, next_attempt_running_s = 0, updated_at = :now
WHERE seq = :seq AND state = 'failed' AND parked = 1

-- name: hurry
UPDATE verifications SET next_attempt_running_s = 0, updated_at = :now
WHERE seq = :seq AND next_attempt_running_s > 0
    AND state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- The picture is given up on purpose (offline policy deny).
-- name: destroy
UPDATE verifications
SET state = 'failed', error_code = :code, error_detail = :error_detail, error_status = NULL, image_bytes = 0,
    lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq AND state IN ('captured', 'matching', 'pending')

-- Retention ran out. Never while a forwarder holds it.
-- name: expire
UPDATE verifications SET state = 'expired', image_bytes = 0, updated_at = :now
WHERE seq = :seq AND lease_token IS NULL
    AND state IN ('captured', 'matching', 'pending', 'provisionally_verified')

-- A cap makes room. Never a live capture, never a leased one.
-- name: evict
UPDATE verifications SET state = 'evicted', image_bytes = 0, updated_at = :now
WHERE seq = :seq AND lease_token IS NULL AND state IN ('pending', 'provisionally_verified')

-- A parked capture loses its picture to retention or a cap; it stays failed.
-- name: unpark
UPDATE verifications SET parked = 0, image_bytes = 0, updated_at = :now
WHERE seq = :seq AND state = 'failed' AND parked = 1

-- Consent withdrawn, or the user is destroyed: nothing personal is left in the row. What ended keeps its end.
-- name: erase
UPDATE verifications
SET state = CASE WHEN state IN ('searching', 'captured', 'matching', 'pending', 'provisionally_verified')
        OR parked = 1 THEN 'deleted' ELSE state END,
    parked = 0, private = NULL, error_detail = NULL, image_sha256 = NULL, image_bytes = 0, image_name = NULL,
    similarity = NULL, matched_field = NULL, http_status = NULL, positive = NULL, reasons = '', erased = 1,
    lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq AND erased = 0

-- Salvage of a damaged outbox: what could not be saved is said in the row itself.

-- The picture, or the user's key to it, is gone.
-- name: lose_capture
UPDATE verifications
SET state = 'failed', parked = 0, error_code = 'capture_lost', error_detail = NULL, error_status = NULL,
    image_bytes = 0, lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq AND (parked = 1
    OR state IN ('searching', 'captured', 'matching', 'pending', 'provisionally_verified'))

-- The row is older than its last audit record, which says that it ended: it never goes back into the queue by itself.
-- name: lose_state
UPDATE verifications
SET state = 'failed', parked = :parked AND image_bytes > 0, error_code = 'state_lost', error_detail = NULL,
    error_status = NULL, image_bytes = CASE WHEN :parked THEN image_bytes ELSE 0 END,
    lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL, updated_at = :now
WHERE seq = :seq

-- What was sealed under a key that is gone can never be opened again.
-- name: lose_private
UPDATE verifications SET private = NULL, error_detail = NULL, updated_at = :now
WHERE seq = :seq AND (private IS NOT NULL OR error_detail IS NOT NULL)

-- An operator destroys a capture that waits or is parked, leased or not. Nothing personal is left in the row.
-- name: purge
UPDATE verifications
SET state = 'deleted', parked = 0, private = NULL, error_detail = NULL, image_sha256 = NULL, image_bytes = 0,
    image_name = NULL, erased = 1, lease_token = NULL, lease_instance = NULL, lease_until_running_s = NULL,
    updated_at = :now
WHERE seq = :seq AND (parked = 1 OR state IN ('captured', 'matching', 'pending', 'provisionally_verified'))
