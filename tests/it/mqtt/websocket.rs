//! MQTT over WebSocket (chapter 6).

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::wire::{BOTH, Connect};
use crate::support::{Device, Server};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn dial(server: &Server, subprotocol: Option<&str>) -> Result<Socket, u16> {
    let mut request = format!("ws://{}/mqtt", server.http).into_client_request().expect("a URL");
    if let Some(subprotocol) = subprotocol {
        let value = subprotocol.parse().expect("a header");
        request.headers_mut().insert("sec-websocket-protocol", value);
    }
    match connect_async(request).await {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");
            Ok(socket)
        }
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(e) => panic!("{e}"),
    }
}

/// The bytes of the next binary frame; `None` when the server closed.
async fn next(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match socket.next().await? {
            Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(Message::Text(text)) => panic!("a text frame: {text}"),
            Ok(_) => {}
        }
    }
}

fn sign_in(version: u8, device: &Device) -> Vec<u8> {
    Connect::new(version, &device.id).user(device.id.as_bytes()).password(device.token.as_bytes()).bytes()
}

#[tokio::test]
async fn the_subprotocol_is_offered_and_answered() {
    let server = Server::start().await;
    // A client that does not offer it is refused before it is one.
    assert_eq!(dial(&server, None).await.err(), Some(400));
    assert_eq!(dial(&server, Some("chat")).await.err(), Some(400));
    // [3.1.1 MQTT-6.0.0-4] [5.0 MQTT-6.0.0-4]: `dial` reads it in the answer.
    assert!(dial(&server, Some("mqtt")).await.is_ok());
    assert!(dial(&server, Some("chat, mqtt")).await.is_ok());
}

#[tokio::test]
async fn packets_are_where_they_are_whatever_the_frames() {
    let server = Server::start().await;
    for version in BOTH {
        let device = server.device(&format!("ws{version}")).await;
        // [3.1.1 MQTT-6.0.0-2] [5.0 MQTT-6.0.0-2]: byte by byte, and two packets in one frame.
        let mut socket = dial(&server, Some("mqtt")).await.expect("a WebSocket");
        for byte in sign_in(version, &device) {
            socket.send(Message::Binary(vec![byte].into())).await.expect("a frame");
        }
        assert_eq!(next(&mut socket).await.expect("a CONNACK")[0], 0x20);
        socket.send(Message::Binary(vec![0xc0, 0, 0xc0, 0].into())).await.expect("a frame");
        let mut answers = Vec::new();
        while answers.len() < 4 {
            answers.extend(next(&mut socket).await.expect("PINGRESP"));
        }
        assert_eq!(answers, [0xd0, 0, 0xd0, 0]);
    }
}

#[tokio::test]
async fn a_text_frame_closes_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        let device = server.device(&format!("ws{version}")).await;
        let mut socket = dial(&server, Some("mqtt")).await.expect("a WebSocket");
        socket.send(Message::Binary(sign_in(version, &device).into())).await.expect("a frame");
        assert_eq!(next(&mut socket).await.expect("a CONNACK")[0], 0x20);
        // [3.1.1 MQTT-6.0.0-1] [5.0 MQTT-6.0.0-1]
        socket.send(Message::Text("\u{10}".into())).await.expect("a frame");
        assert_eq!(next(&mut socket).await, None);
    }
}
