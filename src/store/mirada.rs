//! What `alertrace doctor` looks up beside a running server, by a connection of its own: which database that is, and
//! whether what the server says it has stored is there.

use std::path::Path;

use sqlx::{Connection as _, Row as _};

use super::postgres::{self, Options};
use super::{Result, backup};

/// The payload that is kept under a topic.
const RETENIDO: &str = "SELECT payload FROM mqtt_retenidos WHERE topic = $1";

/// Where to look.
#[derive(Debug)]
pub enum Donde<'a> {
    /// The file of a SQLite database.
    Sqlite(&'a Path),
    /// A PostgreSQL server.
    Postgres(&'a Options),
}

impl Donde<'_> {
    /// The database, with its version, for people.
    ///
    /// # Errors
    /// [`super::Error::Absent`], [`super::Error::Unavailable`].
    pub async fn version(&self) -> Result<String> {
        match self {
            Self::Sqlite(path) => {
                let mut db = backup::look(path).await?;
                let version: String =
                    sqlx::query("SELECT sqlite_version()").fetch_one(&mut db).await?.try_get(0)?;
                db.close().await?;
                Ok(format!("SQLite {version}"))
            }
            Self::Postgres(options) => {
                let mut db = postgres::look(options).await?;
                let sql = "SELECT current_setting('server_version')";
                let version: String = sqlx::raw_sql(sql).fetch_one(&mut db).await?.try_get(0)?;
                db.close().await?;
                Ok(format!("PostgreSQL {version}"))
            }
        }
    }

    /// What the broker keeps under `topic`, as it is committed now.
    ///
    /// # Errors
    /// [`super::Error::Absent`], [`super::Error::Unavailable`].
    pub async fn retenido(&self, topic: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Sqlite(path) => {
                let mut db = backup::look(path).await?;
                let fila = sqlx::query(RETENIDO).bind(topic).fetch_optional(&mut db).await?;
                db.close().await?;
                Ok(fila.map(|f| f.try_get(0)).transpose()?)
            }
            Self::Postgres(options) => {
                let mut db = postgres::look(options).await?;
                let mut tx = db.begin_with("BEGIN READ ONLY").await?;
                postgres::search(&mut tx, &options.schema).await?;
                let fila =
                    sqlx::query(RETENIDO).persistent(false).bind(topic).fetch_optional(&mut *tx).await?;
                tx.commit().await?;
                db.close().await?;
                Ok(fila.map(|f| f.try_get(0)).transpose()?)
            }
        }
    }
}
