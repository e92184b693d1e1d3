-- When an account's e-mail was confirmed; NULL = not yet.
ALTER TABLE identidades ADD COLUMN confirmada BIGINT;
UPDATE identidades SET confirmada = creada;

CREATE INDEX trabajadores_email ON trabajadores (email);

-- Registrations under way with an identity provider that is another server: what was made there is removed
-- when the rest did not follow. `user_id` is NULL until that server has answered.
CREATE TABLE altas (
    id_alta  TEXT PRIMARY KEY,
    email    TEXT NOT NULL,
    user_id  TEXT,
    creada   BIGINT NOT NULL,
    deshacer BOOLEAN NOT NULL DEFAULT FALSE
);

-- What a front end keeps beside an account, and what only the installation may: JSON objects.
ALTER TABLE identidades ADD COLUMN datos TEXT NOT NULL DEFAULT '{}';
ALTER TABLE identidades ADD COLUMN datos_app TEXT NOT NULL DEFAULT '{}';

-- Codes that were sent by mail, by SHA-256: good once, for one purpose.
CREATE TABLE codigos (
    codigo_hash BLOB PRIMARY KEY,
    user_id     TEXT NOT NULL REFERENCES identidades (user_id) ON DELETE CASCADE,
    para        TEXT NOT NULL CHECK (para IN ('confirmar', 'recuperar')),
    expira      BIGINT NOT NULL
);
CREATE INDEX codigos_user_id ON codigos (user_id);
CREATE INDEX codigos_expira ON codigos (expira);

-- Sign-ins that are open: a row for each `familia` of `refrescos`.
CREATE TABLE sesiones (
    familia TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES identidades (user_id) ON DELETE CASCADE,
    creada  BIGINT NOT NULL,
    usada   BIGINT NOT NULL,
    expira  BIGINT NOT NULL,
    de      TEXT NOT NULL
);
CREATE INDEX sesiones_user_id ON sesiones (user_id);
CREATE INDEX sesiones_expira ON sesiones (expira);
INSERT INTO sesiones (familia, user_id, creada, usada, expira, de)
    SELECT familia, MIN(user_id), MIN(emitido), MAX(emitido), MAX(expira), '?' FROM refrescos GROUP BY familia;
