//! What a well-behaved device notices while others misbehave. Started by `scripts/soak`, which starts
//! the server.
//!
//! Devices send readings at a steady rate; each scenario is measured before, during and after. Beside
//! them, once a second, a newcomer signs in. A message counts for the phase it was sent in, so one that
//! waits to the next phase for its acknowledgement is not lost from the figures.

#[path = "../common/mod.rs"]
mod common;
mod floods;
mod scenarios;

use std::collections::HashMap;
use std::io::Result;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alertrace::domain::{Clock as _, SystemClock};
use clap::{Parser, ValueEnum as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use common::{Client, Device, Latencies, Login, PUBACK, Site, mib, source};
use scenarios::{Counts, Scenario, attack};

/// Devices that behave.
const DEVICES: u64 = 4;
/// The first phase, which is not shown: nothing is warm yet.
const WARM_UP: &str = "warm-up";

#[derive(Parser)]
struct Args {
    /// MQTT in clear, open to anonymous clients.
    #[arg(long)]
    mqtt: SocketAddr,
    /// MQTT over TLS.
    #[arg(long)]
    mqtts: SocketAddr,
    /// The site's authority.
    #[arg(long)]
    ca: PathBuf,
    #[arg(long)]
    api: String,
    #[arg(long)]
    email: String,
    #[arg(long, env = "ALERTRACE_PASSWORD", hide_env_values = true)]
    password: String,
    /// The server's process.
    #[arg(long)]
    pid: u32,
    /// How long each scenario lasts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=3_600))]
    seconds: u64,
    /// Seconds of quiet before and after each.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    quiet: u64,
    /// Readings a second of the devices that behave, all together.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(4..=100_000))]
    rate: u64,
    /// Slow clients, of each of two kinds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    slow: u32,
    /// Connections a second without CONNECT.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connects: u32,
    /// TLS handshakes a second that stop.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    handshakes: u32,
    /// Connections a second that say what is no MQTT.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    garbage: u32,
    /// Messages a second to the subscriber of everything.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: u32,
    /// How many times its quiet p99 a device's p99 may be during a scenario.
    #[arg(long, default_value_t = 5.0)]
    factor: f64,
    /// Milliseconds below which a p99 breaks no bound.
    #[arg(long, default_value_t = 20.0)]
    floor: f64,
    /// Scenarios to run; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
}

/// What was measured in one phase.
struct Phase {
    name: String,
    sent: u64,
    acknowledged: Latencies,
    refused: u64,
    /// How long newcomers took to be let in.
    newcomers: Latencies,
    failed: u64,
    resident: u64,
    processor: f64,
}

struct Shared {
    args: Args,
    token: String,
    tls: TlsConnector,
    phases: Mutex<Vec<Phase>>,
    now: AtomicUsize,
    /// Connections of devices that behave which the server ended.
    lost: AtomicU64,
    /// The end of everything.
    done: CancellationToken,
}

impl Shared {
    fn phases(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let site = Site::sign_in(&args.api, &args.email, &args.password).await?;
    let mut devices = Vec::new();
    for n in 0..=DEVICES {
        devices.push(site.device(&format!("steady-{n}")).await?);
    }
    let scenarios = match &args.only[..] {
        [] => Scenario::value_variants().to_vec(),
        only => only.to_vec(),
    };
    let shared = Arc::new(Shared {
        token: site.token.clone(),
        tls: common::connector(&args.ca)?,
        phases: Mutex::default(),
        now: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
        done: CancellationToken::new(),
        args,
    });
    begin(&shared, WARM_UP)?;
    let mut steady = JoinSet::new();
    if let Some(newcomer) = devices.pop() {
        steady.spawn(arrive(shared.clone(), newcomer));
    }
    for (n, device) in (0_u32..).zip(devices) {
        steady.spawn(behave(shared.clone(), device, n));
    }
    measure(&shared, Duration::from_secs(2)).await;
    begin(&shared, "quiet")?;
    let quiet = Duration::from_secs(shared.args.quiet);
    measure(&shared, quiet * 2).await;
    // Threads of its own: closing ten thousand sockets at once must not hold up those who measure.
    let rough = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut notes = Vec::new();
    for scenario in scenarios {
        let name = scenario.name();
        begin(&shared, &format!("{name}: before"))?;
        measure(&shared, quiet).await;
        begin(&shared, &format!("{name}: during"))?;
        let (stop, counts) = (CancellationToken::new(), Arc::new(Counts::default()));
        let attack = rough.spawn(attack(shared.clone(), scenario, stop.clone(), counts.clone()));
        measure(&shared, Duration::from_secs(shared.args.seconds)).await;
        stop.cancel();
        begin(&shared, &format!("{name}: after"))?;
        measure(&shared, quiet).await;
        if timeout(Duration::from_secs(20), attack).await.is_err() {
            println!("{name}: it does not end");
        }
        notes.push(format!("{name}: {}", counts.tell(scenario)));
    }
    // What is on its way has a moment more.
    sleep(Duration::from_secs(2)).await;
    shared.done.cancel();
    while steady.join_next().await.is_some() {}
    rough.shutdown_background();
    Ok(if verdict(&shared, &notes) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Begins a phase.
fn begin(shared: &Shared, name: &str) -> anyhow::Result<()> {
    let mut phases = shared.phases();
    phases.push(Phase {
        name: name.to_owned(),
        sent: 0,
        acknowledged: Latencies::new()?,
        refused: 0,
        newcomers: Latencies::new()?,
        failed: 0,
        resident: 0,
        processor: 0.0,
    });
    shared.now.store(phases.len() - 1, Ordering::Relaxed);
    Ok(())
}

/// Lets a phase last, and looks at the server's process meanwhile.
#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
async fn measure(shared: &Shared, long: Duration) {
    let (begun, ticks) = (Instant::now(), common::ticks(shared.args.pid));
    while begun.elapsed() < long {
        sleep(Duration::from_millis(250)).await;
        let resident = common::resident(shared.args.pid);
        let phase = &mut shared.phases()[shared.current()];
        phase.resident = phase.resident.max(resident);
    }
    let used = common::ticks(shared.args.pid).saturating_sub(ticks);
    shared.phases()[shared.current()].processor = used as f64 / begun.elapsed().as_secs_f64();
}

/// A device that behaves, to the end of the run.
async fn behave(shared: Arc<Shared>, device: Device, n: u32) {
    while !shared.done.is_cancelled() {
        if let Err(e) = readings(&shared, &device, n).await {
            println!("{} lost its connection: {e}", device.id);
            shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn readings(shared: &Shared, device: &Device, n: u32) -> Result<()> {
    let mut login = Login::anonymous(5, &device.id);
    login.user = Some((device.id.clone(), device.token.clone()));
    let mut client = Client::plain(shared.args.mqtt, source(0), &login).await?;
    let topic = format!("sensores/{}/data", device.id);
    let every = Duration::from_secs(1) * u32::try_from(DEVICES).unwrap_or(1)
        / u32::try_from(shared.args.rate).unwrap_or(1);
    let mut next = Instant::now() + every * n / u32::try_from(DEVICES).unwrap_or(1);
    let (mut pid, mut newest, mut open) = (0_u16, 0, HashMap::new());
    loop {
        tokio::select! {
            // An acknowledgement that is there is noted before anything else takes time.
            biased;
            packet = client.next() => {
                let packet = packet?;
                if packet.kind() != PUBACK {
                    continue;
                }
                let Some((phase, since)) = open.remove(&packet.pid()) else { continue };
                let since: Instant = since;
                if let Some(phase) = shared.phases().get_mut::<usize>(phase) {
                    phase.acknowledged.note(since.elapsed());
                    phase.refused += u64::from(packet.code(5) >= 0x80);
                }
            }
            () = sleep_until(next), if open.len() < 200 && !shared.done.is_cancelled() => {
                next += every;
                pid = pid % u16::MAX + 1;
                newest = SystemClock.now().micros().max(newest + 1);
                let moment = alertrace::domain::Timestamp::clamped(newest);
                let payload = format!(
                    "{{\"temperatura\":21.5,\"humedad_aire\":60.1,\"humedad_suelo\":55.2,\"ph_suelo\":6.8,\
                     \"radiacion_solar\":412,\"timestamp\":\"{moment}\"}}"
                );
                let bytes = client.publish(&topic, Some(pid), false, false, payload.as_bytes());
                let phase = shared.current();
                open.insert(pid, (phase, Instant::now()));
                if let Some(phase) = shared.phases().get_mut(phase) {
                    phase.sent += 1;
                }
                client.send(&bytes).await?;
            }
            // What was sent is waited for, unless it never comes.
            () = shared.done.cancelled(), if open.is_empty() => return Ok(()),
            () = async { shared.done.cancelled().await; sleep(Duration::from_secs(5)).await } => return Ok(()),
        }
    }
}

/// A device that signs in once a second, and leaves.
async fn arrive(shared: Arc<Shared>, device: Device) {
    let mut clock = interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut login = Login::anonymous(5, &device.id);
    login.user = Some((device.id.clone(), device.token.clone()));
    while !shared.done.is_cancelled() {
        clock.tick().await;
        let (phase, since) = (shared.current(), Instant::now());
        let came = Client::plain(shared.args.mqtt, source(1), &login).await;
        let took = since.elapsed();
        if let Some(phase) = shared.phases().get_mut(phase) {
            match &came {
                Ok(_) => phase.newcomers.note(took),
                Err(_) => phase.failed += 1,
            }
        }
        if let Ok(mut client) = came {
            let _ = client.send(&[0xe0, 0]).await;
        }
    }
}

fn verdict(shared: &Shared, notes: &[String]) -> bool {
    let phases = shared.phases();
    println!(
        "{:<38} {:>6} {:>6} {:>8} {:>8} {:>8}  {:>16} {:>6}  {:>8} {:>5}",
        "", "sent", "acked", "p50 ms", "p99 ms", "max ms", "newcomer p50 max", "failed", "resident", "cpu %"
    );
    for p in phases.iter().filter(|p| p.name != WARM_UP) {
        let (a, n) = (&p.acknowledged, &p.newcomers);
        println!(
            "{:<38} {:>6} {:>6} {:>8.2} {:>8.2} {:>8.2}  {:>7.1} {:>8.1} {:>6}  {:>8.1} {:>5.0}",
            p.name,
            p.sent,
            a.len(),
            a.ms(0.5),
            a.ms(0.99),
            a.ms(1.0),
            n.ms(0.5),
            n.ms(1.0),
            p.failed,
            mib(p.resident),
            p.processor
        );
    }
    println!();
    for note in notes {
        println!("{note}");
    }
    let Ok(mut quiet) = Latencies::new() else { return false };
    for p in phases.iter().filter(|p| p.name == "quiet" || p.name.ends_with("before")) {
        quiet.add(&p.acknowledged);
    }
    let bound = (quiet.ms(0.99) * shared.args.factor).max(shared.args.floor);
    println!("quiet: p50 {:.2} ms, p99 {:.2} ms; bound: p99 {bound:.2} ms", quiet.ms(0.5), quiet.ms(0.99));
    let mut good = true;
    let mut hold = |what: &str, holds: bool| {
        println!("{} {what}", if holds { "ok    " } else { "BROKEN" });
        good &= holds;
    };
    for p in phases.iter().filter(|p| p.name.ends_with("during")) {
        hold(&format!("{}: p99 within its bound", p.name), p.acknowledged.ms(0.99) <= bound);
    }
    hold("every reading acknowledged", phases.iter().all(|p| p.sent == p.acknowledged.len()));
    hold("no reading refused", phases.iter().all(|p| p.refused == 0));
    hold("no connection of a device that behaves lost", shared.lost.load(Ordering::Relaxed) == 0);
    hold("every newcomer let in", phases.iter().all(|p| p.failed == 0));
    good
}
