//! `alertrace simulate`: readings for a broker, and what it acknowledged of them: those of as many sensors at
//! their pace, or, with `--load`, as many as it takes.
//!
//! Against Alertrace it registers its devices by REST and, with `--verify`, reads back every
//! acknowledged (device, timestamp); against any other broker it publishes anonymously.
#![expect(clippy::cast_precision_loss, reason = "counts and rates for a person to read")]

mod client;
mod site;
mod sockets;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::Instant;

use client::{Cliente, Como, Enviado};

use crate::tls::Connector;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(super) struct Args {
    /// Broker to send to.
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    broker: String,
    /// Connections, each a device of its own.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Unacknowledged messages of each connection.
    #[arg(long, default_value_t = 10)]
    window: usize,
    /// As many messages as are acknowledged, or as --rate says. Not for a site that others work with.
    #[arg(long)]
    load: bool,
    /// Messages a second, all connections together [default: one of each connection, or no limit with --load].
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// How long to send.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// QoS: 0 (nothing is acknowledged), 1 or 2.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Over TLS, with a server whose certificate this authority (PEM) has signed.
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// MQTT version: 4 (3.1.1) or 5.
    #[arg(long = "mqtt-version", default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    version: u8,
    /// Where messages go without --api, anonymously; {n} is the connection's number.
    #[arg(long, default_value = "load/{n}/data", conflicts_with = "api")]
    topic: String,
    /// Alertrace's API: its devices are registered there.
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Account that may register devices.
    #[arg(long, requires = "api")]
    email: Option<String>,
    /// Its password.
    #[arg(long, env = "ALERTRACE_PASSWORD", hide_env_values = true, requires = "api")]
    password: Option<String>,
    /// WebSockets that hear the readings meanwhile, each those of one device.
    #[arg(long, default_value_t = 0, requires = "api", value_name = "N")]
    sockets: usize,
    /// Each of them hears all devices.
    #[arg(long, requires = "sockets")]
    sockets_hear_all: bool,
    /// Set thresholds of the account's empresa that one reading in ten crosses.
    #[arg(long, requires = "api")]
    crossing: bool,
    /// Afterwards, look every acknowledged reading up.
    #[arg(long, requires = "api")]
    verify: bool,
}

/// What one connection came to.
#[derive(Default)]
struct Cuenta {
    enviados: u64,
    confirmados: Vec<Enviado>,
    /// What was sent and not acknowledged (whether it is stored is open), in the order of the acknowledgements,
    /// unless the broker breaks it.
    abiertos: VecDeque<client::Abierto>,
    error: Option<String>,
}

/// Runs the load and prints the report.
pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.connections > 0 && args.window > 0, "--connections and --window begin at 1");
    let mut site = None;
    let devices = match &args.api {
        Some(api) => {
            let email = args.email.as_deref().context("--api needs --email")?;
            let password =
                args.password.as_deref().context("--api needs --password or ALERTRACE_PASSWORD")?;
            let signed_in = site::Site::sign_in(api, email, password).await?;
            let bar = bar(args.connections as u64, "registering devices");
            let mut devices = Vec::new();
            for n in 0..args.connections {
                devices.push(signed_in.device(&format!("load-{n:05}")).await?);
                bar.inc(1);
            }
            bar.finish_and_clear();
            if args.crossing {
                signed_in.umbrales(client::UMBRAL).await?;
            }
            site = Some(signed_in);
            devices
        }
        None => (0..args.connections).map(|n| site::Device::anonymous(n, &args.topic)).collect(),
    };
    let oyentes = match &site {
        Some(site) => {
            Some(sockets::Oyentes::open(site, &devices, args.sockets, args.sockets_hear_all).await?)
        }
        None => None,
    };
    let cuentas = send(args, &devices).await?;
    if let Some(oyentes) = oyentes.filter(|_| args.sockets > 0) {
        oyentes.report().await?;
    }
    let (acked, seconds) = report(&cuentas.0, cuentas.1, args.qos)?;
    if args.verify
        && let Some(site) = &site
    {
        verify(site, &devices, &cuentas.0, args.qos).await?;
    }
    let how = if args.qos == 0 { "sent" } else { "acknowledged" };
    println!("{:.0} {how}/s", acked as f64 / seconds);
    Ok(())
}

