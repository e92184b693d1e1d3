//! Acknowledged means stored: through `kill -9`, and down to the order of system calls.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{Client, Server};

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
