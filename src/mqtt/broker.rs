//! What all connections share, and the broker's own work: spreading messages, saying who is there,
//! doing what time has come for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::comandos::EnCurso;
use super::door::Puerta;
use super::estado::Estados;
use super::mailbox::Cabida;
use super::publicacion::{Publicacion, Qos};
use super::reparto::Fila;
use super::retained::Retained;
use super::router::Router;
use super::session::{Estado, Sesion};
use super::sessions::{Restauradas, Sessions};
use super::site::{self, Puente, Salidas};
use super::testamento::Legado;
use super::throttle::Intentos;
use crate::domain::{Clock, Rechazo, SensorRef, Timestamp};
use crate::identity::cuentas::Cuentas;
use crate::identity::{Directorio, Principal, Prueba};
use crate::ingest::decode::{self, Limites};
use crate::ingest::{Cambios, Ingest, Mensaje, NoTomado};
use crate::realtime::{Clientes, Hub, Pedidos, Presencia, Rutas};
use crate::store::mqtt::Cambio;
use crate::store::{self, Store};

/// Refusals told in one message; the store has them all.
const MAX_MOTIVOS: usize = 20;

/// The settings of the broker, as the configuration has them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Anonymous clients and topics of their own, on loopback listeners.
    pub open: bool,
    /// Filters that anonymous clients are refused, without a reason.
    pub open_refused: Vec<String>,
    /// Devices that never had a token may connect without one.
    pub legacy: bool,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time from one address.
    pub max_connections_per_address: usize,
    /// Time for a connection to say who it is.
    pub connect_deadline: Duration,
    /// Time for a TLS handshake, of the above.
    pub handshake_deadline: Duration,
    /// Sign-ins of one name from one address that may fail before the next ones wait.
    pub sign_in_failures: u32,
    /// The longest that they wait.
    pub sign_in_wait: Duration,
    /// Networks whose PROXY protocol header is believed, and then asked for; `None` = none is read.
    pub proxy_from: Option<Vec<ipnet::IpNet>>,
    /// Bytes of one packet.
    pub max_packet: u32,
    /// Unacknowledged messages of one session.
    pub receive_maximum: u16,
    /// Seconds that a session may outlive its connection.
    pub max_session_expiry: u32,
    /// Sessions of one device or person, connected or not.
    pub max_sessions_per_client: usize,
    /// Messages that wait for one session.
    pub max_queued: usize,
    /// Bytes of them.
    pub max_queued_bytes: usize,
    /// Seconds; 0 = as the client wishes.
    pub max_keep_alive: u16,
    /// PUBLISH packets a second of one client; 0 = no limit.
    pub max_messages_per_s: u64,
    /// Bytes a second of one client; 0 = no limit.
    pub max_bytes_per_s: u64,
    /// How long a client is slowed down before it is ended.
    pub rate_patience: Duration,
    /// Seconds between two rounds of `$SYS`.
    pub sys_interval: Duration,
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
    /// For the sign-in of the self-test.
    pub prueba: Prueba,
    /// Who sees what.
    pub directorio: Arc<Directorio>,
    /// Where readings go.
    pub ingest: Ingest,
    /// Who hears of what happens.
    pub hub: Hub,
    /// Where the site says what subscribers are to hear.
    pub rutas: Rutas,
    /// What people ask of devices.
    pub pedidos: Pedidos,
    /// Who is connected by what, and who is not let in.
    pub clientes: Arc<Clientes>,
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
    pub(super) fila: Fila,
    pub(super) sessions: Sessions,
    pub(super) conexiones: TaskTracker,
    pub(super) puerta: Puerta,
    pub(super) intentos: Intentos,
    /// Cancelled when the server stops: sessions finish what they have and close.
    pub(super) apaga: CancellationToken,
    numero: AtomicU64,
    pub(super) estados: Estados,
    pub(super) en_curso: EnCurso,
    /// What [`Broker::run`] begins with: what the site says, and the wills of those who were there before.
    por_empezar: Mutex<Option<Comienzo>>,
}

type Comienzo = (Salidas, Vec<(Principal, Legado)>);

