//! The self-test beside a running server: what a device does, at the listener that devices use, and then a look into
//! the database by a connection of our own. It is let in with the installation's secret (`identity::prueba`), and what
//! it stores is seen by nobody and removed again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;

use super::mqtt::{Device, Way};
use super::server::reachable;
use super::{Check, Text, database};
use crate::app;
use crate::config::{ClientCerts, Config, secrets};
use crate::domain::{Clock as _, SystemClock};
use crate::identity::{Prueba, prueba};
use crate::store::mirada::Donde;
use crate::tls::{Connector, Site};

const PATIENCE: Duration = Duration::from_secs(10);
const READING: &[u8] = br#"{"temperatura":21.5}"#;

fn title() -> Text {
    Text::new("Autoprueba", "Self-test")
}

/// What became of it.
enum Tried {
    /// Acknowledged, found, removed.
    Stored,
    /// This address may not connect: `mqtt.proxy_from`.
    NotAProxy(IpAddr),
}

pub(super) async fn check(config: &Config) -> Check {
    let site = Site::new(&config.tls, Arc::new(SystemClock));
    let shows = config.mqtt.client_certs != ClientCerts::Required || site.can_sign();
    let configured = |listen: Option<SocketAddr>| listen.filter(|a| a.port() != 0).map(reachable);
    let tls = configured(config.mqtt.tls_listen).filter(|_| shows);
    let Some(address) = tls.or(configured(config.mqtt.listen)) else {
        return Check::warn(
            "self_test",
            title(),
            Text::new(
                "sin probar: no hay un puerto MQTT al que doctor pueda entrar",
                "not tried: there is no MQTT port that doctor can come in by",
            ),
            Text::new(
                "Publique con un dispositivo. Donde se exige certificado, doctor necesita ca.key para hacerse uno.",
                "Publish with a device. Where a certificate is required, doctor needs ca.key to make itself one.",
            ),
        );
    };
    let start = Instant::now();
    let pinned = tls.map(|_| Connector::pinned(&site)).transpose();
    let tried = match pinned.with_context(|| format!("{}", config.tls.dir.join("server.pem").display())) {
        Ok(tls) => tokio::time::timeout(PATIENCE, run(config, address, tls)).await,
        Err(e) => Ok(Err(e)),
    };
    let tried = tried.unwrap_or_else(|_| {
        Err(anyhow::anyhow!("it was not acknowledged and found within {} s", PATIENCE.as_secs()))
    });
    let (ms, kind) = (start.elapsed().as_millis(), database::kind(config));
    let (es, en) = if tls.is_some() { ("por TLS", "over TLS") } else { ("sin cifrar", "in clear") };
    match tried {
        Ok(Tried::Stored) => Check::ok(
            "self_test",
            title(),
            Text::new(
                format!(
                    "el servidor en marcha confirmó una lectura publicada {es}; estaba en {kind}, y se borró ({ms} ms)"
                ),
                format!(
                    "the running server acknowledged a reading published {en}; it was in {kind}, and is removed ({ms} ms)"
                ),
            ),
        ),
        Ok(Tried::NotAProxy(ip)) => Check::warn(
            "self_test",
            title(),
            Text::new(
                format!("sin probar: {ip} no está en mqtt.proxy_from"),
                format!("not tried: {ip} is not in mqtt.proxy_from"),
            ),
            Text::new(
                "Publique con un dispositivo a través del proxy, o ejecute doctor donde está el proxy.",
                "Publish with a device through the proxy, or run doctor where the proxy is.",
            ),
        ),
        Err(e) => Check::fail(
            "self_test",
            title(),
            Text::new(format!("{address}: {e:#}"), format!("{address}: {e:#}")),
            Text::new(
                "Ejecute doctor con el usuario y la configuración del servidor; si ya es así, reinícielo y mire su registro.",
                "Run doctor as the server's user and with its configuration; if it is so, restart it and read its log.",
            ),
        ),
    }
}

/// The line when the server says itself that it acknowledges nothing.
pub(super) fn not_ready() -> Check {
    Check::fail(
        "self_test",
        title(),
        Text::new(
            "sin probar: el servidor no confirma lecturas",
            "not tried: the server acknowledges nothing",
        ),
        Text::new("Atienda primero la línea del servidor.", "See to the server's line first."),
    )
}

async fn run(config: &Config, address: SocketAddr, tls: Option<Connector>) -> anyhow::Result<Tried> {
    let secret = secrets::existing(config)?;
    let password = Prueba::new(secret.expose())?.firma(SystemClock.now())?;
    let tcp = TcpStream::connect(address).await?;
    let mut way = Way { tls, proxied: false };
    if let Some(proxies) = &config.mqtt.proxy_from {
        let ip = tcp.local_addr()?.ip().to_canonical();
        if !proxies.iter().any(|network| network.contains(&ip)) {
            return Ok(Tried::NotAProxy(ip));
        }
        way.proxied = true;
    }
    // Its own: two that run at once are not in each other's way.
    let name = uuid::Uuid::now_v7().simple().to_string();
    let mut device = Device::connect(tcp, &way, &name, (prueba::USUARIO, &password)).await?;
    let topic = format!("{}{name}", prueba::TOPIC);
    let (path, options) = (config.sqlite_path(), app::postgres_options(config));
    let database = options.as_ref().map_or(Donde::Sqlite(&path), Donde::Postgres);

    device.publish(&topic, READING).await?;
    let found = database.retenido(&topic).await;
    device.publish(&topic, b"").await?;
    let left = database.retenido(&topic).await;
    device.close().await?;
    ensure!(
        found?.as_deref() == Some(READING),
        "acknowledged, and not in the database of this configuration: the server that runs has another one"
    );
    ensure!(left?.is_none(), "what was stored could not be removed; it goes with the next start");
    Ok(Tried::Stored)
}
