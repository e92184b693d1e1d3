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
        python.args([host, port, version, qos, "paho", &device.token, &value.to_string(), "mqtt", ""]);
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

/// A server that speaks HTTPS and WSS besides MQTT over TCP and TLS, or HTTP and WS; and its ways in.
async fn with_ways(https: bool) -> (Server, Vec<(&'static str, String)>) {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__TLS", https.to_string());
        command
    })
    .await;
    let web = if https { ("wss", server.http.clone()) } else { ("ws", server.http.clone()) };
    let tls = ("mqtts", server.mqtts.clone());
    let ways = if https { vec![web] } else { vec![tls, web] };
    (server, ways)
}

#[tokio::test]
async fn every_client_publishes_over_tls_and_websocket_in_both_versions() {
    for https in [false, true] {
        let (server, ways) = with_ways(https).await;
        let ca = server.ca().display().to_string();
        let mut value = 20.0;
        for (way, address) in ways {
            let (_, port) = host_port(&address);
            for version in ["4", "5"] {
                // The certificate's names are checked: it is for localhost too.
                value += 0.5;
                let device = server.device(&format!("paho-{way}-{version}")).await;
                let mut python = Command::new("python3");
                python.env("PYTHONPATH", client_dir().join("python"));
                python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/paho_publish.py"));
                python.args(["localhost", port, version, "1", &device.id, &device.token]);
                python.args([&value.to_string(), way, &ca]);
                run(python, &format!("paho-mqtt over {way}")).await;
                reads_back(&server, &device, value).await;

                value += 0.5;
                let device = server.device(&format!("npm-{way}-{version}")).await;
                let path = if way == "mqtts" { "" } else { "/mqtt" };
                let url = format!("{way}://localhost:{port}{path}");
                let mut node = Command::new("node");
                node.env("NODE_PATH", client_dir().join("node_modules"));
                node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/npm_publish.cjs"));
                node.args([&url, version, "1", &device.id, &device.token, &value.to_string(), &ca]);
                run(node, &format!("mqtt (npm) over {way}")).await;
                reads_back(&server, &device, value).await;
            }
        }
    }
}

#[tokio::test]
async fn rumqttc_publishes_over_tcp_tls_and_websocket_in_both_versions() {
    use rumqttc::{TlsConfiguration, Transport, v5};
    // The library finds its provider by the process's default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = Server::start().await;
    let ca = std::fs::read(server.ca()).expect("the site's authority");
    let tls = || Transport::Tls(TlsConfiguration::Simple { ca: ca.clone(), alpn: None, client_auth: None });
    let mut value = 20.0;
    for way in ["mqtt", "mqtts", "ws"] {
        let (_, port) = host_port(match way {
            "mqtt" => &server.mqtt,
            "mqtts" => &server.mqtts,
            _ => &server.http,
        });
        let port: u16 = port.parse().expect("a port");
        // Over WebSocket the library takes a URL for the host.
        let host = if way == "ws" { format!("ws://localhost:{port}/mqtt") } else { "localhost".to_owned() };
        let transport = || match way {
            "mqtt" => Transport::Tcp,
            "mqtts" => tls(),
            _ => Transport::Ws,
        };
        value += 0.5;
        let device = server.device(&format!("rumqttc-{way}-4")).await;
        let mut options = rumqttc::MqttOptions::new(&device.id, &host, port);
        options.set_credentials(&device.id, &device.token).set_transport(transport());
        let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
        let (topic, payload) =
            (format!("sensores/{}/data", device.id), format!("{{\"temperatura\":{value}}}"));
        client.publish(&topic, rumqttc::QoS::AtLeastOnce, false, payload).await.expect("a queue");
        let acknowledged = async {
            loop {
                if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) =
                    events.poll().await.expect("a connection")
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), acknowledged).await.expect("a PUBACK in time");
        reads_back(&server, &device, value).await;

        value += 0.5;
        let device = server.device(&format!("rumqttc-{way}-5")).await;
        let mut options = v5::MqttOptions::new(&device.id, &host, port);
        options.set_credentials(&device.id, &device.token).set_transport(transport());
        let (client, mut events) = v5::AsyncClient::new(options, 10);
        let (topic, payload) =
            (format!("sensores/{}/data", device.id), format!("{{\"temperatura\":{value}}}"));
        client.publish(&topic, v5::mqttbytes::QoS::AtLeastOnce, false, payload).await.expect("a queue");
        let acknowledged = async {
            loop {
                if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(_)) =
                    events.poll().await.expect("a connection")
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), acknowledged).await.expect("a PUBACK in time");
        reads_back(&server, &device, value).await;
    }
}

#[tokio::test]
async fn a_page_in_a_browser_hears_and_publishes_in_both_versions() {
    let server = Server::start().await;
    let library = client_dir().join("node_modules/mqtt/dist/mqtt.min.js");
    for version in ["4", "5"] {
        let device = server.device(&format!("pagina-{version}")).await;
        let other = server.device(&format!("otro-{version}")).await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let page = include_str!("../clients/page.html")
            .replace("MQTT_JS", library.to_str().expect("UTF-8"))
            .replace("URL", &format!("ws://{}/mqtt", server.http))
            .replace("DEVICE", &device.id)
            .replace("TOKEN", &device.token)
            .replace("JWT", &server.token)
            .replace("VERSION", version);
        std::fs::write(dir.path().join("page.html"), page).expect("a page");
        let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
        let mut chromium = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", &profile])
            .arg(format!("file://{}", dir.path().join("page.html").display()))
            .args(["--remote-debugging-port=0"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium runs");
        // Until the page has subscribed, what is published is not for it: publish until it answers.
        let mut client = crate::support::Client::device(&server.mqtt, 5, &other).await;
        let mut answered = false;
        for pid in 1..=300 {
            let payload = "{\"temperatura\":21.5}";
            assert_eq!(client.publish(&format!("sensores/{}/data", other.id), pid, payload).await, 0);
            tokio::time::sleep(Duration::from_millis(100)).await;
            let sensor = server.get(&format!("/api/v1/sensores/{}", device.id_sensor)).await;
            answered = sensor["temperatura"].as_f64() == Some(33.5);
            if answered {
                break;
            }
        }
        assert!(answered, "version {version}: the page never answered");
        chromium.kill().await.expect("it ends");
    }
}
