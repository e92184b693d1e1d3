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
