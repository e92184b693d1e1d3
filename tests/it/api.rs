//! REST as a front end and a device that speaks HTTP use it.

mod alertas;
mod api_keys;
mod asignaciones;
mod contract;
mod cultivos;
mod dashboard;
mod paging;
mod people;
mod sensores;
mod trabajadores;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Server};

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A WebSocket of whoever has this token.
async fn live_as(server: &Server, token: &str) -> Socket {
    live_of(server, token, "").await
}

/// As [`live_as`], narrowed by a query.
async fn live_of(server: &Server, token: &str, query: &str) -> Socket {
    let url = format!("ws://{}/api/v1/sensores/live{query}", server.http);
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a value"));
    tokio_tungstenite::connect_async(request).await.expect("a WebSocket").0
}

#[tokio::test]
async fn sign_in_refresh_and_me() {
    let server = Server::start().await;
    let login = json!({ "username": EMAIL, "password": PASSWORD, "user_type": "empresa" });
    let answer = server.request(Method::POST, "/api/v1/auth/login", "", Some(login)).await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let signed_in: Value = answer.json().await.expect("JSON");
    assert_eq!((&signed_in["token_type"], &signed_in["user_type"]), (&json!("bearer"), &json!("empresa")));
    let refresh = json!({ "refresh_token": signed_in["refresh_token"] });
    let answer = server.request(Method::POST, "/api/v1/auth/refresh", "", Some(refresh)).await;
    let refreshed: Value = answer.json().await.expect("JSON");
    let token = refreshed["access_token"].as_str().expect("a token");
    let me: Value =
        server.request(Method::GET, "/api/v1/auth/me", token, None).await.json().await.expect("JSON");
    assert_eq!(
        (&me["email"], &me["ruc"], &me["rol"]),
        (&json!(EMAIL), &json!("20123456789"), &json!("admin_empresa"))
    );
    let verify = server.request(Method::GET, "/api/v1/auth/verify-token", token, None).await;
    assert_eq!(verify.json::<Value>().await.expect("JSON")["valid"], true);
    let wrong = json!({ "email": EMAIL, "password": "otra clave larga" });
    let answer = server.request(Method::POST, "/api/v1/auth/login", "", Some(wrong)).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "invalid_credentials");
}

#[tokio::test]
async fn both_shapes_of_registration_and_its_errors_by_field() {
    let server = Server::start().await;
    let nested = json!({ "email": "a@x.pe", "password": PASSWORD, "nombre": "Ana", "apellido": "Paz",
        "dni": "12345678", "empresa": { "ruc": "20111111111", "razon_social": "Uno", "email": "e@x.pe" } });
    let flat = json!({ "email": "b@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "Luz",
        "apellidos": "Rey", "dni": "87654321", "telefono": "999" });
    for (body, user_type) in [(nested, "empresa"), (flat, "trabajador")] {
        let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(body)).await;
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.json::<Value>().await.expect("JSON")["user_type"], user_type);
    }
    // A person without an empresa sees nothing.
    let alone = server.sign_in("b@x.pe").await;
    let answer = server.request(Method::GET, "/api/v1/sensores", &alone, None).await;
    assert_eq!(answer.status(), 403);
    let bad = json!({ "email": "no", "password": "corta", "user_type": "empresa", "nombre_empresa": "X", "ruc": "1" });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(bad)).await;
    assert_eq!(answer.status(), 422);
    let problem: Value = answer.json().await.expect("JSON");
    let fields: Vec<_> =
        problem["errors"].as_array().expect("fields").iter().map(|e| e["campo"].clone()).collect();
    assert_eq!(fields, ["email", "password", "ruc"]);
    let taken = json!({ "email": "A@x.pe", "password": PASSWORD, "user_type": "empresa", "nombre_empresa": "X",
        "ruc": "20222222222" });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(taken)).await;
    assert_eq!(answer.status(), 409);
    assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "email_in_use");
}

