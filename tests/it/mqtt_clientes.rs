//! Why a device does not show up, who may see that, and how fast a client may be.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::mqtt::{packet, text};
use crate::support::server::PASSWORD;
use crate::support::{Client, Server};

async fn clients(server: &Server, token: &str, query: &str) -> Vec<Value> {
    let path = format!("/api/v1/mqtt/clientes{query}");
    let answer = server.request(Method::GET, &path, token, None).await;
    assert_eq!(answer.status(), 200);
    answer.json::<Vec<Value>>().await.expect("an array")
}

async fn another_empresa(server: &Server) -> String {
    let register = json!({
        "email": "otra@fundo.pe", "password": PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999",
    });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(register)).await;
    assert_eq!(answer.status(), 201);
    server.sign_in("otra@fundo.pe").await
}

#[tokio::test]
async fn an_administrator_sees_why_a_device_is_not_there_and_can_disconnect_it() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    for _ in 0..2 {
        assert_eq!(Client::connect(&server.mqtt, 5, "s1", "s1", "mala").await.1, 0x86);
    }
    let one = &clients(&server, &server.token, "?device_id=s1").await[0];
    assert_eq!((&one["conectado"], &one["ultimo_error"]["veces"]), (&json!(false), &json!(2)));
    assert!(one["ultimo_error"]["motivo"].as_str().expect("text").contains("wrong token"));

    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, "{\"temperatura\":20}").await, 0);
    assert_eq!(client.publish("sensores/otro/data", 2, "{\"temperatura\":20}").await, 0x87);
    let one = &clients(&server, &server.token, "?conectado=true").await[0];
    assert_eq!(
        (&one["device_id"], &one["tipo"], &one["via"]),
        (&json!("s1"), &json!("dispositivo"), &json!("tcp"))
    );
    assert_eq!(
        (&one["version"], &one["ip"], &one["client_id"]),
        (&json!("5.0"), &json!("127.0.0.1"), &json!("s1"))
    );
    assert_eq!((&one["mensajes_recibidos"], &one["mensajes_rechazados"]), (&json!(2), &json!(1)));
    assert_eq!(one["ultimo_error"], Value::Null, "it has been let in since");
    let id = one["id"].as_u64().expect("a number");

    // Another empresa's administrator sees nothing of it, and cannot touch it.
    let other = another_empresa(&server).await;
    assert_eq!(clients(&server, &other, "").await, Vec::<Value>::new());
    let path = format!("/api/v1/mqtt/clientes/{id}");
    assert_eq!(server.request(Method::DELETE, &path, &other, None).await.status(), 404);
    assert!(client.alive().await);

    assert_eq!(server.request(Method::DELETE, &path, &server.token, None).await.status(), 204);
    assert_eq!(client.read().await.map(|(first, body)| (first, body[0])), Some((0xe0, 0x98)));
    for _ in 0..100 {
        let one = &clients(&server, &server.token, "?device_id=s1").await[0];
        if one["conectado"] == false {
            assert!(one["ultimo_error"]["motivo"].as_str().expect("text").contains("administrator"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is never said to be gone");
}

#[tokio::test]
async fn whatever_keeps_a_known_device_out_is_said_of_it() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__MAX_SESSIONS_PER_CLIENT", "1");
        command
    })
    .await;
    let device = server.device("s1").await;
    let error = async || clients(&server, &server.token, "?device_id=s1").await[0]["ultimo_error"].clone();
    // A will where it may not publish, as much firmware has it: version 5, its name and its token.
    let mut body = text("MQTT");
    body.extend([5, 0b1100_0110, 0, 60, 0]);
    body.extend(text("s1"));
    body.push(0);
    for part in ["casa/s1/lwt", "offline", "s1", &device.token] {
        body.extend(text(part));
    }
    let mut refused = Client::open(&server.mqtt, 5).await;
    refused.send(&packet(0x10, &body)).await;
    assert_eq!(refused.read().await.map(|(first, body)| (first, body[1])), Some((0x20, 0x87)));
    let said = error().await;
    assert!(said["motivo"].as_str().expect("text").contains("will"), "{said}");

    let _one = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(error().await, Value::Null, "it was let in");
    assert_eq!(Client::connect(&server.mqtt, 5, "otro", "s1", &device.token).await.1, 0x88);
    let said = error().await;
    assert!(said["motivo"].as_str().expect("text").contains("no session"), "{said}");
}

