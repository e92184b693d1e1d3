-- What people ask of devices, and what became of it. `parametros` and `detalle` are JSON.
CREATE TABLE comandos (
    id_comando BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_sensor  BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    comando    TEXT NOT NULL,
    parametros TEXT NOT NULL,
    estado     TEXT NOT NULL DEFAULT 'pendiente'
               CHECK (estado IN ('pendiente', 'enviado', 'respondido', 'expirado')),
    resultado  TEXT CHECK (resultado IN ('ok', 'error')),
    detalle    TEXT,
    creado_por TEXT NOT NULL,
    creado     BIGINT NOT NULL,
    expira     BIGINT NOT NULL,
    enviado    BIGINT,
    respondido BIGINT
);
CREATE INDEX comandos_sensor ON comandos (id_sensor, id_comando);
CREATE INDEX comandos_abiertos ON comandos (expira) WHERE estado IN ('pendiente', 'enviado');

-- The configuration that a device is to have; `entregada` is when it last acknowledged it.
CREATE TABLE configuraciones (
    id_sensor     BIGINT PRIMARY KEY REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    configuracion TEXT NOT NULL,
    cambiada_por  TEXT NOT NULL,
    cambiada      BIGINT NOT NULL,
    entregada     BIGINT
);
