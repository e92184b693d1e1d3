//! What is looked at from outside: configuration, server, ports, certificates, disk, clock, database.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

use super::{Check, Text};
use crate::cli::migrate;
use crate::config::{Address, Config};
use crate::domain::{BUILD_DATE, Clock as _, SystemClock, Timestamp};
use crate::store::State;
use crate::tls::{Certificate, Site};

/// For one answer on this machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Days before its end from which a certificate is worth a word.
const DAYS: i64 = 14;
/// Free bytes below which the disk fails, and is worth a word.
const FREE: (u64, u64) = (100 << 20, 1 << 30);
/// How far a clock may be behind the newest file of the database.
const BEHIND: Duration = Duration::from_secs(86_400);

/// All of them, in the order of the table.
pub(super) async fn all(config: &Config) -> Vec<Check> {
    let mut all = configuration(config);
    let ready = ready(config).await;
    let runs = !matches!(&ready, Err(No::Away(_)));
    all.push(server(ready));
    all.extend(ports(config, runs).await);
    all.extend(certificates(config, runs));
    all.push(disk(&config.data_dir));
    all.push(clock(config));
    all.push(database(config).await);
    all
}

fn configuration(config: &Config) -> Vec<Check> {
    let title = || Text::new("Configuración", "Configuration");
    let warn = |warning: String| {
        let remedy = Text::new(
            "Cámbielo en config/alertrace.toml o en el entorno; config/default.toml explica cada clave.",
            "Change it in config/alertrace.toml or the environment; config/default.toml explains every key.",
        );
        Check::warn("configuration", title(), Text::new(warning.clone(), warning), remedy)
    };
    let warnings: Vec<Check> = config.warnings().into_iter().map(warn).collect();
    if warnings.is_empty() {
        return vec![Check::ok(
            "configuration",
            title(),
            Text::new("se lee y es válida", "readable and valid"),
        )];
    }
    warnings
}

/// The line of a configuration that is none.
pub(super) fn configuration_failed(error: &str) -> Check {
    Check::fail(
        "configuration",
        Text::new("Configuración", "Configuration"),
        Text::new(error, error),
        Text::new("Corrija lo que se nombra ahí y repita.", "Mend what is named there, and run this again."),
    )
}

/// Why a server is not ready.
#[derive(Debug)]
pub(super) enum No {
    /// Nobody answers.
    Away(String),
    /// It says that it is not.
    NotReady(String),
}

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Away(why) | Self::NotReady(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for No {}

/// Asks `/ready` of the configured port.
pub(super) async fn ready(config: &Config) -> Result<(), No> {
    #[derive(Deserialize, Default)]
    struct Said {
        #[serde(default)]
        detail: String,
    }
    let scheme = if config.http.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}/ready", reachable(config.http.listen));
    let away = |e: reqwest::Error| No::Away(format!("{url}: {}", root(&e)));
    // Its own port, on this machine: a certificate for the name that others use is as good.
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .map_err(&away)?;
    let answer = client.get(&url).header("accept-language", "en").send().await.map_err(&away)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said: Said = answer.json().await.unwrap_or_default();
    Err(No::NotReady(format!("{url}: {} {}", status.as_u16(), said.detail)))
}

