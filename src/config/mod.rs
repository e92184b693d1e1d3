//! Configuration: one typed struct a section, read once at start.
//!
//! Four layers, the later one winning: `default.toml` (compiled in), `config/alertrace.toml` or `--config FILE`, `.env`,
//! the environment. Where each value came from is kept until it has been checked, so that a message can say where to
//! go and change it, and every mistake is reported at once. Nothing is looked up behind the caller's back: the
//! environment is a parameter ([`Sources`]), and what is asked for but not built yet is an error, never ignored.
//! Secrets are [`SecretString`](secrecy::SecretString)s: `Debug` does not show them.

mod alias;
mod database;
mod error;
mod http;
mod identity;
mod layers;
mod mail;
mod mqtt;
mod origin;
mod reader;
pub mod secrets;
mod sections;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use database::{Address, Database};
pub use error::{Error, Problem};
pub use http::Http;
pub use identity::{Identity, JwtAlgorithm, Registration, Supabase};
pub use layers::Place;
pub use mail::{Mail, MailTransport};
pub use mqtt::{ClientCerts, Mqtt};
pub use origin::OriginPattern;
pub use sections::{Ingest, Log, LogFormat, Shutdown, Store};
pub use tls::Tls;

use reader::Reader;

/// The file that is read when no `--config` is given, if it exists.
pub const DEFAULT_FILE: &str = "config/alertrace.toml";

/// The defaults, as compiled in: every key with a comment.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Everything the server can be told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of everything the server writes.
    pub data_dir: PathBuf,
    /// Name of the deployment, for logs.
    pub environment: String,
    /// `[http]`
    pub http: Http,
    /// `[mqtt]`
    pub mqtt: Mqtt,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[store]`
    pub store: Store,
    /// `[database]`
    pub database: Database,
    /// `[identity]`
    pub identity: Identity,
    /// `[mail]`
    pub mail: Mail,
    /// `[tls]`
    pub tls: Tls,
    /// `[log]`
    pub log: Log,
    /// `[shutdown]`
    pub shutdown: Shutdown,
}

/// Where configuration comes from. `Sources::default()` names nothing, and so gives the defaults: what a test starts from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file that was asked for: it must exist, and takes the place of `default_file`.
    pub config_file: Option<PathBuf>,
    /// A file that is read if it exists.
    pub default_file: Option<PathBuf>,
    /// A file of `NAME=value` lines, read if it exists. Names that are not Alertrace's are left alone.
    pub dotenv: Option<PathBuf>,
    /// The environment. Names that are not Alertrace's are left alone.
    pub env: BTreeMap<String, String>,
}

impl Sources {
    /// What a process started by a person or a service manager reads: `config_file` or [`DEFAULT_FILE`], `.env` in the
    /// working directory, and the process's environment. The only place that looks at any of them.
    #[must_use]
    pub fn from_process(config_file: Option<PathBuf>) -> Self {
        Self {
            config_file,
            default_file: Some(PathBuf::from(DEFAULT_FILE)),
            dotenv: Some(PathBuf::from(".env")),
            // Lossy, so that a foreign variable in another encoding does no harm; one of ours is refused in `layers`.
            env: std::env::vars_os()
                .map(|(name, value)| {
                    (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
                })
                .collect(),
        }
    }
}

/// Reads, merges and checks the configuration.
///
/// # Errors
/// Every problem found, together: unreadable files, unknown keys, values of the wrong type or out of range, and what is
/// asked for but not available. Each names the key and where its value came from.
pub fn load(sources: &Sources) -> Result<Config, Error> {
    let mut problems = Vec::new();
    let values = layers::merge(sources, &mut problems);
    let mut reader = Reader::new(values, problems);
    let config = Config::read(&mut reader);
    reader.finish()?;
    Ok(config)
}

impl Config {
    fn read(r: &mut Reader) -> Self {
        let config = Self {
            data_dir: r.path("data_dir"),
            environment: r.required_text("environment"),
            http: Http::read(r),
            mqtt: Mqtt::read(r),
            ingest: Ingest::read(r),
            store: Store::read(r),
            database: Database::read(r),
            identity: Identity::read(r),
            mail: Mail::read(r),
            tls: Tls::read(r),
            log: Log::read(r),
            shutdown: Shutdown::read(r),
        };
        if config.store.max_bytes > 0 && matches!(config.database.address, Address::Postgres(_)) {
            r.refuse(
                "store.max_gb",
                "this is for SQLite: rows that are deleted leave PostgreSQL's files as large as they are, so a budget \
                 could not be kept there; set store.retention_days, or an empresa's own days, to what its disk holds \
                 (docs/operations.md)",
            );
        }
        if config.identity.confirm_email && config.mail.transport == MailTransport::Off {
            r.refuse("identity.confirm_email", "nobody could confirm anything: mail.transport is off");
        }
        config
    }

    /// What is allowed, but should be said at start. One sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.http.listen.ip().is_loopback() && !self.http.tls && !self.http.behind_proxy {
            warnings.push(format!(
                "http.listen is {}: passwords and tokens cross the network in clear; set http.tls = true, or put a proxy \
                 that speaks TLS in front and set http.behind_proxy = true, or listen on 127.0.0.1",
                self.http.listen
            ));
        }
        if self.mail.transport == MailTransport::Log {
            warnings.push(String::from(
                "mail.transport is \"log\": links that confirm an e-mail or choose another password are written to the log, \
                 and whoever reads it can use them",
            ));
        }
        if self.identity.supabase.as_ref().is_some_and(|s| s.service_role_key.is_none()) {
            warnings.push(String::from(
                "identity.supabase_service_role_key is empty: accounts are made by Supabase's public sign-up, so people may \
                 have to confirm their e-mail first, and an account whose registration fails half-way stays there",
            ));
        }
        warnings
    }

    /// Whether anything that is served needs the certificates of `[tls]`.
    #[must_use]
    pub fn needs_certificates(&self) -> bool {
        self.http.tls || self.mqtt.tls_listen.is_some()
    }

    /// The directory that grows with what is kept: the SQLite database's, or `data_dir` when it is elsewhere.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        match &self.database.address {
            Address::Postgres(_) => self.data_dir.clone(),
            Address::Sqlite(_) => match self.sqlite_path().parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
                _ => PathBuf::from("."),
            },
        }
    }

    /// The SQLite database's file, where there is one: the path of `database.url`, or `alertrace.db` in `data_dir`.
    #[must_use]
    pub fn sqlite_path(&self) -> PathBuf {
        match &self.database.address {
            Address::Sqlite(Some(path)) => path.clone(),
            _ => self.data_dir.join("alertrace.db"),
        }
    }
}
