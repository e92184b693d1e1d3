//! What a well-behaved device notices while others misbehave. Started by `scripts/soak`, which starts
//! the server.
//!
//! Devices send readings at a steady rate; each scenario is measured before, during and after. Beside
//! them, once a second, a newcomer signs in. A message counts for the phase it was sent in, so one that
//! waits to the next phase for its acknowledgement is not lost from the figures.

mod common;

use std::collections::HashMap;
use std::io::Result;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alertrace::domain::{Clock as _, SystemClock};
use clap::{Parser, ValueEnum};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use common::{Client, Device, Latencies, Login, PUBACK, PUBLISH, Site, mib, source};

/// Devices that behave.
const DEVICES: u64 = 4;
/// The first phase, which is not shown: nothing is warm yet.
const WARM_UP: &str = "warm-up";
/// Sockets that the flood of connections may hold.
const MAX_OPEN: usize = 15_000;

#[derive(Parser)]
struct Args {
    /// MQTT in clear, open to anonymous clients.
    #[arg(long)]
    mqtt: SocketAddr,
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Connections that send a byte a second, before and after their CONNECT.
    Slow,
    /// Subscribers to everything that never read.
    Deaf,
    /// Connections without a CONNECT, from addresses all over the loopback network.
    Connects,
    /// A subscriber to everything, and much for it.
    Wildcard,
    /// Retained messages on ever new topics, as fast as they are taken.
    Retained,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Slow => "one byte a second",
            Self::Deaf => "subscribers that never read",
            Self::Connects => "connections without CONNECT",
            Self::Wildcard => "subscriber to everything",
            Self::Retained => "retained messages",
        }
    }
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

/// What those who misbehave achieved.
#[derive(Default)]
struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
    ended: AtomicU64,
    sent: AtomicU64,
    heard: AtomicU64,
}

fn count(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    fn tell(&self, scenario: Scenario) -> String {
        let n = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (made, failed, ended) = (n(&self.made), n(&self.failed), n(&self.ended));
        let (sent, heard) = (n(&self.sent), n(&self.heard));
        match scenario {
            Scenario::Slow => format!("{made} connections, {ended} of them ended by the server"),
            Scenario::Deaf => format!("{sent} messages for them, {ended} of 3 ended by the server"),
            Scenario::Connects => format!(
                "{made} connections made, {failed} not (refused, or not answered in a second), {ended} ended \
                 by the server"
            ),
            Scenario::Wildcard => format!("{sent} messages sent, {heard} heard"),
            Scenario::Retained => format!("{sent} messages sent"),
        }
    }
}

async fn attack(shared: Arc<Shared>, scenario: Scenario, stop: CancellationToken, counts: Arc<Counts>) {
    let mut tasks = JoinSet::new();
    match scenario {
        Scenario::Slow => {
            for n in 0..shared.args.slow as usize * 2 {
                let (shared, counts) = (shared.clone(), counts.clone());
                tasks.spawn(async move {
                    loop {
                        if trickle(&shared, n, &counts).await.is_err() {
                            count(&counts.ended);
                        }
                        sleep(Duration::from_millis(100)).await;
                    }
                });
            }
        }
        Scenario::Deaf => {
            let jwt = Some(("jwt".to_owned(), shared.token.clone()));
            for (n, user, filter) in [(0, None, "#"), (1, None, "#"), (2, jwt, "sensores/#")] {
                let (shared, counts) = (shared.clone(), counts.clone());
                tasks.spawn(async move {
                    let qos = u8::from(n != 0);
                    let login = Login { user, ..Login::anonymous(5, format!("deaf-{n}")) };
                    if deaf(shared.args.mqtt, &login, filter, qos).await.is_ok() {
                        count(&counts.ended);
                    }
                });
            }
            for n in 0..2 {
                tasks.spawn(publishes(shared.clone(), counts.clone(), format!("deaf/{n}"), 1_000, 512));
            }
        }
        Scenario::Connects => {
            tasks.spawn(connects(shared.clone(), counts.clone()));
        }
        Scenario::Wildcard => {
            let (yo, suyos) = (shared.clone(), counts.clone());
            tasks.spawn(async move {
                if let Err(e) = hears_all(&yo, &suyos).await {
                    println!("the subscriber to everything was cut off: {e}");
                }
            });
            for n in 0..4 {
                let rate = shared.args.messages / 4;
                tasks.spawn(publishes(shared.clone(), counts.clone(), format!("all/{n}"), rate, 100));
            }
        }
        Scenario::Retained => {
            tasks.spawn(retains(shared.clone(), counts.clone()));
        }
    }
    stop.cancelled().await;
    tasks.shutdown().await;
}

