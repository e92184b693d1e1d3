//! Fan-out inside the broker: the only file that names rumqttd.
//!
//! rumqttd's router matches topics against filters on a thread of its own and hands each link what
//! it asked for. What travels through it is a ticket of eight bytes; the message waits in a bounded
//! window ([`Ventana`]) that all links share, so a message is held once however many hear it, and a
//! link that lags behind the window loses what fell out of it, counted
//! (`docs/decisions/0002-tickets-through-the-router.md`).
//!
//! Limits of rumqttd 0.20 that are respected here: link names without `+ $ # /`; `build()` and
//! `publish()` block, so they run on threads of their own; a filter is never freed, so distinct
//! filters are capped; topics are prefixed, since its matching refuses `$…`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::counter;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router as Nucleo, RouterConfig, Strategy};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::publicacion::Publicacion;
use super::throttle::limita;

/// Messages that may wait for the router's thread.
const COLA: usize = 4_096;
/// The window: how many messages, and how many bytes of them, a slow link may lag.
const VENTANA: (usize, usize) = (65_536, 64 << 20);
/// How long a message waits in the window. A link is drained by a task that waits for nothing else, so this
/// is many times what one is ever behind; without it the window fills however little is said, and a
/// server that hears 200 messages a second grows for the first five minutes of its life.
const EDAD: Duration = Duration::from_secs(10);
/// A filter's log inside rumqttd: how many bytes make a segment, and how many segments. It counts the
/// ticket and the topic, some 20 bytes a message, takes about 330, and never gives them back: this comes to
/// 24,000 messages that a link may lag, and 8 MiB for a filter.
const SEGMENTO: (usize, usize) = (256 << 10, 2);
/// In front of every topic and filter, so that none begins with `$`.
const PREFIJO: &str = "t/";

/// How links are made; a closure, since rumqttd's event type has no public name.
type Enlaza = dyn Fn(&str) -> Result<(LinkTx, LinkRx), Box<LinkError>> + Send + Sync;

/// A handle to the router; cheap to clone.
#[derive(Clone)]
pub(super) struct Router {
    publica: mpsc::Sender<Ruteada>,
    comun: Arc<Comun>,
}

/// A message on its way through the router.
#[derive(Clone)]
pub(super) struct Ruteada {
    pub(super) publicacion: Arc<Publicacion>,
    /// The sessions (by number) that have it already.
    pub(super) dados: Vec<u64>,
    /// What [`Router::epoca`] was when it was published: it is for no later subscription.
    pub(super) epoca: u64,
}

/// What a link subscribes to, and from which [`Router::epoca`] on.
type Suscritos = Mutex<HashMap<String, u64>>;

struct Comun {
    enlaza: Box<Enlaza>,
    ventana: Mutex<Ventana>,
    /// Subscriptions in force: with none, nothing needs routing.
    suscripciones: AtomicUsize,
    /// Subscriptions ever made.
    epoca: AtomicU64,
    filtros: Mutex<HashSet<String>>,
    max_filtros: usize,
    /// Names of links that ended, to be used again.
    nombres: Mutex<(usize, Vec<String>)>,
    muerto: CancellationToken,
}

impl Comun {
    fn ventana(&self) -> MutexGuard<'_, Ventana> {
        self.ventana.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The router's thread is gone, which ends the process.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the router has stopped")]
pub(super) struct Parado;

/// Messages by number: those of the last [`EDAD`], at most [`VENTANA`] of them.
#[derive(Default)]
struct Ventana {
    mensajes: VecDeque<(Ruteada, Instant)>,
    /// Number of the first.
    primero: u64,
    bytes: usize,
}

impl Ventana {
    fn pon(&mut self, mensaje: Ruteada, ahora: Instant) -> u64 {
        self.bytes += peso(&mensaje);
        self.mensajes.push_back((mensaje, ahora));
        while self.mensajes.len() > 1
            && let Some((viejo, desde)) = self.mensajes.front()
            && (self.mensajes.len() > VENTANA.0 || self.bytes > VENTANA.1 || ahora - *desde > EDAD)
        {
            self.bytes -= peso(viejo);
            self.mensajes.pop_front();
            self.primero += 1;
        }
        self.primero + self.mensajes.len() as u64 - 1
    }

