//! A database that fails a change before its commit, or leaves it open whether there was one.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{on, start};
use crate::live::{event, signed_in};
use crate::support::mqtt::{packet, text};
use crate::support::postgres::Cluster;
use crate::support::server::PASSWORD;
use crate::support::{Client, Device, Server};

/// Makes every row that comes into `table` fail as if the server went, at once or at the commit.
fn fail(cluster: &Cluster, table: &str, at_commit: bool) {
    let (constraint, deferred) =
        if at_commit { ("CONSTRAINT ", "DEFERRABLE INITIALLY DEFERRED") } else { ("", "") };
    cluster.sql(&format!(
        "SET search_path TO alertrace; CREATE FUNCTION go() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = '57P01'; END $$; \
         CREATE {constraint}TRIGGER go AFTER INSERT ON {table} {deferred} FOR EACH ROW EXECUTE FUNCTION go()"
    ));
}

fn mend(cluster: &Cluster, table: &str) {
    cluster.sql(&format!("SET search_path TO alertrace; DROP TRIGGER go ON {table}; DROP FUNCTION go()"));
}

async fn code(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

async fn create(server: &Server, key: &str) -> Response {
    let url = format!("http://{}/api/v1/sensores", server.http);
    let body = json!({ "device_id": "s1", "nombre": "s1", "tipo": "t" });
    let request = reqwest::Client::new().post(url).bearer_auth(&server.token).header("idempotency-key", key);
    request.json(&body).send().await.expect("an answer")
}

#[tokio::test]
async fn a_key_is_free_again_when_nothing_was_done_and_not_when_that_is_unknown() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    for (at_commit, again) in [(true, (409, "idempotency_outcome_unknown")), (false, (201, ""))] {
        let key = format!("k{at_commit}");
        fail(&cluster, "sensores", at_commit);
        assert_eq!(code(create(&server, &key).await).await, (503, "store_unavailable".to_owned()));
        mend(&cluster, "sensores");
        let (status, said) = again;
        assert_eq!(code(create(&server, &key).await).await, (status, said.to_owned()), "{at_commit}");
    }
}

#[tokio::test]
async fn what_a_commit_of_unknown_outcome_changed_is_known_without_a_restart() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    let (one, two) = (server.device("s1").await, server.device("s2").await);
    let body = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    let worker: Value = made.json().await.expect("JSON");
    let (mut panel, _) = Client::connect(&server.mqtt, 4, "p", "jwt", &server.sign_in("w@x.pe").await).await;
    // Committed behind the server's back, as what it was not told of would be.
    let id = &worker["id_trabajador"];
    cluster.sql(&format!(
        "INSERT INTO alertrace.asignaciones (id_empresa, id_trabajador, id_sensor, desde) \
         SELECT id_empresa, {id}, {}, 0 FROM alertrace.trabajadores WHERE id_trabajador = {id}",
        one.id_sensor
    ));
    assert_eq!(panel.subscribe("sensores/s1/data").await, 0x80, "nobody has told it yet");
    fail(&cluster, "asignaciones", true);
    let body = json!({ "id_trabajador": id, "id_sensor": two.id_sensor });
    let answer = server.request(Method::POST, "/api/v1/asignaciones", &server.token, Some(body)).await;
    assert_eq!(code(answer).await, (503, "store_unavailable".to_owned()));
    for _ in 0..100 {
        if panel.subscribe("sensores/s1/data").await == 1 {
            assert_eq!(panel.subscribe("sensores/s2/data").await, 0x80, "that one was not committed");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is never known");
}

#[tokio::test]
async fn whoever_may_have_been_shut_out_is_cut_off_and_comes_back_where_they_were_not() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    let device = server.device("s1").await;
    let body = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    let worker: Value = made.json().await.expect("JSON");
    let token = server.sign_in("w@x.pe").await;
    let body = json!({ "nombre": "k", "scopes": ["mqtt:subscribe"] });
    let made = server.request(Method::POST, "/api/v1/api-keys", &server.token, Some(body)).await;
    let key: Value = made.json().await.expect("JSON");
    let secret = key["api_key"].as_str().expect("a key");
    fail(&cluster, "auditoria", true);
    for (user, password, (method, path, body)) in [
        (
            "s1",
            device.token.as_str(),
            (Method::POST, format!("/api/v1/sensores/{}/credenciales", device.id_sensor), None),
        ),
        (
            "jwt",
            token.as_str(),
            (
                Method::PUT,
                format!("/api/v1/trabajadores/{}", worker["id_trabajador"]),
                Some(json!({ "activo": false })),
            ),
        ),
        ("key", secret, (Method::DELETE, format!("/api/v1/api-keys/{}", key["id_api_key"]), None)),
    ] {
        let (mut client, code_of) = Client::connect(&server.mqtt, 5, user, user, password).await;
        assert_eq!(code_of, 0, "{user}");
        let answer = server.request(method, &path, &server.token, body).await;
        assert_eq!(code(answer).await, (503, "store_unavailable".to_owned()), "{user}");
        // As long as something comes it is not over.
        while client.read().await.is_some() {}
        let (_, code_of) = Client::connect(&server.mqtt, 5, user, user, password).await;
        assert_eq!(code_of, 0, "{user}: it was not committed");
    }
}

