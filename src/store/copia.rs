//! The copy that is made by itself before the schema changes: the files as the older version left them,
//! byte for byte, so that version can go on with them.
//!
//! The lock is ours, so nobody writes. What a crash has left in the WAL belongs to the database, and is
//! copied beside it under the name where SQLite looks for it. Nothing is changed before the copy is synced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::Connection as _;

use super::files::{self, parent, with};
use super::migrations::{self, SQLITE};
use super::{Error, Result, backup};

/// How many of them are kept.
const KEPT: usize = 3;
/// Bytes that are left free beside the copy, for the change itself to begin.
const SPARE: u64 = 16 << 20;

/// Where they are, and what else is put aside: beside the database, so that it is on the same disk.
pub(super) fn dir(db: &Path) -> PathBuf {
    parent(db).join("backups")
}

/// Copies the database at `db` if its schema is about to change; refuses one that is newer.
pub(super) async fn before_migrating(db: &Path) -> Result<()> {
    if fs::metadata(db).map_or(0, |m| m.len()) == 0 {
        return Ok(());
    }
    let mut look = backup::look(db).await?;
    let applied = migrations::applied(&mut look).await?;
    look.close().await?;
    migrations::check(SQLITE, &applied)?;
    if applied.len() == SQLITE.len() {
        return Ok(());
    }
    let version = applied.last().map_or(0, |a| a.version);
    let db = db.to_owned();
    let copied = tokio::task::spawn_blocking(move || copy(&db, version));
    copied.await.map_err(Error::inconsistent)?
}

fn copy(db: &Path, version: i64) -> Result<()> {
    let dir = dir(db);
    files::private_dir(&dir).map_err(failed(&dir))?;
    let stem = db.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut there = copies(&dir, &stem);
    // A start that fails after this and is tried again and again must not push older copies out.
    if let Some(last) = there.iter().rfind(|c| c.version == version)
        && is_copy(db, &last.path).map_err(failed(&last.path))?
    {
        tracing::info!(copy = %last.path.display(), "the schema changes; the database has been copied before");
        return Ok(());
    }
    let (date, path) = files::dated(&dir, &format!("{stem}-v{version}"));
    // Of a start that was cut off: nothing else writes here while the lock is ours.
    files::remove_beginning(&dir, files::PARTIAL);
    write(db, &path)?;
    tracing::info!(schema = version, copy = %path.display(), "the schema changes; the database is copied");
    there.push(Copy { version, date, path });
    let past = there.len().saturating_sub(KEPT);
    for old in there.drain(..past) {
        remove(&old.path);
    }
    Ok(())
}

fn write(db: &Path, to: &Path) -> Result<()> {
    let (dir, wal) = (parent(to), with(db, "-wal"));
    let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    room(dir, size(db).saturating_add(size(&wal)))?;
    // Both are on the disk before either has its name, and a database never has it before its log.
    let log = (size(&wal) > 0).then(|| files::copied(&wal, to)).transpose().map_err(failed(to))?;
    let copy = files::copied(db, to).map_err(failed(to))?;
    if let Some(log) = log {
        files::name(log, &with(to, "-wal")).map_err(failed(to))?;
    }
    files::name(copy, to).map_err(failed(to))
}

/// Whether a copy of so many bytes has its place in a directory.
pub(super) fn room(dir: &Path, bytes: u64) -> Result<()> {
    let needed = bytes.saturating_add(SPARE);
    let disk = rustix::fs::statvfs(dir).map_err(|e| failed(dir)(e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed { Err(Error::NoRoom { dir: dir.to_owned(), needed, free }) } else { Ok(()) }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::NoCopy { path, source }
}

struct Copy {
    version: i64,
    date: String,
    path: PathBuf,
}

/// Those that are there, oldest first.
fn copies(dir: &Path, stem: &str) -> Vec<Copy> {
    let mut found: Vec<Copy> = fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().filter_map(|entry| named(entry.path(), stem)).collect(),
    );
    found.sort_by(|a, b| (&a.date, a.version).cmp(&(&b.date, b.version)));
    found
}

/// `{stem}-v{version}-{date}.db`
fn named(path: PathBuf, stem: &str) -> Option<Copy> {
    let name = path.file_name()?.to_str()?.strip_prefix(stem)?.strip_prefix("-v")?.strip_suffix(".db")?;
    let (version, date) = name.split_once('-')?;
    let (version, date) = (version.parse().ok()?, date.to_owned());
    Some(Copy { version, date, path })
}

fn is_copy(db: &Path, copy: &Path) -> io::Result<bool> {
    Ok(files::same(db, copy)? && files::same(&with(db, "-wal"), &with(copy, "-wal"))?)
}

fn remove(copy: &Path) {
    for path in [copy.to_owned(), with(copy, "-wal"), with(copy, "-shm")] {
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                tracing::warn!(error = %e, copy = %path.display(), "an old copy cannot be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_three_are_kept_and_a_copy_is_made_once() {
        let home = tempfile::tempdir().unwrap();
        let db = home.path().join("alertrace.db");
        let backups = dir(&db);
        fs::create_dir(&backups).unwrap();
        let older = ["v1-20250101T000000Z", "v9-20250102T000000Z", "v10-20250103T000000Z"];
        for name in older {
            fs::write(backups.join(format!("alertrace-{name}.db")), name).unwrap();
            fs::write(backups.join(format!("alertrace-{name}.db-wal")), name).unwrap();
        }
        let others =
            ["alertrace-replaced-20240101T000000Z.db", "otra-v1-20240101T000000Z.db", "alertrace-v1.db"];
        for name in others {
            fs::write(backups.join(name), name).unwrap();
        }
        fs::write(&db, "new").unwrap();
        copy(&db, 11).unwrap();
        copy(&db, 11).unwrap();
        let left = copies(&backups, "alertrace");
        assert_eq!(left.iter().map(|c| c.version).collect::<Vec<_>>(), [9, 10, 11]);
        assert_eq!(fs::read(&left[2].path).unwrap(), b"new");
        assert!(!backups.join(format!("alertrace-{}.db-wal", older[0])).exists());
        assert!(others.iter().all(|name| backups.join(name).exists()), "what is not ours to remove");
        // However quickly the next one follows.
        assert_ne!(files::dated(&backups, "alertrace-v11").1, left[2].path);
        // Unlike the one that is there: by its WAL alone.
        fs::write(with(&db, "-wal"), "log").unwrap();
        assert!(!is_copy(&db, &left[2].path).unwrap());
    }
}
