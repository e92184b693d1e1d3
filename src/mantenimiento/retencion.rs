//! Forgets what is past its days: readings (which stay in their hours), hours, refusals,
//! lines of the audit.

use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use tokio::time::timeout;

use super::Mantenimiento;
use super::ritmo::{self, Paso};
use crate::domain::Timestamp;
use crate::store::{self, auditoria, empresas, horas, rechazos};

/// How often it is looked for.
const CADA: Duration = Duration::from_secs(60);
/// How long the writer may take to learn of an empresa's days.
const RECARGA: Duration = Duration::from_secs(5);
/// Rows in one step. It is what a reading that arrives in the middle of one waits for.
pub(super) const PASO: i64 = 250;
/// Hours in one step, some rows each.
const PASO_HORAS: i64 = 50;
/// Sensors looked at in one question.
const SENSORES: i64 = 500;

pub(super) async fn run(m: Mantenimiento) {
    let mut dicho = false;
    let mut antes = None;
    loop {
        let sigue = match round(&m, &mut antes).await {
            Ok(()) => {
                dicho = false;
                ritmo::espera(&m.parar, CADA).await
            }
            Err(e) => ritmo::falla(&m.parar, "retention", &e, &mut dicho).await,
        };
        if !sigue {
            return;
        }
    }
}

/// From when on an empresa's readings and hours are kept.
struct Limites {
    lecturas: Timestamp,
    horas: Timestamp,
}

pub(super) async fn round(
    m: &Mantenimiento,
    antes: &mut Option<Vec<empresas::Retencion>>,
) -> store::Result<()> {
    let mut tx = m.store.read().await?;
    let propias = empresas::retentions(&mut tx).await?;
    tx.commit().await?;
    if antes.as_ref() != Some(&propias) {
        // Before anything is removed: what would be removed at once is not taken.
        if timeout(RECARGA, m.ingest.recargar_retenciones()).await.is_err() {
            // The writer is held up, perhaps for want of the room that this makes: it is asked again.
            tracing::debug!("the writer does not know the empresas' days yet");
        }
        *antes = Some(propias.clone());
    }
    let ahora = m.hora_de_olvidar().await?;
    for empresa in &propias {
        history(m, empresa.id_empresa, &limits(m, ahora, empresa)).await?;
        if m.parar.is_cancelled() {
            return Ok(());
        }
    }
    refusals(m, ahora.minus(m.ajustes.rechazos)).await?;
    audit(m, ahora.minus(m.ajustes.auditoria)).await
}

fn limits(m: &Mantenimiento, ahora: Timestamp, de: &empresas::Retencion) -> Limites {
    let propia = |dias: Option<i64>, comun: Duration| empresas::days(dias).map_or(comun, |d| d.min(comun));
    // Whole hours: an hour is not visited again for every reading of it that comes of age.
    let lecturas = ahora.minus(propia(de.dias, m.ajustes.lecturas)).hora();
    // No hour goes before its readings: answers come from it.
    Limites { lecturas, horas: ahora.minus(propia(de.horas_dias, m.ajustes.horas)).hora().min(lecturas) }
}

/// Removes what is past its days of an empresa's sensors, some of them at a time: however many there are, no
/// question takes long.
async fn history(m: &Mantenimiento, id_empresa: i64, limite: &Limites) -> store::Result<()> {
    let mut tras = 0;
    loop {
        let mut tx = m.store.read().await?;
        let limites = (limite.lecturas, limite.horas);
        let sensores = horas::past(&mut tx, id_empresa, tras, limites, SENSORES).await?;
        tx.commit().await?;
        let Some(ultimo) = sensores.last() else { return Ok(()) };
        tras = ultimo.id_sensor;
        for sensor in sensores {
            if sensor.lectura.is_some() {
                readings(m, sensor.id_sensor, limite.lecturas).await?;
            }
            // Readings that old have just become hours.
            if sensor.hora.into_iter().chain(sensor.lectura).any(|hora| hora < limite.horas) {
                hours(m, sensor.id_sensor, limite.horas).await?;
            }
            if m.parar.is_cancelled() {
                return Ok(());
            }
        }
    }
}

/// Removes a sensor's readings before `limite`, step by step.
async fn readings(m: &Mantenimiento, id_sensor: i64, limite: Timestamp) -> store::Result<()> {
    loop {
        let (purgado, paso) = step(m, id_sensor, limite, PASO).await?;
        if purgado.listo || !ritmo::reposa(&m.parar, paso).await {
            return Ok(());
        }
    }
}

/// One step of that, of so many rows.
pub(super) async fn step(
    m: &Mantenimiento,
    id_sensor: i64,
    limite: Timestamp,
    filas: i64,
) -> store::Result<(horas::Purgado, Paso)> {
    let mut tx = m.store.write().await?;
    let desde = Instant::now();
    let purgado = horas::purge(&mut tx, id_sensor, limite, filas).await?;
    tx.commit().await?;
    let paso = Paso::escrito(desde.elapsed());
    histogram!("alertrace_purge_seconds").record(paso.escribe);
    counter!("alertrace_purged_readings_total").increment(purgado.n.unsigned_abs());
    Ok((purgado, paso))
}

/// Removes a sensor's hours before `limite`, step by step.
async fn hours(m: &Mantenimiento, id_sensor: i64, limite: Timestamp) -> store::Result<()> {
    loop {
        let (idas, paso) = step_hours(m, id_sensor, limite).await?;
        if idas == 0 || !ritmo::reposa(&m.parar, paso).await {
            return Ok(());
        }
    }
}

/// One step of that; answers how many went.
pub(super) async fn step_hours(
    m: &Mantenimiento,
    id_sensor: i64,
    limite: Timestamp,
) -> store::Result<(u64, Paso)> {
    let mut tx = m.store.write().await?;
    let desde = Instant::now();
    let idas = horas::delete_hours(&mut tx, id_sensor, limite, PASO_HORAS).await?;
    tx.commit().await?;
    counter!("alertrace_purged_hours_total").increment(idas);
    Ok((idas, Paso::escrito(desde.elapsed())))
}

async fn refusals(m: &Mantenimiento, antes: Timestamp) -> store::Result<()> {
    loop {
        let mut tx = m.store.read().await?;
        let hay = rechazos::any_before(&mut tx, antes).await?;
        tx.commit().await?;
        if !hay {
            return Ok(());
        }
        let mut tx = m.store.write().await?;
        let desde = Instant::now();
        rechazos::expire(&mut tx, antes, PASO).await?;
        tx.commit().await?;
        if !ritmo::reposa(&m.parar, Paso::escrito(desde.elapsed())).await {
            return Ok(());
        }
    }
}

async fn audit(m: &Mantenimiento, antes: Timestamp) -> store::Result<()> {
    loop {
        let mut tx = m.store.read().await?;
        let hay = auditoria::any_before(&mut tx, antes).await?;
        tx.commit().await?;
        if !hay {
            return Ok(());
        }
        let mut tx = m.store.write().await?;
        let desde = Instant::now();
        auditoria::expire(&mut tx, antes, PASO).await?;
        tx.commit().await?;
        if !ritmo::reposa(&m.parar, Paso::escrito(desde.elapsed())).await {
            return Ok(());
        }
    }
}