/// What an error comes from.
fn root(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Where a listener can be reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen {
        SocketAddr::V4(a) if a.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        a => a.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

fn server(ready: Result<(), No>) -> Check {
    let title = Text::new("Servidor", "Server");
    match ready {
        Ok(()) => Check::ok(
            "server",
            title,
            Text::new("en marcha; confirma lecturas", "running; readings are acknowledged"),
        ),
        Err(No::Away(why)) => Check::warn(
            "server",
            title,
            Text::new(format!("no responde ({why})"), format!("it does not answer ({why})")),
            Text::new("Inícielo: alertrace serve", "Start it: alertrace serve"),
        ),
        Err(No::NotReady(why)) => Check::fail(
            "server",
            title,
            Text::new(
                format!("en marcha, pero no confirma lecturas ({why})"),
                format!("running, but nothing is acknowledged ({why})"),
            ),
            Text::new(
                "Atienda lo que dice; los dispositivos guardan y reenvían mientras tanto.",
                "See to what it says; devices keep their readings and send them again meanwhile.",
            ),
        ),
    }
}

async fn ports(config: &Config, runs: bool) -> Vec<Check> {
    let configured = [
        ("http.listen", Some(config.http.listen)),
        ("mqtt.listen", config.mqtt.listen),
        ("mqtt.tls_listen", config.mqtt.tls_listen),
    ];
    let mut all = Vec::new();
    // Port 0 is whichever is free.
    for (key, address) in configured.into_iter().filter_map(|(k, a)| Some((k, a.filter(|a| a.port() != 0)?)))
    {
        let title = Text::new(format!("Puerto {key}"), format!("Port {key}"));
        let check = if runs {
            match tokio::time::timeout(PATIENCE, TcpStream::connect(reachable(address))).await {
                Ok(Ok(_)) => Check::ok(
                    "port",
                    title,
                    Text::new(format!("{address} responde"), format!("{address} answers")),
                ),
                _ => Check::fail(
                    "port",
                    title,
                    Text::new(format!("{address} no responde"), format!("{address} does not answer")),
                    Text::new(
                        "El servidor en marcha usa otra configuración: reinícielo con esta.",
                        "The server that runs has another configuration: restart it with this one.",
                    ),
                ),
            }
        } else {
            match TcpListener::bind(address).await {
                Ok(_) => Check::ok(
                    "port",
                    title,
                    Text::new(format!("{address} libre"), format!("{address} is free")),
                ),
                Err(e) => Check::fail(
                    "port",
                    title,
                    Text::new(format!("{address}: {e}"), format!("{address}: {e}")),
                    Text::new(
                        format!("Detenga lo que lo usa (ss -ltnp), o elija otro en {key}."),
                        format!("Stop what uses it (ss -ltnp), or choose another in {key}."),
                    ),
                ),
            }
        };
        all.push(check);
    }
    all
}

fn certificates(config: &Config, runs: bool) -> Vec<Check> {
    if !config.needs_certificates() {
        return Vec::new();
    }
    let site = Site::new(&config.tls, Arc::new(SystemClock));
    let title = || Text::new("Certificado", "Certificate");
    let renew = || {
        Text::new(
            "Renuévelo: alertrace cert renew (o reemplace server.pem y server.key).",
            "Renew it: alertrace cert renew (or replace server.pem and server.key).",
        )
    };
    if !config.tls.dir.join("server.pem").exists() && !runs {
        return vec![Check::warn(
            "certificate",
            title(),
            Text::new("todavía no existe", "not there yet"),
            Text::new(
                "Se crea en el primer inicio, o ahora: alertrace cert init",
                "It is made at the first start, or now: alertrace cert init",
            ),
        )];
    }
    let expiry = |c: &Certificate| {
        let (days, until) = (c.days_left(SystemClock.now()), c.not_after);
        let subject = c.common_name.clone().unwrap_or_else(|| c.subject.clone());
        let detail = Text::new(
            format!("{subject}: vale hasta {until} ({days} días)"),
            format!("{subject}: good until {until} ({days} days)"),
        );
        match days {
            d if d < 0 => Check::fail("certificate", title(), detail, renew()),
            d if d < DAYS => Check::warn("certificate", title(), detail, renew()),
            _ => Check::ok("certificate", title(), detail),
        }
    };
    let unreadable = |e: crate::tls::Error| {
        Check::fail("certificate", title(), Text::new(e.to_string(), e.to_string()), renew())
    };
    let mut all = vec![site.server().map_or_else(unreadable, |c| expiry(&c))];
    match site.authority_certificate() {
        Ok(ca) => all.extend(ca.as_ref().map(expiry)),
        Err(e) => all.push(unreadable(e)),
    }
    all
}

fn disk(data_dir: &Path) -> Check {
    let title = || Text::new("Disco", "Disk");
    let place = data_dir.display();
    let rights = || {
        Text::new(
            format!(
                "Cree {place} y dé permiso de escritura al usuario que ejecuta alertrace, o cambie data_dir."
            ),
            format!("Make {place} and let the user that runs alertrace write there, or change data_dir."),
        )
    };
    // A first start makes it: then what is above it counts.
    let Some(there) = data_dir
        .ancestors()
        .map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
        .find(|p| p.is_dir())
    else {
        return Check::fail(
            "disk",
            title(),
            Text::new(format!("{place} no existe"), format!("{place} is not there")),
            rights(),
        );
    };
    if let Err(e) = tempfile::tempfile_in(there) {
        return Check::fail(
            "disk",
            title(),
            Text::new(format!("{place}: {e}"), format!("{place}: {e}")),
            rights(),
        );
    }
    let free = match rustix::fs::statvfs(there) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(e) => {
            return Check::fail(
                "disk",
                title(),
                Text::new(format!("{place}: {e}"), format!("{place}: {e}")),
                rights(),
            );
        }
    };
    let mb = free >> 20;
    let detail = Text::new(format!("{mb} MB libres en {place}"), format!("{mb} MB free in {place}"));
    let room = Text::new("Libere espacio, o baje store.max_gb.", "Make room, or lower store.max_gb.");
    match free {
        f if f < FREE.0 => Check::fail("disk", title(), detail, room),
        f if f < FREE.1 => Check::warn("disk", title(), detail, room),
        _ => Check::ok("disk", title(), detail),
    }
}

fn clock(config: &Config) -> Check {
    let title = Text::new("Reloj", "Clock");
    let now = SystemClock.now();
    let detail = Text::new(format!("{now}"), format!("{now}"));
    let remedy = Text::new(
        "Ponga la hora (timedatectl set-ntp true): mientras tanto no se confirma nada.",
        "Set it (timedatectl set-ntp true): nothing is acknowledged until then.",
    );
    if now < BUILD_DATE || written(config).is_some_and(|newest| now.plus(BEHIND) < newest) {
        return Check::fail("clock", title, detail, remedy);
    }
    Check::ok("clock", title, detail)
}

/// When the database was written last, by the same machine's clock of then.
fn written(config: &Config) -> Option<Timestamp> {
    let modified = std::fs::metadata(config.sqlite_path()).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::clamped(i64::try_from(since.as_micros()).ok()?))
}

