//! What all connections share, and the broker's own work: routing, retaining, saying who is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acl::{self, Publicar};
use super::listener::Puerta;
use super::publicacion::{Publicacion, Qos};
use super::retained::Retained;
use super::router::{Parado, Router};
use super::sessions::Sessions;
use crate::domain::{Clock, Conexion, Rechazo, SensorRef};
use crate::identity::cuentas::Cuentas;
use crate::identity::{Directorio, Principal};
use crate::ingest::decode::{self, Limites};
use crate::ingest::{Ingest, Mensaje};
use crate::realtime::{Evento, Hub, Presencia, Que};
use crate::store::Store;

/// Refusals told in one message; the store has them all.
const MAX_MOTIVOS: usize = 20;

/// The settings of the broker, as the configuration has them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Anonymous clients and topics of their own, on loopback listeners.
    pub open: bool,
    /// Devices that never had a token may connect without one.
    pub legacy: bool,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time from one address.
    pub max_connections_per_address: usize,
    /// Time for a connection to say who it is.
    pub connect_deadline: Duration,
    /// Networks whose PROXY protocol header is believed, and then asked for; `None` = none is read.
    pub proxy_from: Option<Vec<ipnet::IpNet>>,
    /// Bytes of one packet.
    pub max_packet: u32,
    /// Unacknowledged messages of one session.
    pub receive_maximum: u16,
    /// Seconds that a session may outlive its connection.
    pub max_session_expiry: u32,
    /// Messages that wait for one session.
    pub max_queued: usize,
    /// Seconds; 0 = as the client wishes.
    pub max_keep_alive: u16,
    /// Levels of a topic.
    pub max_topic_levels: usize,
    /// Bytes of a topic.
    pub max_topic_bytes: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Distinct filters in the broker.
    pub max_filters: usize,
    /// Retained messages.
    pub max_retained: usize,
    /// Which moments are taken.
    pub limites: Limites,
}

/// What the broker is built from.
pub struct Parts {
    /// For the sign-in of devices.
    pub store: Store,
    /// For the sign-in of people.
    pub cuentas: Cuentas,
    /// Who sees what.
    pub directorio: Arc<Directorio>,
    /// Where readings go.
    pub ingest: Ingest,
    /// What is told to subscribers.
    pub hub: Hub,
    /// Who is connected.
    pub presencia: Arc<Presencia>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// See [`Settings`].
    pub settings: Settings,
}

/// The broker; cheap to clone.
#[derive(Clone)]
pub struct Broker(pub(super) Arc<Compartido>);

pub(super) struct Compartido {
    pub(super) parts: Parts,
    pub(super) router: Router,
    pub(super) retained: Retained,
    pub(super) sessions: Sessions,
    pub(super) conexiones: TaskTracker,
    pub(super) puerta: Puerta,
    /// Cancelled when the server stops: sessions finish what they have and close.
    pub(super) apaga: CancellationToken,
    numero: AtomicU64,
}

impl Broker {
    /// Builds the broker. `apaga` ends its sessions; `muerto` is cancelled when its router dies,
    /// which nothing survives.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(parts: Parts, apaga: CancellationToken, muerto: CancellationToken) -> std::io::Result<Self> {
        let s = &parts.settings;
        // A session that nobody is connected to may have a link too.
        let max_sesiones = s.max_connections * 2;
        let router = Router::start(max_sesiones, s.max_filters, muerto)?;
        let retained = Retained::new(s.max_retained);
        let sessions = Sessions::new(max_sesiones, s.max_queued);
        let conexiones = TaskTracker::new();
        let puerta = Puerta::new(s.max_connections, s.max_connections_per_address);
        let numero = AtomicU64::new(1);
        Ok(Self(Arc::new(Compartido {
            parts,
            router,
            retained,
            sessions,
            conexiones,
            puerta,
            apaga,
            numero,
        })))
    }

    /// The broker's own work, until the server stops: events of the site go to their topics, wills
    /// and sessions come to their time, connections of those who may no longer be here end.
    pub async fn run(self) {
        let b = &self.0;
        let (mut eventos, mut revocados) = (b.parts.hub.listen(), b.parts.directorio.revocados());
        let mut reloj = tokio::time::interval(Duration::from_secs(1));
        reloj.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = b.apaga.cancelled() => return,
                evento = eventos.recv() => match evento {
                    Ok(evento) => b.anuncia(&evento).await,
                    Err(RecvError::Lagged(n)) => {
                        counter!("alertrace_mqtt_messages_dropped_total", "reason" => "events").increment(n);
                        tracing::warn!(n, "events were not told to MQTT subscribers: too many at once");
                    }
                    Err(RecvError::Closed) => return,
                },
                quien = revocados.recv() => match quien {
                    Ok(quien) => b.sessions.revoca(&quien),
                    Err(RecvError::Lagged(n)) => tracing::error!(n, "revocations were missed"),
                    Err(RecvError::Closed) => return,
                },
                _ = reloj.tick() => b.pasa_el_tiempo().await,
            }
        }
    }

    /// Waits until every connection has ended.
    pub async fn closed(&self) {
        self.0.conexiones.close();
        self.0.conexiones.wait().await;
    }
}

impl Compartido {
    /// A number that no other connection has.
    pub(super) fn numero(&self) -> u64 {
        self.numero.fetch_add(1, Ordering::Relaxed)
    }

