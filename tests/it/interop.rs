//! The tests that paho-mqtt's authors hold brokers to, as they publish them (`tests/clients/paho_suite.py`). They wait
//! for what must not come, a second and more each time: a minute and a half in all, and hardly any work.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::support::{Server, client_dir};

#[tokio::test]
async fn every_test_of_paho_mqtts_suite_passes_on_an_open_broker() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true");
        command
    })
    .await;
    let (_, port) = server.mqtt.split_once(':').expect("host:port");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", client_dir().join("python"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/paho_suite.py"));
    python.arg(client_dir().join("paho-src")).arg(port).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(240), python.output());
    let output = output.await.expect("in time").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Ran 21 tests"), "{said}");
}
