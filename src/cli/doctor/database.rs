//! The database: whether it answers, which it is, and how its schema stands.

use super::{Check, PATIENCE, Text};
use crate::app;
use crate::cli::migrate;
use crate::config::{Address, Config};
use crate::store::mirada::Donde;
use crate::store::{Error, State, refuse_unknown};

/// Its name, for people.
pub(super) fn kind(config: &Config) -> &'static str {
    match config.database.address {
        Address::Postgres(_) => "PostgreSQL",
        Address::Sqlite(_) => "SQLite",
    }
}

pub(super) async fn check(config: &Config) -> Check {
    let (kind, title) = (kind(config), || Text::new("Base de datos", "Database"));
    let failed = |e: Error| {
        let said = format!("{kind}: {}", chain(&e));
        Check::fail("database", title(), Text::new(said.clone(), said), remedy(config, &e))
    };
    let steps = match tokio::time::timeout(PATIENCE, migrate::steps(config)).await {
        Ok(Ok(steps)) => steps,
        Ok(Err(e)) => return failed(e),
        Err(_) => {
            let detail = Text::new(format!("{kind}: no responde"), format!("{kind}: it does not answer"));
            return Check::fail("database", title(), detail, unreachable(config));
        }
    };
    if let Err(e) = refuse_unknown(&steps) {
        return failed(e);
    }
    let schema = steps.iter().filter(|s| s.state != State::Pending).map(|s| s.version).max();
    let schema = schema.map_or_else(|| String::from("–"), |v| v.to_string());
    let pending = steps.iter().filter(|s| s.state == State::Pending).count();
    let version = version(config).await.unwrap_or_else(|| kind.to_owned());
    let detail = Text::new(
        format!("{version}, esquema {schema}, {pending} pasos pendientes"),
        format!("{version}, schema {schema}, {pending} steps pending"),
    );
    if pending > 0 {
        let remedy = Text::new(
            "Se aplican en el próximo inicio, con copia previa; o ahora: alertrace migrate",
            "They are applied at the next start, after a copy is made; or now: alertrace migrate",
        );
        return Check::warn("database", title(), detail, remedy);
    }
    Check::ok("database", title(), detail)
}

/// Which it is; `None` when there is none yet.
async fn version(config: &Config) -> Option<String> {
    let (path, options) = (config.sqlite_path(), app::postgres_options(config));
    let there = options.as_ref().map_or(Donde::Sqlite(&path), Donde::Postgres);
    tokio::time::timeout(PATIENCE, there.version()).await.ok()?.ok()
}

/// An error with what it comes from, each said once.
fn chain(e: &dyn std::error::Error) -> String {
    let (mut said, mut cause) = (e.to_string(), e.source());
    while let Some(e) = cause {
        let next = e.to_string();
        if !said.contains(&next) {
            said = format!("{said}: {next}");
        }
        cause = e.source();
    }
    said
}

fn remedy(config: &Config, e: &Error) -> Text {
    match e {
        Error::Newer { .. } => Text::new(
            "Actualice alertrace: una versión más nueva escribió esta base.",
            "Update alertrace: a newer version wrote this database.",
        ),
        damaged if damaged.is_damaged() && matches!(config.database.address, Address::Sqlite(_)) => {
            Text::new(
                "Restaure una copia: alertrace restore --help",
                "Put a backup back: alertrace restore --help",
            )
        }
        _ => unreachable(config),
    }
}

/// What to do about one that cannot be had.
fn unreachable(config: &Config) -> Text {
    match &config.database.address {
        Address::Postgres(_) => Text::new(
            "Compruebe DATABASE_URL y que el servidor PostgreSQL acepte conexiones.",
            "Look at DATABASE_URL, and whether the PostgreSQL server takes connections.",
        ),
        Address::Sqlite(_) => {
            let path = config.sqlite_path();
            let path = path.display();
            Text::new(
                format!(
                    "Ejecute doctor con el usuario de alertrace; {path} debe ser suyo, y nadie más debe bloquearlo."
                ),
                format!(
                    "Run doctor as the user that runs alertrace; {path} has to be theirs, and nobody else may lock it."
                ),
            )
        }
    }
}
