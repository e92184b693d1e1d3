//! What can go wrong in the store, by what the caller can do about it.

use std::path::PathBuf;

use sqlx::error::{DatabaseError, ErrorKind};

/// Shorthand of this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique constraint. `on` names it: `table.column` (SQLite) or the constraint (PostgreSQL).
    #[error("{on} is taken")]
    Conflict {
        /// What was taken.
        on: String,
    },
    /// The database refuses this row for its content; the same row will be refused again.
    #[error("the database refuses the row: {0}")]
    Refused(String),
    /// The database cannot be reached, is full or busy: worth retrying. Of this transaction nothing was done.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// As `Unavailable`, where a commit was on its way: whether it was one is not known.
    #[error("the database did not say whether it committed: {0}")]
    Undecided(#[source] sqlx::Error),
    /// What is stored does not make sense to this version.
    #[error("the database holds what this version does not understand: {0}")]
    Inconsistent(String),
    /// Another process has the database.
    #[error("another alertrace is running on this database ({} is locked); stop it first", .0.display())]
    Locked(PathBuf),
    /// Another process has the lease on the database, and renews it.
    #[error("another alertrace is running on this database ({0}); stop it first")]
    Leased(String),
    /// Another process has taken the lease that this one had: nothing more is written.
    #[error("another alertrace has taken this database over ({0})")]
    Lost(String),
    /// SQLite would begin, empty, where the data has been in PostgreSQL; the file says that it has.
    #[error(
        "the data of this installation is in PostgreSQL (there is {}), and DATABASE_URL is not set: SQLite would begin \
         with nothing in it, and nothing was begun. Set DATABASE_URL as it was (beside docker compose POSTGRES_PASSWORD, \
         in .env); or, if SQLite is meant, remove that file",
        .0.display()
    )]
    Elsewhere(PathBuf),
    /// A newer version wrote the database.
    #[error(
        "the database has schema {schema}, and this alertrace ({}) knows schemas up to {known}: install {needs}, \
         or restore a backup of before",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The newest version that the database has.
        schema: i64,
        /// The newest that this binary knows.
        known: i64,
        /// What does know it, as a person would be told.
        needs: String,
    },
    /// There is no database.
    #[error("there is no database at {}", .0.display())]
    Absent(PathBuf),
    /// What a check of a database found.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The copy that is made before the schema changes could not be; the database is as it was.
    #[error(
        "the database is copied before its schema changes; that failed, and nothing was changed: {} cannot be \
         read or written",
        .path.display()
    )]
    NoCopy {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The same of PostgreSQL, by its own program.
    #[error(
        "the database is copied by pg_dump before its schema changes; that failed, and nothing was changed: {why}\n\
         Mend that and start again; or have a copy made elsewhere, by\n  {by_hand}\n\
         and then change the schema without another: alertrace migrate --without-copy"
    )]
    NoDump {
        /// Why.
        why: String,
        /// What a person would run, who knows the password.
        by_hand: String,
    },
    /// There is no room for it.
    #[error(
        "the database is copied to {} before its schema changes: that takes up to {needed} bytes, and {free} are \
         free; make room (or move older copies away) and start again; nothing was changed",
        .dir.display()
    )]
    NoRoom {
        /// Where it would be.
        dir: PathBuf,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that there are.
        free: u64,
    },
    /// A file that cannot be read or written.
    #[error("{} cannot be read or written", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether this is the conflict on `table.column`, however the database names it.
    #[must_use]
    pub fn conflicts_on(&self, table: &str, column: &str) -> bool {
        let Self::Conflict { on } = self else { return false };
        on.split(", ").any(|part| part == format!("{table}.{column}"))
            || *on == format!("{table}_{column}_key")
            || *on == format!("{table}_{column}")
    }

    /// What was to be written is at fault, and not the database: trying again changes nothing. What is
    /// stored and makes no sense is nobody's fault who sends something.
    #[must_use]
    pub const fn de_contenido(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Conflict { .. })
    }

    /// The database's server is not there, or not yet: waiting may be all it takes.
    #[must_use]
    pub fn is_away(&self) -> bool {
        use std::io::ErrorKind as Io;
        match self {
            Self::Unavailable(sqlx::Error::Io(e)) | Self::Undecided(sqlx::Error::Io(e)) => {
                !matches!(e.kind(), Io::PermissionDenied | Io::InvalidInput | Io::InvalidData)
            }
            Self::Unavailable(sqlx::Error::PoolTimedOut) | Self::Undecided(sqlx::Error::PoolTimedOut) => true,
            // A connection that is cut, a server that starts or stops, one that has no connection left.
            Self::Unavailable(sqlx::Error::Database(e)) | Self::Undecided(sqlx::Error::Database(e)) => e
                .code()
                .is_some_and(|c| c.starts_with("08") || matches!(&*c, "57P01" | "57P02" | "57P03" | "53300")),
            _ => false,
        }
    }

    /// What is stored is damaged, or of another version: another file mends that, and not waiting.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match self {
            Self::Inconsistent(_) | Self::Damaged(_) => true,
            // SQLITE_CORRUPT, SQLITE_NOTADB, with what they are extended by.
            Self::Unavailable(sqlx::Error::Database(e)) | Self::Undecided(sqlx::Error::Database(e)) => e
                .code()
                .filter(|code| code.len() < 5)
                .and_then(|code| code.parse::<i32>().ok())
                .is_some_and(|code| matches!(code & 0xff, 11 | 26)),
            _ => false,
        }
    }

    /// The server is stopping: whoever was to write may have, and does not say.
    #[must_use]
    pub const fn stopping() -> Self {
        Self::Undecided(sqlx::Error::PoolClosed)
    }

    /// Of a commit: what is known of any other statement is not known then.
    pub(super) fn of_commit(self) -> Self {
        match self {
            Self::Unavailable(e) => Self::Undecided(e),
            e => e,
        }
    }

    pub(super) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(super) fn inconsistent(what: impl std::fmt::Display) -> Self {
        Self::Inconsistent(what.to_string())
    }
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        match &e {
            sqlx::Error::Database(db) => of_database(db.as_ref()).unwrap_or(Self::Unavailable(e)),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::RowNotFound => Self::Inconsistent(e.to_string()),
            sqlx::Error::Encode(_) => Self::Refused(e.to_string()),
            _ => Self::Unavailable(e),
        }
    }
}

