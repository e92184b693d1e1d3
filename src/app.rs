//! The composition root: the parts, in the order in which they start.

mod accounts;
mod database;
mod sampled;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{self, Config};
use crate::domain::Clock;
use crate::identity::correo;
use crate::identity::cuentas::Cuentas;
use crate::identity::tokens::SinClave;
use crate::identity::{Directorio, Prueba, Revocado, Roto, Sello};
use crate::ingest::Ingest;
use crate::lifecycle::{self, Tasks, Tokens, systemd};
use crate::mantenimiento::{self, Mantenimiento};
use crate::realtime::{Clientes, Hub, Pedidos, Presencia, Rutas};
use crate::store::{self, Store};
use crate::tls::{Acceptor, Certs};
use crate::{api, mqtt, tls};

use database::{await_store, keep};
use sampled::{Sampled, upkeep};
use settings::{api_settings, ingest_settings, maintenance_settings, mqtt_settings, retention};

pub use accounts::{account_settings, accounts};
pub use database::{open_store, postgres_options};

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The secret that signs tokens.
    #[error(transparent)]
    Secret(#[from] config::secrets::Error),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// An address that cannot be had.
    #[error("cannot listen on {address} for {what}")]
    Listen {
        /// `http.listen`, `mqtt.listen` or `mqtt.tls_listen`.
        what: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The broker.
    #[error("the broker cannot start: {0}")]
    Broker(#[from] mqtt::Error),
    /// What answers are kept with.
    #[error(transparent)]
    Sello(#[from] Roto),
    /// What tokens are signed with.
    #[error(transparent)]
    Firmante(#[from] SinClave),
    /// How mail leaves.
    #[error(transparent)]
    Correo(#[from] correo::Malo),
    /// The client of the identity provider.
    #[error("the client of the identity provider cannot be made: {0}")]
    Supabase(String),
    /// Anything else that the system refuses.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A server that runs.
pub struct Running {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where plain MQTT is served.
    pub mqtt: Option<SocketAddr>,
    /// Where MQTT over TLS is served.
    pub mqtts: Option<SocketAddr>,
    /// What TLS is served with, where it is.
    pub certs: Option<Certs>,
    /// For whoever started it: the demo makes its empresa with these.
    pub cuentas: Cuentas,
    /// See `cuentas`.
    pub store: Store,
    /// See `cuentas`.
    pub directorio: Arc<Directorio>,
    broker: mqtt::Broker,
    tasks: Tasks,
    writer: Tasks,
    tokens: Tokens,
    deadline: Duration,
}

/// Starts everything. What it listens on is bound when this returns.
///
/// # Errors
/// [`Error`]; nothing runs then.
pub async fn start(
    config: &Config,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
) -> Result<Running, Error> {
    let tokens = Tokens::default();
    let (mut tasks, mut writer) = (Tasks::default(), Tasks::default());

    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let secret = config::secrets::jwt_secret(config)?;
    let (http_listener, mqtt_listener, tls_listener) = listeners(config).await?;

    let store = await_store(config).await?;
    // With the database's lock in hand: two processes must not make the same files.
    let certs = config.needs_certificates().then(|| Certs::open(config, clock.clone())).transpose()?;
    let directorio = Arc::new(Directorio::load(&store).await?);
    let cuentas = accounts(config, store.clone(), clock.clone(), directorio.clone(), secret.expose())?;
    tasks.spawn("the registrations", cuentas.clone().reconcilia(tokens.parar.clone()));
    let (hub, pedidos, presencia) = (Hub::default(), Pedidos::default(), Arc::new(Presencia::default()));
    let clientes = Arc::new(Clientes::default());
    let rutas = Rutas::default();
    let (ingest, work) = Ingest::start(
        store.clone(),
        (hub.clone(), rutas.clone()),
        clock.clone(),
        ingest_settings(config),
        tokens.drenar.clone(),
    )
    .await?;
    writer.spawn("the writer", work);
    feed_watchdog(&mut tasks, &ingest, &tokens);
    keep(&store, &clock, retention(config), &mut tasks, &tokens);

    let disco = maintain(&mut tasks, (&store, &ingest, &clock), config, &tokens);

    let parts = mqtt::Parts {
        store: store.clone(),
        cuentas: cuentas.clone(),
        prueba: Prueba::new(secret.expose())?,
        directorio: directorio.clone(),
        ingest: ingest.clone(),
        hub: hub.clone(),
        rutas,
        pedidos: pedidos.clone(),
        clientes: clientes.clone(),
        presencia: presencia.clone(),
        clock: clock.clone(),
        settings: mqtt_settings(config),
    };
    let broker = mqtt::Broker::start(parts, tokens.parar.clone(), tokens.muerto.clone()).await?;
    tasks.spawn("the broker", broker.clone().run());
    let address = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
    let (mqtt_address, tls_address) = (address(&mqtt_listener)?, address(&tls_listener)?);
    serve_mqtt(&mut tasks, &broker, mqtt_listener, tls_listener.zip(certs.as_ref().map(Certs::mqtt)));
    if let Some(certs) = &certs {
        tasks.spawn("the certificates", watch_certs(certs, &directorio, &tokens));
    }

    let (door, sampled) = (broker.clone(), Sampled::new(config, &ingest, &tokens));
    let gate: api::Gate = Arc::new(move |stream, ip| Box::pin(door.clone().serve_stream(stream, ip)));
    let state = api::State::new(api::Parts {
        mqtt: gate,
        store: store.clone(),
        ingest,
        directorio: directorio.clone(),
        hub,
        pedidos,
        clientes,
        presencia,
        clock,
        cuentas: cuentas.clone(),
        sello: Sello::new(secret.expose(), "idempotency answers")?,
        broker_ready: until_dead(&tokens),
        disco,
        metrics: metrics.clone(),
        settings: api_settings(config),
    });
    let http_address = http_listener.local_addr()?;
    let https = certs.as_ref().filter(|_| config.http.tls).map(Certs::http);
    tasks.spawn("the events for WebSockets", state.fan_out(tokens.parar.clone()));
    tasks.spawn("the HTTP server", api::serve(http_listener, https, state, tokens.parar.clone()));
    tasks.spawn("the metrics", upkeep(metrics, sampled, tokens.parar.clone()));

    tracing::info!(
        http = %http_address,
        mqtt = mqtt_address.map(tracing::field::display),
        mqtts = tls_address.map(tracing::field::display),
        "ready"
    );
    Ok(Running {
        http: http_address,
        mqtt: mqtt_address,
        mqtts: tls_address,
        certs,
        cuentas,
        store,
        directorio,
        broker,
        tasks,
        writer,
        tokens,
        deadline: Duration::from_secs(config.shutdown.deadline_s),
    })
}

impl Running {
    /// Runs until `stop` returns, then ends in order.
    ///
    /// # Errors
    /// When a part died, or could not finish in time.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), lifecycle::Error> {
        systemd::ready(&format!("serving HTTP on {}", self.http));
        let died = tokio::select! {
            () = stop => None,
            died = self.tasks.first_end() => Some(died),
            died = self.writer.first_end() => Some(died),
            () = self.tokens.muerto.cancelled() => Some(lifecycle::Error::Died("the MQTT router".into())),
        };
        systemd::stopping();
        if let Some(died) = &died {
            tracing::error!(error = %died, "stopping");
        } else {
            tracing::info!("stopping");
        }
        let stopped = self.stop().await;
        died.map_or(stopped, Err)
    }

    /// Stops accepting, finishes, commits, acknowledges, closes.
    ///
    /// # Errors
    /// When a part panicked, or could not finish in time.
    pub async fn stop(mut self) -> Result<(), lifecycle::Error> {
        let deadline = self.deadline;
        let end = async {
            self.tokens.parar.cancel();
            let tasks = self.tasks.all_end().await;
            // Sessions wait for their commits; the writer works until they have them.
            self.broker.closed().await;
            self.tokens.drenar.cancel();
            let writer = self.writer.all_end().await;
            self.store.close().await;
            tasks.and(writer)
        };
        let stopped = tokio::time::timeout(deadline, end).await;
        let stopped = stopped.unwrap_or(Err(lifecycle::Error::Deadline(deadline)));
        if stopped.is_ok() {
            tracing::info!("stopped");
        }
        stopped
    }
}

/// Tells systemd, when it wants to know, that the writer of readings still answers.
fn feed_watchdog(tasks: &mut Tasks, ingest: &Ingest, tokens: &Tokens) {
    let Some(within) = systemd::watchdog() else { return };
    let ingest = ingest.clone();
    let works = move || {
        let ingest = ingest.clone();
        async move { ingest.late().await }
    };
    tasks.spawn("the watchdog", systemd::feed(within, works, tokens.parar.clone()));
}

/// Accepts on those of the two that there are.
fn serve_mqtt(
    tasks: &mut Tasks,
    broker: &mqtt::Broker,
    plain: Option<TcpListener>,
    tls: Option<(TcpListener, Acceptor)>,
) {
    if plain.is_none() && tls.is_none() {
        return;
    }
    let serve = broker.clone().serve(plain, tls);
    tasks.spawn("the MQTT listener", async move {
        if let Err(e) = serve.await {
            tracing::error!(error = %e, "the MQTT listener failed");
        }
    });
}

/// What is done when nobody asks; answers how the disk stands.
fn maintain(
    tasks: &mut Tasks,
    (store, ingest, clock): (&Store, &Ingest, &Arc<dyn Clock>),
    config: &Config,
    tokens: &Tokens,
) -> watch::Receiver<mantenimiento::Disco> {
    let (ajustes, parar) = (maintenance_settings(config), tokens.parar.clone());
    tasks.spawn("the checkpoints", store.clone().checkpoint(parar.clone()));
    let m = Mantenimiento::new(store.clone(), ingest.clone(), clock.clone(), ajustes, parar);
    tasks.spawn("the sums of hours", m.clone().sum_hours());
    tasks.spawn("the retention", m.clone().forget());
    tasks.spawn("the disk budget", m.clone().keep_to_disk());
    m.disco()
}

/// Follows the certificates; a device whose certificate is revoked is cut off.
fn watch_certs(
    certs: &Certs,
    directorio: &Arc<Directorio>,
    tokens: &Tokens,
) -> impl Future<Output = ()> + Send + use<> {
    let directorio = directorio.clone();
    let revoked = move |device_id: &str| {
        if let Some(sensor) = directorio.sensor(device_id) {
            directorio.revoca(Revocado::Dispositivo(sensor.id_sensor));
        }
    };
    certs.clone().watch(revoked, tokens.parar.clone())
}

/// True until the router dies.
fn until_dead(tokens: &Tokens) -> watch::Receiver<bool> {
    let (ready, hear) = watch::channel(true);
    let muerto = tokens.muerto.clone();
    tokio::spawn(async move {
        muerto.cancelled().await;
        ready.send_replace(false);
    });
    hear
}

/// The ports of HTTP, of MQTT in clear and over TLS.
async fn listeners(
    config: &Config,
) -> Result<(TcpListener, Option<TcpListener>, Option<TcpListener>), Error> {
    Ok((
        bind("http.listen", config.http.listen).await?,
        bind_if("mqtt.listen", config.mqtt.listen).await?,
        bind_if("mqtt.tls_listen", config.mqtt.tls_listen).await?,
    ))
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { what, address, source })
}

async fn bind_if(what: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    match address {
        Some(address) => bind(what, address).await.map(Some),
        None => Ok(None),
    }
}
