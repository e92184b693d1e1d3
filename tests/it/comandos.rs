//! What people ask of a device by REST, and what they see of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Device, Server};

async fn ask(server: &Server, device: &Device, body: Value) -> i64 {
    let path = format!("/api/v1/sensores/{}/comandos", device.id_sensor);
    let answer = server.request(Method::POST, &path, &server.token, Some(body)).await;
    assert_eq!(answer.status(), 201);
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["estado"], "pendiente");
    body["id_comando"].as_i64().expect("a key")
}

async fn state(server: &Server, device: &Device, id: i64) -> Value {
    let all = server.get(&format!("/api/v1/sensores/{}/comandos", device.id_sensor)).await;
    let found = all.as_array().expect("an array").iter().find(|c| c["id_comando"] == id);
    found.expect("the command").clone()
}

/// Waits until the command has this state.
async fn becomes(server: &Server, device: &Device, id: i64, estado: &str) -> Value {
    for _ in 0..100 {
        let now = state(server, device, id).await;
        if now["estado"] == estado {
            return now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{id} never becomes {estado}: {}", state(server, device, id).await);
}

/// The next command that a 3.1.1 client receives: its packet id and body.
async fn command(client: &mut Client) -> (u16, Value) {
    let (first, body) = client.read().await.expect("a PUBLISH");
    assert_eq!(first & 0xf6, 0x32, "QoS 1");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    assert_eq!(&body[2..2 + topic], b"sensores/s1/comandos");
    let pid = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
    (pid, serde_json::from_slice(&body[4 + topic..]).expect("JSON"))
}

#[tokio::test]
async fn a_command_waits_for_its_device_and_its_way_can_be_followed() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let id = ask(&server, &device, json!({ "comando": "regar", "parametros": { "minutos": 5 } })).await;

    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.subscribe("sensores/s1/comandos").await, 1);
    let (_, body) = command(&mut client).await;
    assert_eq!((&body["id"], &body["comando"]), (&json!(id), &json!("regar")));
    assert_eq!(body["parametros"], json!({ "minutos": 5 }));
    assert!(body["expira"].is_string());
    assert_eq!(state(&server, &device, id).await["estado"], "pendiente", "it was not acknowledged");

    // The connection is lost before the acknowledgement: it comes again.
    drop(client);
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.subscribe("sensores/s1/comandos").await, 1);
    let (pid, body) = command(&mut client).await;
    assert_eq!(body["id"], json!(id));
    let [high, low] = pid.to_be_bytes();
    client.send(&[0x40, 2, high, low]).await;
    assert!(becomes(&server, &device, id, "enviado").await["fecha_envio"].is_string());

    let answer = json!({ "id": id, "estado": "ok", "detalle": { "litros": 12 } });
    assert_eq!(client.publish("sensores/s1/respuestas", 1, &answer.to_string()).await, 0);
    // The PUBACK says that it is kept.
    let done = state(&server, &device, id).await;
    assert_eq!((&done["estado"], &done["resultado"]), (&json!("respondido"), &json!("ok")));
    assert_eq!(done["detalle"], json!({ "litros": 12 }));

    // While it is connected it does not wait; after a reconnection nothing comes twice.
    let second = ask(&server, &device, json!({ "comando": "parar" })).await;
    let (pid, body) = command(&mut client).await;
    assert_eq!((body["id"].as_i64(), &body["parametros"]), (Some(second), &json!({})));
    let [high, low] = pid.to_be_bytes();
    client.send(&[0x40, 2, high, low]).await;
    becomes(&server, &device, second, "enviado").await;
    drop(client);
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.subscribe("sensores/s1/comandos").await, 1);
    assert!(client.alive().await);
}

#[tokio::test]
async fn a_command_survives_a_kill_and_expires_when_nobody_comes() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let kept = ask(&server, &device, json!({ "comando": "regar" })).await;
    // Two seconds from the server's own idea of now.
    let now = state(&server, &device, kept).await["fecha_creacion"].as_str().expect("a moment").to_owned();
    let now: chrono::DateTime<chrono::Utc> = now.parse().expect("RFC 3339");
    let soon = (now + chrono::Duration::seconds(2)).to_rfc3339();
    let lost = ask(&server, &device, json!({ "comando": "tarde", "expira": soon })).await;
    server.kill_and_restart();
    becomes(&server, &device, lost, "expirado").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.subscribe("sensores/s1/comandos").await, 1);
    assert_eq!(command(&mut client).await.1["id"].as_i64(), Some(kept), "and not the expired one");
    assert!(client.alive().await);
}

#[tokio::test]
async fn a_configuration_is_retained_until_the_device_has_it() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let path = format!("/api/v1/sensores/{}/config", device.id_sensor);
    assert_eq!(server.get(&path).await["configuracion"], json!({}));
    let wanted = json!({ "intervalo_lectura": 60 });
    let answer = server.request(Method::PUT, &path, &server.token, Some(wanted.clone())).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(server.get(&path).await["entregada"], false);

    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.subscribe("sensores/s1/config").await, 1);
    let (mut first, mut body) = client.read().await.expect("the configuration");
    if first & 1 == 0 {
        // The answer to the person does not wait for the broker: the device was there first.
        client = Client::device(&server.mqtt, 4, &device).await;
        assert_eq!(client.subscribe("sensores/s1/config").await, 1);
        (first, body) = client.read().await.expect("the configuration");
    }
    assert_eq!(first & 0xf7, 0x33, "retained, QoS 1");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    assert_eq!(serde_json::from_slice::<Value>(&body[4 + topic..]).expect("JSON"), wanted);
    client.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
    for _ in 0..100 {
        if server.get(&path).await["entregada"] == true {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is never said to be delivered");
}

#[tokio::test]
async fn only_those_who_may_ask_may_ask() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let path = format!("/api/v1/sensores/{}/comandos", device.id_sensor);
    let register = json!({
        "email": "otra@fundo.pe", "password": crate::support::server::PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999",
    });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(register)).await;
    assert_eq!(answer.status(), 201);
    let other = server.sign_in("otra@fundo.pe").await;
    let body = Some(json!({ "comando": "regar" }));
    assert_eq!(server.request(Method::POST, &path, &other, body.clone()).await.status(), 404);
    assert_eq!(server.request(Method::GET, &path, &other, None).await.status(), 404);
    assert_eq!(server.request(Method::POST, &path, "", body).await.status(), 401);
    for bad in [
        json!({ "comando": "" }),
        json!({ "comando": "a b" }),
        json!({ "comando": "x", "expira": "2001-01-01T00:00:00Z" }),
        json!({ "comando": "x", "parametros": { "a": "x".repeat(20_000) } }),
    ] {
        assert_eq!(server.request(Method::POST, &path, &server.token, Some(bad)).await.status(), 422);
    }
    assert_eq!(server.get(&path).await, json!([]), "nothing was kept");
}
