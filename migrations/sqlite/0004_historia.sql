-- History by the hour, so that a long range costs what its hours cost. Hours are UTC and named by the
-- moment (as in 0001) at which they begin. See docs/decisions/0008-hours-are-recomputed.md.

-- What each variable of a sensor came to in an hour. `min_ts` and `max_ts` are the readings that had
-- those values.
CREATE TABLE lecturas_hora (
    id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    hora      BIGINT NOT NULL,
    variable  TEXT NOT NULL,
    n         BIGINT NOT NULL,
    min       DOUBLE NOT NULL,
    min_ts    BIGINT NOT NULL,
    max       DOUBLE NOT NULL,
    max_ts    BIGINT NOT NULL,
    suma      DOUBLE NOT NULL,
    PRIMARY KEY (id_sensor, hora, variable)
) WITHOUT ROWID;

-- How many readings (of whatever variables) an hour came to, and the bytes that they take in `lecturas`.
CREATE TABLE horas (
    id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    hora      BIGINT NOT NULL,
    n         BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    PRIMARY KEY (id_sensor, hora)
) WITHOUT ROWID;

-- Hours of which something was written since they were last summed. `tomada`: the task has begun to sum
-- it, and nothing was written since.
CREATE TABLE horas_pendientes (
    id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    hora      BIGINT NOT NULL,
    tomada    BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (id_sensor, hora)
) WITHOUT ROWID;
CREATE INDEX horas_pendientes_hora ON horas_pendientes (hora);

-- How far the history of a sensor has come; no row = nothing of it yet.
-- Readings before `purgada` have been added to their hours and removed.
-- Hours from `relleno_desde` to before `relleno_hasta` have never been summed (NULL = there are none).
-- `bytes` is what its summed readings and its hours take, to the estimate of `store::historia`.
CREATE TABLE historia (
    id_sensor     INTEGER PRIMARY KEY REFERENCES sensores (id_sensor) ON DELETE CASCADE,
    purgada       BIGINT NOT NULL DEFAULT 0,
    relleno_desde BIGINT NOT NULL DEFAULT 0,
    relleno_hasta BIGINT,
    bytes         BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX historia_relleno ON historia (id_sensor) WHERE relleno_hasta IS NOT NULL;

-- What is stored already, a row a sensor and not a reading: the task walks it afterwards.
INSERT INTO historia (id_sensor, relleno_hasta)
SELECT id_sensor, ts - ts % 3600000000 + 3600000000 FROM ultimas_lecturas;

-- How long an empresa's readings and hours are kept; NULL = as the configuration has it, which no
-- empresa exceeds.
ALTER TABLE empresas ADD COLUMN retencion_dias BIGINT CHECK (retencion_dias > 0);
ALTER TABLE empresas ADD COLUMN retencion_horas_dias BIGINT CHECK (retencion_horas_dias > 0);
