//! Acknowledged means stored: through `kill -9`, and down to the order of system calls.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::support::{Client, Device, Server};

const ROUNDS: usize = 20;

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_reading() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let mut acknowledged: HashSet<i64> = HashSet::new();
    // Ten minutes ago, so that the moments are in order and none is ahead of the clock.
    let start = alertrace::domain::Clock::now(&alertrace::domain::SystemClock).micros() / 1_000 - 600_000;
    let mut sent: i64 = 0;
    for round in 0..ROUNDS {
        let mut client = Client::device(&server.mqtt, 4, &device).await;
        // A window of messages is open when the process dies; where it stands varies by round.
        let kill_after = 30 + round * 17;
        let (mut open, mut pid, mut acks) = (std::collections::VecDeque::new(), 0_u16, 0);
        while acks < kill_after {
            while open.len() < 20 {
                pid += 1;
                let moment = start + sent;
                sent += 1;
                let payload = format!("{{\"temperatura\":20,\"timestamp\":{moment}}}");
                let bytes = client.publish_packet("sensores/s1/data", 1, pid, payload.as_bytes());
                client.send(&bytes).await;
                open.push_back((pid, moment));
            }
            let (first, body) = client.read().await.expect("a PUBACK");
            assert_eq!(first, 0x40);
            let (expected, moment) = open.pop_front().expect("something was open");
            assert_eq!(u16::from_be_bytes([body[0], body[1]]), expected, "in order [MQTT-4.6.0-2]");
            acknowledged.insert(moment);
            acks += 1;
        }
        server.kill_and_restart();
    }
    let stored: Vec<i64> = server
        .readings(&device)
        .await
        .iter()
        .map(|l| l["timestamp"].as_str().expect("a moment").parse::<chrono::DateTime<chrono::Utc>>())
        .map(|t| t.expect("RFC 3339").timestamp_millis())
        .collect();
    let unique: HashSet<i64> = stored.iter().copied().collect();
    assert_eq!(stored.len(), unique.len(), "nothing is stored twice");
    let missing: Vec<_> = acknowledged.difference(&unique).collect();
    assert!(missing.is_empty(), "{} of {} acknowledged are missing", missing.len(), acknowledged.len());
    assert!(acknowledged.len() >= ROUNDS * 30);
}

/// A device that sends as fast as it is acknowledged, until the connection is lost. What was not acknowledged
/// stays in `open`, to be sent again.
async fn sends_until_cut(mqtt: String, device: Device, mut open: VecDeque<i64>, mut next: i64) -> Sent {
    let (mut acknowledged, topic) = (Vec::new(), format!("sensores/{}/data", device.id));
    let run = async {
        let mut client = Client::try_device(&mqtt, 4, &device).await?;
        let (mut pid, mut sent) = (0_u16, VecDeque::new());
        let again: Vec<i64> = open.iter().copied().collect();
        let mut again = again.into_iter();
        loop {
            while sent.len() < 20 {
                let moment = again.next().unwrap_or_else(|| {
                    next += 1;
                    open.push_back(next);
                    next
                });
                pid = pid.checked_add(1).unwrap_or(1);
                let payload = format!("{{\"temperatura\":20.5,\"timestamp\":{moment}}}");
                let packet = client.publish_packet(&topic, 1, pid, payload.as_bytes());
                client.stream.write_all(&packet).await.ok()?;
                sent.push_back((pid, moment));
            }
            let (first, body) = client.read().await?;
            let (expected, moment) = sent.pop_front()?;
            assert_eq!((first, body[..2].to_vec()), (0x40, expected.to_be_bytes().to_vec()));
            acknowledged.push(moment);
            open.retain(|m| *m != moment);
        }
    };
    let _: Option<()> = run.await;
    Sent { device, acknowledged, open, next }
}

struct Sent {
    device: Device,
    acknowledged: Vec<i64>,
    open: VecDeque<i64>,
    next: i64,
}