#[tokio::test]
async fn a_new_credential_ends_the_old_connection_and_a_retired_sensor_is_refused() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let path = format!("/api/v1/sensores/{}/credenciales", device.id_sensor);
    let answer = server.request(Method::POST, &path, &server.token, None).await;
    assert_eq!(answer.status(), 201);
    let renewed: Value = answer.json().await.expect("JSON");
    assert_eq!(client.read().await.map(|(f, body)| (f, body[0])), Some((0xe0, 0x87)), "Not authorized");
    assert_eq!(
        Client::connect(&server.mqtt, 5, "s1", "s1", &device.token).await.1,
        0x86,
        "the old token is dead"
    );
    let token = renewed["credenciales"]["token"].as_str().expect("a token");
    let (mut client, code) = Client::connect(&server.mqtt, 5, "s1", "s1", token).await;
    assert_eq!(code, 0);
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);

    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    assert_eq!(server.request(Method::DELETE, &path, &server.token, None).await.status(), 204);
    assert!(client.read().await.is_some_and(|(first, _)| first == 0xe0));
    assert_eq!(Client::connect(&server.mqtt, 5, "s1", "s1", token).await.1, 0x86);
    assert_eq!(server.readings(&device).await.len(), 1, "its history is kept");
    assert_eq!(server.get(&path).await["estado"], "inactivo");
}

#[tokio::test]
async fn a_device_posts_readings_and_mqtt_subscribers_hear_them() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (mut panel, _) = Client::connect(&server.mqtt, 4, "panel", "jwt", &server.token).await;
    assert_eq!(panel.subscribe("sensores/s1/data").await, 1);
    let http = reqwest::Client::new();
    let url = format!("http://{}/api/v1/sensores/data", server.http);
    let body = json!({ "device_id": "s1", "temperatura": 38, "humedad": -5 });
    let answer =
        http.post(&url).basic_auth("s1", Some(&device.token)).json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!((&answer["aceptadas"], &answer["alertas_generadas"]), (&json!(1), &json!(1)));
    assert_eq!(answer["rechazadas"][0]["motivo"], "fuera_de_rango");
    assert!(
        panel.read().await.is_some_and(|(first, body)| first & 0xf0 == 0x30
            && String::from_utf8_lossy(&body).contains("\"temperatura\":38"))
    );

    let header = format!("Device s1:{}", device.token);
    let wrong = json!({ "device_id": "s2", "temperatura": 20 });
    let answer =
        http.post(&url).header("authorization", &header).json(&wrong).send().await.expect("an answer");
    assert_eq!(answer.status(), 422);
    let answer =
        http.post(&url).header("authorization", "Device s1:no").json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn umbrales_take_effect_on_the_next_reading() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":34}"#).await, 0);
    assert_eq!(server.get("/api/v1/alertas/count/pendientes").await["pendientes"], 0);
    let body = Some(json!({ "temp_min": 5, "temp_max": 30 }));
    let answer = server.request(Method::PUT, "/api/v1/umbrales", &server.token, body).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.json::<Value>().await.expect("JSON")["temperatura"],
        json!({ "min": 5.0, "max": 30.0 })
    );
    assert_eq!(client.publish("sensores/s1/data", 2, r#"{"temperatura":34}"#).await, 0);
    assert_eq!(server.get("/api/v1/alertas/count/pendientes").await["pendientes"], 1);
    let kpis = server.get("/api/v1/dashboard/kpis").await;
    assert_eq!((&kpis["sensores_activos"], &kpis["temperaturas_promedio"]), (&json!(1), &json!(34.0)));
}

#[tokio::test]
async fn browsers_of_the_front_end_may_call_and_others_may_not() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    let url = format!("http://{}/api/v1/sensores", server.http);
    for (origin, allowed) in [
        ("http://localhost:3000", true),
        ("http://localhost:5173", true),
        ("https://alertrace.vercel.app", true),
        ("https://evil.example", false),
    ] {
        let preflight = http
            .request(Method::OPTIONS, &url)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
            .await
            .expect("an answer");
        let granted =
            preflight.headers().get("access-control-allow-origin").map(|v| v.to_str().expect("text"));
        assert_eq!(granted, allowed.then_some(origin));
        let headers = preflight.headers()["access-control-allow-headers"].to_str().expect("text");
        for header in ["authorization", "content-type", "x-api-key", "idempotency-key", "if-match"] {
            assert!(
                headers.split(',').any(|h| h.trim().eq_ignore_ascii_case(header)),
                "{header} of {headers}"
            );
        }
    }
}

