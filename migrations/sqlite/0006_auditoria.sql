-- Who changed what, from where, and how it was before; written in the transaction of the change. No foreign
-- keys: it outlives what it speaks of. `antes` and `despues` are JSON, without secrets.
CREATE TABLE auditoria (
    id_auditoria INTEGER PRIMARY KEY AUTOINCREMENT,
    id_empresa   BIGINT,
    momento      BIGINT NOT NULL,
    user_id      TEXT NOT NULL,
    accion       TEXT NOT NULL,
    objeto       TEXT NOT NULL,
    id_objeto    TEXT NOT NULL,
    antes        TEXT,
    despues      TEXT,
    origen       TEXT NOT NULL,
    peticion     TEXT
);
CREATE INDEX auditoria_empresa ON auditoria (id_empresa, id_auditoria);
CREATE INDEX auditoria_objeto ON auditoria (id_empresa, objeto, id_objeto, id_auditoria);
CREATE INDEX auditoria_momento ON auditoria (momento);

-- Requests that carried an Idempotency-Key, and what they were answered: NULL until they are. `clave` is the
-- key's SHA-256, `huella` that of the body, `respuesta` is sealed with a key that is not in the database.
CREATE TABLE idempotencia (
    principal TEXT NOT NULL,
    ruta      TEXT NOT NULL,
    clave     BLOB NOT NULL,
    huella    BLOB NOT NULL,
    momento   BIGINT NOT NULL,
    estado    BIGINT,
    respuesta BLOB,
    PRIMARY KEY (principal, ruta, clave)
) WITHOUT ROWID;
CREATE INDEX idempotencia_momento ON idempotencia (momento);
CREATE INDEX idempotencia_principal ON idempotencia (principal, momento);
