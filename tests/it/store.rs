//! What devices notice when the database is held by somebody else, and what hangs on its rows.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::support::{Client, Server};

/// Runs Python against the server's database; it ends when its standard input closes.
pub fn python(server: &Server, code: &str) -> Child {
    python_with(server, code, &[])
}

const SQLITE: &str =
    "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n";
/// As much of that as the scenarios use that run on both: each statement by itself, through psql.
const POSTGRES: &str = r"
import datetime, functools, re, subprocess, sys
class Db:
    def psql(self, sql, given=''):
        start = 'SET client_min_messages TO warning; SET search_path TO ' + sys.argv[2]
        now = 'CAST(EXTRACT(EPOCH FROM now()) AS BIGINT)'
        sql = sql.replace('unixepoch()', now)
        args = ['psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', start, '-c', sql, sys.argv[1]]
        return subprocess.run(args, input=given, check=True, capture_output=True, text=True).stdout
    def execute(self, sql):
        self.rows = [] if sql in ('BEGIN', 'COMMIT') else [l.split('|') for l in self.psql(sql).splitlines()]
        return self
    def fetchone(self):
        return self.rows[0]
    def executemany(self, sql, rows):
        rows, table = list(rows), re.match('INSERT INTO (\w+)', sql)[1]
        if table != 'lecturas':
            one = lambda row: functools.reduce(lambda text, value: text.replace('?', str(value), 1), row, sql)
            self.psql(';'.join(map(one, rows)))
            return
        day = lambda row: datetime.datetime.fromtimestamp(row[1] / 1e6, datetime.timezone.utc)
        month = lambda d: d.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        for first in sorted({month(day(row)) for row in rows}):
            last = month(first + datetime.timedelta(days=32))
            a, b = (int(m.timestamp()) * 1000000 for m in (first, last))
            self.psql(f'CREATE TABLE IF NOT EXISTS {table}_{first:%Y_%m} PARTITION OF {table} FOR VALUES FROM ({a}) TO ({b})')
        self.psql(f'COPY {table} FROM STDIN', ''.join('\t'.join(map(str, row)) + '\n' for row in rows))
db = Db()
";

fn python_with(server: &Server, code: &str, args: &[&str]) -> Child {
    let place = |name: &str| server.place.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
    let (prelude, database) = match place("DIRECT_URL").or_else(|| place("DATABASE_URL")) {
        Some(url) => {
            (POSTGRES, vec![url, place("ALERTRACE__DATABASE__SCHEMA").expect("a schema of its own")])
        }
        None => (SQLITE, vec![server.data_dir().join("alertrace.db").display().to_string()]),
    };
    let code = format!("{prelude}{code}\nprint('done', flush=True)\nsys.stdin.read()");
    let mut python = Command::new("python3");
    python.args(["-c", &code]).args(database).args(args);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("text");
    assert_eq!(line, "done\n");
    child
}

