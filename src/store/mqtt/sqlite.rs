//! The bulk statements of SQLite: the rows travel as one JSON text, as in `lecturas`; payloads in
//! hexadecimal, since JSON has no bytes (<https://www.sqlite.org/lang_corefunc.html#unhex>).

use std::fmt::Write as _;

use serde::Serialize;
use sqlx::{AssertSqlSafe, Sqlite, Transaction};

use super::{Encolada, Error, Result, Retenido, Suscripcion};

type SqliteTx = Transaction<'static, Sqlite>;

pub(super) async fn enqueue(tx: &mut SqliteTx, filas: &[&Encolada]) -> Result<()> {
    let columnas = |e: &&Encolada| {
        let c = &e.contenido;
        (
            e.id_sesion,
            e.seq,
            c.topic.clone(),
            hex(&c.payload),
            e.qos,
            e.retain,
            c.expira.map(crate::domain::Timestamp::micros),
            hex(&c.propiedades),
            serde_json::to_string(&e.identificadores).unwrap_or_default(),
            c.id_sensor,
            e.grupo.clone(),
        )
    };
    let filas: Vec<_> = filas.iter().map(columnas).collect();
    run(
        tx,
        "INSERT INTO mqtt_cola (id_sesion, seq, topic, payload, qos, retain, expira, propiedades, identificadores, \
         id_sensor, grupo) \
         SELECT value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3), value ->> 4, value ->> 5, value ->> 6, \
         unhex(value ->> 7), value ->> 8, value ->> 9, value ->> 10 FROM json_each($1) \
         WHERE EXISTS (SELECT 1 FROM mqtt_sesiones s WHERE s.id_sesion = value ->> 0) \
         ON CONFLICT (id_sesion, seq) DO NOTHING",
        &filas,
    )
    .await
}

pub(super) async fn receive(tx: &mut SqliteTx, filas: &[(i64, i64)]) -> Result<()> {
    // CROSS JOIN fixes the order: one lookup by primary key for each row asked for.
    run(
        tx,
        "UPDATE mqtt_cola SET estado = 2 WHERE rowid IN (SELECT c.rowid FROM json_each($1) j CROSS JOIN mqtt_cola c \
         WHERE c.id_sesion = j.value ->> 0 AND c.seq = j.value ->> 1)",
        filas,
    )
    .await
}

pub(super) async fn complete(tx: &mut SqliteTx, filas: &[(i64, i64)]) -> Result<()> {
    run(
        tx,
        "DELETE FROM mqtt_cola WHERE rowid IN (SELECT c.rowid FROM json_each($1) j CROSS JOIN mqtt_cola c \
         WHERE c.id_sesion = j.value ->> 0 AND c.seq = j.value ->> 1)",
        filas,
    )
    .await
}

pub(super) async fn take(tx: &mut SqliteTx, filas: &[(i64, i64)]) -> Result<()> {
    run(
        tx,
        "INSERT INTO mqtt_recibidos (id_sesion, pid) SELECT value ->> 0, value ->> 1 FROM json_each($1) \
         WHERE EXISTS (SELECT 1 FROM mqtt_sesiones s WHERE s.id_sesion = value ->> 0) \
         ON CONFLICT (id_sesion, pid) DO NOTHING",
        filas,
    )
    .await
}

pub(super) async fn release(tx: &mut SqliteTx, filas: &[(i64, i64)]) -> Result<()> {
    run(
        tx,
        "DELETE FROM mqtt_recibidos WHERE rowid IN (SELECT r.rowid FROM json_each($1) j CROSS JOIN mqtt_recibidos r \
         WHERE r.id_sesion = j.value ->> 0 AND r.pid = j.value ->> 1)",
        filas,
    )
    .await
}

pub(super) async fn retain(tx: &mut SqliteTx, filas: &[&Retenido]) -> Result<()> {
    let columnas = |r: &&Retenido| {
        let c = &r.contenido;
        let expira = c.expira.map(crate::domain::Timestamp::micros);
        (c.topic.clone(), hex(&c.payload), r.qos, expira, hex(&c.propiedades), c.id_sensor)
    };
    let filas: Vec<_> = filas.iter().map(columnas).collect();
    run(
        tx,
        "INSERT INTO mqtt_retenidos (topic, payload, qos, expira, propiedades, id_sensor) \
         SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, unhex(value ->> 4), value ->> 5 \
         FROM json_each($1) WHERE TRUE \
         ON CONFLICT (topic) DO UPDATE SET payload = excluded.payload, qos = excluded.qos, \
         expira = excluded.expira, propiedades = excluded.propiedades, id_sensor = excluded.id_sensor",
        &filas,
    )
    .await
}

pub(super) async fn forget(tx: &mut SqliteTx, topics: &[&str]) -> Result<()> {
    run(tx, "DELETE FROM mqtt_retenidos WHERE topic IN (SELECT value FROM json_each($1))", topics).await
}

pub(super) async fn expire(tx: &mut SqliteTx, filas: &[(&str, i64)]) -> Result<()> {
    run(
        tx,
        "DELETE FROM mqtt_retenidos WHERE rowid IN (SELECT r.rowid FROM json_each($1) j CROSS JOIN mqtt_retenidos r \
         WHERE r.topic = j.value ->> 0 AND r.expira <= j.value ->> 1)",
        filas,
    )
    .await
}

pub(super) async fn subscribe(tx: &mut SqliteTx, filas: &[&Suscripcion]) -> Result<()> {
    let columnas = |s: &&Suscripcion| {
        (s.id_sesion, s.filtro.clone(), s.qos, s.no_local, s.rap, s.retain_handling, s.identificador)
    };
    let filas: Vec<_> = filas.iter().map(columnas).collect();
    run(
        tx,
        "INSERT INTO mqtt_suscripciones (id_sesion, filtro, qos, no_local, rap, retain_handling, identificador) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
         FROM json_each($1) WHERE EXISTS (SELECT 1 FROM mqtt_sesiones s WHERE s.id_sesion = value ->> 0) \
         ON CONFLICT (id_sesion, filtro) DO UPDATE SET qos = excluded.qos, no_local = excluded.no_local, \
         rap = excluded.rap, retain_handling = excluded.retain_handling, identificador = excluded.identificador",
        &filas,
    )
    .await
}

pub(super) async fn unsubscribe(tx: &mut SqliteTx, filas: &[(i64, &str)]) -> Result<()> {
    run(
        tx,
        "DELETE FROM mqtt_suscripciones WHERE rowid IN (SELECT u.rowid FROM json_each($1) j \
         CROSS JOIN mqtt_suscripciones u WHERE u.id_sesion = j.value ->> 0 AND u.filtro = j.value ->> 1)",
        filas,
    )
    .await
}

async fn run<T: Serialize>(tx: &mut SqliteTx, sql: &'static str, filas: &[T]) -> Result<()> {
    let json = serde_json::to_string(filas).map_err(Error::inconsistent)?;
    sqlx::query(AssertSqlSafe(sql)).bind(json).execute(&mut **tx).await?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let mut texto = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(texto, "{b:02x}");
    }
    texto
}