#[tokio::test]
async fn an_administrator_sees_people_and_programs_and_what_they_carried() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (mut panel, code) = Client::connect(&server.mqtt, 5, "panel", "jwt", &server.token).await;
    assert_eq!((code, panel.subscribe("sensores/+/data").await), (0, 1));
    let key = json!({ "nombre": "tablero", "scopes": ["mqtt:subscribe"] });
    let answer = server.request(Method::POST, "/api/v1/api-keys", &server.token, Some(key)).await;
    assert_eq!(answer.status(), 201);
    let key: Value = answer.json().await.expect("JSON");
    let secret = key["api_key"].as_str().expect("a key");
    let (_program, code) = Client::connect(&server.mqtt, 4, "programa", "key", secret).await;
    assert_eq!(code, 0);
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, "{\"temperatura\":20}").await, 0);
    assert_eq!(panel.read().await.map(|(first, _)| first & 0xf0), Some(0x30));
    let all = clients(&server, &server.token, "?conectado=true").await;
    let of = |tipo: &str| all.iter().find(|c| c["tipo"] == tipo).unwrap_or_else(|| panic!("{tipo}: {all:?}"));
    let n = |c: &Value, key: &str| c[key].as_u64().expect("a number");
    let (person, device) = (of("usuario"), of("dispositivo"));
    assert!(person["user_id"].is_string());
    assert_eq!((n(person, "mensajes_enviados"), n(person, "mensajes_recibidos")), (1, 0));
    assert_eq!((n(device, "mensajes_enviados"), n(device, "mensajes_recibidos")), (0, 1));
    for one in [person, device, of("integracion")] {
        assert!(n(one, "bytes_enviados") > 0, "{one}");
    }
    // The SUBSCRIBE after the CONNECT; the message, which is 2 + 18 + 3 + 18 bytes.
    assert!(n(person, "bytes_recibidos") > 10 && n(device, "bytes_recibidos") == 41, "{device}");
    let other = another_empresa(&server).await;
    assert_eq!(clients(&server, &other, "").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_operador_sees_every_connection_and_the_brokers_figures_and_no_data() {
    let mut server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__SYS_INTERVAL_S", "1");
        command
    })
    .await;
    assert_eq!(server.terminate().await.0, Some(0));
    let mut create = server.command();
    let args = ["user", "create", "--email", "op@fundo.pe", "--password-stdin", "--operador"];
    let mut child = create.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(PASSWORD.as_bytes()).expect("a password");
    assert!(child.wait().expect("it ends").success());
    server.kill_and_restart();
    let operador = server.sign_in("op@fundo.pe").await;
    let device = server.device("s1").await;
    let _client = Client::device(&server.mqtt, 4, &device).await;
    let _ = Client::connect(&server.mqtt, 4, "x", "nadie", "x").await;
    let all = clients(&server, &operador, "").await;
    let types: Vec<_> = all.iter().map(|c| c["tipo"].as_str().expect("text")).collect();
    assert_eq!(types, ["dispositivo", "desconocido"]);
    assert_eq!(server.request(Method::GET, "/api/v1/sensores", &operador, None).await.status(), 403);

    let (mut panel, code) = Client::connect(&server.mqtt, 5, "panel", "jwt", &operador).await;
    assert_eq!(code, 0);
    assert_eq!(panel.subscribe("sensores/+/data").await, 0x87);
    assert_eq!(panel.subscribe("$SYS/broker/#").await, 1);
    // Each figure, as it is in a round that has seen the two who are here.
    let (mut figures, mut rounds) = (std::collections::BTreeMap::new(), 0);
    while rounds < 2 {
        let (first, body) = panel.read().await.expect("a figure");
        assert_eq!(first & 0xf0, 0x30);
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let name = String::from_utf8(body[2..2 + topic].to_vec()).expect("text");
        let rest = &body[2 + topic + usize::from(first & 6 > 0) * 2..];
        let value = String::from_utf8(rest[1 + usize::from(rest[0])..].to_vec()).expect("text");
        let name = name.strip_prefix("$SYS/broker/").expect("a figure of the broker").to_owned();
        rounds += usize::from(name == "clients/connected" && value == "2");
        figures.insert(name, value);
    }
    let number = |name: &str| figures[name].split(' ').next().and_then(|n| n.parse::<u64>().ok());
    assert_eq!(figures["version"], format!("alertrace {}", env!("CARGO_PKG_VERSION")));
    assert!(figures["uptime"].ends_with(" seconds") && number("uptime").is_some());
    assert_eq!((number("clients/total"), number("publish/messages/received")), (Some(2), Some(0)));
    assert_eq!(number("publish/messages/refused"), Some(0));
    assert_eq!(number("retained messages/count"), Some(1), "the state of the device");
    for bytes in ["bytes/received", "bytes/sent", "publish/messages/sent"] {
        assert!(number(bytes).is_some_and(|n| n > 0), "{bytes}: {figures:?}");
    }
    // And nobody else hears them.
    let (mut admin, _) = Client::connect(&server.mqtt, 5, "admin", "jwt", &server.token).await;
    assert_eq!(admin.subscribe("$SYS/#").await, 0x87);
}

