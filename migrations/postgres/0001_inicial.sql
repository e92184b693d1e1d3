-- The first schema, equal in meaning to SQLite's. Moments are BIGINT microseconds since the Unix epoch, UTC
-- (domain::Timestamp); JSON is TEXT. Names of constraints are what `store` turns into client errors.

CREATE TABLE empresas (
    id_empresa   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ruc          TEXT NOT NULL UNIQUE,
    razon_social TEXT NOT NULL,
    email        TEXT,
    telefono     TEXT,
    creada       BIGINT NOT NULL
);

-- Accounts of the built-in identity provider. `email` is stored lower-case.
CREATE TABLE identidades (
    user_id    TEXT PRIMARY KEY,
    email      TEXT NOT NULL UNIQUE,
    clave_hash TEXT NOT NULL,
    activa     BOOLEAN NOT NULL DEFAULT TRUE,
    creada     BIGINT NOT NULL
);

-- Refresh tokens, by SHA-256. One sign-in is one `familia`: using a token twice ends all of it.
CREATE TABLE refrescos (
    token_hash BYTEA PRIMARY KEY,
    familia    TEXT NOT NULL,
    user_id    TEXT NOT NULL REFERENCES identidades (user_id) ON DELETE CASCADE,
    emitido    BIGINT NOT NULL,
    expira     BIGINT NOT NULL,
    usado      BIGINT
);
CREATE INDEX refrescos_familia ON refrescos (familia);
CREATE INDEX refrescos_expira ON refrescos (expira);

-- People. `id_empresa` is NULL until an account joins one; `user_id` is the identity provider's.
CREATE TABLE trabajadores (
    id_trabajador      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id            TEXT NOT NULL UNIQUE,
    id_empresa         BIGINT REFERENCES empresas (id_empresa),
    nombre             TEXT NOT NULL,
    apellido           TEXT NOT NULL,
    dni                TEXT UNIQUE,
    email              TEXT NOT NULL,
    telefono           TEXT,
    rol                TEXT NOT NULL CHECK (rol IN ('operador', 'admin_empresa', 'supervisor', 'worker')),
    activo             BOOLEAN NOT NULL DEFAULT TRUE,
    fecha_contratacion BIGINT NOT NULL
);
CREATE INDEX trabajadores_empresa ON trabajadores (id_empresa);

-- Devices. `credencial` is SHA-256 of the token; NULL = revoked or never issued, told apart by
-- `credencial_emitida`.
CREATE TABLE sensores (
    id_sensor          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_empresa         BIGINT NOT NULL REFERENCES empresas (id_empresa),
    device_id          TEXT NOT NULL UNIQUE,
    nombre             TEXT NOT NULL,
    tipo               TEXT NOT NULL,
    id_cultivo         BIGINT,
    estado             TEXT NOT NULL DEFAULT 'activo' CHECK (estado IN ('activo', 'inactivo', 'mantenimiento')),
    intervalo_lectura  BIGINT NOT NULL DEFAULT 300,
    ubicacion_sensor   TEXT,
    coordenadas_lat    DOUBLE PRECISION,
    coordenadas_lng    DOUBLE PRECISION,
    fecha_instalacion  BIGINT NOT NULL,
    credencial         BYTEA,
    credencial_emitida BIGINT
);
CREATE INDEX sensores_empresa ON sensores (id_empresa, id_sensor);

-- Which worker sees which sensor.
CREATE TABLE asignaciones (
    id_asignacion BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_trabajador BIGINT NOT NULL REFERENCES trabajadores (id_trabajador) ON DELETE CASCADE,
    id_sensor     BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    desde         BIGINT NOT NULL,
    hasta         BIGINT
);
CREATE UNIQUE INDEX asignaciones_activa ON asignaciones (id_trabajador, id_sensor) WHERE hasta IS NULL;
CREATE INDEX asignaciones_sensor ON asignaciones (id_sensor);

-- One row a message; `valores` is its JSON object of numbers. One partition a month (`store::postgres::particiones`),
-- made before it is needed; there is no default partition (docs/decisions/0007).
CREATE TABLE lecturas (
    id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    ts        BIGINT NOT NULL,
    valores   TEXT NOT NULL,
    PRIMARY KEY (id_sensor, ts)
) PARTITION BY RANGE (ts);

-- The newest moment of each sensor and the newest value of each of its variables.
CREATE TABLE ultimas_lecturas (
    id_sensor BIGINT PRIMARY KEY REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    ts        BIGINT NOT NULL,
    valores   TEXT NOT NULL
);

CREATE TABLE lecturas_rechazadas (
    id_rechazo BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_sensor  BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    recibida   BIGINT NOT NULL,
    ts         BIGINT,
    motivo     TEXT NOT NULL,
    variable   TEXT,
    contenido  TEXT NOT NULL
);
CREATE INDEX lecturas_rechazadas_sensor ON lecturas_rechazadas (id_sensor, id_rechazo);
CREATE INDEX lecturas_rechazadas_recibida ON lecturas_rechazadas (recibida);

-- The empresa's own bounds; a variable without a row has the default of `alertas::umbrales`.
CREATE TABLE umbrales (
    id_empresa BIGINT NOT NULL REFERENCES empresas (id_empresa) ON DELETE CASCADE,
    variable   TEXT NOT NULL,
    minimo     DOUBLE PRECISION NOT NULL,
    maximo     DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id_empresa, variable),
    CONSTRAINT umbrales_orden CHECK (minimo < maximo)
);

-- `dentro` counts readings back inside since the last one outside: three close an open alert.
CREATE TABLE alertas (
    id_alerta        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_empresa       BIGINT NOT NULL REFERENCES empresas (id_empresa),
    id_sensor        BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    tipo_alerta      TEXT NOT NULL,
    severidad        TEXT NOT NULL CHECK (severidad IN ('baja', 'media', 'alta', 'critica')),
    titulo           TEXT NOT NULL,
    mensaje          TEXT NOT NULL,
    valor_actual     DOUBLE PRECISION,
    valor_umbral     DOUBLE PRECISION,
    unidad           TEXT NOT NULL,
    estado           TEXT NOT NULL CHECK (estado IN ('pendiente', 'en_proceso', 'resuelta', 'ignorada')),
    vista            BOOLEAN NOT NULL DEFAULT FALSE,
    historica        BOOLEAN NOT NULL DEFAULT FALSE,
    dentro           BIGINT NOT NULL DEFAULT 0,
    fecha_creacion   BIGINT NOT NULL,
    fecha_resolucion BIGINT,
    resuelta_por     TEXT,
    notas            TEXT
);
CREATE UNIQUE INDEX alertas_abierta ON alertas (id_sensor, tipo_alerta) WHERE estado IN ('pendiente', 'en_proceso');
CREATE INDEX alertas_empresa ON alertas (id_empresa, id_alerta);
CREATE INDEX alertas_empresa_estado ON alertas (id_empresa, estado, id_alerta);
CREATE INDEX alertas_sensor ON alertas (id_sensor, id_alerta);
