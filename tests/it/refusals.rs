//! Bad input gets its answer, changes nothing, and the other clients notice nothing.

use reqwest::Method;
use serde_json::{Value, json};

use crate::store::python;
use crate::support::postgres::{Database, of_this_run};
use crate::support::server::PASSWORD;
use crate::support::{Client, Server, mqtt};

#[tokio::test]
async fn hostile_clients_are_refused_and_the_others_notice_nothing() {
    let server = Server::start().await;
    let (device, other) = (server.device("s1").await, server.device("s2").await);
    let mut bystander = Client::device(&server.mqtt, 5, &other).await;
    let address = &server.mqtt;

    // Wrong password; unknown device: the same answer.
    for (user, token) in [("s1", "wrong"), ("nobody", device.token.as_str()), ("s1", "")] {
        assert_eq!(Client::connect(address, 4, "x", user, token).await.1, 4, "{user}");
        assert_eq!(Client::connect(address, 5, "x", user, token).await.1, 0x86, "{user}");
    }

    // Another device's topic; a topic of nobody's.
    let mut five = Client::device(address, 5, &device).await;
    for topic in ["sensores/s2/data", "sensores/s1/estado", "otra/cosa"] {
        assert_eq!(five.publish(topic, 7, r#"{"temperatura":1}"#).await, 0x87, "{topic}");
    }
    assert_eq!(five.subscribe("sensores/s2/errores").await, 0x87);
    assert_eq!(five.subscribe("#").await, 0x87);

    // A malformed payload: 0x99, a line on `errores`, and a record.
    assert_eq!(five.subscribe("sensores/s1/errores").await, 1);
    let bytes = five.publish_packet("sensores/s1/data", 1, 9, b"{not json");
    five.send(&bytes).await;
    let (mut acknowledged, mut explained) = (false, false);
    while !(acknowledged && explained) {
        match five.read().await.expect("an answer") {
            (0x40, body) => acknowledged = body[2] == 0x99,
            (first, body) if first & 0xf0 == 0x30 => {
                explained = String::from_utf8_lossy(&body).contains("malformado");
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", device.id_sensor)).await;
    assert_eq!(
        (&refused[0]["motivo"], &refused[0]["contenido"]),
        (&json!("malformado"), &json!("{not json"))
    );

    // A 2 MB payload: 5.0 learns why, 3.1.1 is closed on.
    let big = vec![b'x'; 2 << 20];
    let bytes = five.publish_packet("sensores/s1/data", 1, 10, &big);
    let _ = tokio::io::AsyncWriteExt::write_all(&mut five.stream, &bytes).await;
    let mut reason = None;
    while let Some((first, body)) = five.read().await {
        if first == 0xe0 {
            reason = body.first().copied();
        }
    }
    assert_eq!(reason, Some(0x95), "Packet too large");

    // A second CONNECT ends the connection.
    let mut four = Client::device(address, 4, &device).await;
    four.send(&mqtt::connect(4, "s1", "s1", &device.token)).await;
    assert!(four.read().await.is_none());
    let mut five = Client::device(address, 5, &device).await;
    five.send(&mqtt::connect(5, "s1", "s1", &device.token)).await;
    assert_eq!(five.read().await.map(|(first, body)| (first, body[0])), Some((0xe0, 0x82)), "Protocol Error");

    // A truncated packet, then silence and a close; bytes that are no MQTT at all.
    let mut truncated = Client::device(address, 4, &device).await;
    let bytes = truncated.publish_packet("sensores/s1/data", 1, 1, br#"{"temperatura":1}"#);
    truncated.send(&bytes[..bytes.len() / 2]).await;
    drop(truncated);
    let mut garbage = Client::open(address, 4).await;
    garbage.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(garbage.read().await.is_none());

    assert_eq!(server.readings(&device).await, Vec::<Value>::new(), "nothing of all that was stored");
    assert!(bystander.alive().await);
    assert_eq!(bystander.publish("sensores/s2/data", 1, r#"{"temperatura":20}"#).await, 0);
    assert_eq!(server.readings(&other).await.len(), 1);
}

#[tokio::test]
async fn a_topic_alias_maximum_of_zero_connects() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut body = mqtt::text("MQTT");
    body.extend([5, 0b1100_0010, 0, 60, 3, 0x22, 0, 0]);
    for part in ["s1", "s1", &device.token] {
        body.extend(mqtt::text(part));
    }
    let mut client = Client::open(&server.mqtt, 5).await;
    client.send(&mqtt::packet(0x10, &body)).await;
    assert_eq!(client.read().await.map(|(first, body)| (first, body[1])), Some((0x20, 0)));
    assert!(client.alive().await);
}

#[tokio::test]
async fn another_empresas_sensor_does_not_exist() {
    let server = Server::start().await;
    let ours = server.device("ours").await;
    let register = json!({ "email": "otra@empresa.pe", "password": PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999" });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(register)).await;
    assert_eq!(answer.status(), 201);
    let theirs = server.sign_in("otra@empresa.pe").await;
    let id = ours.id_sensor;
    for (method, path, body) in [
        (Method::GET, format!("/api/v1/sensores/{id}"), None),
        (Method::PATCH, format!("/api/v1/sensores/{id}"), Some(json!({ "nombre": "mío" }))),
        (Method::DELETE, format!("/api/v1/sensores/{id}"), None),
        (Method::DELETE, format!("/api/v1/sensores/{id}?purgar=true"), None),
        (Method::POST, format!("/api/v1/sensores/{id}/credenciales"), None),
        (Method::GET, format!("/api/v1/sensores/{id}/lecturas"), None),
        (Method::GET, format!("/api/v1/sensores/{id}/rechazos"), None),
    ] {
        let answer = server.request(method.clone(), &path, &theirs, body).await;
        assert_eq!(answer.status(), 404, "{method} {path}");
        assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], "not_found");
    }
    let list = server.request(Method::GET, "/api/v1/sensores", &theirs, None).await;
    assert_eq!(list.json::<Value>().await.expect("JSON"), json!([]));
    // Nor by MQTT: not by name, and not through a wildcard.
    let (mut panel, code) = Client::connect(&server.mqtt, 5, "panel", "jwt", &theirs).await;
    assert_eq!(code, 0);
    assert_eq!(panel.subscribe("sensores/ours/data").await, 0x87);
    assert_eq!(panel.subscribe("sensores/+/data").await, 1);
    let mut client = Client::device(&server.mqtt, 5, &ours).await;
    assert_eq!(client.publish("sensores/ours/data", 1, r#"{"temperatura":20}"#).await, 0);
    // The ping's answer would come after what had been on its way.
    panel.send(&[0xc0, 0]).await;
    assert_eq!(panel.read().await, Some((0xd0, vec![])), "nothing but the ping's answer");
}

#[tokio::test]
async fn without_a_token_nothing_is_told() {
    let server = Server::start().await;
    for path in [
        "/api/v1/sensores",
        "/api/v1/alertas",
        "/api/v1/umbrales",
        "/api/v1/dashboard/kpis",
        "/api/v1/auth/me",
    ] {
        let answer = server.request(Method::GET, path, "", None).await;
        assert_eq!(answer.status(), 401, "{path}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let answer = server.request(Method::GET, "/api/v1/sensores/", &server.token, None).await;
    assert_eq!(answer.status(), 200, "a trailing slash is accepted");
}

#[tokio::test]
async fn names_that_a_device_invents_are_bounded_however_old_its_readings_are() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    for (n, old) in
        [(0, false), (1, true), (2, true), (3, false), (4, true), (5, true), (6, false), (7, true)]
    {
        let names: Vec<String> = (0..32).map(|i| format!("\"v{n}_{i}\":1")).collect();
        let moment =
            if old { format!(",\"timestamp\":{}", 1_790_000_000 + u64::from(n)) } else { String::new() };
        let payload = format!("{{{}{moment}}}", names.join(","));
        let pid = n + 1;
        assert_eq!(client.publish("sensores/s1/data", pid, &payload).await, 0, "{n}");
    }
    // The 257th and its like are not stored; what is known, and what the contract names, is.
    let mixed = r#"{"temperatura":20,"v7_31":2,"v8_0":1}"#;
    assert_eq!(client.publish("sensores/s1/data", 9, mixed).await, 0);
    assert_eq!(client.publish("sensores/s1/data", 10, r#"{"v8_0":1,"timestamp":1790000100}"#).await, 0x99);
    let newest = &server.readings(&device).await.pop().expect("readings");
    assert_eq!(
        (&newest["temperatura"], &newest["v7_31"], &newest["v8_0"]),
        (&json!(20.0), &json!(2.0), &Value::Null)
    );
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", device.id_sensor)).await;
    let refused = refused.as_array().expect("an array");
    assert_eq!(refused.len(), 2);
    assert!(
        refused.iter().all(|r| r["motivo"] == "demasiadas_variables" && r["variable"] == "v8_0"),
        "{refused:?}"
    );
}

/// Something that the program does not know of, as an administrator may have put there.
fn refuse_hottest(server: &Server) {
    let refuse = match of_this_run() {
        Database::Sqlite => {
            "db.execute(\"CREATE TRIGGER no BEFORE INSERT ON lecturas WHEN NEW.valores LIKE '%66.6%' \
             BEGIN SELECT RAISE(ABORT, 'no'); END\")"
        }
        _ => "db.execute(\"ALTER TABLE lecturas ADD CONSTRAINT no CHECK (valores NOT LIKE '%66.6%')\")",
    };
    let mut editor = python(server, refuse);
    drop(editor.stdin.take());
    editor.wait().expect("it ends");
}

/// Among many that are committed together.
#[tokio::test]
async fn a_row_that_the_database_refuses_is_refused_alone_and_a_nul_is_no_such_row() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    refuse_hottest(&server);
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let mut bytes = Vec::new();
    let payload = |n: u16| match n {
        50 | 120 => format!("{{\"temperatura\":66.6,\"timestamp\":{}}}", moment(n)),
        // In a name, in a value that is no number, and outside of any text.
        70 => format!("{{\"temperatura\":20,\"a\\u0000b\":1,\"timestamp\":{}}}", moment(n)),
        71 => format!("{{\"temperatura\":20,\"nota\":\"a\\u0000b\",\"timestamp\":{}}}", moment(n)),
        72 => "\0{\"temperatura\":20}\0".to_owned(),
        _ => format!("{{\"temperatura\":20.5,\"timestamp\":{}}}", moment(n)),
    };
    for n in 1..=200_u16 {
        bytes.extend(client.publish_packet("sensores/s1/data", 1, n, payload(n).as_bytes()));
    }
    client.send(&bytes).await;
    for n in 1..=200_u16 {
        let (first, body) = client.read().await.expect("a PUBACK");
        assert_eq!((first, &body[..2]), (0x40, &n.to_be_bytes()[..]));
        let reason = body.get(2).copied().unwrap_or(0);
        assert_eq!(reason, if [50, 72, 120].contains(&n) { 0x99 } else { 0 }, "message {n}");
    }
    assert_eq!(server.readings(&device).await.len(), 197);
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", device.id_sensor)).await;
    let mut why: Vec<&str> =
        refused.as_array().expect("an array").iter().map(|r| r["motivo"].as_str().expect("text")).collect();
    why.sort_unstable();
    assert_eq!(why, ["almacen", "almacen", "malformado", "no_numerico", "nombre_invalido"]);
    assert_eq!(server.request(Method::GET, "/ready", "", None).await.status(), 200);
}

#[tokio::test]
async fn what_the_database_refuses_is_kept_as_it_came_and_no_more_of_it_than_of_anything() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__INGEST__REJECTED_PER_SENSOR", "5");
        command
    })
    .await;
    let device = server.device("s1").await;
    refuse_hottest(&server);
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    for n in 1..=8 {
        let payload = format!("{{\"temperatura\":66.6,\"ph_suelo\":6.{n},\"timestamp\":{}}}", moment(n));
        assert_eq!(client.publish("sensores/s1/data", n, &payload).await, 0x99);
    }
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", device.id_sensor)).await;
    let refused = refused.as_array().expect("an array");
    assert_eq!(refused.len(), 5, "the newest: {refused:?}");
    for (n, r) in (1..=8_u16).rev().zip(refused) {
        let ts = alertrace::domain::Timestamp::clamped(i64::from(n) * 1_000 + moment(0) * 1_000).to_string();
        let values = format!("{{\"ph_suelo\":6.{n},\"temperatura\":66.6}}");
        assert_eq!((&r["motivo"], &r["contenido"]), (&json!("almacen"), &json!(values)));
        assert_eq!(r["timestamp"], json!(ts), "{r}");
    }
}

#[tokio::test]
async fn rows_that_make_no_sense_hold_up_nobody() {
    let mut server = Server::start().await;
    let (bad, good) = (server.device("s1").await, server.device("s2").await);
    let reading = |n| format!("{{\"temperatura\":20,\"timestamp\":{}}}", moment(n));
    let mut client = Client::device(&server.mqtt, 5, &bad).await;
    assert_eq!(client.publish("sensores/s1/data", 1, &reading(1)).await, 0);
    // As an import, a script or a disk may leave them.
    server.sql(&format!(
        "UPDATE lecturas SET valores = 'roto'; UPDATE ultimas_lecturas SET valores = '[1]'; \
         INSERT INTO umbrales (id_empresa, variable, minimo, maximo) SELECT id_empresa, 'No Es', 1, 2 FROM empresas; \
         INSERT INTO alertas (id_empresa, id_sensor, tipo_alerta, severidad, titulo, mensaje, unidad, estado, dentro, \
         fecha_creacion) SELECT id_empresa, id_sensor, 'temperatura', 'alta', 't', 'm', 'C', 'pendiente', 999, 0 \
         FROM sensores WHERE id_sensor = {}",
        bad.id_sensor
    ));
    server.kill_and_restart();
    let (mut one, mut two) =
        (Client::device(&server.mqtt, 5, &bad).await, Client::device(&server.mqtt, 5, &good).await);
    assert_eq!(two.publish("sensores/s2/data", 1, &reading(2)).await, 0, "the other notices nothing");
    // It stands without values until its device sends it again.
    let stored = server.readings(&bad).await;
    assert_eq!((stored.len(), &stored[0]["temperatura"]), (1, &Value::Null), "{stored:?}");
    assert_eq!(one.publish("sensores/s1/data", 1, &reading(1)).await, 0);
    assert_eq!(
        one.publish("sensores/s1/data", 2, &format!("{{\"temperatura\":90,\"timestamp\":{}}}", moment(3)))
            .await,
        0
    );
    let stored: Vec<_> = server.readings(&bad).await.iter().map(|l| l["temperatura"].clone()).collect();
    assert_eq!(stored, [json!(20.0), json!(90.0)]);
    let open = server.get("/api/v1/alertas").await;
    assert_eq!(open.as_array().map(Vec::len), Some(1), "the one that was there: {open}");
}

/// Milliseconds since 1970 of a reading, after the build and before now.
fn moment(n: u16) -> i64 {
    alertrace::domain::BUILD_DATE.micros() / 1_000 + i64::from(n)
}