#[tokio::test]
async fn a_name_that_fails_again_and_again_waits_and_its_neighbours_do_not() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__SIGN_IN_FAILURES", "4").env("ALERTRACE__MQTT__SIGN_IN_WAIT_S", "2");
        command
    })
    .await;
    let device = server.device("s1").await;
    let good = server.device("s2").await;
    for _ in 0..6 {
        let _ = Client::connect(&server.mqtt, 5, "s1", "s1", "mala").await;
    }
    // Even the right token waits now; 3.1.1 hears that the server is not available.
    assert_eq!(Client::connect(&server.mqtt, 5, "s1", "s1", &device.token).await.1, 0x9f);
    assert_eq!(Client::connect(&server.mqtt, 4, "s1", "s1", &device.token).await.1, 3);
    let _good = Client::device(&server.mqtt, 5, &good).await;
    // However often it failed, two seconds at most, and a refusal in that time adds none.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let _device = Client::device(&server.mqtt, 5, &device).await;
}

#[tokio::test]
async fn a_client_that_goes_on_sending_too_much_is_ended_and_told_why() {
    for (key, limit, payload) in [("MESSAGES", "20", 2), ("BYTES", "20000", 500)] {
        let server = Server::start_with(|mut command| {
            command.env(format!("ALERTRACE__MQTT__MAX_{key}_PER_S"), limit);
            command
                .env("ALERTRACE__MQTT__RATE_PATIENCE_S", "2")
                .env("ALERTRACE__MQTT__RECEIVE_MAXIMUM", "60000");
            command
        })
        .await;
        let device = server.device("s1").await;
        let mut fast = Client::device(&server.mqtt, 5, &device).await;
        let mut all = Vec::new();
        for pid in 1..=400_u16 {
            all.extend(fast.publish_packet("sensores/s1/data", 1, pid, &vec![b' '; payload]));
        }
        let start = Instant::now();
        fast.stream.write_all(&all).await.expect("the kernel takes it");
        let mut acknowledged = 0;
        let end = loop {
            match fast.read().await {
                Some((0x40, _)) => acknowledged += 1,
                other => break other,
            }
        };
        let (first, body) = end.expect("it is told");
        assert_eq!((first, body[0]), (0xe0, 0x96), "{key}");
        assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&start.elapsed()), "{key}");
        assert!((20..200).contains(&acknowledged), "{key}: {acknowledged}");
        let one = &clients(&server, &server.token, "?device_id=s1").await[0];
        assert!(one["ultimo_error"]["motivo"].as_str().expect("text").contains("went on sending"), "{one}");
    }
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_slowed_down_and_loses_nothing() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__MAX_MESSAGES_PER_S", "50");
        command
    })
    .await;
    let (fast, calm) = (server.device("s1").await, server.device("s2").await);
    let mut fast = Client::device(&server.mqtt, 4, &fast).await;
    let mut calm = Client::device(&server.mqtt, 4, &calm).await;
    let start = Instant::now();
    let mut all = Vec::new();
    for pid in 1..=200_u16 {
        let payload = format!("{{\"temperatura\":20,\"n\":{pid}}}");
        all.extend(fast.publish_packet("sensores/s1/data", 1, pid, payload.as_bytes()));
    }
    fast.stream.write_all(&all).await.expect("the kernel takes it");
    // Somebody else notices nothing.
    assert_eq!(calm.publish("sensores/s2/data", 1, "{\"temperatura\":20}").await, 0);
    assert!(start.elapsed() < Duration::from_secs(1));
    for pid in 1..=200_u16 {
        assert_eq!(fast.read().await, Some((0x40, pid.to_be_bytes().to_vec())));
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(2_500)..Duration::from_secs(8)).contains(&took), "200 at 50/s: {took:?}");
}
