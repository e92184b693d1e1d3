//! The self-test: a whole server of its own, on the same disk and with the site's certificate, to which a device
//! publishes over TLS and from which the reading is read back. All of it goes when it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS, TlsConfiguration, Transport};
use serde_json::{Value, json};

use super::{Check, Text};
use crate::app::{self, Running};
use crate::cli::demo;
use crate::config::{Address, Config, MailTransport};
use crate::domain::SystemClock;
use crate::tls::Site;

const PATIENCE: Duration = Duration::from_secs(10);
const DEVICE: &str = "doctor";
const VALUE: f64 = 21.5;
/// What is served with, where it is there.
const CERTIFICATES: [&str; 4] = ["ca.pem", "ca.key", "server.pem", "server.key"];

pub(super) async fn check(config: &Config, metrics: PrometheusHandle) -> Check {
    let title = Text::new("Autoprueba", "Self-test");
    let start = Instant::now();
    let tested = tokio::time::timeout(PATIENCE, run(config, metrics)).await;
    let tested =
        tested.unwrap_or_else(|_| Err(anyhow::anyhow!("it takes more than {} s", PATIENCE.as_secs())));
    match tested {
        Ok(()) => {
            let ms = start.elapsed().as_millis();
            Check::ok(
                "self_test",
                title,
                Text::new(
                    format!("una lectura publicada por TLS se guardó y se leyó ({ms} ms)"),
                    format!("a reading published over TLS was stored and read back ({ms} ms)"),
                ),
            )
        }
        Err(e) => Check::fail(
            "self_test",
            title,
            Text::new(format!("{e:#}"), format!("{e:#}")),
            Text::new(
                "Atienda primero los fallos de arriba; si no hay ninguno, ejecute alertrace serve con LOG_LEVEL=debug.",
                "See to the failures above first; if there are none, run alertrace serve with LOG_LEVEL=debug.",
            ),
        ),
    }
}

async fn run(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let mut made = tempfile::Builder::new();
    made.prefix(".doctor-");
    // On the disk that is to hold; a first start has none yet.
    let dir = if config.data_dir.is_dir() { made.tempdir_in(&config.data_dir) } else { made.tempdir() };
    let dir = dir.context("cannot make a temporary directory")?;
    let own = own_config(config, dir.path())?;
    let running = app::start(&own, Arc::new(SystemClock), metrics).await.context("it does not start")?;
    let tested = publish_and_read(&running, &own).await;
    let stopped = running.stop().await;
    tested?;
    stopped.context("it does not stop")?;
    dir.close().context("the temporary directory stays")
}

/// The configuration of a server that nobody else notices.
fn own_config(config: &Config, dir: &Path) -> anyhow::Result<Config> {
    let mut own = config.clone();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    own.data_dir = dir.join("data");
    own.tls.dir = dir.join("certs");
    own.http.tls = false;
    own.http.listen = any;
    own.mqtt.listen = None;
    own.mqtt.tls_listen = Some(any);
    own.mqtt.proxy_from = None;
    own.database.address = Address::Sqlite(None);
    own.identity.supabase = None;
    own.mail.transport = MailTransport::Log;
    std::fs::create_dir_all(&own.data_dir)?;
    std::fs::create_dir_all(&own.tls.dir)?;
    // One that is not for this machine's own name is nothing to test with from here: then one is made.
    let site = Site::new(&config.tls, Arc::new(SystemClock));
    let usable = site.server().is_ok_and(|c| c.has_name(&Ipv4Addr::LOCALHOST.to_string()));
    for name in CERTIFICATES.into_iter().filter(|_| usable) {
        let from = config.tls.dir.join(name);
        if from.is_file() {
            std::fs::copy(&from, own.tls.dir.join(name))
                .with_context(|| format!("cannot read {}", from.display()))?;
        }
    }
    Ok(own)
}

async fn publish_and_read(running: &Running, own: &Config) -> anyhow::Result<()> {
    let password = crate::identity::dispositivo::genera().map_err(anyhow::Error::msg)?.texto;
    let id_empresa = demo::make_empresa(running, &password).await?;
    let token = demo::make_sensor(running, id_empresa, DEVICE, DEVICE, "doctor", &SystemClock).await?;
    let mqtts = running.mqtts.context("it does not listen on TLS")?;
    publish(mqtts, &own.tls.dir.join("ca.pem"), &token).await?;

    let api = format!("http://{}/api/v1", running.http);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let login =
        client.post(format!("{api}/auth/login")).json(&json!({ "email": demo::EMAIL, "password": password }));
    let login: Value = login.send().await?.error_for_status()?.json().await?;
    let token = login["access_token"].as_str().context("a sign-in without a token")?;
    let sensors =
        client.get(format!("{api}/sensores")).bearer_auth(token).send().await?.error_for_status()?;
    let sensors: Value = sensors.json().await?;
    let read = &sensors[0]["temperatura"];
    anyhow::ensure!(read.as_f64() == Some(VALUE), "published {VALUE}, read {read}");
    Ok(())
}

/// Publishes a reading as a device does, and waits for its acknowledgement.
async fn publish(to: SocketAddr, ca: &Path, token: &str) -> anyhow::Result<()> {
    let ca = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    let mut options = MqttOptions::new(DEVICE, to.ip().to_string(), to.port());
    options.set_credentials(DEVICE, token);
    options.set_transport(Transport::Tls(TlsConfiguration::Simple { ca, alpn: None, client_auth: None }));
    let (client, mut events) = AsyncClient::new(options, 4);
    let payload = json!({ "temperatura": VALUE }).to_string();
    client.publish(format!("sensores/{DEVICE}/data"), QoS::AtLeastOnce, false, payload).await?;
    loop {
        match events.poll().await.context("MQTT over TLS")? {
            Event::Incoming(Incoming::PubAck(_)) => return Ok(()),
            Event::Incoming(Incoming::Disconnect) => anyhow::bail!("the broker disconnected the device"),
            _ => {}
        }
    }
}
