//! `estado`: what people hear of a device's connection, through restarts and bad networks.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{Client, Device, Server};

/// Somebody who hears the state of every device.
async fn panel(server: &Server) -> Client {
    let (mut panel, code) = Client::connect(&server.mqtt, 4, "panel", "jwt", &server.token).await;
    assert_eq!(code, 0);
    assert_eq!(panel.subscribe("sensores/+/estado").await, 1);
    panel
}

/// The next state that is heard, and whether it was retained.
async fn state(panel: &mut Client) -> (String, bool) {
    let (first, body) = panel.read().await.expect("a state");
    assert_eq!(first & 0xf0, 0x30);
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    panel.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
    (String::from_utf8(body[4 + topic..].to_vec()).expect("text"), first & 1 == 1)
}

async fn every_second(server: &Server, device: &Device) {
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let body = Some(json!({ "intervalo_lectura": 1 }));
    assert_eq!(server.request(Method::PATCH, &path, &server.token, body).await.status(), 200);
}

#[tokio::test]
async fn a_restart_marks_nobody_offline_who_comes_back_in_time() {
    let mut server = Server::start().await;
    let (back, gone) = (server.device("vuelve").await, server.device("falta").await);
    for device in [&back, &gone] {
        every_second(&server, device).await;
    }
    let _one = Client::device(&server.mqtt, 4, &back).await;
    let _two = Client::device(&server.mqtt, 4, &gone).await;
    let mut hears = panel(&server).await;
    for _ in 0..2 {
        assert_eq!(state(&mut hears).await.0, "online");
    }
    server.kill_and_restart();
    let mut hears = panel(&server).await;
    for _ in 0..2 {
        assert_eq!(state(&mut hears).await, ("online".to_owned(), true), "as it was before");
    }
    let _one = Client::device(&server.mqtt, 4, &back).await;
    // Its own reconnection may be told again; the one that does not come back is offline in its turn.
    let mut said = state(&mut hears).await;
    if said.0 == "online" {
        said = state(&mut hears).await;
    }
    assert_eq!(said, ("offline".to_owned(), false));
    assert!(hears.alive().await);
    let path = format!("/api/v1/sensores/{}", gone.id_sensor);
    assert_eq!(server.get(&path).await["conexion"], "offline");
}

#[tokio::test]
async fn a_device_that_comes_and_goes_is_told_a_few_times_and_not_each_time() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut hears = panel(&server).await;
    // Each in its turn, so that each could be told.
    for _ in 0..2 {
        let client = Client::device(&server.mqtt, 4, &device).await;
        assert_eq!(state(&mut hears).await.0, "online");
        drop(client);
        assert_eq!(state(&mut hears).await.0, "offline");
    }
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    for _ in 0..10 {
        let client = Client::device(&server.mqtt, 4, &device).await;
        drop(client);
        while server.get(&path).await["conexion"] != "offline" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Ten more times it came and went, and nobody was bothered; REST knows all the same.
    hears.send(&[0xc0, 0]).await;
    assert_eq!(hears.read().await.map(|p| p.0), Some(0xd0));
}

#[tokio::test]
async fn what_was_said_of_a_device_that_is_purged_is_not_said_of_another_with_its_name() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let config = format!("/api/v1/sensores/{}/config", device.id_sensor);
    let secret = Some(json!({ "clave_wifi": "de la otra finca" }));
    assert_eq!(server.request(Method::PUT, &config, &server.token, secret).await.status(), 200);
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.subscribe("sensores/s1/config").await, 1);
    assert!(state(&mut client).await.0.contains("clave_wifi"));
    assert_eq!(state(&mut panel(&server).await).await.0, "online");

    let other = json!({
        "email": "otra@fundo.pe", "password": crate::support::server::PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999",
    });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(other)).await;
    assert_eq!(answer.status(), 201);
    let path = format!("/api/v1/sensores/{}?purgar=true", device.id_sensor);
    assert_eq!(server.request(Method::DELETE, &path, &server.token, None).await.status(), 204);
    // The name is free, and somebody else has a device of that name.
    server.token = server.sign_in("otra@fundo.pe").await;
    let theirs = server.device("s1").await;
    for restarted in [false, true] {
        if restarted {
            server.kill_and_restart();
        }
        let mut hears = panel(&server).await;
        if restarted {
            // Of their own device, from before.
            state(&mut hears).await;
        }
        assert!(nothing(&mut hears).await, "restarted: {restarted}");
        let mut client = Client::device(&server.mqtt, 4, &theirs).await;
        assert_eq!(client.subscribe("sensores/s1/config").await, 1);
        assert!(nothing(&mut client).await, "restarted: {restarted}");
        assert_eq!(state(&mut hears).await.0, "online");
    }
}

/// Nothing is on its way: the answer to a ping is the next packet.
async fn nothing(client: &mut Client) -> bool {
    client.send(&[0xc0, 0]).await;
    client.read().await == Some((0xd0, Vec::new()))
}
