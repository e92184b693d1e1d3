//! Removing history, in steps: readings are added to their hours as they go.

use super::resumen::{Resumida, account, add, replace};
use super::{Marcas, Orden, Result, Timestamp, Tx, history, hours, lecturas, on, readings, row};

/// What a step removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purgado {
    /// Readings.
    pub n: i64,
    /// Nothing before the limit is left.
    pub listo: bool,
}

/// Removes up to `cuantas` readings of a sensor that are older than `antes_de`, the oldest first. What
/// they came to stays in their hours, whether these had been summed or not.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn purge(tx: &mut Tx, id_sensor: i64, antes_de: Timestamp, cuantas: i64) -> Result<Purgado> {
    let tira = lecturas::tira(tx, id_sensor, Timestamp::MIN, antes_de, Orden::Ascendente, cuantas).await?;
    let Some((_, ultima)) = tira.extremos else { return Ok(Purgado { n: 0, listo: true }) };
    let hasta = ultima.next();
    let zona = history(tx, id_sensor).await?.zona();
    // An hour that loses its first reading starts from nothing: from now on it stands for what is gone.
    enter(tx, id_sensor, zona, hasta.techo_hora()).await?;
    let mut cubetas = Vec::new();
    add(id_sensor, &tira, &mut cubetas);
    let mut sumadas = Vec::with_capacity(cubetas.len());
    for mut cubeta in cubetas {
        if cubeta.inicio < zona {
            let fin = Timestamp::clamped(cubeta.inicio.micros() + Timestamp::HORA);
            for antes in hours(tx, id_sensor, cubeta.inicio, fin, None, i64::MAX).await?.cubetas {
                cubeta.junta(&antes);
            }
            for antes in readings(tx, id_sensor, cubeta.inicio, fin, i64::MAX).await? {
                cubeta.n += antes.n;
            }
        }
        sumadas.push(Resumida { id_sensor, cubeta, purgada: true });
    }
    replace(tx, &sumadas.iter().collect::<Vec<_>>()).await?;
    on!(&mut *tx, |db| {
        sqlx::query("DELETE FROM lecturas WHERE id_sensor = $1 AND ts < $2")
            .bind(id_sensor)
            .bind(hasta.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    on!(tx, |db| {
        sqlx::query("UPDATE historia SET purgada = CASE WHEN purgada < $2 THEN $2 ELSE purgada END WHERE id_sensor = $1")
            .bind(id_sensor)
            .bind(hasta.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(Purgado { n: tira.n, listo: tira.n < cuantas })
}

/// The hours with `desde <= hora < antes_de` start from nothing.
async fn enter(tx: &mut Tx, id_sensor: i64, desde: Timestamp, antes_de: Timestamp) -> Result<()> {
    if desde >= antes_de {
        return Ok(());
    }
    let antes = readings(tx, id_sensor, desde, antes_de, i64::MAX).await?;
    account(tx, id_sensor, -antes.iter().map(|h| h.bytes).sum::<i64>()).await?;
    for sql in [
        "DELETE FROM lecturas_hora WHERE id_sensor = $1 AND hora >= $2 AND hora < $3",
        "DELETE FROM horas WHERE id_sensor = $1 AND hora >= $2 AND hora < $3",
        "DELETE FROM horas_pendientes WHERE id_sensor = $1 AND hora >= $2 AND hora < $3",
    ] {
        on!(&mut *tx, |db| {
            sqlx::query(sql)
                .bind(id_sensor)
                .bind(desde.micros())
                .bind(antes_de.micros())
                .execute(db)
                .await
                .map(drop)
        })?;
    }
    Ok(())
}

/// Removes up to `cuantas` hours of a sensor that begin before `antes_de`, the oldest first; answers how
/// many there were. Those from [`Historia::zona`](super::Historia::zona) on stand for readings that are
/// there, and without them these are in no answer.
///
/// # Errors
/// `Unavailable`.
pub async fn delete_hours(tx: &mut Tx, id_sensor: i64, antes_de: Timestamp, cuantas: i64) -> Result<u64> {
    row!(
        struct Fila {
            n: i64,
            hasta: Option<i64>,
            bytes: i64,
        }
    );
    let fila: Fila = on!(&mut *tx, |db| {
        sqlx::query_as(
            "SELECT COUNT(*) AS n, MAX(t.hora) AS hasta, COALESCE(CAST(SUM(t.bytes) AS BIGINT), 0) AS bytes FROM \
             (SELECT hora, bytes FROM horas WHERE id_sensor = $1 AND hora < $2 ORDER BY hora LIMIT $3) t",
        )
        .bind(id_sensor)
        .bind(antes_de.micros())
        .bind(cuantas)
        .fetch_one(db)
        .await
    })?;
    let Some(hasta) = fila.hasta else { return Ok(0) };
    account(tx, id_sensor, -fila.bytes).await?;
    for sql in [
        "DELETE FROM lecturas_hora WHERE id_sensor = $1 AND hora <= $2",
        "DELETE FROM horas WHERE id_sensor = $1 AND hora <= $2",
    ] {
        on!(&mut *tx, |db| sqlx::query(sql).bind(id_sensor).bind(hasta).execute(db).await.map(drop))?;
    }
    Ok(u64::try_from(fila.n).unwrap_or_default())
}

/// Nothing of a sensor that is being removed is summed any more. The caller holds [`Marcas`] to after its
/// commit: should the sensor stay after all, what it sends is marked anew.
///
/// # Errors
/// `Unavailable`.
pub async fn forget(tx: &mut Tx, conocidas: &mut Marcas, id_sensor: i64) -> Result<()> {
    conocidas.olvida_sensor(id_sensor);
    for sql in [
        "DELETE FROM horas_pendientes WHERE id_sensor = $1",
        "UPDATE historia SET relleno_hasta = NULL WHERE id_sensor = $1",
    ] {
        on!(&mut *tx, |db| sqlx::query(sql).bind(id_sensor).execute(db).await.map(drop))?;
    }
    Ok(())
}
