//! Commands and configuration on their way to a device, and its answers.
//!
//! A command waits in its own table, not in a session's queue: it is given to a connected session of
//! its device that subscribes to `comandos`, and counts as sent when the device acknowledges it. Until
//! then it is given again to the next connection. The configuration is a retained message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::broker::Compartido;
use super::publicacion::{Publicacion, Qos};
use super::session::{Entrega, Estado as EstadoSesion, Sesion};
use super::topic;
use crate::domain::{SensorRef, Timestamp};
use crate::store::comandos::{self, Comando, Respuesta};
use crate::store::mqtt::Cambio;
use crate::store::{self};

/// Commands given to a device at a time.
const MAX: i64 = 100;

/// Commands that a session was given, by command, until the store knows what became of them.
#[derive(Default)]
pub(super) struct EnCurso(Mutex<HashMap<i64, Dado>>);

struct Dado {
    sesion: Arc<Sesion>,
    id_sensor: i64,
    /// The device has it; the store is about to know.
    acusado: bool,
}

impl EnCurso {
    /// Notes that `sesion` is given a command; `false` when it, or another that is not over, has it.
    fn da(&self, id_comando: i64, id_sensor: i64, sesion: &Arc<Sesion>) -> bool {
        let mut mapa = self.mapa();
        if mapa.get(&id_comando).is_some_and(|d| d.acusado || !d.sesion.vida().terminada) {
            return false;
        }
        mapa.insert(id_comando, Dado { sesion: sesion.clone(), id_sensor, acusado: false });
        true
    }

    fn acusa(&self, id_comando: i64) {
        if let Some(dado) = self.mapa().get_mut(&id_comando) {
            dado.acusado = true;
        }
    }

    pub(super) fn quita(&self, id_comando: i64) {
        self.mapa().remove(&id_comando);
    }

    /// The connection of `sesion` is over: what it was given and is not in flight is to be given again.
    pub(super) fn suelta(&self, sesion: &Arc<Sesion>, estado: &EstadoSesion) {
        let en_vuelo = |id| estado.en_vuelo.iter().any(|v| v.entrega.publicacion.comando == Some(id));
        self.mapa().retain(|id, d| d.acusado || !Arc::ptr_eq(&d.sesion, sesion) || en_vuelo(*id));
    }

    /// Forgets what the store knows of a sensor's commands: those that do not wait any more.
    fn olvida(&self, id_sensor: i64, pendientes: &[Comando]) {
        let espera = |id| pendientes.iter().any(|c| c.id_comando == id);
        self.mapa().retain(|id, d| d.id_sensor != id_sensor || !d.acusado || espera(*id));
    }

    /// Forgets those whose session is over.
    fn limpia(&self) {
        self.mapa().retain(|_, d| d.acusado || !d.sesion.vida().terminada);
    }

