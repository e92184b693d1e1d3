//! The composition root: the parts, in the order in which they start.

mod accounts;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{self, Config};
use crate::domain::Clock;
use crate::identity::correo;
use crate::identity::cuentas::Cuentas;
use crate::identity::tokens::SinClave;
use crate::identity::{Directorio, Prueba, Revocado, Roto, Sello};
use crate::ingest::decode::Limites;
use crate::ingest::{self, Ingest};
use crate::lifecycle::{self, Tasks, Tokens, systemd};
use crate::mantenimiento::{self, Mantenimiento};
use crate::realtime::{Clientes, Hub, Pedidos, Presencia, Rutas};
use crate::store::{self, Store};
use crate::tls::{Acceptor, Certs};
use crate::{api, mqtt, tls};

pub use accounts::{account_settings, accounts};

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

/// What nobody counts as it happens: looked at now and then.
struct Sampled {
    ingest: Ingest,
    broker_ready: watch::Receiver<bool>,
    /// Where the database grows.
    disk: PathBuf,
    queue: usize,
}

impl Sampled {
    fn new(config: &Config, ingest: &Ingest, tokens: &Tokens) -> Self {
        Self {
            ingest: ingest.clone(),
            broker_ready: until_dead(tokens),
            disk: config.store_dir(),
            queue: config.ingest.queue,
        }
    }

    fn take(&self) {
        let gauges = [
            ("alertrace_ingest_queue_readings", self.ingest.waiting()),
            ("alertrace_ingest_queue_limit_readings", self.queue),
            (
                "alertrace_ready",
                usize::from(self.ingest.salud() == ingest::Salud::Listo && *self.broker_ready.borrow()),
            ),
        ];
        for (name, n) in gauges {
            gauge!(name).set(u32::try_from(n).unwrap_or(u32::MAX));
        }
        if let Ok(disk) = rustix::fs::statvfs(&self.disk) {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            gauge!("alertrace_disk_free_bytes").set(disk.f_bavail.saturating_mul(disk.f_frsize) as f64);
        }
    }
}

/// Folds samples together now and then, so that they do not pile up between two scrapes.
async fn upkeep(metrics: PrometheusHandle, sampled: Sampled, stop: tokio_util::sync::CancellationToken) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {
                sampled.take();
                metrics.run_upkeep();
            }
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

/// What the database needs for as long as it is used.
fn keep(store: &Store, clock: &Arc<dyn Clock>, retention: Duration, tasks: &mut Tasks, tokens: &Tokens) {
    tasks.spawn("the lease on the database", store.clone().keep_lease(tokens.parar.clone()));
    let months = partitions(store.clone(), clock.clone(), retention, tokens.parar.clone());
    tasks.spawn("the partitions of readings", months);
}

/// Makes room for readings ahead of time and drops what is past its days, now and every hour.
async fn partitions(
    store: Store,
    clock: Arc<dyn Clock>,
    retention: Duration,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut every = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let now = clock.now();
        if let Err(e) = store.keep_partitions(now, now.minus(retention)).await {
            tracing::warn!(error = %e, "the partitions of readings cannot be looked after now");
            every.reset_after(Duration::from_secs(60));
        }
    }
}

/// Opens what `[database]` names.
///
/// # Errors
/// As [`Store::open_sqlite`] and [`Store::open_postgres`].
pub async fn open_store(config: &Config) -> store::Result<Store> {
    if let Some(options) = postgres_options(config) {
        return Store::open_postgres(&options).await;
    }
    let options = store::Options {
        readers: config.store.readers,
        busy_timeout: Duration::from_millis(config.store.busy_timeout_ms),
    };
    Store::open_sqlite(&config.sqlite_path(), options).await
}

/// As [`open_store`], for a server: PostgreSQL may come up later than it does.
async fn await_store(config: &Config) -> store::Result<Store> {
    match postgres_options(config) {
        Some(options) => {
            let paciencia = Duration::from_secs(config.database.start_wait_s);
            Store::await_postgres(&options, paciencia).await
        }
        None => open_store(config).await,
    }
}