    fn toma(&self, numero: u64) -> Option<Ruteada> {
        let i = usize::try_from(numero.checked_sub(self.primero)?).ok()?;
        self.mensajes.get(i).map(|(mensaje, _)| mensaje.clone())
    }
}

/// Bytes that a message of the window takes.
fn peso(mensaje: &Ruteada) -> usize {
    mensaje.publicacion.peso() + size_of_val(&mensaje.dados[..])
}

impl Router {
    /// Starts the router's threads. `muerto` is cancelled when they end.
    ///
    /// # Errors
    /// When a thread or the first link cannot be made.
    pub(super) fn start(
        max_enlaces: usize,
        max_filtros: usize,
        muerto: CancellationToken,
    ) -> std::io::Result<Self> {
        let config = RouterConfig {
            max_connections: max_enlaces + 1,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENTO.0,
            max_segment_count: SEGMENTO.1,
            custom_segment: None,
            initialized_filters: None,
            shared_subscriptions_strategy: Strategy::RoundRobin,
        };
        let eventos = Nucleo::new(0, config).spawn();
        let enlaza = move |nombre: &str| {
            let (tx, rx, _) = LinkBuilder::new(nombre, eventos.clone()).build().map_err(Box::new)?;
            Ok((tx, rx))
        };
        let (mut tx, rx) = enlaza("server").map_err(std::io::Error::other)?;
        let (publica, mut llegadas) = mpsc::channel::<Ruteada>(COLA);
        let comun = Arc::new(Comun {
            enlaza: Box::new(enlaza),
            ventana: Mutex::default(),
            suscripciones: AtomicUsize::new(0),
            epoca: AtomicU64::new(0),
            filtros: Mutex::default(),
            max_filtros,
            nombres: Mutex::default(),
            muerto: muerto.clone(),
        });
        let ventanas = comun.clone();
        std::thread::Builder::new().name("mqtt-fanout".into()).spawn(move || {
            let _fin = muerto.drop_guard();
            // Its death on demand, as that of a task (`lifecycle`). Not in a release.
            #[cfg(debug_assertions)]
            if std::env::var("ALERTRACE_FAILPOINT").is_ok_and(|v| v == "ends:the MQTT router") {
                return;
            }
            // The link lives as long as this thread: nothing comes back on it.
            let _rx = rx;
            while let Some(mensaje) = llegadas.blocking_recv() {
                let topic = format!("{PREFIJO}{}", mensaje.publicacion.topic);
                let numero = ventanas.ventana().pon(mensaje, Instant::now());
                if let Err(e) = tx.publish(topic, numero.to_be_bytes().to_vec()) {
                    tracing::error!(error = %e, "the router has stopped");
                    return;
                }
            }
        })?;
        Ok(Self { publica, comun })
    }

    /// How many subscriptions have been made so far. The router's thread comes to a message later than its
    /// publisher is answered: by this, who subscribes in between is not taken for somebody who was there before.
    pub(super) fn epoca(&self) -> u64 {
        self.comun.epoca.load(Ordering::Acquire)
    }

    /// Routes a message, waiting for the router's thread when it is behind. Nothing happens while nobody
    /// subscribes.
    pub(super) async fn publish(&self, mensaje: Ruteada) -> Result<(), Parado> {
        if self.comun.suscripciones.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.publica.send(mensaje).await.map_err(|_| Parado)
    }