/// `ALERTRACE_TEST_KILLS` rounds, 10 by default.
#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_under_full_load_lose_nothing_and_store_nothing_twice() {
    let rounds = std::env::var("ALERTRACE_TEST_KILLS").map_or(10, |n| n.parse().expect("a number of rounds"));
    let mut server = Server::start().await;
    // In order and not ahead of the clock: an hour of milliseconds.
    let start = alertrace::domain::Clock::now(&alertrace::domain::SystemClock).micros() / 1_000 - 3_600_000;
    let mut fleet = Vec::new();
    for n in 0..8 {
        let device = server.device(&format!("s{n}")).await;
        fleet.push(Sent { device, acknowledged: Vec::new(), open: VecDeque::new(), next: start });
    }
    let mut acknowledged: HashMap<String, HashSet<i64>> = HashMap::new();
    for round in 0..rounds {
        let mut sending = JoinSet::new();
        for Sent { device, open, next, .. } in fleet.drain(..) {
            sending.spawn(sends_until_cut(server.mqtt.clone(), device, open, next));
        }
        // At any moment: of a commit, a checkpoint, a start.
        let bytes = uuid::Uuid::new_v4().as_u128();
        let wait = Duration::from_micros(50_000 + u64::try_from(bytes % 400_000).expect("small"));
        tokio::time::sleep(wait).await;
        server.kill_and_restart();
        while let Some(sent) = sending.join_next().await {
            let sent = sent.expect("a device");
            acknowledged.entry(sent.device.id.clone()).or_default().extend(&sent.acknowledged);
            fleet.push(sent);
        }
        eprintln!(
            "round {round}, after {wait:?}: {}",
            acknowledged.values().map(HashSet::len).sum::<usize>()
        );
    }
    for Sent { device, .. } in &fleet {
        let stored: Vec<i64> = server
            .readings(device)
            .await
            .iter()
            .map(|l| l["timestamp"].as_str().expect("a moment").parse::<chrono::DateTime<chrono::Utc>>())
            .map(|t| t.expect("RFC 3339").timestamp_millis())
            .collect();
        let unique: HashSet<i64> = stored.iter().copied().collect();
        assert_eq!(stored.len(), unique.len(), "nothing is stored twice");
        let acknowledged = &acknowledged[&device.id];
        let missing = acknowledged.difference(&unique).count();
        assert_eq!(missing, 0, "of {} acknowledged", acknowledged.len());
        assert!(acknowledged.len() >= rounds * 20, "there was load: {}", acknowledged.len());
    }
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", fleet[0].device.id_sensor)).await;
    assert_eq!(refused.as_array().map(Vec::len), Some(0), "what is sent again is no conflict");
}

#[tokio::test]
async fn no_puback_is_written_before_its_commit_is_synced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let trace = dir.path().join("trace");
    let output = trace.to_str().expect("UTF-8").to_owned();
    let calls = "trace=fsync,fdatasync,read,readv,recvfrom,write,writev,sendto";
    let args = ["-f", "-yy", "-s", "64", "-e", calls, "-o", &output];
    let mut server = Server::start_with(|inner| Server::wrapped("strace", &args, &inner)).await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    for pid in 1..=20_u16 {
        let payload = format!("{{\"temperatura\":{pid}}}");
        assert_eq!(client.publish("sensores/s1/data", pid, &payload).await, 0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.readings(&device).await.len(), 20);
    let wal = server.data_dir().join("alertrace.db-wal").to_str().expect("UTF-8").to_owned();
    server.terminate().await;

    // A call that another thread's interrupts is printed in two lines; its return is the second.
    let text = std::fs::read_to_string(&trace).expect("strace wrote");
    let (mut received, mut synced, mut syncing, mut pubacks) = (0, 0, HashSet::new(), 0);
    for (n, line) in text.lines().enumerate() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        if line.contains("sensores/s1/data") && line.contains("temperatura") {
            received = n;
        } else if line.contains("fdatasync(") || line.contains("fsync(") {
            if line.contains("unfinished") {
                if line.contains(&wal) {
                    syncing.insert(thread.to_owned());
                }
            } else if line.contains(&wal) && line.ends_with("= 0") {
                synced = n;
            }
        } else if line.contains("sync resumed>") && line.ends_with("= 0") && syncing.remove(thread) {
            synced = n;
        } else if line.contains("TCP") && line.contains(r#""@\2\0"#) {
            pubacks += 1;
            assert!(synced > received, "PUBACK {pubacks} (line {n}) before the sync of its commit:\n{line}");
        }
    }
    assert_eq!(pubacks, 20, "every PUBACK was seen");
}