impl Broker {
    /// Builds the broker, with the sessions and retained messages that the store has. `apaga` ends its
    /// sessions; `muerto` is cancelled when its router dies, which nothing survives.
    ///
    /// # Errors
    /// When a thread cannot be started, and those of the store.
    pub async fn start(
        parts: Parts,
        apaga: CancellationToken,
        muerto: CancellationToken,
    ) -> Result<Self, Error> {
        let (s, ahora) = (&parts.settings, parts.clock.now());
        // A session that nobody is connected to may have a link too.
        let max_sesiones = s.max_connections * 2;
        let router = Router::start(max_sesiones, s.max_filters, muerto)?;
        let retained = Retained::new(s.max_retained);
        let cabida = Cabida { mensajes: s.max_queued, bytes: s.max_queued_bytes };
        let sessions = Sessions::new(max_sesiones, s.max_sessions_per_client, cabida);
        let intentos = Intentos::new(s.sign_in_failures, s.sign_in_wait);
        let mut tx = parts.store.read().await?;
        retained.restaura(store::mqtt::retained(&mut tx).await?);
        let intervalos = store::sensores::intervals(&mut tx).await?;
        tx.commit().await?;
        let Restauradas { olvidar, legados } =
            sessions.restaura(&parts.store, &parts.directorio, s.open, ahora).await?;
        let estados = Estados::new(&retained, &parts.directorio, &intervalos, ahora);
        let puerta = Puerta::new(s.max_connections, s.max_connections_per_address);
        let (entrega, salidas) = site::canal();
        let broker = Self(Arc::new(Compartido {
            parts,
            router,
            retained,
            fila: Fila::default(),
            sessions,
            conexiones: TaskTracker::new(),
            puerta,
            intentos,
            apaga,
            numero: AtomicU64::new(1),
            estados,
            en_curso: EnCurso::default(),
            por_empezar: Mutex::new(Some((salidas, legados))),
        }));
        broker.0.parts.rutas.abre(Puente::new(&broker.0, entrega));
        if !olvidar.is_empty() {
            broker.0.guarda(olvidar).await;
        }
        Ok(broker)
    }

    /// The broker's own work, until the server stops: what the site says goes to its topics, wills and
    /// sessions come to their time, connections of those who may no longer be here end. None of these
    /// waits for another: a store that is away must not keep a revoked device connected.
    pub async fn run(self) {
        let b = &self.0;
        let por_empezar = b.por_empezar.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((salidas, legados)) = por_empezar else { return };
        let trabajo = async {
            tokio::join!(
                b.entrega_salidas(salidas),
                b.testamentos_de_antes(legados),
                b.atiende_pedidos(),
                b.cuenta_de_si(),
                b.anuncia_estados(),
                b.revoca_conexiones(),
                b.mira_el_reloj()
            );
        };
        tokio::select! {
            () = b.apaga.cancelled() => {}
            () = trabajo => {}
        }
    }

    /// Waits until every connection has ended, and the store knows what they completed.
    pub async fn closed(&self) {
        self.0.conexiones.close();
        self.0.conexiones.wait().await;
        // What was completed at the end is not to be sent again by the next start.
        self.0.guarda(self.0.sessions.toma_anotados()).await;
    }
}

impl Compartido {
    /// A number that no other connection has.
    pub(super) fn numero(&self) -> u64 {
        self.numero.fetch_add(1, Ordering::Relaxed)
    }

    /// Has changes committed, however long that takes. `false` when the server stops first or the
    /// database refuses them, which the writer has logged.
    pub(super) async fn guarda(&self, cambios: impl Into<Cambios>) -> bool {
        let cambios = cambios.into();
        if cambios.cambios.is_empty() {
            return true;
        }
        let Ok(respuesta) = self.parts.ingest.guardar(cambios).await else { return false };
        matches!(respuesta.await, Ok(Ok(())))
    }

    /// Has the store learn what nobody waits for of a session. What the writer has no room for now stays for the
    /// sweep, or for whoever comes.
    pub(super) fn apunta(&self, sesion: &Sesion) {
        let cambios = sesion.toma_anotados();
        if cambios.is_empty() {
            return;
        }
        if let Err(NoTomado::Lleno(cambios)) = self.parts.ingest.try_guardar(cambios) {
            sesion.devuelve_anotados(cambios.cambios);
        }
    }