/// How PostgreSQL is reached; `None` = the data is in SQLite.
#[must_use]
pub fn postgres_options(config: &Config) -> Option<store::PostgresOptions> {
    let database = &config.database;
    let config::Address::Postgres(url) = &database.address else { return None };
    Some(store::PostgresOptions {
        url: url.clone(),
        direct_url: database.direct_url.clone(),
        ca: database.ca.clone(),
        schema: database.schema.clone(),
        max_connections: database.max_connections,
        acquire_timeout: Duration::from_millis(database.acquire_timeout_ms),
        data_dir: config.data_dir.clone(),
        copy: database.copy_before_migrating,
    })
}

fn retention(config: &Config) -> Duration {
    days(config.store.retention_days)
}

fn limites(config: &Config) -> Limites {
    Limites { adelanto: Duration::from_secs(config.ingest.clock_skew_s), retencion: retention(config) }
}

fn ingest_settings(config: &Config) -> ingest::Ajustes {
    ingest::Ajustes {
        cola: config.ingest.queue,
        lote: config.ingest.max_batch,
        rechazos_por_sensor: i64::from(config.ingest.rejected_per_sensor),
    }
}

fn maintenance_settings(config: &Config) -> mantenimiento::Ajustes {
    mantenimiento::Ajustes {
        lecturas: days(config.store.retention_days),
        horas: days(config.store.hourly_retention_days),
        rechazos: days(config.ingest.rejected_days),
        auditoria: days(config.store.audit_days),
        disco: config.store.max_bytes,
    }
}

fn mqtt_settings(config: &Config) -> mqtt::Settings {
    let m = &config.mqtt;
    mqtt::Settings {
        open: m.open,
        open_refused: m.open_refused.clone(),
        legacy: m.legacy,
        max_connections: m.max_connections,
        max_connections_per_address: m.max_connections_per_address,
        connect_deadline: Duration::from_secs(m.connect_deadline_s),
        handshake_deadline: Duration::from_secs(m.handshake_deadline_s),
        sign_in_failures: m.sign_in_failures,
        sign_in_wait: Duration::from_secs(m.sign_in_wait_s),
        proxy_from: m.proxy_from.clone(),
        max_packet: m.max_packet_bytes,
        receive_maximum: m.receive_maximum,
        max_session_expiry: m.max_session_expiry_s,
        max_sessions_per_client: m.max_sessions_per_client,
        max_queued: m.max_queued_messages,
        max_queued_bytes: m.max_queued_bytes,
        max_keep_alive: m.max_keep_alive_s,
        max_messages_per_s: m.max_messages_per_s,
        max_bytes_per_s: m.max_bytes_per_s,
        rate_patience: Duration::from_secs(m.rate_patience_s),
        sys_interval: Duration::from_secs(m.sys_interval_s),
        max_topic_levels: m.max_topic_levels,
        max_topic_bytes: m.max_topic_bytes,
        max_subscriptions: m.max_subscriptions,
        max_filters: m.max_filters,
        max_retained: m.max_retained,
        limites: limites(config),
    }
}

fn api_settings(config: &Config) -> api::Settings {
    let h = &config.http;
    api::Settings {
        allowed_origins: h.allowed_origins.clone(),
        body_limit: h.body_limit_bytes,
        timeout: Duration::from_secs(h.timeout_s),
        // The other half is for what follows: sessions, the writer, the store.
        grace: Duration::from_secs(config.shutdown.deadline_s) / 2,
        connections_per_address: h.max_connections_per_address,
        rates: api::RateLimits {
            per_address: h.max_requests_per_address_per_s,
            per_token: h.max_requests_per_token_per_s,
            sign_ins: h.max_sign_ins_per_address_per_min,
        },
        behind_proxy: h.behind_proxy,
        mqtt_packet: config.mqtt.max_packet_bytes as usize,
        max_sockets: h.max_sockets,
        socket_queue: h.socket_queue,
        limites: limites(config),
        compat: config
            .identity
            .supabase_compat
            .as_ref()
            .map(|c| api::CompatKeys { anon: c.key.clone(), service_role: c.service_role_key.clone() }),
    }
}
