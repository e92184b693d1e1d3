//! Summing hours: read in one transaction, written in another, so that nobody waits for the sums.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sqlx::QueryBuilder;

use super::marcas::{FILAS, Pendiente, unmark};
use super::{Historia, Orden, Result, Resumen, Timestamp, Tx, history, lecturas, on, row};
use crate::domain::Agregado;
use crate::store::lecturas::{Cubeta, Tira};

/// Readings in one text.
const PAGINA: i64 = 2_000;

/// An hour of a sensor, summed.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumida {
    /// Whose.
    pub id_sensor: i64,
    /// What it came to.
    pub cubeta: Cubeta,
    /// Its readings are no longer in `lecturas`.
    pub purgada: bool,
}

/// Sums one hour from its readings; `None` when it has none.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn sum(tx: &mut Tx, (id_sensor, hora): Pendiente) -> Result<Option<Resumida>> {
    let (mut desde, fin) = (hora, Timestamp::clamped(hora.micros() + Timestamp::HORA));
    let mut cubetas = Vec::new();
    loop {
        let tira = lecturas::tira(tx, id_sensor, desde, fin, Orden::Ascendente, PAGINA).await?;
        add(id_sensor, &tira, &mut cubetas);
        match tira.extremos {
            Some((_, ultima)) if tira.n == PAGINA => desde = ultima.next(),
            _ => break,
        }
    }
    Ok(cubetas.pop().map(|cubeta| Resumida { id_sensor, cubeta, purgada: false }))
}

/// Adds readings to their hours, and says it of those that cannot be read: it is all that is left of them.
pub(super) fn add(id_sensor: i64, tira: &Tira, cubetas: &mut Vec<Cubeta>) {
    let leidas = tira.suma(cubetas, None, Timestamp::hora);
    if leidas < tira.n {
        let (malas, desde) = (tira.n - leidas, tira.extremos.map(|(desde, _)| desde.to_string()));
        tracing::warn!(id_sensor, malas, desde, "stored readings cannot be read; they are in no figure");
    }
}

/// Whatever a sensor has before `hasta` has never been summed: for readings that came in without marks.
///
/// # Errors
/// `Unavailable`.
pub async fn backfill(tx: &mut Tx, id_sensor: i64, hasta: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO historia (id_sensor, relleno_hasta) VALUES ($1, $2) \
             ON CONFLICT (id_sensor) DO UPDATE SET relleno_desde = 0, relleno_hasta = excluded.relleno_hasta",
        )
        .bind(id_sensor)
        .bind(hasta.micros())
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Sums the next hours of a sensor whose past was never summed, about `cuantas` readings of it. Answers
/// the sensor, the hours, and the moment from which on nothing has been summed yet; `None` when there is
/// no such sensor.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn sum_next(tx: &mut Tx, cuantas: i64) -> Result<Option<(i64, Vec<Resumida>, Timestamp)>> {
    row!(
        struct Fila {
            id_sensor: i64,
        }
    );
    let fila: Option<Fila> = on!(&mut *tx, |db| {
        sqlx::query_as(
            "SELECT id_sensor FROM historia WHERE relleno_hasta IS NOT NULL ORDER BY id_sensor LIMIT 1",
        )
        .fetch_optional(db)
        .await
    })?;
    let Some(Fila { id_sensor }) = fila else { return Ok(None) };
    let historia = history(tx, id_sensor).await?;
    let Some((desde, fin)) = historia.relleno else {
        return Ok(Some((id_sensor, Vec::new(), Timestamp::MAX)));
    };
    let (mut desde, mut quedan, mut cubetas) = (desde.max(historia.zona()), cuantas, Vec::new());
    let pagina = cuantas.clamp(1, PAGINA);
    let hecho = loop {
        let tira = lecturas::tira(tx, id_sensor, desde, fin, Orden::Ascendente, pagina).await?;
        add(id_sensor, &tira, &mut cubetas);
        quedan -= tira.n;
        match tira.extremos {
            Some((_, ultima)) if tira.n == pagina => desde = ultima.next(),
            _ => break Timestamp::MAX,
        }
        // The last hour may have more; it is the next one's first, unless it is the only one.
        if quedan <= 0 && cubetas.len() > 1 {
            break cubetas.pop().map_or(Timestamp::MAX, |c| c.inicio);
        }
    };
    let resumida = |cubeta| Resumida { id_sensor, cubeta, purgada: false };
    Ok(Some((id_sensor, cubetas.into_iter().map(resumida).collect(), hecho)))
}

/// What a row of `lecturas` takes beside its values, and a row of `lecturas_hora`, pages half full and
/// all: measured, `docs/decisions/0008-hours-are-recomputed.md`.
pub(super) const FILA: i64 = 20;
const FILA_HORA: i64 = 90;

fn bytes(hora: &Resumida) -> i64 {
    let propios = FILA_HORA * (1 + i64::try_from(hora.cubeta.variables.len()).unwrap_or_default());
    let crudas = if hora.purgada { 0 } else { hora.cubeta.bytes + FILA * hora.cubeta.n };
    propios + crudas
}

