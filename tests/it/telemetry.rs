//! What is told elsewhere: the log as it is asked for, errors to Sentry, spans to a collector.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::postgres::Database;
use crate::support::server::{PASSWORD, command, place};
use crate::support::{Client, Server};

/// Hears what is posted, and says 200; or never says anything.
struct Receiver {
    url: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Receiver {
    async fn start(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 16 << 10];
                    while let Ok(n) = stream.read(&mut buffer).await {
                        if n == 0 {
                            return;
                        }
                        all.lock().expect("lock").extend_from_slice(&buffer[..n]);
                        if answers {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                        }
                    }
                });
            }
        });
        Self { url, heard }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("lock")).into_owned()
    }

    async fn hears(&self, what: &str) {
        let start = Instant::now();
        while !self.text().contains(what) {
            assert!(start.elapsed() < Duration::from_secs(20), "no {what:?} in {}", self.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Holds a SQLite file until it is dropped.
struct Lock(Child);

impl Lock {
    fn on(server: &Server) -> Self {
        let script = "import sqlite3, sys, time\n\
                      db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
                      db.execute('BEGIN IMMEDIATE')\n\
                      print('locked', flush=True)\n\
                      time.sleep(60)";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(server.data_dir().join("alertrace.db")).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 runs");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        Self(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_error_is_reported_without_what_people_and_devices_said() {
    let sentry = Receiver::start(true).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), Database::Sqlite);
    let dsn = format!("http://llave@{}/1", sentry.url);
    let server = Server::start_in(dir, place, |mut command| {
        command
            .env("SENTRY_DSN", dsn)
            .env("ENVIRONMENT", "fundo")
            .env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "50");
        command
    })
    .await;
    let lock = Lock::on(&server);
    let body = json!({ "email": "luz@fundo.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let answer = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    assert_eq!(answer.status(), 503);
    drop(lock);
    sentry.hears("the store is away").await;
    let said = sentry.text();
    assert!(said.contains("\"environment\":\"fundo\"") && said.contains("alertrace@"), "{said}");
    for secret in ["luz@fundo.pe", PASSWORD, server.token.as_str(), "breadcrumbs"] {
        assert!(!said.contains(secret), "{secret} is in {said}");
    }
}

#[tokio::test]
async fn a_line_says_in_which_request_something_failed() {
    let tee = "exec \"$0\" \"$@\" 2> >(tee log >&2)";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), Database::Sqlite);
    let server = Server::start_in(dir, place, |mut command| {
        command.env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "250");
        Server::wrapped("bash", &["-c", tee], &command)
    })
    .await;
    let lock = Lock::on(&server);
    let body = json!({ "email": "luz@fundo.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let answer = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    drop(lock);
    let id = answer.headers()["x-request-id"].to_str().expect("an id").to_owned();
    let start = Instant::now();
    loop {
        let log = std::fs::read_to_string(server.dir().join("log")).expect("the log");
        let lines = log.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let failed: Vec<Value> = lines.filter(|l| l["level"] == "ERROR").collect();
        let of_it = |l: &Value| l["span"]["name"] == "request" && l["span"]["id"] == id.as_str();
        if failed.iter().any(|l| of_it(l) && l["span"]["route"] == "/api/v1/trabajadores") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no line of {id} in {failed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The first line of the log of a server that cannot start, on a terminal of its own or without one.
fn first_line(terminal: bool) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut serve = command(dir.path());
    if terminal {
        serve = Server::wrapped("bash", &["-c", "script -qec \"$0 serve\" /dev/null"], &serve);
    } else {
        serve.arg("serve");
    }
    serve
        .env_remove("ALERTRACE__LOG__FORMAT")
        .env("ALERTRACE__MAIL__TRANSPORT", "log")
        .env("ALERTRACE__HTTP__LISTEN", taken.local_addr().expect("an address").to_string());
    let output = serve.stdin(Stdio::null()).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_log_is_text_on_a_terminal_and_json_elsewhere() {
    let line = first_line(true);
    assert!(line.contains("WARN") && line.contains("mail.transport") && !line.contains("{\""), "{line}");
    let line = first_line(false);
    let json: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(json["level"], "WARN");
}

/// `doctor` tries things out, and what fails then is no incident of the installation.
#[tokio::test]
async fn what_doctor_tries_out_is_told_to_nobody() {
    let (collector, sentry) = (Receiver::start(true).await, Receiver::start(true).await);
    let dir = tempfile::tempdir().expect("a temporary directory");
    // A key that does not belong to its certificate: the self-test fails.
    let certs = dir.path().join("certs");
    let made = command(dir.path()).args(["cert", "init"]).status().expect("it runs");
    assert!(made.success());
    std::fs::copy(certs.join("ca.key"), certs.join("server.key")).expect("a file");
    let output = tokio::process::Command::from({
        let mut doctor = command(dir.path());
        doctor
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.url))
            .env("SENTRY_DSN", format!("http://llave@{}/1", sentry.url))
            .args(["doctor", "--json"]);
        doctor
    })
    .output()
    .await
    .expect("it runs");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = said["checks"].as_array().expect("checks");
    assert!(checks.iter().any(|c| c["check"] == "self_test" && c["status"] == "fail"), "{said:#}");
    assert_eq!((collector.text(), sentry.text()), (String::new(), String::new()));
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_requests_clients_and_batches() {
    let collector = Receiver::start(true).await;
    let endpoint = format!("http://{}", collector.url);
    let server = Server::start_with(|mut command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        command
    })
    .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    client.publish("sensores/s1/data", 1, r#"{"temperatura":21.123}"#).await;
    drop(client);
    for part in ["POST /v1/traces", "alertrace", "request", "/api/v1/sensores", "batch", "client"] {
        collector.hears(part).await;
    }
    let said = collector.text();
    assert!(!said.contains(&device.token) && !said.contains("21.123"), "neither a secret nor a reading");
}

#[tokio::test]
async fn collectors_that_never_answer_delay_nothing() {
    let (collector, sentry) = (Receiver::start(false).await, Receiver::start(false).await);
    let (endpoint, dsn) = (format!("http://{}", collector.url), format!("http://llave@{}/1", sentry.url));
    let mut server = Server::start_with(|mut command| {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("SENTRY_DSN", dsn)
            .env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "100");
        command
    })
    .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    // More spans than the queue holds, for longer than the collector is waited for.
    let mut n = 0;
    while n < 3_000 || start.elapsed() < Duration::from_secs(7) {
        let one = Instant::now();
        n += 1;
        client
            .publish(
                "sensores/s1/data",
                u16::try_from(n % 60_000 + 1).expect("a pid"),
                r#"{"temperatura":21}"#,
            )
            .await;
        slowest = slowest.max(one.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "an acknowledgement took {slowest:?}");
    // More errors than may wait to be sent, none of which ever is.
    let lock = Lock::on(&server);
    for n in 0..34 {
        let body = json!({ "email": format!("l{n}@fundo.pe"), "password": PASSWORD, "nombre": "L", "apellido": "R" });
        let answer = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
        assert_eq!(answer.status(), 503);
    }
    drop(lock);
    let (code, took) = server.terminate().await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(8), "it took {took:?} to stop");
}

#[tokio::test]
async fn the_operador_has_more_logged_while_the_server_runs_and_nobody_else_does() {
    // The log beside what the test's own reader takes.
    let tee = "exec \"$0\" \"$@\" 2> >(tee log >&2)";
    let server = Server::start_with(|command| Server::wrapped("bash", &["-c", tee], &command)).await;
    let create = json!({ "email": "op@x.pe", "password": PASSWORD, "nombre": "Op", "apellido": "O" });
    server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(create)).await;
    server.sql("UPDATE trabajadores SET rol = 'operador', id_empresa = NULL WHERE email = 'op@x.pe'");
    let operador = server.sign_in("op@x.pe").await;
    let path = "/api/v1/sistema/log";
    let put = |token: String, nivel: &'static str| {
        let server = &server;
        async move {
            let answer = server.request(Method::PUT, path, &token, Some(json!({ "nivel": nivel }))).await;
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.expect("JSON"))
        }
    };
    let log = || std::fs::read_to_string(server.dir().join("log")).expect("the log");
    assert_eq!(put(server.token.clone(), "debug").await.0, 403);
    let (status, problem) = put(operador.clone(), "mucho").await;
    assert_eq!((status, &problem["errors"][0]["campo"]), (422, &"nivel".into()));
    assert!(!log().contains("\"level\":\"DEBUG\""), "nothing has changed");
    assert_eq!(put(operador.clone(), "debug").await, (200, json!({ "nivel": "debug" })));
    let now: Value = server.request(Method::GET, path, &operador, None).await.json().await.expect("JSON");
    assert_eq!(now, json!({ "nivel": "debug" }));
    let start = Instant::now();
    while !log().lines().any(|l| l.contains("\"level\":\"DEBUG\"") && l.contains("\"name\":\"request\"")) {
        assert!(start.elapsed() < Duration::from_secs(10), "no request in {}", log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(put(operador, "warn").await.0, 200);
}
