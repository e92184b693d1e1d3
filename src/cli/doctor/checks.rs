//! What is looked at from outside: configuration, ports, certificates, disk, clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::server::{No, reachable};
use super::{Check, PATIENCE, Text, database, server};
use crate::config::Config;
use crate::domain::{BUILD_DATE, Clock as _, SystemClock, Timestamp};
use crate::tls::{Certificate, Site};

/// Days before its end from which a certificate is worth a word.
const DAYS: i64 = 14;
/// Free bytes below which the disk fails, and is worth a word.
const FREE: (u64, u64) = (100 << 20, 1 << 30);
/// How far a clock may be behind the newest file of the database.
const BEHIND: Duration = Duration::from_secs(86_400);

/// All of them, in the order of the table.
pub(super) async fn all(config: &Config, ready: &Result<(), No>) -> Vec<Check> {
    let mut all = configuration(config);
    let runs = matches!(ready, Ok(()) | Err(No::NotReady(_)));
    all.push(server::check(ready));
    all.extend(ports(config, runs).await);
    all.extend(certificates(config, runs));
    all.push(disk(&config.data_dir));
    // Where the readings are, if that is elsewhere.
    all.extend(Some(config.store_dir()).filter(|dir| *dir != config.data_dir).map(|dir| disk(&dir)));
    all.push(clock(config).await);
    all.push(database::check(config).await);
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

async fn clock(config: &Config) -> Check {
    let title = Text::new("Reloj", "Clock");
    let now = SystemClock.now();
    let detail = Text::new(format!("{now}"), format!("{now}"));
    let remedy = Text::new(
        "Ponga la hora (timedatectl set-ntp true): mientras tanto no se confirma nada.",
        "Set it (timedatectl set-ntp true): nothing is acknowledged until then.",
    );
    if now < BUILD_DATE || modified(&config.sqlite_path()).is_some_and(|newest| now.plus(BEHIND) < newest) {
        return Check::fail("clock", title, detail, remedy);
    }
    if synchronised().await == Some(false) {
        return Check::warn(
            "clock",
            title,
            Text::new(format!("{now}, sin sincronizar"), format!("{now}, not synchronised")),
            Text::new(
                "Actívelo: timedatectl set-ntp true. Un reloj que se adelanta fecha mal las lecturas.",
                "Turn it on: timedatectl set-ntp true. A clock that runs ahead dates readings wrongly.",
            ),
        );
    }
    Check::ok("clock", title, detail)
}

/// What systemd says of the clock, where there is one that knows.
async fn synchronised() -> Option<bool> {
    let mut asked = Command::new("timedatectl");
    asked.args(["show", "--property=NTPSynchronized", "--value"]).kill_on_drop(true);
    let said = tokio::time::timeout(PATIENCE, asked.output()).await.ok()?.ok()?;
    match str::from_utf8(&said.stdout).ok()?.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// When a file was written last, by the same machine's clock of then.
pub(super) fn modified(path: &Path) -> Option<Timestamp> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::clamped(i64::try_from(since.as_micros()).ok()?))
}