/// Writes summed hours, in place of what they came to before, and takes their marks away where nothing was
/// written to them since they were taken. `rellenado`: the past of this sensor has been summed up to this
/// moment. What has been purged meanwhile is left as it is: an hour that stands for readings that are gone
/// is never summed again.
///
/// # Errors
/// `Refused` when a sensor is gone, `Unavailable`.
pub async fn put(
    tx: &mut Tx,
    horas: &[Resumida],
    marcas: &[Pendiente],
    rellenado: Option<(i64, Timestamp)>,
) -> Result<()> {
    let mut historias: HashMap<i64, Historia> = HashMap::new();
    for hora in horas {
        if let Entry::Vacant(hueco) = historias.entry(hora.id_sensor) {
            hueco.insert(history(tx, hora.id_sensor).await?);
        }
    }
    let zona = |id: i64| historias.get(&id).map_or(Timestamp::MIN, Historia::zona);
    let vigentes: Vec<&Resumida> = horas.iter().filter(|h| h.cubeta.inicio >= zona(h.id_sensor)).collect();
    replace(tx, &vigentes).await?;
    unmark(tx, marcas).await?;
    if let Some((id_sensor, hasta)) = rellenado {
        on!(tx, |db| {
            sqlx::query(
                "UPDATE historia SET relleno_desde = $2, \
                 relleno_hasta = CASE WHEN relleno_hasta > $2 THEN relleno_hasta END WHERE id_sensor = $1",
            )
            .bind(id_sensor)
            .bind(hasta.micros())
            .execute(db)
            .await
            .map(drop)
        })?;
    }
    Ok(())
}

/// Writes hours in place of what they came to before, and keeps the account of what sensors take.
pub(super) async fn replace(tx: &mut Tx, horas: &[&Resumida]) -> Result<()> {
    if horas.is_empty() {
        return Ok(());
    }
    let mut cambio: HashMap<i64, i64> = HashMap::new();
    for hora in horas {
        *cambio.entry(hora.id_sensor).or_default() += bytes(hora);
    }
    for (id_sensor, antes) in before(tx, horas).await? {
        *cambio.entry(id_sensor).or_default() -= antes;
    }
    put_hours(tx, horas).await?;
    put_variables(tx, horas).await?;
    for (id_sensor, cambio) in cambio {
        account(tx, id_sensor, cambio).await?;
    }
    Ok(())
}

/// What these hours took before.
async fn before(tx: &mut Tx, horas: &[&Resumida]) -> Result<Vec<(i64, i64)>> {
    row!(
        struct Fila {
            id_sensor: i64,
            bytes: i64,
        }
    );
    let mut antes = Vec::new();
    for horas in horas.chunks(FILAS) {
        let filas: Vec<Fila> = on!(&mut *tx, |db| {
            let mut q = QueryBuilder::new("SELECT id_sensor, bytes FROM horas WHERE (id_sensor, hora) IN (");
            q.push_values(horas, |mut fila, hora| {
                fila.push_bind(hora.id_sensor).push_bind(hora.cubeta.inicio.micros());
            });
            q.push(")");
            q.build_query_as().persistent(false).fetch_all(db).await
        })?;
        antes.extend(filas.into_iter().map(|f| (f.id_sensor, f.bytes)));
    }
    Ok(antes)
}

async fn put_hours(tx: &mut Tx, horas: &[&Resumida]) -> Result<()> {
    for horas in horas.chunks(FILAS) {
        on!(&mut *tx, |db| {
            let mut q = QueryBuilder::new("INSERT INTO horas (id_sensor, hora, n, bytes) ");
            q.push_values(horas, |mut fila, hora| {
                let c = &hora.cubeta;
                fila.push_bind(hora.id_sensor).push_bind(c.inicio.micros());
                fila.push_bind(c.n).push_bind(bytes(hora));
            });
            q.push(" ON CONFLICT (id_sensor, hora) DO UPDATE SET n = excluded.n, bytes = excluded.bytes");
            q.build().persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}

async fn put_variables(tx: &mut Tx, horas: &[&Resumida]) -> Result<()> {
    let filas: Vec<(i64, Timestamp, &str, &Resumen)> = horas
        .iter()
        .flat_map(|h| h.cubeta.variables.iter().map(|(v, r)| (h.id_sensor, h.cubeta.inicio, v.as_str(), r)))
        .collect();
    for filas in filas.chunks(FILAS) {
        on!(&mut *tx, |db| {
            let mut q = QueryBuilder::new(
                "INSERT INTO lecturas_hora (id_sensor, hora, variable, n, min, min_ts, max, max_ts, suma) ",
            );
            q.push_values(filas, |mut fila, (id_sensor, hora, variable, r)| {
                fila.push_bind(*id_sensor).push_bind(hora.micros()).push_bind(*variable);
                fila.push_bind(r.total.n).push_bind(r.total.min).push_bind(r.min_ts.micros());
                fila.push_bind(r.total.max).push_bind(r.max_ts.micros());
                fila.push_bind(r.total.suma.clamp(-Agregado::MAX_SUMA, Agregado::MAX_SUMA));
            });
            q.push(
                " ON CONFLICT (id_sensor, hora, variable) DO UPDATE SET n = excluded.n, min = excluded.min, \
                 min_ts = excluded.min_ts, max = excluded.max, max_ts = excluded.max_ts, suma = excluded.suma",
            );
            q.build().persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}

/// What a sensor takes has changed by so many bytes.
pub(super) async fn account(tx: &mut Tx, id_sensor: i64, cambio: i64) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO historia (id_sensor, bytes) VALUES ($1, $2) \
             ON CONFLICT (id_sensor) DO UPDATE SET bytes = historia.bytes + excluded.bytes",
        )
        .bind(id_sensor)
        .bind(cambio)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}
