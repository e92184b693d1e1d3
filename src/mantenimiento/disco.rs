//! Keeps the database within `store.max_gb`: at nine tenths of it the oldest goes, before its time.
//!
//! What goes first are readings, which stay in their hours; whose, is a matter of fairness: the empresa
//! with the largest history gives, and none that has less than an equal share of what is stored. Nothing
//! of this is ever in the way of what comes in: when nothing is left to give, that is said, and the
//! database grows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::time::timeout;

use super::Mantenimiento;
use super::retencion::{PASO, step, step_hours};
use super::ritmo::{self, Paso};
use crate::alertas;
use crate::domain::{SensorRef, Timestamp};
use crate::store::horas::{self, Viejo};
use crate::store::sensores::Alcance;
use crate::store::{self, Disco};

/// How often the disk is looked at.
const CADA: Duration = Duration::from_secs(5);
/// How long the writer may take to open an alert about it.
const DECIRLO: Duration = Duration::from_secs(2);
/// Fractions of the budget, in percent: from where on history goes, and down to where.
const LLENO: u64 = 90;
const ALIVIADO: u64 = 88;
/// From here on room is worth more than an acknowledgement's milliseconds: larger steps, shorter rests.
const URGENTE: u64 = 95;
const PASO_URGENTE: i64 = 2_000;
/// How long after history last had to go it is still said to be so.
const MEMORIA: Duration = Duration::from_secs(86_400);
/// How often it is written to the log.
const CADA_AVISO: Duration = Duration::from_secs(600);
/// Steps between two looks at who has how much.
const PASOS: u32 = 16;
/// Free pages, of all, from which on the file is made smaller, in percent; and pages in one step of that.
const LIBRES: u64 = 10;
const PAGINAS: i64 = 64;

/// How the disk stands; what `/ready` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estado {
    /// Bytes that the database uses.
    pub usado: u64,
    /// Bytes that it may use; 0 = as many as there are.
    pub maximo: u64,
    /// History has had to go before its time within the last day.
    pub apretado: bool,
    /// And there is none left that may.
    pub agotado: bool,
}

/// What may go, in this order, and how old it has to be.
#[derive(Debug, Clone, Copy)]
enum Que {
    Lecturas(Duration),
    Horas(Duration),
}

const ORDEN: [Que; 3] = [
    Que::Lecturas(Duration::from_secs(86_400)),
    Que::Horas(Duration::from_secs(30 * 86_400)),
    Que::Lecturas(Duration::from_secs(2 * 3_600)),
];

/// What the task remembers.
#[derive(Default)]
struct Memoria {
    alivio: Option<Instant>,
    agotado: bool,
    aviso: Option<Instant>,
    /// When each empresa last gave.
    dieron: HashMap<i64, Instant>,
}

pub(super) async fn run(m: Mantenimiento) {
    let (mut memoria, mut dicho) = (Memoria::default(), false);
    loop {
        let sigue = match round(&m, &mut memoria).await {
            Ok(()) => {
                dicho = false;
                ritmo::espera(&m.parar, CADA).await
            }
            Err(e) => ritmo::falla(&m.parar, "disk", &e, &mut dicho).await,
        };
        if !sigue {
            return;
        }
    }
}

async fn round(m: &Mantenimiento, memoria: &mut Memoria) -> store::Result<()> {
    let Some(disco) = m.store.disk().await? else { return Ok(()) };
    gauge!("alertrace_disk_used_bytes").set(bytes(disco.usado()));
    gauge!("alertrace_disk_file_bytes").set(bytes(disco.archivo()));
    let maximo = m.ajustes.disco;
    if maximo > 0 && disco.usado() >= percent(maximo, LLENO) {
        memoria.alivio = Some(Instant::now());
        memoria.agotado = !relieve(m, memoria).await?;
    } else {
        memoria.agotado = false;
    }
    shrink(m).await?;
    let usado = m.store.disk().await?.map_or(0, Disco::usado);
    let apretado = memoria.alivio.is_some_and(|a| a.elapsed() < MEMORIA);
    let estado = Estado { usado, maximo, apretado, agotado: memoria.agotado };
    m.disco.send_replace(estado);
    say(memoria, estado);
    close_alerts(m, memoria).await
}

fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn bytes(n: u64) -> f64 {
    n as f64
}

