//! The database that `[database]` names: opened, and looked after for as long as it is used.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config};
use crate::domain::Clock;
use crate::lifecycle::{Tasks, Tokens};
use crate::store::{self, Store};

/// Opens what `[database]` names.
///
/// # Errors
/// As [`Store::open_sqlite`] and [`Store::open_postgres`].
pub async fn open_store(config: &Config) -> store::Result<Store> {
    if let Some(options) = postgres_options(config) {
        return Store::open_postgres(&options).await;
    }
    let options = store::Options {
        readers: config.store.readers,
        busy_timeout: Duration::from_millis(config.store.busy_timeout_ms),
    };
    Store::open_sqlite(&config.sqlite_path(), options).await
}

/// As [`open_store`], for a server: PostgreSQL may come up later than it does.
pub(super) async fn await_store(config: &Config) -> store::Result<Store> {
    match postgres_options(config) {
        Some(options) => {
            let paciencia = Duration::from_secs(config.database.start_wait_s);
            Store::await_postgres(&options, paciencia).await
        }
        None => open_store(config).await,
    }
}

/// How PostgreSQL is reached; `None` = the data is in SQLite.
#[must_use]
pub fn postgres_options(config: &Config) -> Option<store::PostgresOptions> {
    let database = &config.database;
    let config::Address::Postgres(url) = &database.address else { return None };
    Some(store::PostgresOptions {
        url: url.clone(),
        direct_url: database.direct_url.clone(),
        ca: database.ca.clone(),
        schema: database.schema.clone(),
        max_connections: database.max_connections,
        acquire_timeout: Duration::from_millis(database.acquire_timeout_ms),
        data_dir: config.data_dir.clone(),
        copy: database.copy_before_migrating,
    })
}

/// What the database needs for as long as it is used.
pub(super) fn keep(
    store: &Store,
    clock: &Arc<dyn Clock>,
    retention: Duration,
    tasks: &mut Tasks,
    tokens: &Tokens,
) {
    tasks.spawn("the lease on the database", store.clone().keep_lease(tokens.parar.clone()));
    let months = partitions(store.clone(), clock.clone(), retention, tokens.parar.clone());
    tasks.spawn("the partitions of readings", months);
}

/// Makes room for readings ahead of time and drops what is past its days, now and every hour.
async fn partitions(
    store: Store,
    clock: Arc<dyn Clock>,
    retention: Duration,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut every = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let now = clock.now();
        if let Err(e) = store.keep_partitions(now, now.minus(retention)).await {
            tracing::warn!(error = %e, "the partitions of readings cannot be looked after now");
            every.reset_after(Duration::from_secs(60));
        }
    }
}
