//! A SQLite file that somebody else locks now and then (a backup tool, a person with `sqlite3`): a change that could
//! not be made was not made at all, and may be sent again as it was.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::mqtt::{packet, text};
use crate::support::postgres::Database;
use crate::support::server::{PASSWORD, place};
use crate::support::{Client, Server};

/// Takes the file for a second, and then for some milliseconds again and again, at no rhythm that anything here shares.
struct Somebody(Child);

impl Somebody {
    fn at(server: &Server) -> Self {
        let script = "import random, sqlite3, sys, time\n\
                      db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
                      random.seed(1)\n\
                      db.execute('BEGIN IMMEDIATE'); print('taken', flush=True); time.sleep(1); db.execute('ROLLBACK')\n\
                      while True:\n\
                      \x20   db.execute('BEGIN IMMEDIATE'); time.sleep(random.uniform(0.15, 0.4)); db.execute('ROLLBACK')\n\
                      \x20   time.sleep(random.uniform(0.03, 0.12))";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(server.data_dir().join("alertrace.db"));
        let mut somebody = Self(python.stdout(Stdio::piped()).spawn().expect("python3 runs"));
        let mut line = String::new();
        let said = somebody.0.stdout.as_mut().expect("its output");
        BufReader::new(said).read_line(&mut line).expect("a line");
        assert_eq!(line, "taken\n");
        somebody
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn server() -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), Database::Sqlite);
    let impatient = |mut command: Command| {
        command.env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "150");
        // All that is sent comes from one address.
        command.env("ALERTRACE__HTTP__MAX_SIGN_INS_PER_ADDRESS_PER_MIN", "0");
        command
    };
    Server::start_in(dir, place, impatient).await
}

async fn post(server: &Server, path: &str, key: Option<&str>, body: &Value) -> Response {
    let url = format!("http://{}/api/v1{path}", server.http);
    let mut request = reqwest::Client::new().post(url).bearer_auth(&server.token).json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.send().await.expect("an answer")
}

/// Sends it until it is done; answers how often it could not be.
async fn until_made(server: &Server, path: &str, key: Option<&str>, body: &Value) -> u32 {
    let (start, mut away) = (Instant::now(), 0);
    loop {
        let answer = post(server, path, key, body).await;
        let (status, said) = (answer.status().as_u16(), answer.text().await.expect("text"));
        let in_progress = status == 409 && said.contains("idempotency_in_progress");
        match status {
            201 => return away,
            503 => away += 1,
            _ => assert!(in_progress, "{path} after {away} refusals: {status} {said}"),
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{path} is never made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_post_with_a_key_is_sent_again_until_it_is_made_and_is_made_once() {
    let server = server().await;
    let somebody = Somebody::at(&server);
    let mut away = 0;
    for n in 0..10 {
        let body = json!({ "device_id": format!("s{n}"), "nombre": "s", "tipo": "t" });
        away += until_made(&server, "/sensores", Some(&format!("k{n}")), &body).await;
    }
    drop(somebody);
    assert!(away > 0, "nothing was in the way");
    let all = server.get("/api/v1/sensores").await;
    assert_eq!(all.as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn a_registration_and_an_assignment_that_could_not_be_made_leave_nothing_in_the_way_of_the_next() {
    let server = server().await;
    let body = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    let worker: Value = made.json().await.expect("JSON");
    let token = server.sign_in("w@x.pe").await;
    let (mut panel, _) = Client::connect(&server.mqtt, 4, "p", "jwt", &token).await;
    let mut sensors = Vec::new();
    for n in 0..5 {
        sensors.push(server.device(&format!("s{n}")).await);
    }
    let somebody = Somebody::at(&server);
    let mut away = 0;
    for (n, sensor) in sensors.iter().enumerate() {
        let topic = format!("sensores/{}/data", sensor.id);
        let body = json!({ "id_trabajador": worker["id_trabajador"], "id_sensor": sensor.id_sensor });
        away += until_made(&server, "/asignaciones", None, &body).await;
        // Memory knows of it with the answer.
        assert_eq!(panel.subscribe(&topic).await, 1, "{topic}");
        let empresa = json!({ "email": format!("e{n}@x.pe"), "password": PASSWORD, "user_type": "empresa",
            "nombre_empresa": "E", "ruc": format!("201111111{n:02}") });
        away += until_made(&server, "/auth/register", None, &empresa).await;
    }
    drop(somebody);
    assert!(away > 0, "nothing was in the way");
    let mine = server.get(&format!("/api/v1/asignaciones/trabajador/{}", worker["id_trabajador"])).await;
    assert_eq!(mine.as_array().map(Vec::len), Some(sensors.len()));
    for n in 0..sensors.len() {
        server.sign_in(&format!("e{n}@x.pe")).await;
    }
}

#[tokio::test]
async fn a_retained_message_that_is_said_again_as_it_expires_is_there_after_a_kill() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), Database::Sqlite);
    let mut server = Server::start_in(dir, place, |mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true").env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "30000");
        command
    })
    .await;
    let hello = |id: &str| {
        let mut body = text("MQTT");
        body.extend([5, 2, 0, 60, 0]);
        body.extend(text(id));
        packet(0x10, &body)
    };
    let retained = |seconds: u8, payload: &str| {
        let mut body = text("r");
        body.extend([0, 1, 5, 2, 0, 0, 0, seconds]);
        body.extend(payload.as_bytes());
        packet(0x33, &body)
    };
    let mut client = Client::open(&server.mqtt, 5).await;
    client.send(&hello("says")).await;
    assert_eq!(client.read().await.map(|p| p.0), Some(0x20));
    client.send(&retained(2, "old")).await;
    assert_eq!(client.read().await.map(|p| p.0), Some(0x40));
    // While its successor waits for its commit the old one expires, and is swept away.
    let mut holder = crate::store::python(&server, "db.execute('BEGIN IMMEDIATE')");
    client.send(&retained(200, "new")).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    drop(holder.stdin.take());
    assert!(holder.wait().expect("it ends").success());
    assert_eq!(client.read().await.map(|p| p.0), Some(0x40));
    // What was queued behind it is committed once this is.
    assert_eq!(client.publish("r/other", 9, "").await & 0xef, 0);
    let mut other = client.publish_packet("r/other", 1, 9, b"x");
    other[0] |= 1;
    client.send(&other).await;
    assert_eq!(client.read().await.map(|p| p.0), Some(0x40));
    server.kill_and_restart();

    let mut client = Client::open(&server.mqtt, 5).await;
    client.send(&hello("hears")).await;
    assert_eq!(client.read().await.map(|p| p.0), Some(0x20));
    assert_eq!(client.subscribe("r").await, 1);
    let (first, body) = client.read().await.expect("the message");
    assert_eq!((first & 0xf1, body.ends_with(b"new")), (0x31, true));
}
