//! The bulk statements of SQLite: the rows travel as one JSON text, so that the statement's text is
//! constant and prepared once, and nothing is bound value by value
//! (<https://www.sqlite.org/json1.html#the_json_each_and_json_tree_table_valued_functions>).

use std::fmt::Write as _;

use sqlx::{Sqlite, Transaction};

use super::{Cruda, Fila, Result, Timestamp};

type SqliteTx = Transaction<'static, Sqlite>;

pub(super) async fn existing(tx: &mut SqliteTx, claves: &[(i64, Timestamp)]) -> Result<Vec<Cruda>> {
    let mut json = String::with_capacity(claves.len() * 28);
    for (id_sensor, ts) in claves {
        let _ = write!(json, "{}[{id_sensor},{}]", if json.is_empty() { '[' } else { ',' }, ts.micros());
    }
    json.push(']');
    // CROSS JOIN fixes the order: one lookup by primary key for each key asked for.
    Ok(sqlx::query_as(
        "SELECT l.id_sensor, l.ts, l.valores FROM json_each($1) j CROSS JOIN lecturas l \
         WHERE l.id_sensor = j.value ->> 0 AND l.ts = j.value ->> 1",
    )
    .bind(json)
    .fetch_all(&mut **tx)
    .await?)
}

pub(super) async fn write(tx: &mut SqliteTx, nuevas: &[Fila]) -> Result<()> {
    sqlx::query(
        "INSERT INTO lecturas (id_sensor, ts, valores) \
         SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1) WHERE TRUE \
         ON CONFLICT (id_sensor, ts) DO UPDATE SET valores = excluded.valores",
    )
    .bind(rows(nuevas))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn write_latest(tx: &mut SqliteTx, ultimas: &[Fila]) -> Result<()> {
    sqlx::query(
        "INSERT INTO ultimas_lecturas (id_sensor, ts, valores) \
         SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1) WHERE TRUE \
         ON CONFLICT (id_sensor) DO UPDATE SET ts = excluded.ts, valores = excluded.valores",
    )
    .bind(rows(ultimas))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// `[[id_sensor, ts, {…}], …]`. Variable names need no escaping (`[a-z][a-z0-9_]*`), values are
/// finite.
fn rows(filas: &[Fila]) -> String {
    let mut json = String::with_capacity(filas.len() * 96);
    for fila in filas {
        json.push(if json.is_empty() { '[' } else { ',' });
        let _ = write!(json, "[{},{},{}]", fila.id_sensor, fila.ts.micros(), fila.valores.to_json());
    }
    json.push(']');
    json
}
