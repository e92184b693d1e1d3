//! The self-test when nothing runs: a whole server of its own, on the same disk and with the site's certificate, to
//! which a device publishes over TLS and from which the reading is read back. All of it goes when it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::checks::modified;
use super::mqtt::{Device, Way};
use super::{Check, Text, database};
use crate::app::{self, Running};
use crate::cli::demo;
use crate::config::{Address, ClientCerts, Config, MailTransport};
use crate::domain::{Clock as _, SystemClock};
use crate::tls::{Connector, Site};

const PATIENCE: Duration = Duration::from_secs(10);
const DEVICE: &str = "doctor";
const VALUE: f64 = 21.5;
/// What its directories begin with, and after how long one is nobody's any more.
const PREFIX: &str = ".doctor-";
const ABANDONED: Duration = Duration::from_secs(3_600);
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
            let mut said = Text::new(
                format!("un servidor de prueba guardó en SQLite una lectura publicada por TLS ({ms} ms)"),
                format!("a server for the test stored a reading published over TLS in SQLite ({ms} ms)"),
            );
            if database::kind(config) != "SQLite" {
                said.es.push_str("; PostgreSQL se prueba con el servidor en marcha");
                said.en.push_str("; PostgreSQL is tried once the server runs");
            }
            Check::ok("self_test", title, said)
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
    let dir = tempfile::Builder::new().prefix(&ours()).tempdir_in(place(config));
    let dir = dir.context("cannot make a temporary directory")?;
    let own = own_config(config, dir.path())?;
    let running = app::start(&own, Arc::new(SystemClock), metrics).await.context("it does not start")?;
    let tested = publish_and_read(&running, &own).await;
    let stopped = running.stop().await;
    tested?;
    stopped.context("it does not stop")?;
    dir.close().context("the temporary directory stays")
}

/// Where its directory is: on the disk that is to hold; a first start has none yet.
fn place(config: &Config) -> PathBuf {
    if config.data_dir.is_dir() { config.data_dir.clone() } else { std::env::temp_dir() }
}

/// How the directories of this process are called.
fn ours() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// The directories of self-tests whose names begin so.
fn left(config: &Config, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(place(config)) else { return Vec::new() };
    let ours = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|e| e.path()).collect()
}

/// Removes what a doctor that was killed has left.
pub(super) fn sweep(config: &Config) {
    let old = SystemClock.now().minus(ABANDONED);
    for dir in left(config, PREFIX).iter().filter(|dir| modified(dir).is_some_and(|then| then < old)) {
        // What cannot be removed is looked at again next time.
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Removes what a test leaves that is stopped half-way: for a moment its threads may still write.
pub(super) async fn abandon(config: &Config) {
    for _ in 0..40 {
        let ours = left(config, &ours());
        if ours.is_empty() {
            return;
        }
        for dir in ours {
            let _ = std::fs::remove_dir_all(dir);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
    let site = Site::new(&config.tls, Arc::new(SystemClock));
    // By another name and not copied: a key is to be in one place.
    for name in CERTIFICATES.into_iter().filter(|_| site.server().is_ok()) {
        let from = std::path::absolute(config.tls.dir.join(name))?;
        if from.is_file() {
            symlink(&from, own.tls.dir.join(name))?;
        }
    }
    if !Site::new(&own.tls, Arc::new(SystemClock)).can_sign() && site.server().is_ok() {
        // It cannot make itself a certificate to show.
        own.mqtt.client_certs = match own.mqtt.client_certs {
            ClientCerts::Required => ClientCerts::Optional,
            asked => asked,
        };
    }
    Ok(own)
}

async fn publish_and_read(running: &Running, own: &Config) -> anyhow::Result<()> {
    let password = crate::identity::dispositivo::genera().map_err(anyhow::Error::msg)?.texto;
    let id_empresa = demo::make_empresa(running, &password).await?;
    let token = demo::make_sensor(running, id_empresa, DEVICE, DEVICE, "doctor", &SystemClock).await?;
    let mqtts = running.mqtts.context("it does not listen on TLS")?;
    let site = Site::new(&own.tls, Arc::new(SystemClock));
    let way = Way { tls: Some(Connector::pinned(&site).context("server.pem")?), proxied: false };
    let mut device =
        Device::connect(TcpStream::connect(mqtts).await?, &way, DEVICE, (DEVICE, &token)).await?;
    let payload = json!({ "temperatura": VALUE }).to_string();
    device.publish(&format!("sensores/{DEVICE}/data"), payload.as_bytes()).await?;
    device.close().await?;

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