fn say(memoria: &mut Memoria, estado: Estado) {
    let reciente = memoria.alivio.is_some_and(|a| a.elapsed() < CADA_AVISO);
    if !reciente || memoria.aviso.is_some_and(|a| a.elapsed() < CADA_AVISO) {
        return;
    }
    memoria.aviso = Some(Instant::now());
    let Estado { usado, maximo, .. } = estado;
    if estado.agotado {
        tracing::error!(
            usado,
            maximo,
            "the disk budget (store.max_gb) is spent and no history is left that may go; the database grows on"
        );
    } else {
        tracing::warn!(
            usado,
            maximo,
            "the disk budget (store.max_gb) is nearly spent: the oldest readings go before their time"
        );
    }
}

/// Removes history until there is room; `false` = there is none left that may go.
async fn relieve(m: &Mantenimiento, memoria: &mut Memoria) -> store::Result<bool> {
    let meta = percent(m.ajustes.disco, ALIVIADO);
    let mut tx = m.store.read().await?;
    let sin_sumar = horas::unsummed(&mut tx).await?;
    tx.commit().await?;
    if sin_sumar {
        // Until it is, nobody knows who has how much.
        return Ok(true);
    }
    for que in ORDEN {
        loop {
            if m.parar.is_cancelled() || used(m).await? < meta {
                return Ok(true);
            }
            let mut tx = m.store.read().await?;
            let tamanos = horas::sizes(&mut tx).await?;
            tx.commit().await?;
            let parte = share(&tamanos);
            let mut dio = false;
            for t in tamanos.iter().filter(|t| t.bytes >= parte) {
                if give(m, memoria, t.id_empresa, que, meta).await? {
                    dio = true;
                    break;
                }
            }
            if !dio {
                break;
            }
        }
    }
    Ok(used(m).await? < percent(m.ajustes.disco, LLENO))
}

async fn used(m: &Mantenimiento) -> store::Result<u64> {
    Ok(m.store.disk().await?.map_or(0, Disco::usado))
}

/// An equal share of what is stored.
fn share(tamanos: &[horas::Tamano]) -> i64 {
    let cuantas = i64::try_from(tamanos.len()).unwrap_or(i64::MAX).max(1);
    tamanos.iter().map(|t| t.bytes.max(0)).sum::<i64>() / cuantas
}

/// Some of the oldest history of an empresa goes; `false` = it has none that may. Stops when there is
/// room, and when what is left of it is no more than its share.
async fn give(
    m: &Mantenimiento,
    memoria: &mut Memoria,
    id_empresa: i64,
    que: Que,
    meta: u64,
) -> store::Result<bool> {
    let (edad, de): (Duration, fn(&Viejo) -> Option<Timestamp>) = match que {
        Que::Lecturas(edad) => (edad, |v| v.lectura),
        // An hour whose readings are there is what answers of them come from: it goes after them.
        Que::Horas(edad) => (edad, |v| v.hora.filter(|h| v.lectura.is_none_or(|l| *h < l.hora()))),
    };
    let suelo = m.hora_de_olvidar().await?.minus(edad).hora();
    let mut tx = m.store.read().await?;
    let mut viejos = horas::oldest_of(&mut tx, id_empresa).await?;
    tx.commit().await?;
    viejos.retain(|v| de(v).is_some_and(|ts| ts < suelo));
    viejos.sort_by_key(de);
    let Some(primero) = viejos.first().and_then(de) else { return Ok(false) };
    // A day of it at a time, so that the oldest goes first, whichever sensor's it is.
    let limite = primero.plus(Duration::from_secs(86_400)).hora().min(suelo).max(primero.next().techo_hora());
    // Not at the price of making room: with the disk full the writer waits for just that.
    match timeout(DECIRLO, tell(m, memoria, id_empresa, viejos[0].id_sensor)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!(error = %e, "an empresa cannot be told that its history goes"),
        Err(_) => tracing::warn!("an empresa cannot be told now that its history goes"),
    }
    let mut pasos = 0;
    for viejo in viejos.iter().filter(|v| de(v).is_some_and(|ts| ts < limite)) {
        loop {
            let usado = used(m).await?;
            if usado < meta {
                return Ok(true);
            }
            let urge = usado >= percent(m.ajustes.disco, URGENTE);
            let filas = if urge { PASO_URGENTE } else { PASO };
            let (listo, paso) = match que {
                Que::Lecturas(_) => {
                    let (purgado, paso) = step(m, viejo.id_sensor, limite, filas).await?;
                    (purgado.listo, paso)
                }
                Que::Horas(_) => {
                    let hasta = viejo.lectura.map_or(limite, |l| limite.min(l.hora()));
                    let (idas, paso) = step_hours(m, viejo.id_sensor, hasta).await?;
                    (idas == 0, paso)
                }
            };
            pasos += 1;
            let sigue =
                if urge { ritmo::respira(&m.parar, paso).await } else { ritmo::reposa(&m.parar, paso).await };
            if !sigue {
                return Ok(true);
            }
            if pasos % PASOS == 0 && !above(m, id_empresa).await? {
                return Ok(true);
            }
            if listo {
                break;
            }
        }
    }
    Ok(true)
}

