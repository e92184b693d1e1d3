//! SIGTERM: finish, commit, acknowledge, say goodbye, within five seconds.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::alerts::live;
use crate::support::{Client, Server};

#[tokio::test]
async fn sigterm_acknowledges_what_was_received_and_says_goodbye() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let mut socket = live(&server).await;
    let mut five = Client::device(&server.mqtt, 5, &device).await;
    crate::alerts::next(&mut socket, "snapshot").await;
    for pid in 1..=50 {
        let payload = format!("{{\"temperatura\":20,\"humedad\":{pid}}}");
        let bytes = five.publish_packet("sensores/s1/data", 1, pid, payload.as_bytes());
        five.send(&bytes).await;
    }
    // The first acknowledgement shows that they have arrived.
    assert_eq!(five.read().await.map(|p| p.0), Some(0x40));
    let (code, took) = server.terminate().await;
    assert_eq!(code, Some(0), "a clean stop");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut acknowledged = 1;
    let mut goodbye = None;
    while let Some((first, body)) = five.read().await {
        match first {
            0x40 => acknowledged += 1,
            0xe0 => goodbye = body.first().copied(),
            other => panic!("unexpected {other:#x}"),
        }
    }
    assert_eq!(goodbye, Some(0x8b), "Server shutting down");
    let mut close = None;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = message {
            close = frame.map(|f| u16::from(f.code));
        }
    }
    assert_eq!(close, Some(1001));

    server.kill_and_restart();
    assert!(server.readings(&device).await.len() >= acknowledged);
}

#[tokio::test]
async fn sigterm_while_it_starts_is_a_clean_stop() {
    let mut server = Server::start().await;
    assert_eq!(server.terminate().await.0, Some(0));
    // What it needs to start is held by somebody else, for as long as a start waits for it.
    let mut holder = crate::store::python(&server, "db.execute('BEGIN EXCLUSIVE')");
    server.launch_and_do_not_wait();
    let (code, took) = server.terminate().await;
    assert_eq!(code, Some(0), "a clean stop");
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_server_from_stopping_cleanly() {
    for half in [
        "GET /health HTTP/1.1\r\nHost: x\r\n",
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        "PR",
        "",
    ] {
        let mut server = Server::start().await;
        let mut stream = TcpStream::connect(&server.http).await.expect("it listens");
        stream.write_all(half.as_bytes()).await.expect("it reads");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (code, took) = server.terminate().await;
        assert_eq!(code, Some(0), "a clean stop in spite of {half:?}, after {took:?}");
    }
}
