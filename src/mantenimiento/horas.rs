//! Sums the hours that something was written to, once they are over; and, an hour at a time, what was
//! stored before there were sums.
//!
//! Three transactions: the marks are taken, the readings are read, the sums are written and the marks
//! removed. What is written to an hour between the first and the last marks it again, and it keeps its
//! mark; until it has none, its readings answer for it.

use std::time::{Duration, Instant};

use metrics::{counter, histogram};

use super::Mantenimiento;
use super::ritmo::{self, Paso};
use crate::domain::Timestamp;
use crate::store::{self, horas};

/// How often closed hours are looked for.
const CADA: Duration = Duration::from_secs(5);
/// An hour is over so long after its end: what comes a little late does not have it summed twice.
const GRACIA: Duration = Duration::from_secs(60);
/// Hours in one round.
const RONDA: usize = 64;
/// Readings in one step through the past.
const PASO: i64 = 4_000;

/// Whose turn it is: of the sensors, and of what is done.
#[derive(Debug, Default)]
pub(super) struct Turnos {
    /// The sensor that was last.
    tras: i64,
    /// The past was looked at first.
    pasado: bool,
}

pub(super) async fn run(m: Mantenimiento) {
    let (mut turnos, mut dicho) = (Turnos::default(), false);
    loop {
        let sigue = match round(&m, &mut turnos).await {
            Ok(paso) => {
                dicho = false;
                match paso {
                    Some(paso) => ritmo::reposa(&m.parar, paso).await,
                    None => ritmo::espera(&m.parar, CADA).await,
                }
            }
            Err(e) => ritmo::falla(&m.parar, "hours", &e, &mut dicho).await,
        };
        if !sigue {
            return;
        }
    }
}

/// One round; answers what it took, `None` when there was nothing to do. Marked hours and the past come
/// first in turn: a device that keeps on marking holds the past up no more than by half.
pub(super) async fn round(m: &Mantenimiento, turnos: &mut Turnos) -> store::Result<Option<Paso>> {
    turnos.pasado = !turnos.pasado;
    if turnos.pasado
        && let Some(paso) = past(m).await?
    {
        return Ok(Some(paso));
    }
    let marcas = take(m, turnos).await?;
    match marcas.is_empty() {
        false => sum(m, &marcas).await.map(Some),
        true if turnos.pasado => Ok(None),
        true => past(m).await,
    }
}

async fn take(m: &Mantenimiento, turnos: &mut Turnos) -> store::Result<Vec<horas::Pendiente>> {
    // The last hour that began early enough to be over.
    let hasta = m.clock.now().minus(GRACIA).minus(Duration::from_micros(Timestamp::HORA.unsigned_abs()));
    let mut tx = m.store.read().await?;
    let hay = horas::any(&mut tx, hasta).await?;
    tx.commit().await?;
    if !hay {
        return Ok(Vec::new());
    }
    let marcas = due(m, turnos, hasta).await?;
    if marcas.is_empty() {
        return Ok(marcas);
    }
    let mut tx = m.store.write().await?;
    let mut conocidas = m.store.marcas().lock().await;
    let marcas = horas::take(&mut tx, &marcas).await?;
    conocidas.olvida(&marcas);
    tx.commit().await?;
    Ok(marcas)
}

/// The hours whose turn it is: all sensors are looked at, from where the last round ended, before there
/// are none.
async fn due(
    m: &Mantenimiento,
    turnos: &mut Turnos,
    hasta: Timestamp,
) -> store::Result<Vec<horas::Pendiente>> {
    let mut vueltas = 0;
    loop {
        let mut tx = m.store.read().await?;
        let turno = horas::due(&mut tx, turnos.tras, hasta, RONDA).await?;
        tx.commit().await?;
        turnos.tras = turno.sigue.unwrap_or_default();
        vueltas += u8::from(turno.sigue.is_none());
        if !turno.horas.is_empty() || vueltas > 1 || m.parar.is_cancelled() {
            return Ok(turno.horas);
        }
    }
}

async fn sum(m: &Mantenimiento, marcas: &[horas::Pendiente]) -> store::Result<Paso> {
    let desde = Instant::now();
    let mut sumadas = Vec::with_capacity(marcas.len());
    for marca in marcas {
        if m.parar.is_cancelled() {
            // They stay taken, and are taken again at the next start.
            return Ok(Paso::default());
        }
        // A transaction each: a long one would keep the WAL from being folded in.
        let mut tx = m.store.read().await?;
        sumadas.extend(horas::sum(&mut tx, *marca).await?);
        tx.commit().await?;
    }
    let lee = desde.elapsed();
    Ok(Paso { lee, escribe: write(m, &sumadas, marcas, None).await? })
}

/// A step through what was stored before there were sums.
async fn past(m: &Mantenimiento) -> store::Result<Option<Paso>> {
    let desde = Instant::now();
    let mut tx = m.store.read().await?;
    let paso = horas::sum_next(&mut tx, PASO).await?;
    tx.commit().await?;
    let Some((id_sensor, sumadas, hasta)) = paso else { return Ok(None) };
    let lee = desde.elapsed();
    Ok(Some(Paso { lee, escribe: write(m, &sumadas, &[], Some((id_sensor, hasta))).await? }))
}

async fn write(
    m: &Mantenimiento,
    sumadas: &[horas::Resumida],
    marcas: &[horas::Pendiente],
    rellenado: Option<(i64, Timestamp)>,
) -> store::Result<Duration> {
    let mut tx = m.store.write().await?;
    let desde = Instant::now();
    horas::put(&mut tx, sumadas, marcas, rellenado).await?;
    tx.commit().await?;
    let escribe = desde.elapsed();
    histogram!("alertrace_hours_write_seconds").record(escribe);
    counter!("alertrace_hours_summed_total").increment(sumadas.len() as u64);
    Ok(escribe)
}
