//! API keys: what they let a program do, by HTTP and by MQTT, and that they end at once.

use alertrace::domain::Clock as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::people::{another_empresa, delete, get, list, person, post};
use super::trabajadores::kept_as;
use crate::support::{Client, Server};

/// Makes a key; answers its row and itself.
async fn key(server: &Server, token: &str, scopes: &[&str]) -> (i64, String) {
    let body = json!({ "nombre": "Grafana", "scopes": scopes });
    let answer = post(server, "/api/v1/api-keys", token, body).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let made: Value = answer.json().await.expect("JSON");
    let text = made["api_key"].as_str().expect("a key").to_owned();
    assert!(text.starts_with(made["prefijo"].as_str().expect("text")) && text.len() > 40, "{made}");
    (made["id_api_key"].as_i64().expect("a key"), text)
}

/// The status of GET with a key in `X-API-Key`.
async fn by_header(server: &Server, path: &str, key: &str) -> u16 {
    let url = format!("http://{}{path}", server.http);
    reqwest::Client::new()
        .get(url)
        .header("x-api-key", key)
        .send()
        .await
        .expect("an answer")
        .status()
        .as_u16()
}

#[tokio::test]
async fn a_key_reads_what_its_scopes_say_and_nothing_else() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    client.publish("sensores/s1/data", 1, r#"{"temperatura":36}"#).await;
    let id = server.get("/api/v1/alertas").await[0]["id_alerta"].clone();
    let sensor = format!("/api/v1/sensores/{}", device.id_sensor);
    let readings = [
        "/api/v1/sensores",
        "/api/v1/sensores/with-readings",
        &sensor,
        &format!("{sensor}/lecturas"),
        &format!("{sensor}/estadisticas"),
    ]
    .map(str::to_owned);
    let alerts = ["/api/v1/alertas", "/api/v1/alertas/count/pendientes", &format!("/api/v1/alertas/{id}")]
        .map(str::to_owned);
    let people = [
        "/api/v1/trabajadores",
        "/api/v1/api-keys",
        "/api/v1/auth/me",
        "/api/v1/empresas/me",
        "/api/v1/umbrales",
        "/api/v1/dashboard",
        "/api/v1/cultivos",
    ];
    for (scopes, may_read, may_alert) in [
        (vec!["lecturas:read"], 200, 403),
        (vec!["alertas:read"], 403, 200),
        (vec!["mqtt:subscribe"], 403, 403),
    ] {
        let (_, key) = key(&server, &server.token, &scopes).await;
        for path in &readings {
            assert_eq!(by_header(&server, path, &key).await, may_read, "{path}");
            assert_eq!(get(&server, path, &key).await.status(), may_read, "{path} as a bearer");
        }
        for path in &alerts {
            assert_eq!(by_header(&server, path, &key).await, may_alert, "{path}");
        }
        for path in people {
            assert_eq!(by_header(&server, path, &key).await, 403, "{path}");
        }
        let resolve = format!("/api/v1/alertas/{id}/resolve");
        assert_eq!(post(&server, &resolve, &key, json!({})).await.status(), 403);
        assert_eq!(server.request(Method::DELETE, &sensor, &key, None).await.status(), 403);
    }
    for path in ["/api/v1/sensores", "/api/v1/trabajadores"] {
        assert_eq!(by_header(&server, path, "atk_no").await, 401);
        assert_eq!(by_header(&server, path, "").await, 401);
        assert_eq!(get(&server, path, "atk_no").await.status(), 401);
    }
    let (_, foreign) = key(&server, &another_empresa(&server).await, &["lecturas:read"]).await;
    assert_eq!(by_header(&server, &sensor, &foreign).await, 404);
    assert_eq!(list(&server, "/api/v1/sensores", &foreign).await.len(), 0);
}

