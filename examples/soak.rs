//! Many connections, for long or for nothing. Started by `scripts/soak`, which starts the servers.
//!
//! `churn`: connections that publish and subscribe, and come and go at random. Every message that was
//! acknowledged must reach its subscribers and be stored, in order, and the server's memory must not
//! grow. `idle`: what a connection costs that does nothing, beside another broker's.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::Result;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alertrace::domain::{Clock as _, SystemClock, Timestamp};
use clap::{Parser, Subcommand};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use common::{Client, Device, Latencies, Login, PUBACK, PUBLISH, Packet, Random, SUBACK, Site, mib, source};

/// Far enough.
const NEVER: Duration = Duration::from_secs(1 << 30);
/// What may be on its way when the time is over.
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Connections that come and go.
    Churn(Churn),
    /// Connections that do nothing.
    Idle(Idle),
}

#[derive(clap::Args)]
struct Churn {
    /// MQTT in clear, open to anonymous clients.
    #[arg(long)]
    mqtt: SocketAddr,
    /// MQTT over TLS.
    #[arg(long)]
    mqtts: SocketAddr,
    /// The authority that the server's certificate is signed by.
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
    /// Half of them devices over TLS, half anonymous in clear.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(8..=16_000))]
    connections: u32,
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// How long a connection that comes and goes lasts, on average.
    #[arg(long, default_value_t = 60)]
    life: u64,
    /// Seconds between two readings of a device.
    #[arg(long, default_value_t = 5)]
    reading_every: u64,
    /// Seconds between two messages of an anonymous client.
    #[arg(long, default_value_t = 2)]
    message_every: u64,
    /// Per cent that resident memory may grow after the first fifth (at most two minutes).
    #[arg(long, default_value_t = 5.0)]
    growth: f64,
    /// Of what is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
struct Idle {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// How long they stay.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Servers to hold them to: a name, MQTT in clear, a process.
    #[arg(long = "server", value_name = "NAME=HOST:PORT,PID", value_parser = server, required = true)]
    servers: Vec<(String, SocketAddr, u32)>,
    /// Bytes of resident memory that a connection to the first may cost.
    #[arg(long, default_value_t = 16_384)]
    bound: u64,
}

fn server(text: &str) -> std::result::Result<(String, SocketAddr, u32), String> {
    let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(',')?)));
    let (name, (address, pid)) = parts.ok_or("NAME=HOST:PORT,PID")?;
    let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
    Ok((name.to_owned(), address, pid.parse().map_err(|e| format!("{pid}: {e}"))?))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let good = match Args::parse().what {
        What::Churn(args) => churn(args).await?,
        What::Idle(args) => idle(&args).await?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is known of one publisher's messages, each by a number that only grows.
#[derive(Default)]
struct Ledger {
    acknowledged: HashSet<i64>,
    listeners: Vec<Listener>,
}

/// What one subscriber has of them.
#[derive(Default)]
struct Listener {
    heard: HashSet<i64>,
    newest: i64,
}

#[derive(Default)]
struct Tally {
    connected: AtomicU64,
    /// Connections, all together.
    connects: AtomicU64,
    /// Of those, by a client that takes up its session.
    resumed: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    /// Ended by the server.
    lost: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    heard: AtomicU64,
    /// Heard again: allowed, and worth knowing.
    again: AtomicU64,
    misordered: AtomicU64,
    ready: AtomicU64,
}

fn count(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}

fn read(n: &AtomicU64) -> u64 {
    n.load(Ordering::Relaxed)
}

struct Shared {
    args: Churn,
    tls: TlsConnector,
    /// By publisher: the anonymous ones first, then the devices.
    ledgers: Vec<Mutex<Ledger>>,
    tally: Tally,
    latencies: Mutex<Latencies>,
    /// When publishing ends, once it has begun.
    end: watch::Receiver<Option<Instant>>,
    done: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn anonymous(&self) -> usize {
        (self.args.connections - self.args.connections / 2) as usize
    }

    fn publishing(&self) -> Option<Instant> {
        (*self.end.borrow()).filter(|end| Instant::now() < *end)
    }

    /// A subscriber has a message.
    fn heard(&self, publisher: usize, listener: usize, number: i64) {
        let mut ledger = lock(&self.ledgers[publisher]);
        let listener = &mut ledger.listeners[listener];
        if !listener.heard.insert(number) {
            count(&self.tally.again);
            return;
        }
        count(&self.tally.heard);
        // What comes again may come late; the first time, messages come in the order of sending.
        if number < listener.newest {
            count(&self.tally.misordered);
        }
        listener.newest = listener.newest.max(number);
    }

    /// Messages that were acknowledged and are not with a subscriber.
    fn missing(&self) -> usize {
        let one = |ledger: &Ledger| -> usize {
            ledger.listeners.iter().map(|l| ledger.acknowledged.difference(&l.heard).count()).sum()
        };
        self.ledgers.iter().map(|l| one(&lock(l))).sum()
    }
}

/// Whom a message that arrives is from.
enum Hears {
    /// One anonymous client.
    Publisher(usize),
    /// All devices; which of their listeners this is.
    Devices(usize),
    /// Nobody: what the server says.
    Nobody,
}

struct Member {
    login: Login,
    tls: bool,
    address: usize,
    /// Comes and goes.
    drops: bool,
    /// How long it is away at most.
    away: Duration,
    filter: String,
    hears: Hears,
    /// Its ledger, its topic, and how often it publishes.
    publishes: Option<(usize, String, Duration)>,
}

/// What a publisher has open, over all its connections.
#[derive(Default)]
struct Open {
    pid: u16,
    newest: i64,
    by_pid: BTreeMap<u64, (u16, i64, Instant)>,
    sent: u64,
}

enum End {
    Dropped,
    Done,
    Lost(std::io::Error),
}

/// One client, from its first connection to the end of the run.
async fn live(shared: Arc<Shared>, member: Member, seed: u64) {
    let (mut random, mut open) = (Random::new(seed), Open::default());
    let mut ready = false;
    while !shared.done.is_cancelled() {
        let tally = &shared.tally;
        let from = source(member.address);
        let connected = if member.tls {
            Client::tls(shared.args.mqtts, &shared.tls, from, &member.login).await
        } else {
            Client::plain(shared.args.mqtt, from, &member.login).await
        };
        let mut client = match connected {
            Ok(client) => client,
            Err(e) => {
                if read(&tally.refused) < 5 {
                    println!("{} cannot connect: {e}", member.login.client_id);
                }
                count(&tally.refused);
                sleep(Duration::from_millis(500)).await;
                continue;
            }
        };
        count(&tally.connects);
        if client.present {
            count(&tally.resumed);
        }
        count(&tally.connected);
        let ended = serve(&shared, &member, &mut client, &mut open, &mut random, &mut ready).await;
        tally.connected.fetch_sub(1, Ordering::Relaxed);
        match ended {
            Ok(End::Done) => {
                let _ = client.send(&[0xe0, 0]).await;
                return;
            }
            Ok(End::Dropped) => {
                count(&tally.dropped);
                // Some take leave, some are cut off.
                if random.unit() < 0.5 {
                    let _ = client.send(&[0xe0, 0]).await;
                }
            }
            Ok(End::Lost(e)) | Err(e) => {
                if read(&tally.lost) < 5 {
                    println!("{} was cut off: {e}", member.login.client_id);
                }
                count(&tally.lost);
            }
        }
        drop(client);
        sleep(member.away.mul_f64(random.unit())).await;
    }
}

async fn serve(
    shared: &Shared,
    member: &Member,
    client: &mut Client,
    open: &mut Open,
    random: &mut Random,
    ready: &mut bool,
) -> Result<End> {
    let bytes = client.subscribe(&member.filter, 1);
    client.send(&bytes).await?;
    if let Some((_, topic, _)) = &member.publishes {
        // Not acknowledged: sent again, in order.
        for (pid, number, _) in open.by_pid.values() {
            let bytes = client.publish(topic, Some(*pid), false, true, &payload(member, *number));
            client.send(&bytes).await?;
        }
    }
    let mut until = Instant::now() + lifetime(shared, member, random);
    let every = member.publishes.as_ref().map_or(NEVER, |p| p.2);
    let mut next = Instant::now() + every.mul_f64(random.unit());
    loop {
        tokio::select! {
            packet = client.next() => match packet {
                Ok(packet) => heard(shared, member, client, open, &packet, ready).await?,
                Err(e) => return Ok(End::Lost(e)),
            },
            () = sleep_until(next) => {
                next += every;
                if shared.publishing().is_some() {
                    say(shared, member, client, open).await?;
                }
            }
            () = sleep_until(until) => match shared.publishing() {
                Some(_) => return Ok(End::Dropped),
                None => until = Instant::now() + lifetime(shared, member, random),
            },
            () = shared.done.cancelled() => return Ok(End::Done),
        }
    }
}

fn lifetime(shared: &Shared, member: &Member, random: &mut Random) -> Duration {
    if member.drops { random.wait(Duration::from_secs(shared.args.life)) } else { NEVER }
}

fn payload(member: &Member, number: i64) -> Vec<u8> {
    if member.tls {
        let (moment, tenths) = (Timestamp::clamped(number), number % 100);
        let payload =
            format!("{{\"temperatura\":2{}.{},\"timestamp\":\"{moment}\"}}", tenths / 10, tenths % 10);
        return payload.into_bytes();
    }
    number.to_string().into_bytes()
}

/// Publishes the next message.
async fn say(shared: &Shared, member: &Member, client: &mut Client, open: &mut Open) -> Result<()> {
    let Some((_, topic, _)) = &member.publishes else { return Ok(()) };
    if open.by_pid.len() >= 100 {
        return Ok(());
    }
    open.pid = open.pid % u16::MAX + 1;
    open.newest = SystemClock.now().micros().max(open.newest + 1);
    open.sent += 1;
    open.by_pid.insert(open.sent, (open.pid, open.newest, Instant::now()));
    count(&shared.tally.sent);
    let bytes = client.publish(topic, Some(open.pid), false, false, &payload(member, open.newest));
    client.send(&bytes).await
}

async fn heard(
    shared: &Shared,
    member: &Member,
    client: &mut Client,
    open: &mut Open,
    packet: &Packet,
    ready: &mut bool,
) -> Result<()> {
    let broken = |what: &str| Err(std::io::Error::other(what.to_owned()));
    match packet.kind() {
        PUBLISH => {
            let Some(message) = packet.message(client.version) else { return broken("a malformed PUBLISH") };
            match member.hears {
                Hears::Publisher(publisher) => match str::from_utf8(message.payload).map(str::parse) {
                    Ok(Ok(number)) => shared.heard(publisher, 0, number),
                    _ => return broken("a payload that nobody sent"),
                },
                Hears::Devices(listener) => {
                    let device = message.topic.split('/').nth(1).and_then(|id| id.rsplit_once('-'));
                    let device = device.and_then(|(_, n)| n.parse::<usize>().ok());
                    let body: serde_json::Value = serde_json::from_slice(message.payload).unwrap_or_default();
                    let moment = body["timestamp"].as_str().and_then(Timestamp::parse);
                    let Some((device, moment)) = device.zip(moment) else {
                        return broken("a payload that nobody sent");
                    };
                    shared.heard(shared.anonymous() + device, listener, moment.micros());
                }
                Hears::Nobody => {}
            }
            if let Some(pid) = message.pid {
                client.send(&common::puback(pid)).await?;
            }
        }
        PUBACK => {
            if packet.code(client.version) >= 0x80 {
                return broken("a message was refused");
            }
            let first = open.by_pid.iter().find(|(_, (pid, ..))| *pid == packet.pid()).map(|(n, _)| *n);
            if let (Some(n), Some((publisher, ..))) = (first, &member.publishes)
                && let Some((_, number, since)) = open.by_pid.remove(&n)
            {
                lock(&shared.ledgers[*publisher]).acknowledged.insert(number);
                lock(&shared.latencies).note(since.elapsed());
                count(&shared.tally.acknowledged);
            }
        }
        SUBACK => {
            if packet.code(client.version) >= 0x80 {
                return broken("a subscription was refused");
            }
            if !*ready {
                *ready = true;
                count(&shared.tally.ready);
            }
        }
        common::DISCONNECT => return broken("DISCONNECT"),
        _ => {}
    }
    Ok(())
}

/// Anonymous clients in a ring, each hearing the one before; devices over TLS; and two dashboards that
/// hear all devices. Of each kind half stay, and half come and go; of both versions.
fn members(args: &Churn, devices: &[Device], token: &str) -> Vec<Member> {
    let ring = args.connections as usize - devices.len();
    let mut members = Vec::new();
    for n in 0..ring {
        let (version, drops) = (if n % 2 == 0 { 4 } else { 5 }, n % 4 >= 2);
        let mut login = Login::anonymous(version, format!("ring-{n}"));
        // Whoever comes and goes has a session that waits.
        (login.expiry, login.keep_alive) = (if drops { 3_600 } else { 0 }, 60);
        members.push(Member {
            login,
            tls: false,
            address: n % 64,
            drops,
            away: Duration::from_secs(3),
            filter: format!("soak/{}", (n + ring - 1) % ring),
            hears: Hears::Publisher((n + ring - 1) % ring),
            publishes: Some((n, format!("soak/{n}"), Duration::from_secs(args.message_every))),
        });
    }
    for (n, device) in devices.iter().enumerate() {
        let (version, drops) = (if n % 2 == 0 { 4 } else { 5 }, n % 4 >= 2);
        let mut login = Login::anonymous(version, &device.id);
        login.user = Some((device.id.clone(), device.token.clone()));
        (login.expiry, login.keep_alive) = (if n % 8 >= 4 { 3_600 } else { 0 }, 60);
        let topic = format!("sensores/{}/data", device.id);
        members.push(Member {
            login,
            tls: true,
            address: n % 64,
            drops,
            away: Duration::from_secs(3),
            filter: format!("sensores/{}/+", device.id),
            hears: Hears::Nobody,
            publishes: Some((ring + n, topic, Duration::from_secs(args.reading_every))),
        });
    }
    for n in 0..2 {
        let mut login = Login::anonymous(5, format!("dashboard-{n}"));
        login.user = Some(("jwt".to_owned(), token.to_owned()));
        login.expiry = if n == 0 { 0 } else { 3_600 };
        members.push(Member {
            login,
            tls: n == 0,
            address: 100,
            drops: n == 1,
            // Its session holds a thousand messages.
            away: Duration::from_secs(1),
            filter: "sensores/+/data".to_owned(),
            hears: Hears::Devices(n),
            publishes: None,
        });
    }
    members
}

async fn churn(args: Churn) -> anyhow::Result<bool> {
    let site = Site::sign_in(&args.api, &args.email, &args.password).await?;
    println!("{:.1} MiB resident before anybody came", mib(common::resident(args.pid)));
    let mut devices = Vec::new();
    for n in 0..args.connections / 2 {
        devices.push(site.device(&format!("soak-{n}")).await?);
    }
    println!("{} devices registered, {:.1} MiB", devices.len(), mib(common::resident(args.pid)));
    let members = members(&args, &devices, &site.token);
    let ring = args.connections as usize - devices.len();
    let ledger = |n: usize| {
        let listeners = if n < ring { 1 } else { 2 };
        let listeners = std::iter::repeat_with(Listener::default).take(listeners).collect();
        Mutex::new(Ledger { acknowledged: HashSet::new(), listeners })
    };
    let (start, end) = watch::channel(None);
    let shared = Arc::new(Shared {
        tls: common::connector(&args.ca)?,
        ledgers: (0..args.connections as usize).map(ledger).collect(),
        tally: Tally::default(),
        latencies: Mutex::new(Latencies::new()?),
        end,
        done: CancellationToken::new(),
        args,
    });
    let (mut tasks, all) = (JoinSet::new(), members.len() as u64);
    for (n, member) in members.into_iter().enumerate() {
        tasks.spawn(live(shared.clone(), member, shared.args.seed.wrapping_add(n as u64)));
        sleep(Duration::from_millis(4)).await;
    }
    // A message to somebody who has not subscribed yet is rightly lost.
    let patience = Instant::now() + Duration::from_secs(120);
    while read(&shared.tally.ready) < all {
        anyhow::ensure!(Instant::now() < patience, "{} of {all} are ready", read(&shared.tally.ready));
        sleep(Duration::from_millis(100)).await;
    }
    println!("{all} connected and subscribed, {:.1} MiB\n", mib(common::resident(shared.args.pid)));
    let samples = observe(&shared, &start).await;
    let drain = Instant::now() + DRAIN;
    while shared.missing() > 0 && Instant::now() < drain {
        sleep(Duration::from_millis(500)).await;
    }
    let missing = shared.missing();
    shared.done.cancel();
    let _ =
        tokio::time::timeout(Duration::from_secs(20), async { while tasks.join_next().await.is_some() {} })
            .await;
    let mut unstored = 0;
    let mut doubled = 0;
    for (n, device) in devices.iter().enumerate() {
        let stored = site.readings(device).await?;
        unstored +=
            lock(&shared.ledgers[ring + n]).acknowledged.iter().filter(|m| !stored.contains_key(m)).count();
        doubled += stored.values().filter(|times| **times > 1).count();
    }
    Ok(verdict(&shared, &samples, missing, unstored, doubled))
}

/// Lets them publish for as long as it takes; answers resident memory by the second.
async fn observe(shared: &Shared, start: &watch::Sender<Option<Instant>>) -> Vec<(u64, u64)> {
    println!("     s  resident MiB  connected  connects     sent    acked    heard  missing");
    let begun = Instant::now();
    let end = begun + Duration::from_secs(shared.args.seconds);
    start.send_replace(Some(end));
    let (mut samples, mut said) = (Vec::new(), 0);
    let tally = &shared.tally;
    while Instant::now() < end {
        sleep_until((Instant::now() + Duration::from_secs(2)).min(end)).await;
        let second = begun.elapsed().as_secs();
        let resident = common::resident(shared.args.pid);
        samples.push((second, resident));
        if second >= said + 20 || Instant::now() >= end {
            said = second;
            println!(
                "{second:>6} {:>13.1} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8}",
                mib(resident),
                read(&tally.connected),
                read(&tally.connects),
                read(&tally.sent),
                read(&tally.acknowledged),
                read(&tally.heard),
                shared.missing()
            );
        }
    }
    samples
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn verdict(shared: &Shared, samples: &[(u64, u64)], missing: usize, unstored: usize, doubled: usize) -> bool {
    let (tally, args) = (&shared.tally, &shared.args);
    let settled = (args.seconds / 5).min(120);
    let within = |from: u64, to: u64| samples.iter().filter(move |(s, _)| *s > from && *s <= to).map(|s| s.1);
    let before = within(settled / 2, settled).max().unwrap_or(0);
    let peak = within(settled, u64::MAX).max().unwrap_or(u64::MAX);
    let last = within(args.seconds.saturating_sub(settled / 2), u64::MAX).max().unwrap_or(u64::MAX);
    let growth = (peak as f64 / before.max(1) as f64 - 1.0) * 100.0;
    println!(
        "\nconnects {}, of them resumed {}; dropped on purpose {}",
        read(&tally.connects),
        read(&tally.resumed),
        read(&tally.dropped)
    );
    println!(
        "sent {}, acknowledged {}, heard {} and {} again",
        read(&tally.sent),
        read(&tally.acknowledged),
        read(&tally.heard),
        read(&tally.again)
    );
    let latencies = lock(&shared.latencies);
    println!(
        "acknowledgement: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms (sent again ones from the first time)",
        latencies.ms(0.5),
        latencies.ms(0.99),
        latencies.ms(1.0)
    );
    println!(
        "resident: {:.1} MiB at {settled} s, at most {:.1} MiB after it ({growth:+.1} %), {:.1} MiB at the end",
        mib(before),
        mib(peak),
        mib(last)
    );
    let mut good = true;
    let mut hold = |what: &str, broken: u64| {
        println!("{} {what}: {broken}", if broken == 0 { "ok    " } else { "BROKEN" });
        good &= broken == 0;
    };
    hold("acknowledged and not delivered to a subscriber", missing as u64);
    hold("acknowledged and not stored", unstored as u64);
    hold("stored twice", doubled as u64);
    hold("delivered out of order", read(&tally.misordered));
    hold("connections that the server refused", read(&tally.refused));
    hold("connections that the server ended", read(&tally.lost));
    hold("resident memory above its bound", u64::from(growth > args.growth));
    good
}

async fn idle(args: &Idle) -> anyhow::Result<bool> {
    let (mut good, mut first) = (true, true);
    println!("server        connections  before MiB  after MiB  bytes a connection  connected in s");
    for (name, address, pid) in &args.servers {
        // The process settles first: what it does after its start is not the connections' doing.
        sleep(Duration::from_secs(3)).await;
        let before = common::resident(*pid);
        let begun = Instant::now();
        let mut clients = Vec::new();
        for n in 0..args.connections as usize {
            // Up to 500 an address: below a broker's limit for one.
            let login = Login::anonymous(4, format!("idle-{n}"));
            clients.push(Client::plain(*address, source(n / 500), &login).await?);
        }
        let took = begun.elapsed().as_secs_f64();
        sleep(Duration::from_secs(args.seconds)).await;
        let after = common::resident(*pid);
        let each = after.saturating_sub(before) / u64::from(args.connections);
        println!(
            "{name:<13} {:>11} {:>11.1} {:>10.1} {each:>19} {took:>15.1}",
            clients.len(),
            mib(before),
            mib(after)
        );
        // One in a hundred answers for the others.
        let mut dead = 0;
        for client in clients.iter_mut().step_by(100) {
            dead += u32::from(!client.alive().await);
        }
        if dead > 0 || (first && each > args.bound) {
            println!("BROKEN {name}: {dead} are dead, {each} bytes a connection (bound: {})", args.bound);
            good = false;
        }
        first = false;
    }
    Ok(good)
}
