//! The schema and its versions, embedded in the binary.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlitePool};

use super::{Error, Result};

/// (version, description, SQL), in order. A line is never changed once released.
const SQLITE: &[(i64, &str, &str)] = &[
    (1, "inicial", include_str!("../../migrations/sqlite/0001_inicial.sql")),
    (2, "sesiones mqtt", include_str!("../../migrations/sqlite/0002_sesiones_mqtt.sql")),
    (3, "comandos", include_str!("../../migrations/sqlite/0003_comandos.sql")),
    (4, "historia", include_str!("../../migrations/sqlite/0004_historia.sql")),
];

fn migrator(list: &'static [(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = list.iter().map(|(version, description, sql)| {
        let sql = AssertSqlSafe(*sql).into_sql_str();
        Migration::new(*version, Cow::Borrowed(*description), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Brings a SQLite database up to the newest version that this binary knows.
pub(super) async fn run_sqlite(pool: &SqlitePool) -> Result<()> {
    migrator(SQLITE).run(pool).await.map_err(|e| match e {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            Error::Newer(version)
        }
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => e.into(),
        other => Error::inconsistent(other),
    })
}