#[tokio::test]
async fn a_locked_database_holds_acknowledgements_back_and_the_device_with_them() {
    // It is held for longer than anybody waits for it.
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "300");
        command
    })
    .await;
    let device = server.device("s1").await;
    let client = Client::device(&server.mqtt, 4, &device).await;
    let mut holder = python(&server, "db.execute('BEGIN IMMEDIATE')");

    // More than the window (256) and every buffer between: the broker stops reading.
    let ballast = "0".repeat(1_000);
    let mut batch = Vec::new();
    for n in 1..=20_000_u16 {
        let payload = format!("{{\"temperatura\":20,\"relleno\":0.{ballast}{n}}}");
        batch.extend(client.publish_packet("sensores/s1/data", 1, n, payload.as_bytes()));
    }
    let (mut lee, mut escribe) = client.stream.into_split();
    let sender = tokio::spawn(async move { escribe.write_all(&batch).await.map(|()| escribe) });
    let mut byte = [0; 1];
    let waited = timeout(Duration::from_secs(2), lee.peek(&mut byte)).await;
    assert!(waited.is_err(), "nothing is acknowledged while nothing can be stored");
    assert!(!sender.is_finished(), "the broker stopped reading");
    let problem = ready(&server, 503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    assert!(
        problem["detail"].as_str().is_some_and(|d| d.contains("locked") || d.contains("timed out")),
        "{problem}"
    );

    // Let go: what was sent is acknowledged.
    holder.stdin.take().expect("piped").flush().expect("a pipe");
    holder.wait().expect("it ends");
    let mut acks = vec![0; 4 * 20_000];
    let all = timeout(Duration::from_secs(60), tokio::io::AsyncReadExt::read_exact(&mut lee, &mut acks));
    all.await.expect("in time").expect("every PUBACK");
    sender.await.expect("it ends").expect("everything was taken");
    for (n, ack) in (1..=20_000_u16).zip(acks.chunks(4)) {
        assert_eq!(ack, [0x40, 2, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    }
    ready(&server, 200).await;
    // Without a timestamp, so that a second try could have stored them anew.
    assert_eq!(server.readings(&device).await.len(), 20_000, "each is stored, once");
}

/// Waits until `/ready` answers with a status; answers what it said.
async fn ready(server: &Server, status: u16) -> serde_json::Value {
    for _ in 0..200 {
        let answer = server.request(reqwest::Method::GET, "/ready", "", None).await;
        if answer.status() == status {
            return answer.json().await.expect("JSON");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("/ready never says {status}");
}

#[tokio::test]
async fn a_damaged_database_acknowledges_nothing_until_a_good_one_is_in_its_place() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(
        client
            .publish("sensores/s1/data", 1, &format!("{{\"temperatura\":20,\"timestamp\":{}}}", moment(1, 0)))
            .await,
        0
    );
    server.terminate().await;
    // The first page of the table of readings, as a dying disk leaves it. What refusals are recorded in is whole.
    let db = server.data_dir().join("alertrace.db");
    let good = std::fs::read(&db).expect("the database");
    let damage = "n = db.execute(\"SELECT rootpage FROM sqlite_schema WHERE name = 'lecturas'\").fetchone()[0]\n\
                  size = db.execute('PRAGMA page_size').fetchone()[0]\ndb.close()\nf = open(sys.argv[1], 'r+b')\n\
                  f.seek((n - 1) * size)\nf.write(b'\\xff' * size)\nf.close()";
    let mut editor = python(&server, damage);
    drop(editor.stdin.take());
    editor.wait().expect("it ends");
    server.kill_and_restart();

    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let payload = format!("{{\"temperatura\":21,\"timestamp\":{}}}", moment(2, 0));
    let packet = client.publish_packet("sensores/s1/data", 1, 1, payload.as_bytes());
    client.send(&packet).await;
    let problem = ready(&server, 503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("malformed")), "{problem}");
    assert!(timeout(Duration::from_secs(1), client.read()).await.is_err(), "neither stored nor refused");
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", device.id_sensor)).await;
    assert_eq!(refused, serde_json::json!([]), "the reading is good");

    // A backup put back.
    server.kill();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(server.data_dir().join(format!("alertrace.db{suffix}")));
    }
    std::fs::write(&db, good).expect("the database");
    server.kill_and_restart();
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, &payload).await, 0);
    assert_eq!(server.readings(&device).await.len(), 2);
}

/// On a file system of its own, which is really full: SQLite has other answers to that than to a file that may
/// not grow.
#[tokio::test]
async fn a_full_file_system_loses_nothing_and_room_is_all_it_takes() {
    let server = Server::start_with(|inner| {
        // What is in the directory moves to 12 MB of memory, half of which something else takes.
        let moved = "set -e; mkdir small; mount -t tmpfs -o size=12m small small; cp -a data/. small/; \
                     mount --bind small data; head -c 6000000 /dev/zero > data/ballast; exec \"$0\" \"$@\"";
        Server::wrapped("unshare", &["--mount", "--map-root-user", "sh", "-c", moved], &inner)
    })
    .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    let mut acknowledged = 0_u16;
    loop {
        let pid = acknowledged + 1;
        let reading = |n| format!("{{\"temperatura\":20.5,\"timestamp\":{}}}", moment(pid, n));
        let payload = format!("[{}]", (0..500).map(reading).collect::<Vec<_>>().join(","));
        let bytes = client.publish_packet("sensores/s1/data", 1, pid, payload.as_bytes());
        client.send(&bytes).await;
        match timeout(Duration::from_secs(2), client.read()).await {
            Ok(ack) => assert_eq!(ack.map(|p| p.0), Some(0x40)),
            Err(_) => break,
        }
        acknowledged = pid;
        assert!(pid < 2_000, "the disk is never full");
    }
    let problem = ready(&server, 503).await;
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("full")), "{problem}");
    assert!(client.alive().await, "the device stays connected");

    let inside = format!("/proc/{}/root{}", server.pid(), server.data_dir().join("ballast").display());
    std::fs::remove_file(inside).expect("room");
    let (first, body) = client.read().await.expect("the PUBACK that was held back");
    assert_eq!((first, body), (0x40, (acknowledged + 1).to_be_bytes().to_vec()));
    ready(&server, 200).await;
    let stored = server.readings(&device).await.len();
    assert_eq!(stored, usize::from(acknowledged + 1) * 500, "all that was acknowledged, once");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_room_is_all_it_takes() {
    // Files may not grow beyond 3 MB: what a full disk does to a write, without one.
    let mut server = Server::start_with(|inner| {
        let limited = "trap '' XFSZ; ulimit -S -f 6000; exec \"$0\" \"$@\"";
        let mut command = Server::wrapped("sh", &["-c", limited], &inner);
        command.env("ALERTRACE__LOG__LEVEL", "info");
        command
    })
    .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    let mut acknowledged = 0_u16;
    // Until the disk is full: the acknowledgement of what cannot be stored does not come.
    loop {
        let pid = acknowledged + 1;
        let reading = |n| format!("{{\"temperatura\":20.5,\"timestamp\":{}}}", moment(pid, n));
        let payload = format!("[{}]", (0..500).map(reading).collect::<Vec<_>>().join(","));
        let bytes = client.publish_packet("sensores/s1/data", 1, pid, payload.as_bytes());
        client.send(&bytes).await;
        match timeout(Duration::from_secs(2), client.read()).await {
            Ok(ack) => assert_eq!(ack.map(|p| p.0), Some(0x40)),
            Err(_) => break,
        }
        acknowledged = pid;
        assert!(pid < 2_000, "the disk is never full");
    }
    let ready = server.request(reqwest::Method::GET, "/ready", "", None).await;
    assert_eq!(ready.status(), 503);
    let problem: serde_json::Value = ready.json().await.expect("a problem");
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    assert!(client.alive().await, "the device stays connected");

    let lock = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    let freed = Command::new("prlimit").args(["--fsize=unlimited", "--pid", lock.trim()]).status();
    assert!(freed.expect("prlimit runs").success());
    // What was held back is acknowledged without a restart, and the server says so.
    let (first, body) = client.read().await.expect("the PUBACK that was held back");
    assert_eq!((first, body), (0x40, (acknowledged + 1).to_be_bytes().to_vec()));
    assert_eq!(server.request(reqwest::Method::GET, "/ready", "", None).await.status(), 200);
    assert_eq!(server.terminate().await.0, Some(0));
    let stored =
        "n = db.execute('SELECT COUNT(*) FROM lecturas').fetchone()[0]\nassert n == int(sys.argv[2]), n";
    let expected = (usize::from(acknowledged + 1) * 500).to_string();
    python_with(&server, stored, &[&expected]).wait().expect("all that was acknowledged is stored, once");
}

