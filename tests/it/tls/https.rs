//! The HTTP port over TLS.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, Version};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::{closed, connector, handshake, tcp};
use crate::support::Server;

#[tokio::test]
async fn https_and_wss_are_served_and_plain_http_is_not() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__TLS", "true");
        command
    })
    .await;
    // Signing in was over HTTPS already.
    let answer = server.request(Method::GET, "/health", "", None).await;
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert_eq!(server.get("/api/v1/sensores").await, serde_json::json!([]));

    let stream = handshake(&connector(&server, None), tcp(&server.http).await).await.expect("TLS");
    let url = format!("wss://{}/api/v1/sensores/live", server.http);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
    let auth = serde_json::json!({ "type": "auth", "token": server.token });
    socket.send(Message::text(auth.to_string())).await.expect("sent");
    let first = socket.next().await.expect("a message").expect("a message");
    assert!(first.to_text().expect("text").contains("snapshot"), "{first}");

    // In clear: closed, and nothing is said that could be taken for an answer.
    let plain = reqwest::get(format!("http://{}/health", server.http)).await;
    assert!(plain.is_err(), "{plain:?}");
    let mut stream = tcp(&server.http).await;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    closed(&mut stream).await;
    // The others do not notice.
    assert_eq!(server.request(Method::GET, "/health", "", None).await.status(), 200);
    // MQTT in clear is where it was.
    let device = server.device("d1").await;
    crate::support::Client::device(&server.mqtt, 5, &device).await;
}