/// Sends from every connection until the time is over; answers what each came to, and the seconds
/// from the first message to the last acknowledgement.
async fn send(args: &Args, devices: &[site::Device]) -> anyhow::Result<(Vec<Cuenta>, f64)> {
    let avance = Arc::new(AtomicU64::new(0));
    let mut conectados = Vec::new();
    let tls = args.ca.as_deref().map(Connector::new).transpose().context("--ca")?;
    for device in devices {
        let como = Como { version: args.version, qos: args.qos, tls: tls.as_ref() };
        let cliente = Cliente::connect(&args.broker, como, device).await;
        conectados.push(cliente.with_context(|| format!("{} cannot connect", device.nombre))?);
    }
    let cada = match args.rate {
        Some(rate) => Duration::from_secs_f64(args.connections as f64 / f64::from(rate.get())),
        None if args.load => Duration::ZERO,
        None => Duration::from_secs(1),
    };
    let start = Instant::now();
    let end = start + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for (n, cliente) in conectados.into_iter().enumerate() {
        let (avance, window) = (avance.clone(), args.window);
        // Spread over the interval: a fleet does not speak in chorus.
        let primero = start + cada.mul_f64(n as f64 / args.connections as f64);
        tasks.spawn(async move { (n, cliente.run(primero, cada, end, window, &avance).await) });
    }
    let bar = bar(args.seconds, "sending");
    let mira = bar.clone();
    // Looked at, not told: what counts each message is not to wake anybody for it.
    let vista = tokio::spawn(async move {
        let mut cada_segundo = tokio::time::interval(Duration::from_secs(1));
        loop {
            cada_segundo.tick().await;
            mira.set_position(start.elapsed().as_secs());
            mira.set_message(format!("{} acknowledged", avance.load(Ordering::Relaxed)));
        }
    });
    let mut cuentas: Vec<Cuenta> = Vec::new();
    cuentas.resize_with(devices.len(), Cuenta::default);
    let mut seconds = 0.0;
    while let Some(hecho) = tasks.join_next().await {
        let (n, cuenta) = hecho?;
        cuentas[n] = cuenta;
        seconds = start.elapsed().as_secs_f64();
    }
    vista.abort();
    bar.finish_and_clear();
    Ok((cuentas, seconds))
}

fn report(cuentas: &[Cuenta], seconds: f64, qos: u8) -> anyhow::Result<(u64, f64)> {
    let mut latencias = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let (mut enviados, mut confirmados) = (0, 0);
    for cuenta in cuentas {
        enviados += cuenta.enviados;
        for enviado in &cuenta.confirmados {
            confirmados += 1;
            latencias.saturating_record(u64::try_from(enviado.latencia.as_micros()).unwrap_or(u64::MAX));
        }
        if let Some(error) = &cuenta.error {
            println!("a connection failed: {error}");
        }
    }
    let ms = |q: f64| latencias.value_at_quantile(q) as f64 / 1_000.0;
    if qos == 0 {
        println!("sent {enviados} in {seconds:.2} s, of which nothing is acknowledged (QoS 0)");
        return Ok((enviados, seconds));
    }
    println!("sent {enviados}, acknowledged {confirmados} in {seconds:.2} s");
    println!(
        "acknowledgement: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(0.999),
        ms(1.0)
    );
    Ok((confirmados, seconds))
}

/// Compares what was acknowledged with what the API gives back.
async fn verify(
    site: &site::Site,
    devices: &[site::Device],
    cuentas: &[Cuenta],
    qos: u8,
) -> anyhow::Result<()> {
    let bar = bar(devices.len() as u64, "verifying");
    let (mut faltan, mut dobles, mut ajenos, mut vistos) = (0_usize, 0_usize, 0_usize, 0_usize);
    for (device, cuenta) in devices.iter().zip(cuentas) {
        let Some(desde) = cuenta.confirmados.iter().map(|e| e.micros).min() else { continue };
        let guardados = site.readings(device, desde).await?;
        vistos += guardados.len();
        let unicos: std::collections::HashSet<i64> = guardados.iter().copied().collect();
        dobles += guardados.len() - unicos.len();
        faltan += cuenta.confirmados.iter().filter(|e| !unicos.contains(&e.micros)).count();
        // A message that is stored twice is so under a moment that nobody sent: (sensor, moment) is the key.
        let enviados =
            cuenta.confirmados.iter().map(|e| e.micros).chain(cuenta.abiertos.iter().map(|a| a.micros));
        ajenos += unicos.difference(&enviados.collect()).count();
        bar.inc(1);
    }
    bar.finish_and_clear();
    let how = if qos == 0 { "sent" } else { "acknowledged" };
    println!(
        "verified {vistos} stored readings: {faltan} {how} and missing, {dobles} stored twice, \
         {ajenos} that nobody sent"
    );
    anyhow::ensure!(dobles == 0 && ajenos == 0, "the broker stores what it was not sent, or more than once");
    anyhow::ensure!(faltan == 0 || qos == 0, "the broker does not keep what it acknowledges");
    Ok(())
}

/// A progress bar; nothing where there is no terminal.
fn bar(len: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len} {msg}");
    ProgressBar::new(len).with_prefix(what).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
