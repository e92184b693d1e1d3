//! What a supervisor sees: a death that is said and has an exit code, what a service manager is told, and what SIGHUP
//! changes.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::server::{Place, command};
use crate::support::{Client, Server};

/// A server whose log is a file.
struct Logged {
    child: Child,
    log: PathBuf,
}

impl Logged {
    fn start(dir: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let log = dir.join("log");
        let mut serve = command(dir);
        serve.arg("serve").stdout(Stdio::null()).stderr(std::fs::File::create(&log).expect("a file"));
        change(&mut serve);
        Self { child: serve.spawn().expect("the binary starts"), log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Waits until the log has `text`.
    fn until(&mut self, text: &str) {
        let start = Instant::now();
        while !self.said().contains(text) {
            assert!(self.child.try_wait().expect("it can be waited for").is_none(), "ended: {}", self.said());
            assert!(start.elapsed() < Duration::from_secs(30), "no {text:?} in: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    /// Its exit code, once it has ended by itself.
    fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it goes on: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of all tasks, from where they are started.
fn tasks() -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app.rs");
    let source = std::fs::read_to_string(source).expect("the source");
    let named = source.split(".spawn(\"").skip(1);
    let named = named.map(|rest| rest.split('"').next().expect("a name").to_owned());
    // A thread, and no task.
    named.chain([String::from("the MQTT router")]).collect()
}

#[test]
fn the_death_of_any_task_ends_the_process_with_1_and_says_which() {
    let tasks = tasks();
    assert!(tasks.len() > 9 && tasks.iter().any(|t| t == "the writer"), "{tasks:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_nonblocking(true).expect("a socket");
    for task in &tasks {
        for (how, said) in [("ends", "has ended, which nothing survives"), ("panics", "on purpose")] {
            // The panics of two speak for all.
            if how == "panics" && !["the writer", "the broker"].contains(&task.as_str()) {
                continue;
            }
            let mut server = Logged::start(dir.path(), |serve| {
                serve
                    .env("ALERTRACE_FAILPOINT", format!("{how}:{task}"))
                    .env("ALERTRACE__SHUTDOWN__DEADLINE_S", "2")
                    .env("NOTIFY_SOCKET", &socket)
                    .env("WATCHDOG_USEC", "60000000");
            });
            assert_eq!(server.ended(), Some(1), "{task} {how}: {}", server.said());
            // Its queue is short, and who tells it waits.
            while heard(&manager).is_some() {}
            let log = server.said();
            let last = log.lines().last().unwrap_or_default();
            assert!(last.starts_with("alertrace: the server ended"), "{log}");
            assert!(last.contains(task.as_str()) && last.contains(said), "{task} {how}: {log}");
            assert!(log.contains("\"level\":\"ERROR\""), "{log}");
        }
    }
}

/// What the manager is told next.
fn heard(manager: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 4096];
    let n = manager.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..n]).into_owned())
}

#[test]
fn the_manager_is_told_of_readiness_of_work_and_of_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut server = Logged::start(dir.path(), |serve| {
        serve.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "600000");
    });
    let first = loop {
        let told = heard(&manager).expect("something");
        if told.contains("READY=1") {
            break told;
        }
    };
    let log = server.said();
    let ready = log.lines().find(|line| line.contains("\"ready\"")).expect("it is ready before it says so");
    let ready: serde_json::Value = serde_json::from_str(ready).expect("JSON");
    let http = ready["http"].as_str().expect("an address");
    assert!(std::net::TcpStream::connect(http).is_ok(), "it listens");
    assert!(first.contains(&format!("STATUS=serving HTTP on {http}")), "{first}");
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(heard(&manager).as_deref(), Some("WATCHDOG=1\n"));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "in time: {:?}", start.elapsed());
    server.signal("-TERM");
    let last = std::iter::from_fn(|| heard(&manager)).find(|told| told != "WATCHDOG=1\n").expect("the end");
    assert!(last.contains("STOPPING=1"), "{last}");
    assert_eq!(server.ended(), Some(0), "{}", server.said());
}

