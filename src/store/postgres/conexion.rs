//! How a connection is made, and what can be known of it.

use std::path::Path;
use std::str::FromStr as _;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::Result;

/// What a URL asks for. `ca` makes an address that says nothing of TLS ask for all of it; with
/// `sslmode=require` it is checked against, as libpq does.
pub(super) fn options(url: &SecretString, ca: Option<&Path>) -> Result<PgConnectOptions> {
    let text = url.expose_secret();
    let options = PgConnectOptions::from_str(text)?;
    // A pooler refuses a connection that asks for what it does not know. Floats travel in binary.
    let options = options.extra_float_digits(None).application_name("alertrace");
    let Some(ca) = ca else { return Ok(options) };
    let options = options.ssl_root_cert(ca);
    let asked = text.split_once('?').is_some_and(|(_, query)| query.contains("sslmode"));
    let mode = match options.get_ssl_mode() {
        _ if !asked => PgSslMode::VerifyFull,
        PgSslMode::Require => PgSslMode::VerifyCa,
        mode => mode,
    };
    Ok(options.ssl_mode(mode))
}

/// One connection, outside the pool.
pub(super) async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    options.connect().await
}

/// Whether this process speaks to the server itself. A parameter of the connection is known to the session
/// that it opens; a transaction pooler either refuses it or does not pass it on.
pub(super) async fn is_direct(options: &PgConnectOptions) -> Result<bool> {
    let marked = options.clone().options([("alertrace.directa", "1")]);
    let mut db = match connect(&marked).await {
        Ok(db) => db,
        Err(sqlx::Error::Database(e)) => {
            // Not for the parameter's sake, if it fails without it too.
            connect(options).await?.close().await?;
            tracing::debug!(error = %e, "a pooler, since it refuses a parameter");
            return Ok(false);
        }
        Err(e) => return Err(e.into()),
    };
    let mut tx = db.begin().await?;
    let known: Option<String> = texto(&mut tx, "SELECT current_setting('alertrace.directa', true)").await?;
    tx.commit().await?;
    db.close().await?;
    Ok(known.as_deref() == Some("1"))
}

/// Whether a commit reaches the disk at all.
pub(super) async fn is_synced(pool: &PgPool) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let fsync = texto(&mut tx, "SELECT current_setting('fsync')").await?;
    tx.commit().await?;
    let synced = fsync.as_deref() == Some("on");
    if !synced {
        tracing::error!(
            "PostgreSQL runs with fsync = off: what is acknowledged may be lost with its machine"
        );
    }
    Ok(synced)
}

/// The one text that a statement without parameters answers, by the simple protocol.
pub(super) async fn texto(db: &mut PgConnection, sql: &'static str) -> Result<Option<String>> {
    use sqlx::Row as _;
    let fila = sqlx::raw_sql(sql).fetch_one(db).await?;
    Ok(fila.try_get(0)?)
}

/// The connection is gone, and so was nothing done that was asked of it.
pub(super) fn was_cut(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Io(e) => {
            e.kind() != std::io::ErrorKind::TimedOut && e.kind() != std::io::ErrorKind::ConnectionRefused
        }
        sqlx::Error::Database(e) => {
            e.code().is_some_and(|c| c.starts_with("08") || c == "57P01" || c == "57P02" || c == "57P05")
        }
        _ => false,
    }
}