    /// Opens a link for a session that subscribes.
    pub(super) async fn link(&self) -> Result<(Emisor, Receptor), Parado> {
        let comun = self.comun.clone();
        let nombre = {
            let mut nombres = comun.nombres.lock().unwrap_or_else(PoisonError::into_inner);
            let (siguiente, libres) = &mut *nombres;
            libres.pop().unwrap_or_else(|| {
                *siguiente += 1;
                format!("s{siguiente}")
            })
        };
        let hecho = tokio::task::spawn_blocking(move || {
            let enlace = (comun.enlaza)(&nombre);
            (enlace, nombre, comun)
        });
        let (enlace, nombre, comun) = hecho.await.map_err(|_| Parado)?;
        let (tx, rx) = enlace.map_err(|e| {
            tracing::error!(error = %e, "a link to the router cannot be made");
            Parado
        })?;
        let suscritos = Arc::<Suscritos>::default();
        let emisor = Emisor { tx: Some(tx), nombre, comun: comun.clone(), suscritos: suscritos.clone() };
        Ok((emisor, Receptor { rx, comun, suscritos }))
    }
}

/// The half of a link that subscribes. Dropped, it ends the link.
pub(super) struct Emisor {
    tx: Option<LinkTx>,
    nombre: String,
    comun: Arc<Comun>,
    suscritos: Arc<Suscritos>,
}

fn cerrojo(suscritos: &Suscritos) -> MutexGuard<'_, HashMap<String, u64>> {
    suscritos.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emisor {
    /// Asks for what matches `filtro`. `false` when there are too many distinct filters.
    pub(super) fn subscribe(&mut self, filtro: &str) -> bool {
        if cerrojo(&self.suscritos).contains_key(filtro) {
            return true;
        }
        {
            let mut filtros = self.comun.filtros.lock().unwrap_or_else(PoisonError::into_inner);
            if filtros.len() >= self.comun.max_filtros && !filtros.contains(filtro) {
                limita("max_filters");
                return false;
            }
            filtros.insert(filtro.to_owned());
        }
        // Counted before the router knows: what is published from now on is routed.
        self.comun.suscripciones.fetch_add(1, Ordering::AcqRel);
        let desde = self.comun.epoca.fetch_add(1, Ordering::AcqRel) + 1;
        cerrojo(&self.suscritos).insert(filtro.to_owned(), desde);
        if let Some(tx) = &mut self.tx
            && tx.subscribe(format!("{PREFIJO}{filtro}")).is_err()
        {
            self.comun.muerto.cancel();
        }
        true
    }

    /// Asks no longer for what matches `filtro`.
    pub(super) fn unsubscribe(&mut self, filtro: &str) {
        if cerrojo(&self.suscritos).remove(filtro).is_none() {
            return;
        }
        self.comun.suscripciones.fetch_sub(1, Ordering::AcqRel);
        if let Some(tx) = &mut self.tx {
            let _ = tx.unsubscribe(format!("{PREFIJO}{filtro}"));
        }
    }
}

impl Drop for Emisor {
    fn drop(&mut self) {
        let cuantos = cerrojo(&self.suscritos).len();
        self.comun.suscripciones.fetch_sub(cuantos, Ordering::AcqRel);
        let Some(mut tx) = self.tx.take() else { return };
        let (comun, nombre) = (self.comun.clone(), std::mem::take(&mut self.nombre));
        // Telling the router blocks while it is behind: not on a thread of the runtime.
        let adios = move || {
            let fin = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
            tx.buffer().push_back(Packet::Disconnect(fin, None));
            if tx.unsubscribe("").is_ok() {
                comun.nombres.lock().unwrap_or_else(PoisonError::into_inner).1.push(nombre);
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(adios)),
            Err(_) => adios(),
        }
    }
}

/// The half of a link that hears.
pub(super) struct Receptor {
    rx: LinkRx,
    comun: Arc<Comun>,
    suscritos: Arc<Suscritos>,
}

impl Receptor {
    /// What the link subscribes to, each with the first [`Ruteada::epoca`] that is for it.
    pub(super) fn suscritos(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        cerrojo(&self.suscritos)
    }