/// A server with a device, whose database somebody else holds from now on; then what the manager hears in three seconds.
async fn heard_while_the_database_is_held(busy_timeout_ms: &str) -> usize {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    let server = Server::start_in(tempfile::tempdir().expect("a directory"), Place::new(), |mut serve| {
        serve
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "2400000")
            .env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", busy_timeout_ms);
        serve
    })
    .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let mut holder = crate::store::python(&server, "db.execute('BEGIN IMMEDIATE')");
    let publish = client.publish_packet("sensores/s1/data", 1, 7, b"{\"temperatura\":20}");
    client.send(&publish).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    manager.set_nonblocking(true).expect("a socket");
    while heard(&manager).is_some() {}
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    let told = std::iter::from_fn(|| heard(&manager)).count();
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    // Either way the reading is stored once that is possible.
    assert_eq!(client.read().await.map(|p| p.0), Some(0x40));
    told
}

#[tokio::test]
async fn a_writer_that_hangs_is_not_vouched_for_and_one_that_waits_for_its_store_is() {
    assert_eq!(heard_while_the_database_is_held("20000").await, 0, "it stands in one commit for 20 s");
    let told = heard_while_the_database_is_held("500").await;
    assert!(told >= 2, "a restart would not give it its database back: heard {told}");
}

#[test]
fn hangup_reads_the_log_level_and_the_certificates_again() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("config")).expect("a directory");
    let config = dir.path().join("config/alertrace.toml");
    std::fs::write(&config, "[log]\nlevel = \"info\"\n").expect("a file");
    let mut server = Logged::start(dir.path(), |_| {});
    server.until("\"ready\"");
    assert!(!server.said().contains("\"level\":\"DEBUG\""), "{}", server.said());

    std::fs::write(&config, "[log]\nlevel = \"debug\"\n").expect("a file");
    server.signal("-HUP");
    server.until("the log level was read again");
    server.until("the certificates were read again");
    server.until("\"level\":\"DEBUG\"");

    // What is wrong is said, and nothing stops for it.
    std::fs::write(&config, "[log]\nlebel = \"debug\"\n").expect("a file");
    server.signal("-HUP");
    server.until("the log level stays as it was");
    assert!(server.said().contains("lebel"), "{}", server.said());
    server.signal("-TERM");
    assert_eq!(server.ended(), Some(0));
}

#[tokio::test]
async fn a_hangup_while_it_starts_does_not_end_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start_in(dir, Place::new(), |serve| serve).await;
    assert_eq!(server.terminate().await.0, Some(0));
    // What it needs to start is held by somebody else, for as long as a start waits for it.
    let mut holder = crate::store::python(&server, "db.execute('BEGIN EXCLUSIVE')");
    server.launch_and_do_not_wait();
    let pid = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    assert!(Command::new("kill").args(["-HUP", pid.trim()]).status().expect("kill runs").success());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.terminate().await.0, Some(0), "a clean stop, when that is what is asked for");
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
}

#[tokio::test]
async fn a_start_does_not_read_a_million_readings() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start_in(dir, Place::new(), |serve| serve).await;
    server.device("s1").await;
    assert_eq!(server.terminate().await.0, Some(0));
    server.sql(
        "INSERT INTO lecturas (id_sensor, ts, valores) \
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000000) \
         SELECT (SELECT id_sensor FROM sensores), CAST(unixepoch('now') AS INTEGER) * 1000000 - n * 30000000, \
         '{\"temperatura\":' || (20 + n % 10) || ',\"humedad_aire\":60}' FROM n",
    );
    let start = Instant::now();
    server.kill_and_restart();
    let took = start.elapsed();
    println!("ready after {took:?}");
    // A debug binary on a busy machine; docs/benchmarks.md has the figure of a release.
    assert!(took < Duration::from_secs(3), "{took:?}");
}