async fn database(config: &Config) -> Check {
    let title = Text::new("Base de datos", "Database");
    let (kind, remedy) = match &config.database.address {
        Address::Postgres(_) => (
            "PostgreSQL",
            Text::new(
                "Compruebe DATABASE_URL y que el servidor PostgreSQL acepte conexiones.",
                "Look at DATABASE_URL, and whether the PostgreSQL server takes connections.",
            ),
        ),
        Address::Sqlite(_) => (
            "SQLite",
            Text::new(
                "Restaure una copia: alertrace restore --help",
                "Put a backup back: alertrace restore --help",
            ),
        ),
    };
    let steps = match tokio::time::timeout(PATIENCE, migrate::steps(config)).await {
        Ok(Ok(steps)) => steps,
        Ok(Err(e)) => {
            return Check::fail(
                "database",
                title,
                Text::new(format!("{kind}: {e}"), format!("{kind}: {e}")),
                remedy,
            );
        }
        Err(_) => {
            let detail = Text::new(format!("{kind}: no responde"), format!("{kind}: it does not answer"));
            return Check::fail("database", title, detail, remedy);
        }
    };
    let version = steps.iter().filter(|s| s.state != State::Pending).map(|s| s.version).max();
    let pending = steps.iter().filter(|s| s.state == State::Pending).count();
    let shown = version.map_or_else(|| String::from("–"), |v| v.to_string());
    let detail = Text::new(
        format!("{kind}, esquema {shown}, {pending} pasos pendientes"),
        format!("{kind}, schema {shown}, {pending} steps pending"),
    );
    if let Err(e) = crate::store::refuse_unknown(&steps) {
        let newer = Text::new(
            "Actualice alertrace: una versión más nueva escribió esta base.",
            "Update alertrace: a newer version wrote this database.",
        );
        return Check::fail("database", title, Text::new(e.to_string(), e.to_string()), newer);
    }
    if pending > 0 {
        let remedy = Text::new(
            "Se aplican en el próximo inicio, con copia previa; o ahora: alertrace migrate",
            "They are applied at the next start, after a copy is made; or now: alertrace migrate",
        );
        return Check::warn("database", title, detail, remedy);
    }
    Check::ok("database", title, detail)
}
