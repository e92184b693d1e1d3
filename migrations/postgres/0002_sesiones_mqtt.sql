-- What the broker keeps: sessions that outlive their connection, what waits for them, retained
-- messages. Moments and JSON as in 0001. Keys are given by the broker, which is the only writer.

-- `principal`: `d:` and a device's id_sensor, `u:` and a user_id, or `a:`. `expira` is NULL while
-- somebody is connected, and so after a crash; `expiry` is in seconds from the end of the connection;
-- `conexion` numbers the connections, so that the end of an old one says nothing of a new one.
CREATE TABLE mqtt_sesiones (
    id_sesion BIGINT PRIMARY KEY,
    principal TEXT NOT NULL,
    client_id TEXT NOT NULL,
    expiry    BIGINT NOT NULL,
    expira    BIGINT,
    conexion  BIGINT NOT NULL,
    UNIQUE (principal, client_id)
);

CREATE TABLE mqtt_suscripciones (
    id_sesion       BIGINT NOT NULL REFERENCES mqtt_sesiones (id_sesion) ON DELETE CASCADE,
    filtro          TEXT NOT NULL,
    qos             BIGINT NOT NULL,
    no_local        BOOLEAN NOT NULL,
    rap             BOOLEAN NOT NULL,
    retain_handling BIGINT NOT NULL,
    identificador   BIGINT,
    PRIMARY KEY (id_sesion, filtro)
);

-- Deliveries that are not completed, in order of `seq`. `estado`: 0 waits, 1 was sent, 2 was received
-- (PUBREC). `propiedades` are MQTT 5 properties as they stand in a packet; `identificadores` a JSON
-- array of subscription identifiers; `grupo` the shared subscription that it came by.
CREATE TABLE mqtt_cola (
    id_sesion       BIGINT NOT NULL REFERENCES mqtt_sesiones (id_sesion) ON DELETE CASCADE,
    seq             BIGINT NOT NULL,
    topic           TEXT NOT NULL,
    payload         BYTEA NOT NULL,
    qos             BIGINT NOT NULL,
    retain          BOOLEAN NOT NULL,
    expira          BIGINT,
    propiedades     BYTEA NOT NULL,
    identificadores TEXT NOT NULL,
    id_sensor       BIGINT,
    grupo           TEXT,
    estado          BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (id_sesion, seq)
);

-- Packet ids of QoS 2 messages that were received and not released: their repetition is no message.
CREATE TABLE mqtt_recibidos (
    id_sesion BIGINT NOT NULL REFERENCES mqtt_sesiones (id_sesion) ON DELETE CASCADE,
    pid       BIGINT NOT NULL,
    PRIMARY KEY (id_sesion, pid)
);

CREATE TABLE mqtt_retenidos (
    topic       TEXT PRIMARY KEY,
    payload     BYTEA NOT NULL,
    qos         BIGINT NOT NULL,
    expira      BIGINT,
    propiedades BYTEA NOT NULL,
    id_sensor   BIGINT
);
