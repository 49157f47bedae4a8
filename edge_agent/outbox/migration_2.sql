-- Version 1 to 2: how many verifications are in each state is counted as they change, and the lanes (derived, rebuilt at
-- the start) are found in another order. Nothing else that was there is touched.
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
INSERT INTO state_counts (state, number) SELECT state, count(*) FROM verifications GROUP BY state;
DROP INDEX lanes_in_order;
DROP INDEX lanes_by_time;
CREATE INDEX lanes_in_order ON lanes (environment, ready_running_s, live DESC, head_seq);
