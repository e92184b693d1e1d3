//! Who changed what is written down with the change, is read by the empresa's administrator alone, and tells
//! no secret.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Server;
use crate::support::server::PASSWORD;

async fn changes(server: &Server, query: &str) -> Vec<Value> {
    let all = server.get(&format!("/api/v1/auditoria?{query}")).await;
    all.as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_change_is_told_with_who_what_before_after_and_from_where() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let http = reqwest::Client::new();
    let rename = http.patch(format!("http://{}{path}", server.http)).bearer_auth(&server.token);
    let rename = rename.header("x-request-id", "mio-1").json(&json!({ "nombre": "Norte", "tipo": "prueba" }));
    assert_eq!(rename.send().await.expect("an answer").status(), 200);
    let id = device.id_sensor;
    let all = changes(&server, &format!("objeto=sensor&id_objeto={id}")).await;
    assert_eq!(all.len(), 2);
    let change = &all[0];
    assert_eq!((&change["accion"], &change["email"]), (&json!("cambiar"), &json!("admin@fundo.pe")));
    assert_eq!((&change["antes"], &change["despues"]), (&json!({"nombre":"s1"}), &json!({"nombre":"Norte"})));
    assert_eq!((&change["origen"], &change["peticion"]), (&json!("127.0.0.1"), &json!("mio-1")));
    assert_eq!((&all[1]["accion"], &all[1]["despues"]["device_id"]), (&json!("crear"), &json!("s1")));
    // What changes nothing is no change; what is refused is none either.
    for (body, status) in [(json!({ "nombre": "Norte" }), 200), (json!({ "nombre": "" }), 422)] {
        assert_eq!(server.request(Method::PATCH, &path, &server.token, Some(body)).await.status(), status);
    }
    assert_eq!(changes(&server, &format!("objeto=sensor&id_objeto={id}")).await.len(), 2);
    let total = server.request(Method::GET, "/api/v1/auditoria?limit=1", &server.token, None).await;
    assert_eq!(total.headers()["x-total-count"], "4", "the empresa, the sign-in, the sensor, its name");
    let user_id = change["user_id"].as_str().expect("a key");
    assert_eq!(changes(&server, &format!("user_id={user_id}&accion=cambiar")).await.len(), 1);
    assert_eq!(changes(&server, "hasta=2020-01-01T00:00:00Z").await.len(), 0);
}

#[tokio::test]
async fn an_empresa_reads_of_its_own_changes_only() {
    let server = Server::start().await;
    server.device("s1").await;
    let other = json!({ "email": "o@x.pe", "password": PASSWORD, "user_type": "empresa", "nombre_empresa": "O",
        "ruc": "20111111111" });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(other)).await;
    assert_eq!(answer.status(), 201);
    let other = server.sign_in("o@x.pe").await;
    let answer = server.request(Method::GET, "/api/v1/auditoria", &other, None).await;
    let theirs: Value = answer.json().await.expect("JSON");
    let objects: Vec<_> = theirs.as_array().expect("a list").iter().map(|c| c["objeto"].clone()).collect();
    assert_eq!(objects, ["sesion", "empresa"]);
}

#[tokio::test]
async fn an_alert_that_is_closed_is_told_in_the_same_commit_and_its_reader_is_named() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let url = format!("http://{}/api/v1/sensores/data", server.http);
    let reading = reqwest::Client::new().post(url).basic_auth("s1", Some(&device.token));
    assert_eq!(reading.json(&json!({ "temperatura": 45 })).send().await.expect("an answer").status(), 201);
    let id = server.get("/api/v1/alertas").await[0]["id_alerta"].as_i64().expect("a key");
    let path = format!("/api/v1/alertas/{id}/resolve");
    let notes = Some(json!({ "notas": "Riego" }));
    assert_eq!(server.request(Method::POST, &path, &server.token, notes).await.status(), 200);
    let all = changes(&server, &format!("objeto=alerta&id_objeto={id}")).await;
    assert_eq!((&all[0]["accion"], &all[0]["despues"]["notas"]), (&json!("resolver"), &json!("Riego")));
    assert_eq!(all[0]["antes"]["estado"], "pendiente");
}

#[tokio::test]
async fn no_secret_is_ever_written_down() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let renewed = server.request(Method::POST, &format!("{path}/credenciales"), &server.token, None).await;
    let renewed: Value = renewed.json().await.expect("JSON");
    let config = Some(json!({ "wifi": { "ssid": "fundo", "password": "la del wifi" } }));
    let answer = server.request(Method::PUT, &format!("{path}/config"), &server.token, config).await;
    assert_eq!(answer.status(), 200);
    let text = server.get("/api/v1/auditoria").await.to_string();
    assert!(text.contains("renovar_credencial") && text.contains("fundo"), "{text}");
    let token = renewed["credenciales"]["token"].as_str().expect("a token");
    for secret in [device.token.as_str(), token, "la del wifi", PASSWORD, &server.token] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