/// Milliseconds since 1970 of reading `n` of message `pid`, after the build and before now, no two alike.
fn moment(pid: u16, n: u32) -> i64 {
    alertrace::domain::BUILD_DATE.micros() / 1_000 + i64::from(pid) * 500 + i64::from(n)
}

#[tokio::test]
async fn only_legacy_lets_in_a_device_that_never_had_a_token() {
    let forget = "db.execute('UPDATE sensores SET credencial = NULL, credencial_emitida = NULL')";
    for (legacy, code) in [("true", 0), ("false", 0x86)] {
        let server = Server::start_with(|mut command| {
            command.env("ALERTRACE__MQTT__LEGACY", legacy);
            command
        })
        .await;
        server.device("viejo").await;
        let mut editor = python(&server, forget);
        drop(editor.stdin.take());
        editor.wait().expect("it ends");
        assert_eq!(Client::connect(&server.mqtt, 5, "viejo", "viejo", "").await.1, code, "legacy = {legacy}");
        assert_eq!(Client::connect(&server.mqtt, 5, "viejo", "viejo", "algo").await.1, 0x86);
    }
}

#[tokio::test]
async fn answers_are_compressed_and_carry_their_request_id() {
    let server = Server::start().await;
    let http = reqwest::Client::builder().gzip(false).build().expect("a client");
    let answer = http
        .get(format!("http://{}/openapi.json", server.http))
        .header("accept-encoding", "gzip")
        .header("x-request-id", "mine")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["x-request-id"], "mine");
    assert_eq!(answer.headers()["content-encoding"], "gzip");
}

#[tokio::test]
async fn who_writes_keeps_nobody_from_reading() {
    let server = Server::start().await;
    let mut holder = python(&server, "db.execute('BEGIN EXCLUSIVE')");
    // More at once than there are readers, so that new connections are opened too.
    let asked = (0..16).map(|_| server.get("/api/v1/sensores"));
    let all = timeout(Duration::from_secs(3), futures_util::future::join_all(asked));
    assert_eq!(all.await.expect("without waiting for the writer").len(), 16);
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
}

#[tokio::test]
async fn an_account_that_is_switched_off_has_no_token_that_is_good() {
    let server = Server::start().await;
    let mut editor = python(&server, "db.execute('UPDATE identidades SET activa = FALSE')");
    drop(editor.stdin.take());
    editor.wait().expect("it ends");
    let answer = server.request(reqwest::Method::GET, "/api/v1/auth/me", &server.token, None).await;
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_503_and_may_be_tried_again() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__TIMEOUT_S", "1");
        command
    })
    .await;
    let mut holder = python(&server, "db.execute('BEGIN IMMEDIATE')");
    let body = serde_json::json!({ "device_id": "s1", "nombre": "s1", "tipo": "t" });
    let answer = server.request(reqwest::Method::POST, "/api/v1/sensores", &server.token, Some(body)).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.json::<serde_json::Value>().await.expect("a problem")["code"], "timeout");
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
}
