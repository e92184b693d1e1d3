//! Whether an Alertrace answers at the configured port, and what it says of itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use super::{Check, PATIENCE, Text};
use crate::config::Config;

/// Why a server is not ready.
#[derive(Debug)]
pub(super) enum No {
    /// Nobody answers.
    Away(String),
    /// Somebody answers, and not as Alertrace does.
    Foreign(String),
    /// It says that it is not.
    NotReady(String),
}

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(why) | Self::NotReady(why) => f.write_str(why),
            Self::Foreign(what) => write!(f, "{what}: that is no Alertrace"),
        }
    }
}

impl std::error::Error for No {}

/// Of an answer of `/ready`, what tells it from that of another program.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    /// `ready`.
    status: serde_json::Value,
    version: Option<String>,
    /// Of a problem.
    code: Option<String>,
    detail: String,
}

/// Asks `/ready` of the configured port.
pub(super) async fn ready(config: &Config) -> Result<(), No> {
    let scheme = if config.http.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}/ready", reachable(config.http.listen));
    let away = |e: reqwest::Error| No::Away(format!("{url}: {}", root(&e)));
    // Its own port, on this machine: a certificate for the name that others use is as good.
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .build()
        .map_err(&away)?;
    let answer = match client.get(&url).header("accept-language", "en").send().await {
        Ok(answer) => answer,
        // Somebody is there who speaks something else.
        Err(e) if !e.is_connect() && !e.is_timeout() => {
            return Err(No::Foreign(format!("{url}: {}", root(&e))));
        }
        Err(e) => return Err(away(e)),
    };
    let status = answer.status();
    let said: Said = answer.json().await.unwrap_or_default();
    match (status.is_success(), said.code) {
        (true, _) if said.status == "ready" && said.version.is_some() => Ok(()),
        (false, Some(_)) => Err(No::NotReady(format!("{url}: {} {}", status.as_u16(), said.detail))),
        _ => Err(No::Foreign(format!("{url}: {status}"))),
    }
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
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen {
        SocketAddr::V4(a) if a.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        a => a.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

/// The line of the table.
pub(super) fn check(ready: &Result<(), No>) -> Check {
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
        Err(No::Foreign(why)) => Check::fail(
            "server",
            title,
            Text::new(
                format!("en http.listen responde otro programa ({why})"),
                format!("another program answers at http.listen ({why})"),
            ),
            Text::new(
                "Deténgalo (ss -ltnp dice cuál es), o elija otro puerto en http.listen.",
                "Stop it (ss -ltnp says which it is), or choose another port in http.listen.",
            ),
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
