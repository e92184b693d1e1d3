//! What becomes of 2,000 messages a second when PostgreSQL goes away: nothing acknowledged is lost, nothing
//! is stored twice, and the devices stay connected.
//!
//! `ALERTRACE_TEST_OUTAGE_S=60` makes the outage as long as it is in the promise; by default it is short.

use std::collections::{HashSet, VecDeque};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::{on, start};
use crate::support::postgres::Cluster;
use crate::support::server::{EMAIL, Place, command, create_account};
use crate::support::{Client, Device, Server};

const DEVICES: usize = 10;
/// Of all devices together, a second.
const RATE: u32 = 2_000;
/// What a device sends without an answer.
const WINDOW: usize = 200;

fn outage() -> Duration {
    let seconds = std::env::var("ALERTRACE_TEST_OUTAGE_S").map(|s| s.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(3))
}

/// A server under load on a cluster of its own.
struct Bench {
    cluster: Cluster,
    server: Server,
    devices: Vec<Device>,
    stop: Arc<AtomicBool>,
    load: Vec<tokio::task::JoinHandle<Sent>>,
}

/// What one device sent: the moments that were acknowledged, and how long an answer took at most.
struct Sent {
    acknowledged: Vec<i64>,
    longest: Duration,
}

impl Bench {
    async fn start() -> Self {
        Self::start_at(on).await
    }

