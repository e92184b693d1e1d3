//! Clients that go in the middle of a request: what was committed takes effect all the same.

use std::time::Duration;

use reqwest::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Server};

#[tokio::test]
async fn a_sensor_that_was_retired_is_cut_off_though_nobody_waited_for_the_answer() {
    let server = Server::start().await;
    for n in 0..25_u64 {
        let device = server.device(&format!("s{n}")).await;
        let mut client = Client::device(&server.mqtt, 5, &device).await;
        let request = format!(
            "DELETE /api/v1/sensores/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            device.id_sensor, server.token
        );
        let mut stream = TcpStream::connect(&server.http).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        tokio::time::sleep(Duration::from_micros(n * 100)).await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let path = format!("/api/v1/sensores/{}", device.id_sensor);
        let sensor: serde_json::Value =
            server.request(Method::GET, &path, &server.token, None).await.json().await.expect("JSON");
        if sensor["estado"] == "inactivo" {
            assert!(!client.alive().await, "{} is retired and still connected (attempt {n})", device.id);
        }
    }
}

#[tokio::test]
async fn a_sign_in_that_was_ended_is_cut_off_though_nobody_waited_for_the_answer() {
    let server = Server::start().await;
    let get = async |path: &str, token: &str| server.request(Method::GET, path, token, None).await;
    for n in 0..12_u64 {
        let body = serde_json::json!({ "email": EMAIL, "password": PASSWORD });
        let session = server.request(Method::POST, "/api/v1/auth/login", "", Some(body)).await;
        let session: serde_json::Value = session.json().await.expect("JSON");
        let token = session["access_token"].as_str().expect("a token");
        let (mut client, code) = Client::connect(&server.mqtt, 5, "p", "jwt", token).await;
        assert_eq!(code, 0);
        let list: serde_json::Value = get("/api/v1/auth/sesiones", token).await.json().await.expect("JSON");
        let id = list[0]["id"].as_str().expect("its name");
        let request = format!(
            "DELETE /api/v1/auth/sesiones/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            server.token
        );
        let mut stream = TcpStream::connect(&server.http).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        tokio::time::sleep(Duration::from_micros(n * 100)).await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if get("/api/v1/auth/me", token).await.status() == 401 {
            assert!(!client.alive().await, "its sign-in has ended and it is still connected (attempt {n})");
        }
    }
}
