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
const RONDA: i64 = 64;
/// Readings in one step through the past.
const PASO: i64 = 4_000;

pub(super) async fn run(m: Mantenimiento) {
    let mut dicho = false;
    loop {
        let sigue = match round(&m).await {
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

/// One round; answers what it took, `None` when there was nothing to do.
async fn round(m: &Mantenimiento) -> store::Result<Option<Paso>> {
    let marcas = take(m).await?;
    if marcas.is_empty() { past(m).await } else { sum(m, &marcas).await.map(Some) }
}

async fn take(m: &Mantenimiento) -> store::Result<Vec<horas::Pendiente>> {
    // The last hour that began early enough to be over.
    let hasta = m.clock.now().minus(GRACIA).minus(Duration::from_micros(Timestamp::HORA.unsigned_abs()));
    let mut tx = m.store.read().await?;
    let hay = horas::any(&mut tx, hasta).await?;
    tx.commit().await?;
    if !hay {
        return Ok(Vec::new());
    }
    let mut tx = m.store.write().await?;
    let mut conocidas = m.store.marcas().lock().await;
    let marcas = horas::take(&mut tx, hasta, RONDA).await?;
    conocidas.olvida(&marcas);
    tx.commit().await?;
    Ok(marcas)
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
