//! `[database]`: where the data is, and how PostgreSQL is reached.
//!
//! An address may hold a password: it is a secret, and never repeated. The forms that other drivers take
//! (`postgresql+asyncpg://`, `?ssl=require`) are put into the one that PostgreSQL's own library takes.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::reader::Reader;

const ALLOWED_URL: &str =
    "empty (SQLite in data_dir), sqlite://PATH, or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
const ALLOWED_DIRECT: &str = "empty, or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
/// What may stand behind `?` in a PostgreSQL address.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// What other drivers want to be told and this one decides by itself: how statements are prepared behind a pooler,
/// how many connections there are, how long one is waited for.
const NOT_OURS: [&str; 9] = [
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "connect_timeout",
    "command_timeout",
    "statement_cache_size",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "target_session_attrs",
];
const FOR_POSTGRES: &str =
    "this is for PostgreSQL, and DATABASE_URL does not name one; set DATABASE_URL, or unset this";

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// Where the data is.
    pub address: Address,
    /// PostgreSQL for migrations, past a pooler.
    pub direct_url: Option<SecretString>,
    /// Authority of the server's certificate.
    pub ca: Option<PathBuf>,
    /// The schema of PostgreSQL that everything is in.
    pub schema: String,
    /// Connections to PostgreSQL at most.
    pub max_connections: u32,
    /// Milliseconds that a caller waits for a connection.
    pub acquire_timeout_ms: u64,
    /// Seconds that a server which starts waits for PostgreSQL.
    pub start_wait_s: u64,
    /// Whether PostgreSQL's data is copied before the schema changes.
    pub copy_before_migrating: bool,
}

/// Where the data is.
#[derive(Debug, Clone)]
pub enum Address {
    /// A file; `None` = in `data_dir`.
    Sqlite(Option<PathBuf>),
    /// `postgres://…`
    Postgres(SecretString),
}

impl Database {
    pub(super) fn read(r: &mut Reader) -> Self {
        let address = match r.secret("database.url") {
            None => Address::Sqlite(None),
            Some(url) => parse(url.expose_secret()).unwrap_or_else(|wrong| {
                wrong.say(r, "database.url", ALLOWED_URL);
                Address::Sqlite(None)
            }),
        };
        let mut direct_url = None;
        if let Some(url) = r.secret("database.direct_url") {
            match parse(url.expose_secret()) {
                Ok(Address::Postgres(url)) => direct_url = Some(url),
                Ok(Address::Sqlite(_)) => r.invalid("database.direct_url", ALLOWED_DIRECT),
                Err(wrong) => wrong.say(r, "database.direct_url", ALLOWED_DIRECT),
            }
        }
        let ca = Some(r.text("database.ca")).filter(|path| !path.is_empty()).map(PathBuf::from);
        if matches!(address, Address::Sqlite(_)) {
            if direct_url.is_some() {
                r.refuse("database.direct_url", FOR_POSTGRES);
            }
            if ca.is_some() {
                r.refuse("database.ca", FOR_POSTGRES);
            }
        }
        let schema = r.required_text("database.schema");
        if !is_name(&schema) {
            r.invalid("database.schema", "a name of lower-case letters, digits and _, 63 at most, not pg_…");
        }
        Self {
            address,
            direct_url,
            ca,
            schema,
            // The writer reads beside its transaction, and people read besides.
            max_connections: r.integer("database.max_connections", 4..=1000),
            acquire_timeout_ms: r.integer("database.acquire_timeout_ms", 100..=600_000),
            start_wait_s: r.integer("database.start_wait_s", 0..=86_400),
            copy_before_migrating: r.boolean("database.copy_before_migrating"),
        }
    }
}

/// As PostgreSQL takes it without quotes.
fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    first
        && name.len() <= 63
        && !name.starts_with("pg_")
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What is wrong with an address.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// It is none.
    Form,
    /// It asks for this, which is not known here. Not its value, which may be a secret.
    Parameter(String),
}

impl Wrong {
    fn say(self, r: &mut Reader, key: &str, allowed: &str) {
        match self {
            Self::Form => r.invalid(key, allowed),
            Self::Parameter(name) => r.refuse(
                key,
                &format!(
                    "the parameter {name:?} is not known; take it out (known are {})",
                    PARAMETERS.join(", ")
                ),
            ),
        }
    }
}

fn parse(url: &str) -> Result<Address, Wrong> {
    let (scheme, rest) = url.trim().split_once("://").ok_or(Wrong::Form)?;
    match scheme.to_ascii_lowercase().as_str() {
        // Options behind `?` and `:memory:` would defeat the durability that the store sets up.
        "sqlite" if !rest.is_empty() && !rest.contains('?') && !rest.starts_with(':') => {
            Ok(Address::Sqlite(Some(PathBuf::from(rest))))
        }
        "postgres" | "postgresql" => of_postgres(rest),
        driver if driver.starts_with("postgresql+") => of_postgres(rest),
        _ => Err(Wrong::Form),
    }
}

/// asyncpg says `ssl` where libpq says `sslmode`.
fn of_postgres(rest: &str) -> Result<Address, Wrong> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value) {
            ("ssl", "true") => kept.push(String::from("sslmode=require")),
            ("ssl", "false") => kept.push(String::from("sslmode=disable")),
            ("ssl", mode) => kept.push(format!("sslmode={mode}")),
            (name, _) if PARAMETERS.contains(&name) => kept.push(pair.to_owned()),
            (name, _) if NOT_OURS.contains(&name) => {}
            (name, _) => return Err(Wrong::Parameter(name.to_owned())),
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok(Address::Postgres(SecretString::from(format!("postgres://{address}{query}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<String, Wrong> {
        parse(url).map(|address| match address {
            Address::Sqlite(path) => path.unwrap_or_default().display().to_string(),
            Address::Postgres(url) => url.expose_secret().to_owned(),
        })
    }

    #[test]
    fn addresses_are_told_apart() {
        for (url, as_what) in [
            ("sqlite://data/a.db", "data/a.db"),
            ("sqlite:///srv/a.db", "/srv/a.db"),
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            ("postgresql://h/d?sslmode=require", "postgres://h/d?sslmode=require"),
            (
                "postgresql+asyncpg://h/d?ssl=verify-full&options=x",
                "postgres://h/d?sslmode=verify-full&options=x",
            ),
            ("postgresql://h/d?pgbouncer=true&connection_limit=1", "postgres://h/d"),
            ("postgresql+psycopg2://h/d?ssl=true", "postgres://h/d?sslmode=require"),
        ] {
            assert_eq!(parsed(url).as_deref(), Ok(as_what), "{url}");
        }
        for url in [
            "sqlite://",
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite://a.db?mode=memory",
            "mysql://h/d",
            "a.db",
        ] {
            assert_eq!(parsed(url), Err(Wrong::Form), "{url}");
        }
        let asked = parsed("postgres://h/d?sslmode=require&sslpassword=horse");
        assert_eq!(asked, Err(Wrong::Parameter(String::from("sslpassword"))));
    }

    #[test]
    fn names_need_no_quotes() {
        for good in ["alertrace", "_a1", "finca_norte"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "Alertrace", "1a", "a-b", "a\"b", "pg_catalog", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
