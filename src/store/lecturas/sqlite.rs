//! The bulk statements of SQLite. Keys travel as one JSON text; rows are bound, 512 in a statement at most
//! and by powers of two, so that there are ten texts, each prepared once. As JSON, which SQLite reads row by
//! row and writes again (`->>`), they took half as long again.

use std::fmt::Write as _;
use std::sync::OnceLock;

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
    static SQL: Escaleras = Escaleras::new();
    let sql = SQL.get_or_init(|| {
        escalera(
            "INSERT INTO lecturas (id_sensor, ts, valores) VALUES ",
            " ON CONFLICT (id_sensor, ts) DO UPDATE SET valores = excluded.valores",
        )
    });
    por_tandas(tx, sql, nuevas).await
}

pub(super) async fn write_latest(tx: &mut SqliteTx, ultimas: &[Fila]) -> Result<()> {
    static SQL: Escaleras = Escaleras::new();
    let sql = SQL.get_or_init(|| {
        escalera(
            "INSERT INTO ultimas_lecturas (id_sensor, ts, valores) VALUES ",
            " ON CONFLICT (id_sensor) DO UPDATE SET ts = excluded.ts, valores = excluded.valores",
        )
    });
    por_tandas(tx, sql, ultimas).await
}

/// One text for each of 1, 2, 4 … rows.
type Escaleras = OnceLock<Vec<String>>;

/// Rows of the longest text: more save nothing.
const MAYOR: u32 = 9;

fn escalera(antes: &str, despues: &str) -> Vec<String> {
    (0..=MAYOR).map(|n| format!("{antes}{}{despues}", vec!["(?, ?, ?)"; 1 << n].join(", "))).collect()
}

/// Writes rows by as few statements as there are texts for.
async fn por_tandas(tx: &mut SqliteTx, sql: &'static [String], filas: &[Fila]) -> Result<()> {
    let mut filas = filas;
    while !filas.is_empty() {
        let peldano = filas.len().ilog2().min(MAYOR);
        let (tanda, resto) = filas.split_at(1 << peldano);
        let mut consulta = sqlx::query(sql[peldano as usize].as_str());
        for fila in tanda {
            consulta = consulta.bind(fila.id_sensor).bind(fila.ts.micros()).bind(fila.valores.json());
        }
        consulta.execute(&mut **tx).await?;
        filas = resto;
    }
    Ok(())
}