/// Says one byte a second: of its CONNECT, or, every second client, of a message after it.
async fn trickle(shared: &Shared, n: usize, counts: &Counts) -> Result<()> {
    let login = Login::anonymous(4, format!("slow-{n}"));
    // Below the limit of one address.
    let mut stream = common::dial(shared.args.mqtt, source(n / 500)).await?;
    count(&counts.made);
    let bytes = if n.is_multiple_of(2) {
        login.packet()
    } else {
        stream.write_all(&login.packet()).await?;
        common::publish(4, "slow/x", Some(1), false, false, &[b'x'; 4_096])
    };
    let mut answer = [0; 64];
    for byte in bytes {
        stream.write_all(&[byte]).await?;
        match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            Ok(Ok(0)) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(e)) => return Err(e),
            // An answer, which may well be there at once.
            Ok(Ok(_)) => sleep(Duration::from_secs(1)).await,
            Err(_) => {}
        }
    }
    Ok(())
}

/// Subscribes and reads nothing more. Answers when the server has ended the connection.
async fn deaf(to: SocketAddr, login: &Login, filter: &str, qos: u8) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    // So that the kernel does not read for it.
    socket.set_recv_buffer_size(4_096)?;
    socket.bind(SocketAddr::from((source(2), 0)))?;
    let stream = socket.connect(to).await?;
    let mut client = Client::sign_in(Box::new(stream), login).await?;
    client.subscribed(filter, qos).await?;
    // A ping now and then shows whether anybody is there, and keeps nothing from anybody.
    loop {
        sleep(Duration::from_secs(1)).await;
        if client.send(&[0xc0, 0]).await.is_err() {
            return Ok(());
        }
    }
}

/// Publishes with QoS 0 at a steady rate, in small bursts.
async fn publishes(shared: Arc<Shared>, counts: Arc<Counts>, topic: String, rate: u32, size: usize) {
    let login = Login::anonymous(4, format!("pub-{}", topic.replace('/', "-")));
    let Ok(mut client) = Client::plain(shared.args.mqtt, source(3), &login).await else { return };
    let message = client.publish(&topic, None, false, false, &vec![b'x'; size]);
    let begun = Instant::now();
    let (mut sent, mut clock) = (0, interval(Duration::from_millis(5)));
    loop {
        clock.tick().await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of messages")]
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64 - sent;
        let due = due.min(1_000);
        if client.send(&message.repeat(usize::try_from(due).unwrap_or(0))).await.is_err() {
            println!("the publisher of {topic} was cut off");
            return;
        }
        sent += due;
        counts.sent.fetch_add(due, Ordering::Relaxed);
    }
}

async fn hears_all(shared: &Shared, counts: &Counts) -> Result<()> {
    let login = Login::anonymous(4, "hears-all");
    let mut client = Client::plain(shared.args.mqtt, source(4), &login).await?;
    client.subscribed("#", 0).await?;
    loop {
        if client.next().await?.kind() == PUBLISH {
            count(&counts.heard);
        }
    }
}

/// Connects at a steady rate and says nothing, until the server ends it.
async fn connects(shared: Arc<Shared>, counts: Arc<Counts>) {
    let (places, begun) = (Arc::new(Semaphore::new(MAX_OPEN)), Instant::now());
    let (mut made, mut clock) = (0_u32, interval(Duration::from_millis(5)));
    let mut tasks = JoinSet::new();
    loop {
        clock.tick().await;
        while tasks.try_join_next().is_some() {}
        let due = begun.elapsed().as_secs_f64() * f64::from(shared.args.connects);
        while f64::from(made) < due {
            made += 1;
            let Ok(place) = places.clone().try_acquire_owned() else {
                count(&counts.failed);
                continue;
            };
            let (to, counts) = (shared.args.mqtt, counts.clone());
            // Two thousand addresses, none of which anybody else has.
            let from = source(1_000 + made as usize % 2_000);
            tasks.spawn(async move {
                if let Ok(Ok(mut stream)) = timeout(Duration::from_secs(1), common::dial(to, from)).await {
                    count(&counts.made);
                    let mut byte = [0];
                    if timeout(Duration::from_secs(10), stream.read(&mut byte)).await.is_ok() {
                        count(&counts.ended);
                    }
                } else {
                    count(&counts.failed);
                }
                drop(place);
            });
        }
    }
}

/// Retains messages on ever new topics, as fast as the server reads them.
async fn retains(shared: Arc<Shared>, counts: Arc<Counts>) {
    let login = Login::anonymous(4, "retains");
    let Ok(mut client) = Client::plain(shared.args.mqtt, source(5), &login).await else { return };
    let mut n = 0_u64;
    loop {
        let mut burst = Vec::new();
        for _ in 0..50 {
            n += 1;
            burst.extend(client.publish(&format!("kept/{}", n % 50_000), None, true, false, &[b'x'; 100]));
        }
        if client.send(&burst).await.is_err() {
            println!("whoever retains was cut off");
            return;
        }
        counts.sent.fetch_add(50, Ordering::Relaxed);
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