/// Whether an empresa still has more than its share.
async fn above(m: &Mantenimiento, id_empresa: i64) -> store::Result<bool> {
    let mut tx = m.store.read().await?;
    let tamanos = horas::sizes(&mut tx).await?;
    tx.commit().await?;
    let parte = share(&tamanos);
    Ok(tamanos.iter().any(|t| t.id_empresa == id_empresa && t.bytes > parte))
}

/// Tells an empresa that its history goes before its time: one alert, until a day has passed without that.
async fn tell(
    m: &Mantenimiento,
    memoria: &mut Memoria,
    id_empresa: i64,
    id_sensor: i64,
) -> store::Result<()> {
    if memoria.dieron.insert(id_empresa, Instant::now()).is_some() {
        return Ok(());
    }
    if !open(m, id_empresa).await?.is_empty() {
        return Ok(());
    }
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let mut tx = m.store.read().await?;
    let sensor = store::sensores::get(&mut tx, alcance, id_sensor).await?;
    tx.commit().await?;
    let Some(sensor) = sensor else { return Ok(()) };
    let quien: SensorRef = sensor.quien;
    let alerta = alertas::almacenamiento(&quien, used(m).await?, m.ajustes.disco, m.clock.now());
    m.ingest.abrir_alerta(quien, alerta).await?;
    Ok(())
}

/// Closes the alerts of those whose history has been left alone for a day.
async fn close_alerts(m: &Mantenimiento, memoria: &mut Memoria) -> store::Result<()> {
    let pasados: Vec<i64> =
        memoria.dieron.iter().filter(|(_, cuando)| cuando.elapsed() > MEMORIA).map(|(id, _)| *id).collect();
    for id_empresa in pasados {
        for alerta in open(m, id_empresa).await? {
            let por = store::auditoria::Autor::servidor(id_empresa, m.clock.now());
            let pedido = crate::ingest::Resolver { id_alerta: alerta.id_alerta, por, notas: None };
            m.ingest.resolver(pedido).await?;
        }
        memoria.dieron.remove(&id_empresa);
    }
    Ok(())
}

async fn open(m: &Mantenimiento, id_empresa: i64) -> store::Result<Vec<crate::domain::Alerta>> {
    let filtro = store::alertas::Filtro { tipo: Some(alertas::ALMACENAMIENTO), ..Default::default() };
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let mut tx = m.store.read().await?;
    let abiertas = store::alertas::list(&mut tx, alcance, &filtro, 100, 0).await?;
    tx.commit().await?;
    Ok(abiertas)
}

/// Gives pages that nothing uses back to the file system, when there are many: a few are soon used again.
async fn shrink(m: &Mantenimiento) -> store::Result<()> {
    let de_mas = |d: &Disco, percent: u64| d.libres * 100 > d.paginas * percent && d.libres > 1_024;
    let Some(mut disco) = m.store.disk().await? else { return Ok(()) };
    if !de_mas(&disco, LIBRES) {
        return Ok(());
    }
    while de_mas(&disco, LIBRES / 2) {
        let mut tx = m.store.write().await?;
        let desde = Instant::now();
        store::disk::shrink(&mut tx, PAGINAS).await?;
        tx.commit().await?;
        if !ritmo::reposa(&m.parar, Paso::escrito(desde.elapsed())).await {
            return Ok(());
        }
        let Some(ahora) = m.store.disk().await? else { return Ok(()) };
        if ahora.paginas >= disco.paginas {
            // Made without auto_vacuum: it reuses its pages, and that is all.
            return Ok(());
        }
        disco = ahora;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_less_than_an_equal_share_is_below_it() {
        let de = |bytes| horas::Tamano { id_empresa: bytes, bytes };
        assert_eq!(share(&[de(90), de(30), de(0)]), 40);
        assert_eq!(share(&[de(7)]), 7);
        assert_eq!(share(&[]), 0);
        assert_eq!(percent(1_000_000_000, LLENO), 900_000_000);
    }
}