    /// The next message and its number; `None` when the link has ended. A message that matches two filters of
    /// the link comes twice, with one number.
    pub(super) async fn next(&mut self) -> Option<(u64, Ruteada)> {
        loop {
            match self.rx.next().await.ok()? {
                Some(Notification::Forward(forward)) => {
                    let Some(numero) = numero(&forward.publish.payload) else { continue };
                    let mensaje = self.comun.ventana().toma(numero);
                    match mensaje {
                        Some(mensaje) => return Some((numero, mensaje)),
                        None => {
                            counter!("alertrace_mqtt_messages_dropped_total", "reason" => "lag").increment(1);
                        }
                    }
                }
                // The router stopped reading for us because we had much to take: we have it now.
                Some(Notification::Unschedule) => self.rx.wake().await.ok()?,
                Some(Notification::Disconnect(..)) => return None,
                _ => {}
            }
        }
    }
}

fn numero(payload: &Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(payload[..].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::publicacion::Qos;

    fn mensaje(n: usize) -> Ruteada {
        en(format!("a/{n}"))
    }

    fn en(topic: String) -> Ruteada {
        let publicacion = Arc::new(Publicacion::del_servidor(topic, "1", Qos::Uno, false));
        Ruteada { publicacion, dados: Vec::new(), epoca: 0 }
    }

    #[test]
    fn the_window_forgets_the_oldest() {
        let mut ventana = Ventana::default();
        let ahora = Instant::now();
        let numeros: Vec<u64> = (0..VENTANA.0 + 10).map(|n| ventana.pon(mensaje(n), ahora)).collect();
        assert!(ventana.toma(numeros[9]).is_none());
        let topic = |n: u64| ventana.toma(n).unwrap().publicacion.topic.clone();
        assert_eq!(topic(numeros[10]), "a/10");
        assert_eq!(topic(*numeros.last().unwrap()), format!("a/{}", VENTANA.0 + 9));
        assert!(ventana.toma(u64::MAX).is_none());
    }

    #[test]
    fn the_window_does_not_keep_what_every_link_has_had_time_for() {
        let mut ventana = Ventana::default();
        let inicio = Instant::now();
        // Two hundred a second for a minute.
        let numeros: Vec<u64> = (0..12_000)
            .map(|n| {
                let cuando = inicio + Duration::from_millis(5) * u32::try_from(n).unwrap();
                ventana.pon(mensaje(n), cuando)
            })
            .collect();
        assert_eq!(ventana.mensajes.len(), 2_001);
        assert_eq!(ventana.bytes, ventana.mensajes.iter().map(|(m, _)| peso(m)).sum::<usize>());
        assert!(ventana.toma(numeros[9_998]).is_none());
        assert_eq!(ventana.toma(numeros[9_999]).unwrap().publicacion.topic, "a/9999");
        assert_eq!(ventana.toma(numeros[11_999]).unwrap().publicacion.topic, "a/11999");
    }

    #[tokio::test]
    async fn a_link_hears_what_it_asked_for_in_order_and_names_are_used_again() {
        let router = Router::start(10, 10, CancellationToken::new()).unwrap();
        let (mut emisor, mut receptor) = router.link().await.unwrap();
        assert!(emisor.subscribe("a/+"));
        assert!(emisor.subscribe("$x/#"));
        for n in 0..1_000 {
            router.publish(mensaje(n)).await.unwrap();
        }
        for n in 0..1_000 {
            assert_eq!(receptor.next().await.unwrap().1.publicacion.topic, format!("a/{n}"));
        }
        router.publish(en("$x/y".to_owned())).await.unwrap();
        assert_eq!(receptor.next().await.unwrap().1.publicacion.topic, "$x/y");
        drop(emisor);
        assert!(receptor.next().await.is_none());
        // With nobody subscribed nothing is routed; a new link starts from now.
        router.publish(mensaje(1)).await.unwrap();
        let (mut emisor, mut receptor) = router.link().await.unwrap();
        assert!(emisor.subscribe("a/+"));
        router.publish(mensaje(2)).await.unwrap();
        assert_eq!(receptor.next().await.unwrap().1.publicacion.topic, "a/2");
    }

    #[tokio::test]
    async fn what_was_published_before_a_subscription_and_comes_after_it_is_known_by_its_moment() {
        let router = Router::start(10, 10, CancellationToken::new()).unwrap();
        let (mut antes, _otro) = router.link().await.unwrap();
        assert!(antes.subscribe("z/+/z"));
        let (mut emisor, mut receptor) = router.link().await.unwrap();
        let publica = |topic: String| {
            let mensaje = Ruteada { epoca: router.epoca(), ..en(topic) };
            let router = router.clone();
            async move { router.publish(mensaje).await.unwrap() }
        };
        // More than the router's thread has dealt with by the time that somebody subscribes.
        for n in 0..3_000 {
            publica(format!("a/{n}")).await;
        }
        assert!(emisor.subscribe("a/+"));
        publica("a/last".to_owned()).await;
        loop {
            let (_, mensaje) = receptor.next().await.unwrap();
            let es_para_el = receptor.suscritos()["a/+"] <= mensaje.epoca;
            assert_eq!(es_para_el, mensaje.publicacion.topic == "a/last");
            if es_para_el {
                return;
            }
        }
    }
}