#[tokio::test]
async fn errors_are_problems_in_the_language_asked_for() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    let url = format!("http://{}/api/v1/sensores", server.http);
    for (language, detail) in [("en", "Sign in and send the token as Authorization: Bearer."), ("es", "")] {
        let answer = http.get(&url).header("accept-language", language).send().await.expect("an answer");
        assert_eq!(answer.headers()["content-language"], language);
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["code"], "unauthorized");
        assert!(detail.is_empty() || problem["detail"] == detail, "{problem}");
        assert_eq!(problem["message"], problem["detail"]);
    }
    let answer = server.request(Method::GET, "/api/v1/sensores?limit=5000", &server.token, None).await;
    assert_eq!(answer.status(), 422);
    assert_eq!(server.get("/ready").await["status"], "ready");
    let docs = server.request(Method::GET, "/docs/", "", None).await;
    assert_eq!(docs.status(), 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_told_so_by_whatever_takes_one() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__BODY_LIMIT_BYTES", "16384");
        command
    })
    .await;
    let device = server.device("s1").await;
    // One byte more: all of it is read, and the connection stays for the answer.
    let over = "x".repeat((16 << 10) + 1);
    let http = reqwest::Client::new();
    for (path, kind, key, device) in [
        ("/api/v1/auth/login", "application/json", "", None),
        ("/api/v1/auth/token", "application/x-www-form-urlencoded", "", None),
        ("/api/v1/sensores", "application/json", "", None),
        ("/api/v1/sensores", "application/json", "una", None),
        ("/api/v1/trabajadores/invitaciones", "application/json", "", None),
        ("/api/v1/sensores/data", "application/json", "", Some(&device)),
    ] {
        let request = http.post(format!("http://{}{path}", server.http)).header("content-type", kind);
        let request = match device {
            Some(device) => request.basic_auth(&device.id, Some(&device.token)),
            None => request.bearer_auth(&server.token),
        };
        let request = if key.is_empty() { request } else { request.header("idempotency-key", key) };
        let answer = request.body(over.clone()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path} {key}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "body_too_large", "{path}");
    }
    let token =
        http.post(format!("http://{}/api/v1/auth/token", server.http)).json(&json!({ "username": EMAIL }));
    assert_eq!(token.send().await.expect("an answer").status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_nul_in_a_path_or_a_query_is_the_same_on_either_database() {
    let server = Server::start().await;
    server.device("s1").await;
    for (method, path, status) in [
        (Method::DELETE, "/api/v1/sensores/by-ubicacion/%00", 404),
        (Method::DELETE, "/api/v1/sensores/by-ubicacion/a%00b", 404),
        (Method::DELETE, "/api/v1/auth/sesiones/%00", 404),
        (Method::DELETE, "/api/v1/sensores/1/umbrales/%00", 404),
        (Method::GET, "/api/v1/sensores?ubicacion=%00", 400),
        (Method::GET, "/api/v1/alertas?tipo=a%00", 400),
        (Method::GET, "/api/v1/auditoria?objeto=%00", 400),
        (Method::GET, "/api/v1/auth/confirm?token=%00", 400),
    ] {
        let answer = server.request(method, path, &server.token, None).await;
        assert_eq!(answer.status(), status, "{path}");
    }
    let url = format!("http://{}/api/v1/sensores/data", server.http);
    for device_id in ["a\0", "\0", "", "no/es"] {
        let reading = reqwest::Client::new().post(&url).basic_auth(device_id, Some("x"));
        let answer = reading.json(&json!({ "temperatura": 20 })).send().await.expect("an answer");
        assert_eq!(answer.status(), 401, "{device_id:?}");
    }
}

/// A change of contract shows in review: `alertrace openapi > docs/openapi.json`.
#[tokio::test]
async fn the_openapi_document_is_the_checked_in_one() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_alertrace")).arg("openapi").output().expect("it runs");
    assert!(output.status.success());
    let now: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json"))
        .expect("it is there");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    assert!(
        now == kept,
        "the API changed: run `alertrace openapi > docs/openapi.json` and review the difference"
    );
    let server = Server::start().await;
    assert_eq!(server.get("/openapi.json").await, kept);
}