/// `None` = not a matter of content, so `Unavailable`.
fn of_database(e: &dyn DatabaseError) -> Option<Error> {
    match e.kind() {
        ErrorKind::UniqueViolation => {
            let on = e.constraint().map_or_else(
                // SQLite: "UNIQUE constraint failed: sensores.device_id"
                || e.message().rsplit("failed: ").next().unwrap_or_default().to_owned(),
                str::to_owned,
            );
            Some(Error::Conflict { on })
        }
        ErrorKind::ForeignKeyViolation | ErrorKind::NotNullViolation | ErrorKind::CheckViolation => {
            Some(Error::Refused(e.message().to_owned()))
        }
        _ => of_code(e.code().as_deref()?, e.message()),
    }
}

/// SQLite primary result codes (<https://www.sqlite.org/rescode.html>) and PostgreSQL classes
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) that speak of content.
fn of_code(code: &str, message: &str) -> Option<Error> {
    if let Ok(number) = code.parse::<i32>()
        && code.len() < 5
    {
        return match number & 0xff {
            // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH
            18..=20 => Some(Error::Refused(message.to_owned())),
            // SQLITE_ERROR: a missing table or column
            1 => Some(Error::Inconsistent(message.to_owned())),
            // Among them SQLITE_CORRUPT and SQLITE_NOTADB, as PostgreSQL's XX001: another file may mend that.
            _ => None,
        };
    }
    match code.get(..2)? {
        // A statement that a pooler mixed up, and a privilege that was taken away: not the row's fault.
        _ if matches!(code, "42P05" | "42501") => None,
        // 54: beyond what the database can hold, as a key of an index that is too long.
        "22" | "23" | "54" => Some(Error::Refused(message.to_owned())),
        "42" => Some(Error::Inconsistent(message.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_try_may_mend_is_left_to_be_tried_again() {
        for code in ["22021", "22P05", "23514", "54000"] {
            assert!(matches!(of_code(code, ""), Some(Error::Refused(_))), "{code}");
        }
        for code in ["42P01", "42703"] {
            assert!(matches!(of_code(code, ""), Some(Error::Inconsistent(_))), "{code}");
        }
        // Connections, resources, an administrator, serialization, read-only, a pooler's confusion, a privilege.
        for code in [
            "08000", "08006", "25006", "25P02", "26000", "40001", "40P01", "42501", "42P05", "53100",
            "53300", "55P03", "57014", "57P01", "57P03", "58030", "XX000", "XX001",
        ] {
            assert!(of_code(code, "").is_none(), "{code}");
        }
        // SQLite: locked, full, damaged (SQLITE_CORRUPT, and its SQLITE_CORRUPT_INDEX), no database at all.
        for code in ["5", "13", "11", "779", "26"] {
            assert!(of_code(code, "").is_none(), "{code}");
        }
        for e in [Error::Unavailable(sqlx::Error::PoolTimedOut), Error::inconsistent("a row")] {
            assert!(!e.de_contenido(), "{e}: nobody who sends a reading can help it");
        }
    }
}
