//! The clients that people have: Debian's mosquitto tools, paho-mqtt from PyPI, mqtt from npm.

use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use crate::alerts::{live, next};
use crate::support::{Device, Server, client_dir};

async fn run(mut command: Command, what: &str) -> Output {
    let output = command.kill_on_drop(true).output();
    let output =
        tokio::time::timeout(Duration::from_secs(60), output).await.expect("in time").expect("it runs");
    assert!(
        output.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn host_port(address: &str) -> (&str, &str) {
    address.split_once(':').expect("host:port")
}

/// Waits until the newest temperature of a device is `value`.
async fn reads_back(server: &Server, device: &Device, value: f64) {
    for _ in 0..100 {
        let sensor = server.get(&format!("/api/v1/sensores/{}", device.id_sensor)).await;
        if sensor["temperatura"].as_f64() == Some(value) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} never read back from {}", value, device.id);
}

#[tokio::test]
async fn mosquitto_clients_publish_and_hear_in_both_versions_at_every_qos() {
    let server = Server::start().await;
    let device = server.device("mosq").await;
    let (host, port) = host_port(&server.mqtt);
    let mut value = 20.0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            value += 0.5;
            let payload = format!("{{\"temperatura\":{value}}}");
            let mut sub = Command::new("mosquitto_sub");
            sub.args(["-h", host, "-p", port, "-V", version, "-q", qos, "-u", "jwt", "-P", &server.token]);
            sub.args(["-t", "sensores/+/data", "-C", "1", "-W", "20", "-v"]);
            let heard = tokio::spawn(async move { run(sub, "mosquitto_sub").await });
            // Until it has subscribed, what is published is not for it: publish until it hears.
            let mut published = 0;
            while !heard.is_finished() {
                let mut publish = Command::new("mosquitto_pub");
                publish.args(["-h", host, "-p", port, "-V", version, "-q", qos, "-i", "mosq"]);
                publish.args(["-u", "mosq", "-P", &device.token, "-t", "sensores/mosq/data", "-m", &payload]);
                run(publish, "mosquitto_pub").await;
                published += 1;
                assert!(published < 100, "{version} qos {qos}: never heard");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let line = String::from_utf8(heard.await.expect("it ends").stdout).expect("text");
            assert_eq!(line.trim(), format!("sensores/mosq/data {payload}"), "{version} qos {qos}");
            reads_back(&server, &device, value).await;
        }
    }
}

/// What each client must do: publish in both versions at every QoS and be read back over REST and seen
/// on the WebSocket; then make an alert appear, rise and close.
async fn publishes_everywhere(server: &Server, device: &Device, publish: impl AsyncFn(&str, &str, f64)) {
    let mut socket = live(server).await;
    next(&mut socket, "snapshot").await;
    let mut value = 20.0;
    for version in ["4", "5"] {
        for qos in ["0", "1", "2"] {
            value += 0.5;
            publish(version, qos, value).await;
            reads_back(server, device, value).await;
            assert_eq!(next(&mut socket, "sensor_update").await["data"]["temperatura"], value);
        }
    }
    for value in [36.0, 50.0, 20.0, 20.0, 20.0] {
        publish("5", "1", value).await;
    }
    for accion in ["creada", "actualizada", "resuelta"] {
        assert_eq!(next(&mut socket, "alerta").await["accion"], accion);
    }
}

#[tokio::test]
async fn mosquitto_pub_makes_an_alert_appear_rise_and_close() {
    let server = Server::start().await;
    let device = server.device("mosq").await;
    let (host, port) = host_port(&server.mqtt);
    publishes_everywhere(&server, &device, async |version, qos, value| {
        let version = if version == "5" { "mqttv5" } else { "mqttv311" };
        let payload = format!("{{\"temperatura\":{value}}}");
        let mut publish = Command::new("mosquitto_pub");
        publish.args(["-h", host, "-p", port, "-V", version, "-q", qos, "-i", "mosq"]);
        publish.args(["-u", "mosq", "-P", &device.token, "-t", "sensores/mosq/data", "-m", &payload]);
        run(publish, "mosquitto_pub").await;
    })
    .await;
}

#[tokio::test]
async fn paho_mqtt_publishes_in_both_versions_at_every_qos() {
    let server = Server::start().await;
    let device = server.device("paho").await;
    let (host, port) = host_port(&server.mqtt);
    publishes_everywhere(&server, &device, async |version, qos, value| {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", client_dir().join("python"));
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/paho_publish.py"));
        python.args([host, port, version, qos, "paho", &device.token, &value.to_string()]);
        run(python, "paho-mqtt").await;
    })
    .await;
}

#[tokio::test]
async fn mqtt_from_npm_publishes_in_both_versions_at_every_qos() {
    let server = Server::start().await;
    let device = server.device("npm").await;
    publishes_everywhere(&server, &device, async |version, qos, value| {
        let mut node = Command::new("node");
        node.env("NODE_PATH", client_dir().join("node_modules"));
        node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/npm_publish.cjs"));
        node.args([
            &format!("mqtt://{}", server.mqtt),
            version,
            qos,
            "npm",
            &device.token,
            &value.to_string(),
        ]);
        run(node, "mqtt (npm)").await;
    })
    .await;
}