    /// What hangs on a session that is over and out of the registry: it is forgotten, and what it had
    /// of shared subscriptions goes to another member.
    pub(super) async fn entierra(&self, sesion: &Arc<Sesion>, mut estado: Estado) {
        estado.emisor = None;
        let mut huerfanas = Vec::new();
        if sesion.filtros().iter().any(|f| super::topic::compartido(f).is_some()) {
            if let Some(id_sesion) = sesion.id_sesion.filter(|_| sesion.por_cargar()) {
                match self.cola(id_sesion).await {
                    Ok(filas) => sesion.carga(filas, &mut estado, 0),
                    Err(e) => tracing::warn!(error = %e, "a session's shared messages cannot be read"),
                }
            }
            huerfanas = sesion.huerfanas(&estado);
        }
        drop(estado);
        self.heredan(huerfanas).await;
        let mut cambios = sesion.toma_anotados();
        cambios.extend(sesion.id_sesion.map(Cambio::Termina));
        self.guarda(cambios).await;
    }

    /// What the store has for a session.
    pub(super) async fn cola(&self, id_sesion: i64) -> store::Result<Vec<store::mqtt::Encolada>> {
        let mut tx = self.parts.store.read().await?;
        let filas = store::mqtt::queue(&mut tx, id_sesion).await?;
        tx.commit().await?;
        Ok(filas)
    }

    /// Decodes a payload of a device that arrived at `ahora`.
    pub(super) fn lee(&self, sensor: &SensorRef, payload: &[u8], dup: bool, ahora: Timestamp) -> Mensaje {
        let d = decode::decode(payload, &sensor.device_id, ahora, &self.parts.settings.limites);
        let (lecturas, rechazos) = (d.lecturas, d.rechazos);
        Mensaje {
            sensor: sensor.clone(),
            lecturas,
            rechazos,
            recibido: ahora,
            dup,
            si_esperan: false,
            al_aceptar: Vec::new(),
            por_decir: None,
        }
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

    async fn revoca_conexiones(&self) {
        let mut revocados = self.parts.directorio.revocados();
        loop {
            match revocados.recv().await {
                Ok(quien) => self.sessions.revoca(&quien),
                Err(RecvError::Lagged(n)) => {
                    tracing::error!(n, "revocations were missed; everybody is to sign in again");
                    self.sessions.revoca_todas();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn mira_el_reloj(&self) {
        let mut reloj = tokio::time::interval(Duration::from_secs(1));
        reloj.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            reloj.tick().await;
            self.pasa_el_tiempo().await;
        }
    }

    /// What time has come for.
    pub(super) async fn pasa_el_tiempo(&self) {
        let ahora = self.parts.clock.now();
        let (vencidas, testamentos) = self.sessions.vencidas(ahora);
        for (quien, legado) in testamentos {
            self.testamento(&quien, legado).await;
        }
        for vencida in vencidas {
            self.entierra(&vencida.sesion, vencida.estado).await;
        }
        let directorio = &self.parts.directorio;
        let mut cambios = self.retained.limpia(ahora, |device_id, id| directorio.es(device_id, id));
        cambios.extend(self.sessions.toma_anotados());
        self.guarda(cambios).await;
        self.deja_de_creer(ahora);
        if let Err(e) = self.expira_comandos(ahora).await {
            tracing::warn!(error = %e, "commands whose time is over cannot be closed now");
        }
        gauge!("alertrace_mqtt_sessions").set(u32::try_from(self.sessions.cuantas()).unwrap_or(u32::MAX));
        gauge!("alertrace_mqtt_retained_messages")
            .set(u32::try_from(self.retained.cuantos()).unwrap_or(u32::MAX));
        gauge!("alertrace_mqtt_sockets").set(u32::try_from(self.conexiones.len()).unwrap_or(u32::MAX));
    }
}

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the store says.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What the system says.
    #[error(transparent)]
    Io(#[from] std::io::Error),
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