    async fn start_at(place: impl Fn(&Cluster) -> Place) -> Self {
        let cluster = Cluster::own();
        let server = start(place(&cluster)).await;
        let (mut devices, mut load) = (Vec::new(), Vec::new());
        let stop = Arc::new(AtomicBool::new(false));
        for n in 0..DEVICES {
            let device = server.device(&format!("s{n}")).await;
            let client = Client::device(&server.mqtt, 5, &device).await;
            load.push(tokio::spawn(send(client, device.id.clone(), stop.clone())));
            devices.push(device);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Self { cluster, server, devices, stop, load }
    }

    /// Waits until `/ready` answers with a status; answers how long that took and what it said.
    async fn ready(&self, status: u16) -> (Duration, Value) {
        let start = Instant::now();
        loop {
            let answer = self.server.request(Method::GET, "/ready", "", None).await;
            if answer.status() == status {
                return (start.elapsed(), answer.json().await.expect("JSON"));
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{}", answer.status());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the load and looks whether what was acknowledged is there, once.
    async fn verify(self, what: &str) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.stop.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut longest) = (0, Duration::ZERO);
        for (device, load) in self.devices.iter().zip(self.load) {
            let sent = load.await.expect("the device stayed connected");
            let moments = format!(
                "SELECT ts / 1000 FROM alertrace.lecturas WHERE id_sensor = {} ORDER BY ts",
                device.id_sensor
            );
            let stored: Vec<i64> =
                self.cluster.sql(&moments).lines().map(|ts| ts.parse().expect("a moment")).collect();
            let unique: HashSet<i64> = stored.iter().copied().collect();
            assert_eq!(unique.len(), stored.len(), "nothing is stored twice");
            let missing = sent.acknowledged.iter().filter(|ts| !unique.contains(ts)).count();
            assert_eq!(missing, 0, "of {} acknowledged", sent.acknowledged.len());
            acknowledged += sent.acknowledged.len();
            longest = longest.max(sent.longest);
        }
        println!("{what}: {acknowledged} acknowledged, all stored once; longest wait {longest:?}");
        assert!(acknowledged > 1_000, "{acknowledged}");
    }
}

/// Publishes at the device's share of the rate, with a window, until `stop`; then waits for every answer.
async fn send(mut client: Client, id: String, stop: Arc<AtomicBool>) -> Sent {
    let every = Duration::from_secs(1) * u32::try_from(DEVICES).expect("few") / RATE;
    let topic = format!("sensores/{id}/data");
    // Ten minutes ago, so that the moments are in order and none is ahead of the clock.
    let first = alertrace::domain::Clock::now(&alertrace::domain::SystemClock).micros() / 1_000 - 600_000;
    let (mut sent, mut open) = (0_u32, VecDeque::new());
    let mut out = Sent { acknowledged: Vec::new(), longest: Duration::ZERO };
    let start = Instant::now();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        // In bursts of 20 ms; what an outage held back is not made up for.
        let due = u32::try_from(start.elapsed().as_nanos() / every.as_nanos()).expect("few");
        let mut burst = Vec::new();
        while !stopping && sent < due && open.len() < WINDOW {
            let pid = u16::try_from(sent % 65_000).expect("in range") + 1;
            let moment = first + i64::from(sent);
            let payload = format!("{{\"temperatura\":20,\"timestamp\":{moment}}}");
            burst.extend(client.publish_packet(&topic, 1, pid, payload.as_bytes()));
            open.push_back((pid, moment, Instant::now()));
            sent += 1;
        }
        if !burst.is_empty() {
            client.send(&burst).await;
        }
        let pause = tokio::time::sleep(Duration::from_millis(20));
        tokio::pin!(pause);
        loop {
            if open.is_empty() && stopping {
                return out;
            }
            let mut byte = [0];
            tokio::select! {
                _ = client.stream.peek(&mut byte) => {}
                () = &mut pause => break,
            }
            let (first, body) = client.read().await.expect("the device stays connected");
            assert_eq!(first, 0x40, "a PUBACK");
            assert!(body.get(2).is_none_or(|reason| *reason == 0), "accepted, not {body:?}");
            let (pid, moment, when) = open.pop_front().expect("something was open");
            assert_eq!(u16::from_be_bytes([body[0], body[1]]), pid, "in order [MQTT-4.6.0-2]");
            out.acknowledged.push(moment);
            out.longest = out.longest.max(when.elapsed());
        }
        // After an outage: from now on, at the rate.
        sent = sent.max(due.saturating_sub(u32::try_from(WINDOW).expect("few")));
    }
}

#[tokio::test]
async fn a_server_that_is_stopped_and_started_costs_only_time() {
    let bench = Bench::start().await;
    bench.ready(200).await;
    bench.cluster.stop_server("fast");
    let (noticed, problem) = bench.ready(503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    let reason = problem["detail"].as_str().expect("a reason");
    let reasons = ["terminating connection", "shutting down", "onnection refused", "reset by peer"];
    assert!(reasons.iter().any(|r| reason.contains(r)), "{reason}");
    tokio::time::sleep(outage()).await;
    bench.cluster.start_server();
    let (back, _) = bench.ready(200).await;
    bench.verify(&format!("stopped for {:?} (503 after {noticed:?}, 200 after {back:?})", outage())).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_restarted_costs_only_time() {
    let bench = Bench::start().await;
    let pid = bench.cluster.server_pid();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill runs").success());
    bench.ready(503).await;
    bench.cluster.start_server();
    bench.ready(200).await;
    bench.verify("killed and restarted").await;
}

#[tokio::test]
async fn connections_that_are_cut_cost_only_time() {
    let bench = Bench::start().await;
    for _ in 0..20 {
        bench.cluster.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'alertrace'",
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bench.ready(200).await;
    bench.verify("connections cut 20 times").await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_reason_too() {
    let bench = Bench::start().await;
    let pid = bench.cluster.server_pid();
    // All its processes stand still, and its port takes connections all the same.
    let group = |signal: &str| {
        let status = Command::new("pkill").args([signal, "-P", &pid]).status().expect("pkill runs");
        assert!(status.success());
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    };
    group("-STOP");
    let (_, problem) = bench.ready(503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    group("-CONT");
    bench.ready(200).await;
    bench.verify("stood still").await;
}

#[tokio::test]
async fn a_database_that_takes_nothing_for_a_while_costs_only_time() {
    let bench = Bench::start().await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'alertrace'";
    bench.cluster.sql("ALTER ROLE alertrace SET default_transaction_read_only TO on");
    bench.cluster.sql(cut);
    let (_, problem) = bench.ready(503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    let writable = "BEGIN READ WRITE; ALTER ROLE alertrace RESET default_transaction_read_only; COMMIT";
    bench.cluster.sql(writable);
    bench.cluster.sql(cut);
    bench.ready(200).await;
    bench.verify("read-only for a while").await;
}

/// PgBouncer keeps its clients while its server is away, and their questions too.
#[tokio::test]
async fn a_server_behind_a_pooler_that_is_stopped_and_started_costs_only_time() {
    let bench = Bench::start_at(|cluster| vec![("DATABASE_URL", cluster.pooler_url())]).await;
    bench.ready(200).await;
    bench.cluster.stop_server("fast");
    let (_, problem) = bench.ready(503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    tokio::time::sleep(outage()).await;
    bench.cluster.start_server();
    let (back, _) = bench.ready(200).await;
    bench.verify(&format!("stopped behind a pooler (200 after {back:?})")).await;
}

/// A row that is refused inside a full batch.
#[tokio::test]
async fn a_sensor_that_is_gone_is_refused_and_the_rest_of_the_batch_commits() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    let (here, gone) = (server.device("s1").await, server.device("s2").await);
    let mut one = Client::device(&server.mqtt, 5, &here).await;
    let mut two = Client::device(&server.mqtt, 5, &gone).await;
    // The lease's row is held for a moment, so that all of it waits for one commit.
    let hold = "BEGIN; SELECT FROM alertrace.arriendo FOR UPDATE; SELECT pg_sleep(2); COMMIT";
    let url = cluster.url();
    let holder = std::thread::spawn(move || Command::new("psql").args(["-qc", hold]).arg(url).output());
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.sql("DELETE FROM alertrace.sensores WHERE device_id = 's2'");
    let payload = br#"{"temperatura":20}"#;
    for pid in 1..=100 {
        let bytes = one.publish_packet("sensores/s1/data", 1, pid, payload);
        one.send(&bytes).await;
        if pid == 50 {
            let bytes = two.publish_packet("sensores/s2/data", 1, 7, payload);
            two.send(&bytes).await;
        }
    }
    for pid in 1..=100_u16 {
        let (first, body) = one.read().await.expect("a PUBACK");
        assert_eq!((first, &body[..2]), (0x40, &pid.to_be_bytes()[..]));
        assert!(body.get(2).is_none_or(|reason| *reason == 0), "{body:?}");
    }
    let (first, body) = two.read().await.expect("a PUBACK");
    assert_eq!((first, body[2]), (0x40, 0x99), "refused for what it is");
    assert!(holder.join().expect("it ends").expect("psql runs").status.success());
    assert_eq!(cluster.sql("SELECT COUNT(*) FROM alertrace.lecturas"), "100");
}

/// As `docker compose up` and a power cut have it.
#[tokio::test]
async fn a_server_that_comes_up_later_is_waited_for() {
    let cluster = Arc::new(Cluster::own());
    let place = on(&cluster);
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert!(create_account(dir.path(), &place, EMAIL, "20123456789"), "user create");
    for mode in ["fast", "immediate"] {
        cluster.stop_server(mode);
        let later = cluster.clone();
        let starter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            later.start_server();
        });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Server::take_over(dir, place.clone()).await;
        starter.join().expect("it starts");
        assert_eq!(server.request(Method::GET, "/ready", "", None).await.status(), 200);
        assert_eq!(server.terminate().await.0, Some(0));
    }
}

#[tokio::test]
async fn a_server_that_does_not_come_and_one_that_says_no_end_the_start() {
    let cluster = Cluster::own();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = |url: String, wait: &str| {
        let mut command = command(dir.path());
        command.arg("serve").env("DATABASE_URL", url).env("ALERTRACE__DATABASE__START_WAIT_S", wait);
        let begun = Instant::now();
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        (begun.elapsed(), said)
    };
    // Waiting mends no password.
    let (took, said) = start(cluster.url().replace("secreta", "otra"), "60");
    assert!(took < Duration::from_secs(20) && said.contains("password authentication failed"), "{said}");
    let (took, said) = start(cluster.url().replace("/postgres", "/nada"), "60");
    assert!(took < Duration::from_secs(20) && said.contains("does not exist"), "{said}");
    cluster.stop_server("fast");
    let (took, said) = start(cluster.url(), "0");
    assert!(took < Duration::from_secs(10) && said.contains("onnection refused"), "{said}");
    let (took, said) = start(cluster.url(), "3");
    assert!((Duration::from_secs(3)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert!(said.matches("it is waited for").count() >= 2, "each try is said: {said}");
    assert!(said.contains("database.start_wait_s") && said.contains("onnection refused"), "{said}");
}
