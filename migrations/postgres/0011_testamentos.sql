-- Wills of clients, from the moment that they are let in until they take leave or the will is sent: a server that
-- ends in between sends them when it is back. `conexion` numbers the connections, as in `mqtt_sesiones`; `vigencia` is
-- how long the message is good once it is sent, in microseconds; `espera` its delay in seconds; `cuando` the moment at
-- which it is to be sent, NULL while its owner is connected. A connection that is taken over leaves its own behind, beside
-- that of the next one, until it is sent.
CREATE TABLE mqtt_testamentos (
    principal   TEXT NOT NULL,
    client_id   TEXT NOT NULL,
    conexion    BIGINT NOT NULL,
    topic       TEXT NOT NULL,
    payload     BYTEA NOT NULL,
    qos         BIGINT NOT NULL,
    retain      BOOLEAN NOT NULL,
    vigencia    BIGINT,
    propiedades BYTEA NOT NULL,
    espera      BIGINT NOT NULL,
    cuando      BIGINT,
    PRIMARY KEY (principal, client_id, conexion)
);

-- What is retained of a device names it from now on by its key too: its name may be another's one day. What nobody can
-- be sure of any more goes; a configuration is given again from `configuraciones`.
DELETE FROM mqtt_retenidos WHERE topic LIKE 'sensores/%/config';
UPDATE mqtt_retenidos SET id_sensor = (
    SELECT s.id_sensor FROM sensores s WHERE s.device_id = substr(mqtt_retenidos.topic, 10, length(mqtt_retenidos.topic) - 16)
) WHERE topic LIKE 'sensores/%/estado';
DELETE FROM mqtt_retenidos WHERE topic LIKE 'sensores/%/estado' AND id_sensor IS NULL;
