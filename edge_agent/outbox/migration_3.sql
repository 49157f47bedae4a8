-- Version 2 to 3: face templates, provisional answers and whom they are withheld from. Nothing that was there is touched.
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
