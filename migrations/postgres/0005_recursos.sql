-- What people make of a site: invitations, crops, bounds of a crop or of one sensor, keys of integrations.

-- Codes by which an account joins an empresa; by SHA-256, good once.
CREATE TABLE invitaciones (
    id_invitacion BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_empresa    BIGINT NOT NULL REFERENCES empresas (id_empresa) ON DELETE CASCADE,
    codigo_hash   BYTEA NOT NULL UNIQUE,
    rol           TEXT NOT NULL CHECK (rol IN ('admin_empresa', 'supervisor', 'worker')),
    creada_por    TEXT NOT NULL,
    creada        BIGINT NOT NULL,
    expira        BIGINT NOT NULL,
    usada         BIGINT,
    usada_por     TEXT,
    revocada      BIGINT
);
CREATE INDEX invitaciones_empresa ON invitaciones (id_empresa, id_invitacion);

-- The last sign-in or refresh of a person.
ALTER TABLE trabajadores ADD COLUMN ultimo_acceso BIGINT;

-- Whose assignment it is stands beside it, so that an empresa's list is found by key.
ALTER TABLE asignaciones ADD COLUMN id_empresa BIGINT NOT NULL DEFAULT 0;
UPDATE asignaciones SET id_empresa =
    (SELECT s.id_empresa FROM sensores s WHERE s.id_sensor = asignaciones.id_sensor);
CREATE INDEX asignaciones_empresa ON asignaciones (id_empresa, id_asignacion);
CREATE INDEX asignaciones_vigentes ON asignaciones (id_empresa, id_asignacion) WHERE hasta IS NULL;
CREATE INDEX asignaciones_trabajador ON asignaciones (id_trabajador, id_asignacion);

CREATE TABLE cultivos (
    id_cultivo             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_empresa             BIGINT NOT NULL REFERENCES empresas (id_empresa) ON DELETE CASCADE,
    tipo_cultivo           TEXT NOT NULL,
    variedad               TEXT,
    hectareas              DOUBLE PRECISION,
    fecha_siembra          BIGINT,
    fecha_estimada_cosecha BIGINT,
    estado                 TEXT NOT NULL,
    ubicacion_especifica   TEXT,
    coordenadas_lat        DOUBLE PRECISION,
    coordenadas_lng        DOUBLE PRECISION,
    creado                 BIGINT NOT NULL
);
CREATE INDEX cultivos_empresa ON cultivos (id_empresa, id_cultivo);

-- There was no crop that a sensor could have stood in; what was written there would be somebody else's.
UPDATE sensores SET id_cultivo = NULL WHERE id_cultivo IS NOT NULL;
CREATE INDEX sensores_cultivo ON sensores (id_cultivo) WHERE id_cultivo IS NOT NULL;
CREATE INDEX sensores_lugar ON sensores (id_empresa, ubicacion_sensor, id_sensor);
CREATE INDEX sensores_estado ON sensores (id_empresa, estado, id_sensor);
CREATE INDEX sensores_en_uso ON sensores (id_empresa, id_sensor) WHERE estado <> 'inactivo';

-- Bounds in place of the empresa's (`umbrales`): those of a crop, and before them those of one sensor.
CREATE TABLE umbrales_cultivo (
    id_cultivo BIGINT NOT NULL REFERENCES cultivos (id_cultivo) ON DELETE CASCADE,
    variable   TEXT NOT NULL,
    minimo     DOUBLE PRECISION NOT NULL,
    maximo     DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id_cultivo, variable),
    CONSTRAINT umbrales_cultivo_orden CHECK (minimo < maximo)
);
CREATE TABLE umbrales_sensor (
    id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    variable  TEXT NOT NULL,
    minimo    DOUBLE PRECISION NOT NULL,
    maximo    DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id_sensor, variable),
    CONSTRAINT umbrales_sensor_orden CHECK (minimo < maximo)
);

-- One for each filter of the list, so that a page and the count of what is behind it come from an index.
CREATE INDEX alertas_severidad ON alertas (id_empresa, severidad, estado, id_alerta);
CREATE INDEX alertas_tipo ON alertas (id_empresa, tipo_alerta, estado, id_alerta);
CREATE INDEX alertas_fecha ON alertas (id_empresa, estado, fecha_creacion, id_alerta);
CREATE INDEX alertas_abiertas ON alertas (id_empresa, id_alerta) WHERE estado IN ('pendiente', 'en_proceso');

-- Keys of programs, by SHA-256. `permisos` are names separated by spaces.
CREATE TABLE api_keys (
    id_api_key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_empresa BIGINT NOT NULL REFERENCES empresas (id_empresa) ON DELETE CASCADE,
    nombre     TEXT NOT NULL,
    prefijo    TEXT NOT NULL,
    clave_hash BYTEA NOT NULL UNIQUE,
    permisos   TEXT NOT NULL,
    creada_por TEXT NOT NULL,
    creada     BIGINT NOT NULL,
    expira     BIGINT,
    revocada   BIGINT
);
CREATE INDEX api_keys_empresa ON api_keys (id_empresa, id_api_key);