    fn mapa(&self) -> MutexGuard<'_, HashMap<i64, Dado>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a device says on `respuestas`.
#[derive(Deserialize)]
struct Dicho<'a> {
    id: i64,
    estado: Estado,
    #[serde(borrow, default)]
    detalle: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Estado {
    Ok,
    Error,
}

/// The change that an answer of a device makes; `None` when it is none that can be read: it is routed
/// all the same.
pub(super) fn respuesta(sensor: &SensorRef, payload: &[u8], ahora: Timestamp) -> Option<Cambio> {
    /// Bytes of what a device says besides that are kept.
    const MAX_DETALLE: usize = 4_096;
    let dicho: Dicho<'_> = serde_json::from_slice(payload).ok()?;
    let detalle = dicho.detalle.map(RawValue::get).filter(|d| *d != "null" && d.len() <= MAX_DETALLE);
    Some(Cambio::Responde(Box::new(Respuesta {
        id_sensor: sensor.id_sensor,
        id_comando: dicho.id,
        ok: matches!(dicho.estado, Estado::Ok),
        detalle: detalle.map(str::to_owned),
        cuando: ahora,
    })))
}

impl Compartido {
    /// Gives devices what people asked of them, as it is asked.
    pub(super) async fn atiende_pedidos(&self) {
        loop {
            for id_sensor in self.parts.pedidos.toma().await {
                if let Err(e) = self.atiende(id_sensor).await {
                    tracing::warn!(error = %e, id_sensor, "what was asked of a device cannot be read; it is tried again");
                    let pedidos = self.parts.pedidos.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                        pedidos.marca(id_sensor);
                    });
                }
            }
        }
    }

    async fn atiende(&self, id_sensor: i64) -> store::Result<()> {
        let ahora = self.parts.clock.now();
        let mut tx = self.parts.store.read().await?;
        let pendientes = comandos::pending(&mut tx, id_sensor, ahora, MAX).await?;
        let configuracion = comandos::config(&mut tx, id_sensor).await?;
        tx.commit().await?;
        self.en_curso.olvida(id_sensor, &pendientes);
        let Some(sensor) = self.parts.directorio.sensor_por_id(id_sensor) else { return Ok(()) };
        if let Some(c) = configuracion {
            let mensaje = Publicacion::de_sensor(&sensor, "config", c.configuracion);
            let igual = |m: Arc<Publicacion>| m.payload == mensaje.payload && m.sensor == mensaje.sensor;
            if !self.retained.de(&mensaje.topic).is_some_and(igual) {
                self.difunde(mensaje).await;
            }
        }
        let topic = format!("sensores/{}/comandos", sensor.device_id);
        for comando in pendientes {
            let Some((sesion, qos)) = self.oyente(id_sensor, &topic) else { return Ok(()) };
            if self.en_curso.da(comando.id_comando, id_sensor, &sesion) {
                // When it is over meanwhile, `limpia` sees that another is given it.
                let _ = sesion.deja(entrega(&topic, &comando, qos));
            }
        }
        Ok(())
    }

    /// A connected session of a device that hears `topic`, and how often it wants it.
    fn oyente(&self, id_sensor: i64, topic: &str) -> Option<(Arc<Sesion>, Qos)> {
        self.sessions.de_dispositivo(id_sensor).into_iter().filter(|s| s.vida().conectada).find_map(|s| {
            let filtros = s.filtros();
            let qos = filtros.iter().filter(|f| topic::coincide(f, topic)).filter_map(|f| s.suscripcion(f));
            let qos = qos.map(|p| p.qos).max()?;
            Some((s, qos.min(Qos::Uno)))
        })
    }

    /// A delivery to a device is completed: the command, or the configuration, has arrived.
    pub(super) fn entregada(&self, sensor: &SensorRef, publicacion: &Publicacion) -> Option<Cambio> {
        let ahora = self.parts.clock.now();
        if let Some(id_comando) = publicacion.comando {
            self.en_curso.acusa(id_comando);
            return Some(Cambio::Enviado { id_comando, cuando: ahora });
        }
        let topic = publicacion.topic.strip_prefix("sensores/")?;
        (topic.strip_suffix("/config")? == sensor.device_id.as_str()).then(|| Cambio::Configurado {
            id_sensor: sensor.id_sensor,
            configuracion: String::from_utf8_lossy(&publicacion.payload).into_owned(),
            cuando: ahora,
        })
    }

    /// Closes commands whose time is over.
    pub(super) async fn expira_comandos(&self, ahora: Timestamp) -> store::Result<()> {
        self.en_curso.limpia();
        let mut tx = self.parts.store.read().await?;
        let hay = comandos::any_expired(&mut tx, ahora).await?;
        tx.commit().await?;
        if hay {
            let mut tx = self.parts.store.write().await?;
            comandos::expire(&mut tx, ahora).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

fn entrega(topic: &str, comando: &Comando, qos: Qos) -> Entrega {
    let parametros = RawValue::from_string(comando.parametros.clone()).ok();
    let cuerpo = serde_json::json!({
        "id": comando.id_comando,
        "comando": comando.comando,
        "parametros": parametros,
        "expira": Timestamp::clamped(comando.expira),
    });
    let mut publicacion = Publicacion::del_servidor(topic.to_owned(), cuerpo.to_string(), Qos::Uno, false);
    publicacion.expira = Some(Timestamp::clamped(comando.expira));
    publicacion.comando = Some(comando.id_comando);
    let publicacion = Arc::new(publicacion);
    Entrega { publicacion, qos, retain: false, ids: Vec::new(), seq: None, grupo: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;

    #[test]
    fn an_answer_is_read_and_anything_else_is_not() {
        let sensor = SensorRef { id_sensor: 7, id_empresa: 1, device_id: DeviceId::new("s1").unwrap() };
        let leida = respuesta(&sensor, br#"{"id":3,"estado":"error","detalle":{"a":1}}"#, Timestamp::MIN);
        let Some(Cambio::Responde(r)) = leida else { panic!("{leida:?}") };
        assert_eq!(
            (r.id_sensor, r.id_comando, r.ok, r.detalle.as_deref()),
            (7, 3, false, Some(r#"{"a":1}"#))
        );
        for otra in ["", "{}", r#"{"id":"x","estado":"ok"}"#, r#"{"id":1,"estado":"quizá"}"#] {
            assert!(respuesta(&sensor, otra.as_bytes(), Timestamp::MIN).is_none(), "{otra}");
        }
    }
}
