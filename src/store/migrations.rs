//! The schema and its versions, embedded in the binary.
//!
//! Beside each version the database keeps which Alertrace is the first to know it, so that an older binary,
//! which cannot know, can say what to install.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr, SqliteConnection, SqlitePool};

use super::{Error, Result};

/// (version, description, SQL), in order. A line is never changed once released.
pub(super) type Lista = &'static [(i64, &'static str, &'static str)];

/// See [`Lista`].
pub(super) const SQLITE: Lista = &[
    (1, "inicial", include_str!("../../migrations/sqlite/0001_inicial.sql")),
    (2, "sesiones mqtt", include_str!("../../migrations/sqlite/0002_sesiones_mqtt.sql")),
    (3, "comandos", include_str!("../../migrations/sqlite/0003_comandos.sql")),
    (4, "historia", include_str!("../../migrations/sqlite/0004_historia.sql")),
    (5, "recursos", include_str!("../../migrations/sqlite/0005_recursos.sql")),
    (6, "auditoria", include_str!("../../migrations/sqlite/0006_auditoria.sql")),
    (7, "generacion", include_str!("../../migrations/sqlite/0007_generacion.sql")),
    (8, "identidad", include_str!("../../migrations/sqlite/0008_identidad.sql")),
    (9, "totp", include_str!("../../migrations/sqlite/0009_totp.sql")),
    (10, "reactivacion", include_str!("../../migrations/sqlite/0010_reactivacion.sql")),
    (11, "testamentos", include_str!("../../migrations/sqlite/0011_testamentos.sql")),
];

/// The first Alertrace that knows a version of the schema, on either database.
const SINCE: &[(i64, &str)] = &[
    (1, "0.1.0"),
    (2, "0.1.0"),
    (3, "0.1.0"),
    (4, "0.1.0"),
    (5, "0.1.0"),
    (6, "0.1.0"),
    (7, "0.1.0"),
    (8, "0.1.0"),
    (9, "0.1.0"),
    (10, "0.1.0"),
    (11, "0.1.0"),
];

/// A version of the schema, as one database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// What it brought.
    pub description: String,
    /// Whether the database has it.
    pub state: State,
}

/// See [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The database has it.
    Applied,
    /// The next start, or `alertrace migrate`, applies it.
    Pending,
    /// The database has it, and this binary does not know it.
    Unknown,
}

/// What a database says of a version that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) version: i64,
    pub(super) description: String,
}

/// What is written beside a version: what it brought, and who is the first to know it.
pub(super) fn described(version: i64, description: &str) -> String {
    let since = SINCE.iter().find(|(v, _)| *v == version).map_or("?", |(_, since)| since);
    format!("{description} (alertrace {since})")
}

/// Which Alertrace that names; `None` = written before this was.
pub(super) fn needed(description: &str) -> Option<&str> {
    description.rsplit_once("(alertrace ")?.1.strip_suffix(')')
}

/// [`Error::Newer`], when the database has a version that is not `known`.
pub(super) fn check(known: Lista, applied: &[Applied]) -> Result<()> {
    refuse_unknown(&steps(known, applied.to_vec()))
}

/// Refuses a database that has a version which this binary does not know.
///
/// # Errors
/// [`Error::Newer`].
pub fn refuse_unknown(steps: &[Step]) -> Result<()> {
    let unknown = |s: &&Step| s.state == State::Unknown;
    let Some(newest) = steps.iter().filter(unknown).max_by_key(|s| s.version) else { return Ok(()) };
    let known = steps.iter().filter(|s| !unknown(s)).map(|s| s.version).max();
    Err(Error::Newer {
        schema: newest.version,
        known: known.unwrap_or_default(),
        needs: needed(&newest.description)
            .map_or_else(|| String::from("a newer alertrace"), |v| format!("alertrace {v} or newer")),
    })
}

/// Every version, whether known here or there.
pub(super) fn steps(known: Lista, applied: Vec<Applied>) -> Vec<Step> {
    let has = |version| applied.iter().any(|a| a.version == version);
    let ours = known.iter().map(|(version, description, _)| Step {
        version: *version,
        description: described(*version, description),
        state: if has(*version) { State::Applied } else { State::Pending },
    });
    let mut steps: Vec<Step> = ours.collect();
    for Applied { version, description } in applied {
        if !known.iter().any(|(v, ..)| *v == version) {
            steps.push(Step { version, description, state: State::Unknown });
        }
    }
    steps
}

/// What a SQLite database has; nothing, when it is new or no database of ours.
pub(super) async fn applied(db: &mut SqliteConnection) -> Result<Vec<Applied>> {
    let there = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'");
    if there.fetch_optional(&mut *db).await?.is_none() {
        return Ok(Vec::new());
    }
    let sql = "SELECT version, description FROM _sqlx_migrations ORDER BY version";
    let rows = sqlx::query(sql).fetch_all(db).await?;
    let row = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Applied { version: row.try_get(0)?, description: row.try_get(1)? })
    };
    rows.iter().map(row).collect()
}

fn migrator(list: Lista) -> Migrator {
    let migrations = list.iter().map(|(version, description, sql)| {
        let sql = AssertSqlSafe(*sql).into_sql_str();
        let description = Cow::Owned(described(*version, description));
        Migration::new(*version, description, MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Brings a SQLite database up to the newest version that this binary knows. It has been [`check`]ed.
pub(super) async fn run_sqlite(pool: &SqlitePool) -> Result<()> {
    migrator(SQLITE).run(pool).await.map_err(|e| match e {
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => e.into(),
        other => Error::inconsistent(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_says_who_is_the_first_to_know_it() {
        let versions = |list: Lista| list.iter().map(|(v, ..)| *v).collect::<Vec<_>>();
        let since: Vec<i64> = SINCE.iter().map(|(v, _)| *v).collect();
        assert_eq!(versions(SQLITE), since);
        assert_eq!(versions(super::super::postgres::migraciones::LISTA), since);
        for (version, since) in SINCE {
            assert_eq!(needed(&described(*version, "algo (nuevo)")), Some(*since));
        }
        assert_eq!(needed("inicial"), None);
    }

    #[test]
    fn a_version_that_is_not_known_names_what_to_install() {
        let applied =
            |version, description: &str| Applied { version, description: String::from(description) };
        let newer = [applied(1, "inicial"), applied(90, "x (alertrace 7.1.0)"), applied(80, "y")];
        let error = check(SQLITE, &newer).unwrap_err().to_string();
        let newest = format!("up to {}", SQLITE.last().unwrap().0);
        for part in ["schema 90", &newest, "alertrace 7.1.0 or newer"] {
            assert!(error.contains(part), "{error}");
        }
        let steps = steps(SQLITE, newer.to_vec());
        let state = |v| steps.iter().find(|s| s.version == v).unwrap().state;
        assert_eq!((state(1), state(2), state(90)), (State::Applied, State::Pending, State::Unknown));
        check(SQLITE, &newer[..1]).unwrap();
    }
}