    /// Routes a message, keeping it first when it is to be retained. `false` when it could not be
    /// kept.
    pub(super) async fn rutea(&self, publicacion: Publicacion) -> Result<bool, Parado> {
        let publicacion = Arc::new(publicacion);
        let guardada = !publicacion.retain || self.retained.pon(&publicacion);
        self.router.publish(publicacion).await?;
        Ok(guardada)
    }

    /// As [`Self::rutea`], for what nobody waits for.
    pub(super) async fn avisa(&self, publicacion: Publicacion) {
        // `Parado` ends the process by way of the router's token.
        let _ = self.rutea(publicacion).await;
    }

    /// Sends a will as if its owner published it now.
    pub(super) async fn testamento(&self, quien: &Principal, mut will: Publicacion) {
        let ahora = self.parts.clock.now();
        will.expira = will.expira.map(|e| ahora.plus(Duration::from_micros(e.micros().unsigned_abs())));
        match acl::publica(quien, &will.topic) {
            Publicar::Rutear => self.avisa(will).await,
            Publicar::Ingerir(sensor) => {
                let mensaje = self.lee(&sensor, &will.payload, false);
                let Ok(respuesta) = self.parts.ingest.submit(mensaje).await else { return };
                if let Ok(resultado) = respuesta.await {
                    if resultado.aceptadas > 0 {
                        self.avisa(will).await;
                    }
                    self.explica(&sensor, &resultado.rechazos).await;
                }
            }
            Publicar::Negado => {}
        }
    }

    /// Decodes a payload of a device.
    pub(super) fn lee(&self, sensor: &SensorRef, payload: &[u8], dup: bool) -> Mensaje {
        let ahora = self.parts.clock.now();
        let d = decode::decode(payload, &sensor.device_id, ahora, &self.parts.settings.limites);
        let (lecturas, rechazos) = (d.lecturas, d.rechazos);
        Mensaje { sensor: sensor.clone(), lecturas, rechazos, recibido: ahora, dup, por_rutear: None }
    }

    /// Says on `errores` what was refused: a 3.1.1 client has no other way to learn it.
    pub(super) async fn explica(&self, sensor: &SensorRef, rechazos: &[Rechazo]) {
        if rechazos.is_empty() {
            return;
        }
        let dichos: Vec<_> = rechazos.iter().take(MAX_MOTIVOS).map(motivo).collect();
        let cuerpo = serde_json::json!({ "rechazos": dichos, "total": rechazos.len() });
        let topic = format!("sensores/{}/errores", sensor.device_id);
        self.avisa(Publicacion::del_servidor(topic, cuerpo.to_string(), Qos::Uno, false)).await;
    }

    /// Notes that a connection of a device came or went, and says so when that changes anything.
    pub(super) async fn presencia(&self, sensor: &SensorRef, conexion: u64, estado: Conexion) {
        let presencia = &self.parts.presencia;
        let cambia = match estado {
            Conexion::Online => presencia.llega(sensor.id_sensor, conexion),
            _ => presencia.se_va(sensor.id_sensor, conexion),
        };
        if !cambia {
            return;
        }
        tracing::info!(device_id = %sensor.device_id, estado = estado.as_str(), "a device's connection changed");
        let topic = format!("sensores/{}/estado", sensor.device_id);
        self.avisa(Publicacion::del_servidor(topic, estado.as_str(), Qos::Uno, true)).await;
        self.parts.hub.send(Evento::new(sensor.clone(), Que::Estado(estado)));
    }

    /// An event of the site, told on its topic.
    async fn anuncia(&self, evento: &Evento) {
        match &evento.que {
            Que::Lectura { por_rutear: Some(payload), .. } => {
                let topic = format!("sensores/{}/data", evento.sensor.device_id);
                self.avisa(Publicacion::del_servidor(topic, payload.clone(), Qos::Uno, false)).await;
            }
            Que::Alerta(..) => {
                let topic = format!("alertas/{}", evento.sensor.id_empresa);
                let mut publicacion = Publicacion::del_servidor(topic, evento.json(), Qos::Uno, false);
                publicacion.sensor = Some(evento.sensor.id_sensor);
                self.avisa(publicacion).await;
            }
            // A reading that came by MQTT was routed by its session; `estado` where it changed.
            Que::Lectura { .. } | Que::Estado(_) => {}
        }
    }

    async fn pasa_el_tiempo(&self) {
        let ahora = self.parts.clock.now();
        for (quien, will) in self.sessions.vencidas(ahora) {
            self.testamento(&quien, will).await;
        }
        self.retained.limpia(ahora);
        gauge!("alertrace_mqtt_sessions").set(u32::try_from(self.sessions.cuantas()).unwrap_or(u32::MAX));
        gauge!("alertrace_mqtt_connections").set(u32::try_from(self.conexiones.len()).unwrap_or(u32::MAX));
    }
}

/// A refusal, as `errores` tells it.
#[derive(serde::Serialize)]
struct Motivo<'a> {
    motivo: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<crate::domain::Timestamp>,
    contenido: &'a str,
}

fn motivo(r: &Rechazo) -> Motivo<'_> {
    let (motivo, variable) = (r.motivo.as_str(), r.variable.as_deref());
    Motivo { motivo, variable, timestamp: r.ts, contenido: &r.contenido }
}
