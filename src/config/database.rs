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
            Some(url) => parse(url.expose_secret()).unwrap_or_else(|| {
                r.invalid("database.url", ALLOWED_URL);
                Address::Sqlite(None)
            }),
        };
        let mut direct_url = None;
        if let Some(url) = r.secret("database.direct_url") {
            match parse(url.expose_secret()) {
                Some(Address::Postgres(url)) => direct_url = Some(url),
                _ => r.invalid("database.direct_url", ALLOWED_DIRECT),
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

fn parse(url: &str) -> Option<Address> {
    let (scheme, rest) = url.trim().split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        // Options behind `?` and `:memory:` would defeat the durability that the store sets up.
        "sqlite" if !rest.is_empty() && !rest.contains('?') && !rest.starts_with(':') => {
            Some(Address::Sqlite(Some(PathBuf::from(rest))))
        }
        "postgres" | "postgresql" => Some(Address::Postgres(of_postgres(rest))),
        driver if driver.starts_with("postgresql+") => Some(Address::Postgres(of_postgres(rest))),
        _ => None,
    }
}

/// asyncpg says `ssl` where libpq says `sslmode`.
fn of_postgres(rest: &str) -> SecretString {
    let Some((address, query)) = rest.split_once('?') else {
        return SecretString::from(format!("postgres://{rest}"));
    };
    let query = query.split('&').map(|pair| match pair.strip_prefix("ssl=") {
        Some("true") => String::from("sslmode=require"),
        Some("false") => String::from("sslmode=disable"),
        Some(mode) => format!("sslmode={mode}"),
        None => pair.to_owned(),
    });
    SecretString::from(format!("postgres://{address}?{}", query.collect::<Vec<_>>().join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<String> {
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
            ("postgresql+asyncpg://h/d?ssl=verify-full&x=1", "postgres://h/d?sslmode=verify-full&x=1"),
            ("postgresql+psycopg2://h/d?ssl=true", "postgres://h/d?sslmode=require"),
        ] {
            assert_eq!(parsed(url).as_deref(), Some(as_what), "{url}");
        }
        for url in [
            "sqlite://",
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite://a.db?mode=memory",
            "mysql://h/d",
            "a.db",
        ] {
            assert_eq!(parsed(url), None, "{url}");
        }
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
