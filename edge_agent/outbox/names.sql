-- What names.py opens. Only columns that every schema version has.

-- name: users
SELECT user_hmac, key_generation, wrapped_key, user_id FROM users

-- name: private_details
SELECT id, user_hmac, private FROM verifications WHERE private IS NOT NULL AND erased = 0
