//! The copy that is made by itself before the schema changes: a dump, by PostgreSQL's own `pg_dump`, beside where
//! SQLite's copies are.
//!
//! Where it cannot be made nothing is changed, and whoever starts the server is told what to do: a migration is one
//! transaction, so what fails changes nothing, but what succeeds is not taken back by an older version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sqlx::Connection as _;

use super::super::backup::Unnamed;
use super::super::files::{self, with};
use super::super::{Error, Result};
use super::Options;
use super::volcado::Volcado;

/// How many of them are kept.
const KEPT: usize = 3;

/// Dumps the schema, which has this version. `recta` = there is a way to the server that leads through no pooler.
pub(super) async fn before_migrating(options: &Options, recta: bool, version: i64) -> Result<()> {
    let dir = options.data_dir.join("backups");
    files::private_dir(&dir).map_err(|source| Error::NoCopy { path: dir.clone(), source })?;
    let begin = format!("{}-v{version}", options.schema);
    let (date, _) = files::dated(&dir, &begin);
    let path = dir.join(format!("{begin}-{date}.dump"));
    let volcado = Volcado::new(options)?;
    let no_dump = |why: String| Error::NoDump { why, by_hand: volcado.dump_line(&path) };
    if !recta {
        let why = "DATABASE_URL leads through a pooler, and a dump is one long session; set DIRECT_URL to the server";
        return Err(no_dump(why.to_owned()));
    }
    // Of a start that was cut off: nothing else writes here while the lock is ours.
    files::remove_beginning(&dir, files::PARTIAL);
    // A dump is smaller than the tables, nobody knows by how much; a disk that it fills may be the server's own.
    super::super::copia::room(&dir, size(options).await?)?;
    let copy = Unnamed::new(&path, true)?;
    tracing::info!(schema = version, copy = %path.display(), "the schema changes; pg_dump copies the database");
    let mut command = tokio::process::Command::from(volcado.dump(copy.path()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => no_dump(String::from(
            "pg_dump is not in the PATH (Debian: apt install postgresql-client; the version of the server, or a newer one). \
             A container has none: see \"In a container\" in docs/operations.md (docker compose stop alertrace, pg_dump in \
             the database's container, docker compose run --rm alertrace migrate --without-copy)",
        )),
        _ => no_dump(format!("pg_dump does not start: {e}")),
    })?;
    if !output.status.success() {
        return Err(no_dump(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    copy.name()?;
    remove_old(&dir, &options.schema, version, &path);
    Ok(())
}

/// Bytes of the schema's tables, without their indexes.
async fn size(options: &Options) -> Result<u64> {
    let mut db = super::look(options).await?;
    // A transaction, so that a pooler keeps the two messages of a query together.
    let mut tx = db.begin_with("BEGIN READ ONLY").await?;
    let bytes: i64 = sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(pg_table_size(c.oid)), 0) AS BIGINT) FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'",
    )
    .persistent(false)
    .bind(&options.schema)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    db.close().await?;
    Ok(bytes.unsigned_abs())
}

/// Keeps the newest of the others. One of the same version is of a start that failed after it: a start that is tried
/// again and again must not push older versions out.
fn remove_old(dir: &Path, schema: &str, version: i64, new: &Path) {
    let mut there: Vec<(String, i64, PathBuf)> = fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().filter_map(|entry| named(entry.path(), schema)).collect(),
    );
    there.retain(|(_, _, path)| path != new);
    there.sort();
    let (same, mut others): (Vec<_>, Vec<_>) = there.into_iter().partition(|(_, v, _)| *v == version);
    let past = others.len().saturating_sub(KEPT - 1);
    for (_, _, old) in same.into_iter().chain(others.drain(..past)) {
        for path in [with(&old, ".sha256"), old] {
            if let Err(e) = fs::remove_file(&path)
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(error = %e, copy = %path.display(), "an old copy cannot be removed");
            }
        }
    }
}

/// `{schema}-v{version}-{date}.dump`, by its date
fn named(path: PathBuf, schema: &str) -> Option<(String, i64, PathBuf)> {
    let name = path.file_name()?.to_str()?.strip_prefix(schema)?.strip_prefix("-v")?.strip_suffix(".dump")?;
    let (version, date) = name.split_once('-')?;
    Some((date.to_owned(), version.parse().ok()?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_version_is_kept_and_three_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            fs::write(dir.path().join(name), name).unwrap();
            dir.path().join(name)
        };
        let others = ["otra-v1-20250101T000000Z.dump", "a-v1-20250101T000000Z.db", "a-replaced-2025.dump"];
        for name in others {
            make(name);
        }
        for name in
            ["a-v1-20250101T000000Z.dump", "a-v2-20250102T000000Z.dump", "a-v10-20250103T000000Z.dump"]
        {
            make(name);
            make(&format!("{name}.sha256"));
        }
        make("a-v11-20250104T000000Z.dump");
        let new = make("a-v11-20250105T000000Z.dump");
        remove_old(dir.path(), "a", 11, &new);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.retain(|name| !others.contains(&name.as_str()));
        left.sort();
        let expected = [
            "a-v10-20250103T000000Z.dump",
            "a-v10-20250103T000000Z.dump.sha256",
            "a-v11-20250105T000000Z.dump",
            "a-v2-20250102T000000Z.dump",
            "a-v2-20250102T000000Z.dump.sha256",
        ];
        assert_eq!(left, expected, "and what is not ours to remove");
        assert!(others.iter().all(|name| dir.path().join(name).exists()));
    }
}
