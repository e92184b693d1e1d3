//! The bulk statements of PostgreSQL: arrays, unnested, so that the statement's text is constant.

use super::super::postgres::PgTx;
use super::super::postgres::particiones::Mes;
use super::{Cruda, Fila, Result, Timestamp};

pub(super) async fn existing(tx: &mut PgTx, claves: &[(i64, Timestamp)]) -> Result<Vec<Cruda>> {
    let (ids, tss): (Vec<i64>, Vec<i64>) = claves.iter().map(|(id, ts)| (*id, ts.micros())).unzip();
    Ok(sqlx::query_as(
        "SELECT l.id_sensor, l.ts, l.valores FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS k (id_sensor, ts) \
         JOIN lecturas l ON l.id_sensor = k.id_sensor AND l.ts = k.ts",
    )
    .bind(ids)
    .bind(tss)
    .fetch_all(tx.db())
    .await?)
}

pub(super) async fn write(tx: &mut PgTx, nuevas: &[Fila]) -> Result<()> {
    tx.make_partitions(nuevas.iter().map(|f| Mes::de(f.ts)).collect()).await?;
    let (ids, tss, valores) = columns(nuevas);
    sqlx::query(
        "INSERT INTO lecturas (id_sensor, ts, valores) \
         SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::TEXT[]) \
         ON CONFLICT (id_sensor, ts) DO UPDATE SET valores = excluded.valores",
    )
    .bind(ids)
    .bind(tss)
    .bind(valores)
    .execute(tx.db())
    .await?;
    Ok(())
}

pub(super) async fn write_latest(tx: &mut PgTx, ultimas: &[Fila]) -> Result<()> {
    let (ids, tss, valores) = columns(ultimas);
    sqlx::query(
        "INSERT INTO ultimas_lecturas (id_sensor, ts, valores) \
         SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::TEXT[]) \
         ON CONFLICT (id_sensor) DO UPDATE SET ts = excluded.ts, valores = excluded.valores",
    )
    .bind(ids)
    .bind(tss)
    .bind(valores)
    .execute(tx.db())
    .await?;
    Ok(())
}

fn columns(filas: &[Fila]) -> (Vec<i64>, Vec<i64>, Vec<String>) {
    let ids = filas.iter().map(|f| f.id_sensor).collect();
    let tss = filas.iter().map(|f| f.ts.micros()).collect();
    (ids, tss, filas.iter().map(|f| f.valores.to_json()).collect())
}