#[tokio::test]
async fn a_key_hears_its_empresa_by_mqtt_until_it_is_revoked() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let other = another_empresa(&server).await;
    let theirs = server.device_of("s2", &other).await;
    let (id, text) = key(&server, &server.token, &["mqtt:subscribe", "lecturas:read"]).await;
    let (_, reads) = key(&server, &server.token, &["lecturas:read"]).await;
    assert_eq!(Client::connect(&server.mqtt, 5, "g", "key", &reads).await.1, 0x87, "not for MQTT");
    assert_eq!(Client::connect(&server.mqtt, 5, "g", "key", "atk_no").await.1, 0x86);
    assert_eq!(Client::connect(&server.mqtt, 5, "g", "jwt", &text).await.1, 0x86);

    let (mut program, code) = Client::connect(&server.mqtt, 5, "g", "key", &text).await;
    assert_eq!(code, 0);
    for (filter, granted) in [
        ("sensores/+/data", 1),
        ("sensores/s1/estado", 1),
        ("alertas/+", 1),
        ("sensores/s2/data", 0x87),
        ("sensores/s1/comandos", 0x87),
        ("$SYS/#", 0x87),
    ] {
        assert_eq!(program.subscribe(filter).await, granted, "{filter}");
    }
    assert_eq!(program.publish("sensores/s1/data", 9, "{\"temperatura\":1}").await, 0x87);
    let mut foreign = Client::device(&server.mqtt, 5, &theirs).await;
    assert_eq!(foreign.publish("sensores/s2/data", 1, "{\"temperatura\":50}").await, 0);
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, "{\"temperatura\":20}").await, 0);
    let mut heard = Vec::new();
    for _ in 0..2 {
        let (first, body) = program.read().await.expect("a message");
        assert_eq!(first & 0xf0, 0x30);
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        heard.push(String::from_utf8(body[2..2 + topic].to_vec()).expect("text"));
        program.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
    }
    heard.sort();
    assert_eq!(heard, ["sensores/s1/data", "sensores/s1/estado"], "and nothing of the other empresa");
    let clients = server.get("/api/v1/mqtt/clientes?conectado=true").await;
    assert!(clients.as_array().expect("an array").iter().any(|c| c["tipo"] == "integracion"), "{clients}");

    let path = format!("/api/v1/api-keys/{id}");
    assert_eq!(delete(&server, &path, &other).await, 404);
    assert!(program.alive().await);
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    assert_eq!(program.read().await.map(|(f, body)| (f, body[0])), Some((0xe0, 0x87)));
    assert_eq!(Client::connect(&server.mqtt, 5, "g", "key", &text).await.1, 0x86);
    assert_eq!(by_header(&server, "/api/v1/sensores", &text).await, 401);
    server.kill_and_restart();
    assert_eq!(by_header(&server, "/api/v1/sensores", &text).await, 401);
    assert_eq!(by_header(&server, "/api/v1/sensores", &reads).await, 200);
}

/// Waits until the broker has this many sessions.
async fn sessions(server: &Server, count: usize) {
    let line = format!("alertrace_mqtt_sessions {count}\n");
    for _ in 0..100 {
        let metrics = server.request(Method::GET, "/metrics", "", None).await.text().await.expect("text");
        if metrics.contains(&line) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("there are never {count} sessions");
}

#[tokio::test]
async fn what_waits_for_a_key_ends_with_it_revoked_or_expired_connected_or_not() {
    let server = Server::start().await;
    for (expires, connected) in [(true, true), (true, false), (false, true), (false, false)] {
        // Rounded down to the second where it is written.
        let expira = alertrace::domain::SystemClock.now().plus(std::time::Duration::from_secs(3));
        let mut body = json!({ "nombre": "x", "scopes": ["mqtt:subscribe"] });
        if expires {
            body["expira"] = json!(expira.to_string());
        }
        let made: Value =
            post(&server, "/api/v1/api-keys", &server.token, body).await.json().await.expect("JSON");
        let (mut program, _) = kept_as(&server, "key", made["api_key"].as_str().expect("a key")).await;
        assert_eq!(program.subscribe("sensores/+/data").await, 1);
        sessions(&server, 1).await;
        let program = connected.then_some(program);
        if !expires {
            let path = format!("/api/v1/api-keys/{}", made["id_api_key"]);
            assert_eq!(delete(&server, &path, &server.token).await, 204);
        }
        if let Some(mut program) = program {
            assert_eq!(program.read().await.map(|(first, _)| first), Some(0xe0), "it is told to go");
        }
        // Though the session was to be kept for ten minutes.
        sessions(&server, 0).await;
    }
}

#[tokio::test]
async fn keys_are_made_and_seen_by_administrators_and_shown_once() {
    let server = Server::start().await;
    let (id, text) = key(&server, &server.token, &["lecturas:read"]).await;
    let answer = get(&server, "/api/v1/api-keys", &server.token).await;
    let listed = answer.text().await.expect("text");
    assert!(!listed.contains(&text[12..]), "shown once");
    let stored: Vec<u8> = ["alertrace.db", "alertrace.db-wal"]
        .iter()
        .flat_map(|f| std::fs::read(server.data_dir().join(f)).unwrap_or_default())
        .collect();
    assert!(!stored.windows(text.len()).any(|w| w == text.as_bytes()), "kept by its hash");
    for name in ["worker", "supervisor"] {
        let who = person(&server, name, name).await;
        assert_eq!(get(&server, "/api/v1/api-keys", &who.token).await.status(), 403);
        let body = json!({ "nombre": "x", "scopes": ["lecturas:read"] });
        assert_eq!(post(&server, "/api/v1/api-keys", &who.token, body).await.status(), 403);
        assert_eq!(delete(&server, &format!("/api/v1/api-keys/{id}"), &who.token).await, 403);
    }
    for body in [
        json!({ "nombre": "x", "scopes": [] }),
        json!({ "nombre": "x", "scopes": ["todo"] }),
        json!({ "nombre": "", "scopes": ["lecturas:read"] }),
        json!({ "nombre": "x", "scopes": ["lecturas:read"], "expira": "2020-01-01T00:00:00Z" }),
    ] {
        assert_eq!(post(&server, "/api/v1/api-keys", &server.token, body).await.status(), 422);
    }
    assert_eq!(delete(&server, &format!("/api/v1/api-keys/{id}"), &server.token).await, 204);
    let gone = &server.get("/api/v1/api-keys").await[0];
    assert_eq!((&gone["activa"], gone["fecha_revocacion"].is_string()), (&json!(false), true));
}
