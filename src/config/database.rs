//! `[database]`: where the data is. Only SQLite can be chosen in this version.
//!
//! A PostgreSQL address is recognised and refused with the reason, so that nobody's data lands in a file that they did
//! not ask for. Addresses may hold a password: they are secrets.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::reader::Reader;

const NO_POSTGRES: &str = "PostgreSQL is not selectable in this version; leave DATABASE_URL unset to use SQLite at \
                           data/alertrace.db";
const ALLOWED_URL: &str = "empty (SQLite in data_dir), or sqlite://PATH";

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// As written; `None` = SQLite in `data_dir`.
    pub url: Option<SecretString>,
    /// Address for migrations. Always `None` in this version.
    pub direct_url: Option<SecretString>,
    /// Authority of the server's certificate. Always `None` in this version.
    pub ca: Option<PathBuf>,
    sqlite_file: Option<PathBuf>,
}

impl Database {
    pub(super) fn read(r: &mut Reader) -> Self {
        let url = r.secret("database.url");
        let sqlite_file = url.as_ref().and_then(|url| match sqlite_path(url.expose_secret()) {
            Ok(path) => Some(path),
            Err(Url::Postgres) => {
                r.refuse("database.url", NO_POSTGRES);
                None
            }
            Err(Url::Other) => {
                r.invalid("database.url", ALLOWED_URL);
                None
            }
        });
        let direct_url = r.secret("database.direct_url");
        if direct_url.is_some() {
            r.refuse(
                "database.direct_url",
                "PostgreSQL is not selectable in this version; leave DIRECT_URL unset",
            );
        }
        let ca = Some(r.text("database.ca")).filter(|path| !path.is_empty()).map(PathBuf::from);
        if ca.is_some() {
            r.refuse("database.ca", "PostgreSQL is not selectable in this version; leave DATABASE_CA unset");
        }
        Self { url, direct_url, ca, sqlite_file }
    }

    /// The path of a `sqlite://` address.
    pub(super) fn sqlite_file(&self) -> Option<&Path> {
        self.sqlite_file.as_deref()
    }
}

/// What an address is that is not SQLite's.
#[derive(Debug, PartialEq)]
enum Url {
    Postgres,
    Other,
}

fn sqlite_path(url: &str) -> Result<PathBuf, Url> {
    let Some((scheme, rest)) = url.trim().split_once("://") else { return Err(Url::Other) };
    match scheme.to_ascii_lowercase().as_str() {
        // Options behind `?` and `:memory:` would defeat the durability that the store sets up.
        "sqlite" if !rest.is_empty() && !rest.contains('?') && !rest.starts_with(':') => {
            Ok(PathBuf::from(rest))
        }
        "postgres" | "postgresql" => Err(Url::Postgres),
        driver if driver.starts_with("postgresql+") => Err(Url::Postgres),
        _ => Err(Url::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        assert_eq!(sqlite_path("sqlite://data/a.db"), Ok(PathBuf::from("data/a.db")));
        assert_eq!(sqlite_path("sqlite:///srv/a.db"), Ok(PathBuf::from("/srv/a.db")));
        for url in ["postgres://u:p@h/d", "postgresql://h/d", "postgresql+asyncpg://h/d"] {
            assert_eq!(sqlite_path(url), Err(Url::Postgres), "{url}");
        }
        for url in [
            "sqlite://",
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite://a.db?mode=memory",
            "mysql://h/d",
            "a.db",
        ] {
            assert_eq!(sqlite_path(url), Err(Url::Other), "{url}");
        }
    }
}
