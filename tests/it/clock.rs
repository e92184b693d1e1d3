//! A machine that wakes up without the time, as a Pi does after a power cut.

use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;

use crate::support::server::EMAIL;
use crate::support::{Client, Server};

#[tokio::test]
async fn what_arrives_while_the_clock_is_wrong_is_held_and_then_judged_by_the_right_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let time = dir.path().join("time");
    let set = |what: &str| std::fs::write(&time, what).expect("a file");
    set("@2020-01-01 00:00:00");
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    let library = if std::path::Path::new(library).exists() {
        library.to_owned()
    } else {
        library.replace("x86_64", std::env::consts::ARCH)
    };
    let mut server = Server::start_with(|mut command| {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &time)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    })
    .await;
    let device = server.device("s1").await;
    let ready = server.request(Method::GET, "/ready", "", None).await;
    assert_eq!(ready.status(), 503, "before anything was sent");
    assert_eq!(ready.json::<serde_json::Value>().await.expect("a problem")["code"], "clock_wrong");

    // A device that knows the time: its moment is years ahead of the server's clock.
    let moment = alertrace::domain::BUILD_DATE.plus(Duration::from_secs(60)).to_string();
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let payload = format!("{{\"temperatura\":21,\"timestamp\":\"{moment}\"}}");
    let bytes = client.publish_packet("sensores/s1/data", 1, 1, payload.as_bytes());
    client.send(&bytes).await;
    assert!(timeout(Duration::from_secs(2), client.read()).await.is_err(), "nothing is acknowledged");

    set("+0");
    let (first, body) = client.read().await.expect("a PUBACK");
    assert_eq!((first, body), (0x40, vec![0, 1]), "success, and not 0x99 for a moment in the future");
    server.token = server.sign_in(EMAIL).await;
    let readings = server.readings(&device).await;
    assert_eq!(readings.len(), 1);
    assert_eq!(readings[0]["temperatura"], 21.0);
    assert_eq!(server.request(Method::GET, "/ready", "", None).await.status(), 200);
}
