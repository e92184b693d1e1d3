-- The second factor of an account (RFC 6238), one at most; it counts once a first code has confirmed it.
CREATE TABLE totp (
    user_id    TEXT PRIMARY KEY REFERENCES identidades (user_id) ON DELETE CASCADE,
    id_factor  TEXT NOT NULL,
    nombre     TEXT NOT NULL,
    -- Sealed with a key that is not in the database.
    secreto    BLOB NOT NULL,
    creado     BIGINT NOT NULL,
    confirmado BIGINT,
    -- The latest time step of which a code was taken: none is good twice.
    paso       BIGINT NOT NULL DEFAULT 0
);

-- For whoever has lost the device: codes by SHA-256, each good once.
CREATE TABLE codigos_totp (
    user_id     TEXT NOT NULL REFERENCES totp (user_id) ON DELETE CASCADE,
    codigo_hash BLOB NOT NULL,
    PRIMARY KEY (user_id, codigo_hash)
);

-- Whether a sign-in showed the second factor.
ALTER TABLE sesiones ADD COLUMN segundo BOOLEAN NOT NULL DEFAULT FALSE;
