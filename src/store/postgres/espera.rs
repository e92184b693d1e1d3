//! A PostgreSQL that is not there yet: after a power cut, and behind `docker compose up`, it comes up beside
//! this process, and later.

use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::{Instant, sleep, timeout};

use super::{Base, Options, conexion};
use crate::store::{Error, Result};

/// Waits between two tries: from, to.
const ESPERA: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How long one try may take.
const INTENTO: Duration = Duration::from_secs(5);

/// Opens it as soon as it answers. What waiting cannot mend (a wrong password) is an error at once.
pub(in crate::store) async fn open(options: &Options, paciencia: Duration) -> Result<Base> {
    let (fin, mut espera) = (Instant::now() + paciencia, ESPERA.0);
    loop {
        let e = match attempt(options).await {
            Err(e) if e.is_away() => e,
            hecho => return hecho,
        };
        let quedan = fin.saturating_duration_since(Instant::now());
        if quedan.is_zero() {
            tracing::error!(
                waited_s = paciencia.as_secs(),
                "PostgreSQL has not come (database.start_wait_s)"
            );
            return Err(e);
        }
        tracing::warn!(error = %e, left_s = quedan.as_secs(), "PostgreSQL is not there yet; it is waited for");
        sleep(espera.min(quedan)).await;
        espera = (espera * 2).min(ESPERA.1);
    }
}

/// Looks whether it answers, and only then opens it: migrations are not cut off by impatience.
async fn attempt(options: &Options) -> Result<Base> {
    let conexion = conexion::options(&options.url, options.ca.as_deref())?;
    match timeout(INTENTO, conexion::connect(&conexion)).await {
        Ok(db) => db?.close().await?,
        Err(_) => return Err(Error::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
    Base::open(options).await
}