/// Between the server and PostgreSQL: passes a commit on, and then cuts the connection, so that nobody hears what
/// became of it.
struct Cutter {
    port: u16,
    /// Of the commits that wrote something, each such is cut; 0 = none.
    every: Arc<AtomicU32>,
    cuts: Arc<AtomicU32>,
}

impl Cutter {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let cutter = Self { port, every: Arc::default(), cuts: Arc::default() };
        let (every, cuts, commits) = (cutter.every.clone(), cutter.cuts.clone(), Arc::<AtomicU32>::default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (every, cuts, commits) = (every.clone(), cuts.clone(), commits.clone());
                let cut = move || {
                    let (every, n) = (every.load(Relaxed), commits.fetch_add(1, Relaxed));
                    every > 0 && n.is_multiple_of(every)
                };
                tokio::spawn(async move {
                    if relay(client, server, cut).await.is_ok_and(|cut| cut) {
                        cuts.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        cutter
    }
}

/// Passes on what each says to the other, until one ends or a commit is cut; answers whether that was it.
async fn relay(mut client: TcpStream, server: u16, cut: impl Fn() -> bool) -> std::io::Result<bool> {
    let holds = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut asked, mut answered, mut writes) = (vec![0; 16 << 10], vec![0; 16 << 10], false);
    loop {
        tokio::select! {
            n = client.read(&mut asked) => {
                let asked = &asked[..n?];
                server.write_all(asked).await?;
                writes &= !holds(asked, b"ROLLBACK\0");
                writes |= holds(asked, b"synchronous_commit TO on");
                if asked.is_empty() {
                    return Ok(false);
                }
                if writes && holds(asked, b"COMMIT\0") {
                    writes = false;
                    if cut() {
                        // It has committed when it answers.
                        return Ok(server.read(&mut answered).await? > 0);
                    }
                }
            }
            n = server.read(&mut answered) => {
                let answered = &answered[..n?];
                client.write_all(answered).await?;
                if answered.is_empty() {
                    return Ok(false);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readings_without_a_timestamp_are_stored_once_when_nobody_heard_of_their_commit() {
    const DEVICES: u32 = 3;
    const READINGS: u16 = 40;
    let cluster = Cluster::own();
    let cutter = Cutter::to(cluster.port).await;
    let through = cluster.url().replace(&format!(":{}/", cluster.port), &format!(":{}/", cutter.port));
    let server = start(vec![("DATABASE_URL", through)]).await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let device = server.device(&format!("s{n}")).await;
        devices.push((n, Client::device(&server.mqtt, 5, &device).await));
    }
    cutter.every.store(3, Relaxed);
    let send = async |(n, mut client): (u32, Client)| {
        let topic = format!("sensores/s{n}/data");
        for few in (1..=READINGS).collect::<Vec<_>>().chunks(4) {
            let mut bytes = Vec::new();
            for pid in few {
                // No two alike, so that what is stored twice is seen.
                let payload = format!("{{\"temperatura\":{pid}.{n}}}");
                bytes.extend(client.publish_packet(&topic, 1, *pid, payload.as_bytes()));
            }
            client.send(&bytes).await;
            for pid in few {
                let (first, body) = client.read().await.expect("a PUBACK");
                assert_eq!((first, &body[..2]), (0x40, &pid.to_be_bytes()[..]));
                assert_eq!(body.get(2).copied().unwrap_or(0), 0, "accepted");
            }
        }
    };
    futures_util::future::join_all(devices.into_iter().map(send)).await;
    cutter.every.store(0, Relaxed);
    assert!(cutter.cuts.load(Relaxed) > 3, "{} commits were cut", cutter.cuts.load(Relaxed));
    let stored = cluster.sql("SELECT id_sensor || ' ' || valores FROM alertrace.lecturas");
    let unique: std::collections::HashSet<&str> = stored.lines().collect();
    let all = DEVICES as usize * usize::from(READINGS);
    assert_eq!((stored.lines().count(), unique.len()), (all, all), "each is stored, once");
}

/// Who hears of alerts by MQTT 3.1.1, in a session that is kept or not.
async fn listener(server: &Server, id: &str, kept: bool) -> Client {
    let mut body = text("MQTT");
    body.extend([4, if kept { 0b1100_0000 } else { 0b1100_0010 }, 0, 60]);
    for part in [id, "jwt", &server.token] {
        body.extend(text(part));
    }
    let mut client = Client::open(&server.mqtt, 4).await;
    client.send(&packet(0x10, &body)).await;
    assert_eq!(client.read().await, Some((0x20, vec![0, 0])));
    assert_eq!(client.subscribe("alertas/+").await, 1);
    client
}

fn told(event: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let alert = &event["alerta"];
    [&event["accion"], &alert["device_id"], &alert["tipo_alerta"]].map(text).join(" ")
}

/// Readings by HTTP, one after another: each opens an alert, of which it says that it was taken.
async fn raise(server: &Server, device: &Device, variable: &str, value: f64) {
    let url = format!("http://{}/api/v1/sensores/data", server.http);
    let body = json!({ variable: value });
    let request = reqwest::Client::new().post(url).basic_auth(&device.id, Some(&device.token)).json(&body);
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let said = ["aceptadas", "duplicadas", "alertas_generadas"].map(|what| answer[what].as_u64());
    assert_eq!(said, [Some(1), Some(0), Some(1)], "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_alert_is_heard_once_by_everybody_when_nobody_heard_of_its_commit() {
    let cluster = Cluster::own();
    let cutter = Cutter::to(cluster.port).await;
    let through = cluster.url().replace(&format!(":{}/", cluster.port), &format!(":{}/", cutter.port));
    let server = start(vec![("DATABASE_URL", through)]).await;
    let (mut devices, last) = (Vec::new(), server.device("last").await);
    for n in 0..4 {
        devices.push(server.device(&format!("s{n}")).await);
    }
    let mut socket = signed_in(&server, "?eventos=alerta").await;
    assert_eq!(event(&mut socket).await["type"], "snapshot");
    let mut listeners = [listener(&server, "kept", true).await, listener(&server, "other", false).await];
    let mut expected = Vec::new();
    cutter.every.store(2, Relaxed);
    for device in &devices {
        for (variable, value) in [("temperatura", 45.0), ("humedad_aire", 91.0), ("ph_suelo", 7.6)] {
            raise(&server, device, variable, value).await;
            expected.push(format!("creada {} {variable}", device.id));
        }
    }
    // A person resolves one, while its variable is still outside.
    let open = server.get("/api/v1/alertas").await;
    cutter.every.store(1, Relaxed);
    let path = format!("/api/v1/alertas/{}/resolve", open[0]["id_alerta"]);
    let answer = server.request(Method::PATCH, &path, &server.token, Some(json!({ "notas": "x" }))).await;
    assert_eq!(answer.status(), 200);
    cutter.every.store(0, Relaxed);
    for action in ["resuelta", "creada"] {
        let (device, variable) = (&open[0]["device_id"], &open[0]["tipo_alerta"]);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        expected.push(format!("{action} {} {}", text(device), text(variable)));
    }
    raise(&server, &last, "temperatura", 45.0).await;
    expected.push("creada last temperatura".to_owned());
    assert!(cutter.cuts.load(Relaxed) > 5, "{} commits were cut", cutter.cuts.load(Relaxed));

    let mut heard = Vec::new();
    for _ in &expected {
        heard.push(told(&event(&mut socket).await));
    }
    assert_eq!(heard, expected, "by WebSocket");
    let kept = cluster.sql("SELECT COUNT(*) FROM alertrace.mqtt_cola");
    assert_eq!(kept, expected.len().to_string(), "nothing is acknowledged yet");
    for (n, client) in listeners.iter_mut().enumerate() {
        let mut heard = Vec::new();
        for _ in &expected {
            let (first, body) = client.read().await.expect("a PUBLISH");
            assert_eq!(first, 0x32, "for the first time");
            let start = body.iter().position(|b| *b == b'{').expect("JSON");
            heard.push(told(&serde_json::from_slice(&body[start..]).expect("JSON")));
        }
        assert_eq!(heard, expected, "by MQTT, {n}");
        client.send(&[0xc0, 0]).await;
        assert_eq!(client.read().await, Some((0xd0, Vec::new())), "and nothing else");
    }
}

#[tokio::test]
async fn what_a_commit_of_unknown_outcome_made_of_a_person_holds_on_their_next_request() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    let body = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    let worker: Value = made.json().await.expect("JSON");
    let token = server.sign_in("w@x.pe").await;
    let people =
        async || server.request(Method::GET, "/api/v1/trabajadores", &token, None).await.status().as_u16();
    assert_eq!([people().await, people().await], [403, 403], "what is kept of them is of before");
    fail(&cluster, "auditoria", true);
    let path = format!("/api/v1/trabajadores/{}", worker["id_trabajador"]);
    let change =
        server.request(Method::PUT, &path, &server.token, Some(json!({ "rol": "supervisor" }))).await;
    assert_eq!(code(change).await, (503, "store_unavailable".to_owned()));
    mend(&cluster, "auditoria");
    // As if it had been one.
    cluster.sql("UPDATE alertrace.trabajadores SET rol = 'supervisor' WHERE email = 'w@x.pe'");
    assert_eq!(people().await, 200);
}
