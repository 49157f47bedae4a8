-- The outbox, schema version 3. A change of this file needs a new version and a step in migrations.py.
--
-- Rules that hold for every table:
--   * what changes is small: pictures live in `payloads`, which is only inserted into and deleted from;
--   * every row that the program believes is authenticated: AEAD for blobs, `mac` (HMAC-SHA-256 over table name and
--     all other columns) for the rest. `lanes`, `payload_totals` and `state_counts` are derived and
--     rebuilt at every start;
--   * `*_running_s` is the running clock: seconds of device uptime summed over boots. It never goes back;
--   * times of the wall clock are ISO 8601 UTC text with microseconds, for people and for `synchronised` pairs only;
--   * raw user ids, references, amounts, consent and server messages are sealed under the user's key.

-- Facts about this store. `store_id` and `machine`, `clock` (the running clock as of the last tick).
-- `store_id` is the HKDF salt of every key, so a changed one shows as a wrong key; the others carry a mac.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    mac   BLOB
) STRICT, WITHOUT ROWID;

-- Which device keys can open this store: the key check values. Rotation adds a generation and, once every
-- row is re-wrapped, removes the previous one.
CREATE TABLE device_keys (
    generation INTEGER PRIMARY KEY,
    check_value BLOB NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

-- Random keys of the store, sealed under a device key: `lookup` (user ids and idempotency keys; never rotated),
-- `row` (macs of rows), `audit` (the chain). Old generations stay readable after a rotation.
CREATE TABLE secrets (
    name           TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    key_generation INTEGER NOT NULL REFERENCES device_keys (generation),
    sealed         BLOB NOT NULL,
    PRIMARY KEY (name, generation)
) STRICT, WITHOUT ROWID;

-- One row per user with anything left to decrypt. Erasing a user starts here: without `wrapped_key` nothing
-- of the user can be read again.
CREATE TABLE users (
    user_hmac      BLOB PRIMARY KEY,
    key_generation INTEGER NOT NULL REFERENCES device_keys (generation),
    wrapped_key    BLOB NOT NULL,
    user_id        BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The state rows: small, changed by the statements of transitions.sql and nowhere else.
CREATE TABLE verifications (
    seq                    INTEGER PRIMARY KEY AUTOINCREMENT,
    id                     TEXT NOT NULL UNIQUE,
    user_hmac              BLOB NOT NULL,
    caller                 TEXT NOT NULL,
    environment            TEXT NOT NULL,          -- merchant id, space, base URL
    state                  TEXT NOT NULL CHECK (state IN (
        'searching', 'captured', 'matching', 'pending', 'provisionally_verified', 'verified', 'not_verified',
        'rejected', 'cancelled', 'expired', 'evicted', 'deleted', 'failed')),
    created_at             TEXT NOT NULL,
    created_synchronised   INTEGER NOT NULL,
    created_boot_id        TEXT NOT NULL,
    created_boottime_s     REAL NOT NULL,
    created_running_s      REAL NOT NULL,
    search_timeout_s       REAL NOT NULL,
    verdict_timeout_s      REAL NOT NULL,
    private                BLOB,                   -- sealed JSON: reference, amount, currency, consent
    captured_at            TEXT,
    deadline_boot_id       TEXT,
    deadline_boottime_s    REAL,
    image_sha256           TEXT,                   -- of the stored picture
    image_bytes            INTEGER NOT NULL DEFAULT 0,  -- > 0 exactly while a payload row exists
    reasons                TEXT NOT NULL DEFAULT '',    -- gate codes, space between
    error_code             TEXT,
    error_detail           BLOB,                   -- sealed text; a server's message may name the user
    error_status           INTEGER,
    parked                 INTEGER NOT NULL DEFAULT 0,
    -- the verdict and its evidence
    positive               INTEGER,
    similarity             REAL,
    matched_field          TEXT,
    http_status            INTEGER,
    image_name             TEXT,
    verdict_at             TEXT,
    verdict_boot_id        TEXT,
    verdict_boottime_s     REAL,
    late                   INTEGER NOT NULL DEFAULT 0,
    contradicted           INTEGER NOT NULL DEFAULT 0,
    erased                 INTEGER NOT NULL DEFAULT 0,
    -- forwarding
    attempts               INTEGER NOT NULL DEFAULT 0,  -- leases taken
    transients             INTEGER NOT NULL DEFAULT 0,  -- network failures in a row
    conflicts              INTEGER NOT NULL DEFAULT 0,  -- answers out of step, in all
    next_attempt_running_s REAL NOT NULL DEFAULT 0,
    lease_token            TEXT,
    lease_instance         TEXT,
    lease_until_running_s  REAL,
    updated_at             TEXT NOT NULL,
    audit_seq              INTEGER NOT NULL,       -- the last audit record about this row
    mac_generation         INTEGER NOT NULL,
    mac                    BLOB NOT NULL
) STRICT;

CREATE INDEX verifications_by_state ON verifications (state, seq);
CREATE INDEX verifications_by_caller ON verifications (caller, seq);
-- The head of a user's lane: the live capture first, then the oldest.
CREATE INDEX verifications_by_lane
    ON verifications (user_hmac, environment, (state IN ('captured', 'matching')) DESC, seq)
    WHERE state IN ('captured', 'matching', 'pending', 'provisionally_verified');
CREATE INDEX verifications_by_user ON verifications (user_hmac, erased, state);
CREATE UNIQUE INDEX one_lease_per_user ON verifications (user_hmac) WHERE lease_token IS NOT NULL;
CREATE INDEX verifications_with_picture
    ON verifications (seq, created_running_s, created_synchronised, created_boot_id, created_at)
    WHERE image_bytes > 0;

-- The pictures. Insert and delete only. `row_key` is wrapped by the user's key and opens `picture`.
CREATE TABLE payloads (
    seq     INTEGER PRIMARY KEY REFERENCES verifications (seq),
    row_key BLOB NOT NULL,
    bytes   INTEGER NOT NULL,
    picture BLOB NOT NULL
) STRICT;

-- Derived: how much is stored, without counting it again for every capture.
CREATE TABLE payload_totals (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO payload_totals VALUES (1, 0, 0);
CREATE TRIGGER payload_stored AFTER INSERT ON payloads BEGIN
    UPDATE payload_totals SET items = items + 1, bytes = bytes + new.bytes;
END;
CREATE TRIGGER payload_removed AFTER DELETE ON payloads BEGIN
    UPDATE payload_totals SET items = items - 1, bytes = bytes - old.bytes;
END;
CREATE TRIGGER payloads_never_change BEFORE UPDATE ON payloads BEGIN
    SELECT RAISE(ABORT, 'payloads are only inserted and deleted');
END;

-- Derived: one row per user and environment with captures to forward; claiming looks here, so it costs the same
-- with ten captures queued as with a hundred thousand.
CREATE TABLE lanes (
    user_hmac       BLOB NOT NULL,
    environment     TEXT NOT NULL,
    head_seq        INTEGER NOT NULL,
    live            INTEGER NOT NULL,
    ready_running_s REAL NOT NULL,                 -- 0 = ready; set to it when that time has come
    PRIMARY KEY (user_hmac, environment)
) STRICT, WITHOUT ROWID;
-- The ready ones in the order of their turn, then the waiting ones in the order of their time.
CREATE INDEX lanes_in_order ON lanes (environment, ready_running_s, live DESC, head_seq);

-- PUTs whose outcome is not known (yet): while `until_running_s` lies ahead, no *other* capture of that user
-- may be matched. Outlives the deletion of the user.
CREATE TABLE upload_marks (
    image_name      TEXT PRIMARY KEY,
    user_hmac       BLOB NOT NULL,
    verification_id TEXT NOT NULL,
    lease_token     TEXT,                          -- the attempt in progress; NULL once it ended without an outcome
    until_running_s REAL NOT NULL,
    mac_generation  INTEGER NOT NULL,
    mac             BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_marks_by_user ON upload_marks (user_hmac);

-- Idempotency keys: HMAC over caller and key, HMAC over the body. A row is the tombstone that outlives retention
-- and deletion.
CREATE TABLE idempotency (
    key_hmac             BLOB PRIMARY KEY,
    body_hmac            BLOB NOT NULL,
    verification_id      TEXT NOT NULL,
    created_at           TEXT NOT NULL,
    created_synchronised INTEGER NOT NULL,
    created_boot_id      TEXT NOT NULL,
    created_running_s    REAL NOT NULL,
    mac_generation       INTEGER NOT NULL,
    mac                  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Spoof and not_verified outcomes, for the lock-out. Late ones count against the user, not the terminal.
CREATE TABLE failures (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    user_hmac      BLOB NOT NULL,
    kind           TEXT NOT NULL,
    terminal       INTEGER NOT NULL,
    at_running_s   REAL NOT NULL,
    mac_generation INTEGER NOT NULL,
    mac            BLOB NOT NULL
) STRICT;
CREATE INDEX failures_by_time ON failures (at_running_s);

-- Destructions of users that began (the user's key is gone) and are not finished; resumed at the start.
CREATE TABLE erasures (
    user_hmac BLOB PRIMARY KEY,
    audit_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The audit chain: mac = HMAC(audit key, previous mac, all columns). Written in the transaction of what it tells.
CREATE TABLE audit (
    seq             INTEGER PRIMARY KEY,
    at              TEXT NOT NULL,
    synchronised    INTEGER NOT NULL,
    boot_id         TEXT NOT NULL,
    boottime_s      REAL NOT NULL,
    running_s       REAL NOT NULL,
    instance_id     TEXT NOT NULL,
    event           TEXT NOT NULL,
    verification_id TEXT,
    user_hmac       BLOB,
    from_state      TEXT,
    to_state        TEXT,
    detail          TEXT NOT NULL,                 -- JSON; never pixels, raw user ids, tokens, server messages
    key_generation  INTEGER NOT NULL,
    mac             BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_verification ON audit (verification_id, seq);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- Where the chain begins after pruning or salvage: the mac of the last record that is gone, signed.
CREATE TABLE audit_anchors (
    seq            INTEGER PRIMARY KEY,            -- of the last record that is gone
    chain_mac      BLOB NOT NULL,                  -- its mac
    reason         TEXT NOT NULL,
    at             TEXT NOT NULL,
    key_generation INTEGER NOT NULL,
    mac            BLOB NOT NULL
) STRICT;

-- Derived: how many verifications are in each state, without walking them for every look at the status.
CREATE TABLE state_counts (
    state  TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER verification_counted AFTER INSERT ON verifications BEGIN
    INSERT INTO state_counts VALUES (new.state, 1) ON CONFLICT (state) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER verification_recounted AFTER UPDATE OF state ON verifications WHEN new.state <> old.state BEGIN
    UPDATE state_counts SET number = number - 1 WHERE state = old.state;
    INSERT INTO state_counts VALUES (new.state, 1) ON CONFLICT (state) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER verification_uncounted AFTER DELETE ON verifications BEGIN
    UPDATE state_counts SET number = number - 1 WHERE state = old.state;
END;

-- Face templates for the offline policy `provisional`, each from a capture that CypherFace confirmed. Insert and delete
-- only. `embedding` (float32, little-endian) is sealed under the user's key. A salvage leaves them behind: they come
-- back with the next confirmation, and what was destroyed must not come back with them.
CREATE TABLE templates (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    user_hmac       BLOB NOT NULL,
    verification_id TEXT NOT NULL UNIQUE,          -- of the capture
    environment     TEXT NOT NULL,                 -- whose CypherFace confirmed it
    model           TEXT NOT NULL,                 -- which embedder made it, with its version
    quality         REAL NOT NULL,                 -- 0-1
    made_at         TEXT NOT NULL,
    made_boot_id    TEXT NOT NULL,
    made_running_s  REAL NOT NULL,
    embedding       BLOB NOT NULL,
    mac_generation  INTEGER NOT NULL,
    mac             BLOB NOT NULL
) STRICT;
CREATE INDEX templates_by_user ON templates (user_hmac);
CREATE TRIGGER templates_are_not_rewritten BEFORE UPDATE OF id, user_hmac, verification_id, embedding ON templates BEGIN
    SELECT RAISE(ABORT, 'templates are only inserted and deleted');
END;

-- Provisional answers, for the limit per user and day. Committed with the answer; outlives the deletion of the user.
CREATE TABLE provisional_answers (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    user_hmac       BLOB NOT NULL,
    verification_id TEXT NOT NULL,
    at_boot_id      TEXT NOT NULL,
    at_running_s    REAL NOT NULL,
    mac_generation  INTEGER NOT NULL,
    mac             BLOB NOT NULL
) STRICT;
CREATE INDEX provisional_answers_by_user ON provisional_answers (user_hmac);

-- Users who get no provisional answer until CypherFace confirms them again, in time. Outlives the user's deletion.
CREATE TABLE provisional_blocks (
    user_hmac       BLOB PRIMARY KEY,
    why             TEXT NOT NULL,                 -- contradicted, not_verified, unconfirmed
    verification_id TEXT NOT NULL,
    at              TEXT NOT NULL,
    mac_generation  INTEGER NOT NULL,
    mac             BLOB NOT NULL
) STRICT, WITHOUT ROWID;
