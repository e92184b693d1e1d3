//! Backups of a SQLite database: made while the server runs, checked, and put back.
//!
//! A copy is one consistent state: everything that was acknowledged before it began. Beside it stands its
//! SHA-256, since SQLite keeps no checksum of what a row says. Putting one back removes nothing: what was
//! there is set aside first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::files::{self, parent, with};
use super::lock::FileLock;
use super::migrations::{self, SQLITE, Step};
use super::{Error, Result, copia};
use crate::domain::Timestamp;

/// How long a statement waits for a lock of the server's.
const BUSY: Duration = Duration::from_secs(30);

/// A database that is copied.
#[derive(Debug)]
pub struct Source {
    db: SqliteConnection,
    /// Bytes that its copy will take.
    pub bytes: u64,
}

/// A copy that has no name yet: gone when dropped.
#[derive(Debug)]
pub struct Unnamed {
    file: tempfile::NamedTempFile,
    to: PathBuf,
    replace: bool,
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The newest version of its schema.
    pub schema: i64,
    /// What is said of that version.
    pub description: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Empresas.
    pub empresas: i64,
    /// Sensores.
    pub sensores: i64,
    /// Readings; `None` = not counted.
    pub lecturas: Option<i64>,
    /// The newest reading's moment.
    pub newest: Option<Timestamp>,
}

/// Whether a file is byte for byte what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// It has the SHA-256 that stands beside it.
    Same,
    /// No SHA-256 stands beside it.
    Missing,
}

/// What has been put back, and what was there.
#[derive(Debug)]
pub struct Restored {
    /// What the database has now.
    pub contents: Contents,
    /// See [`Sum`].
    pub sum: Sum,
    /// Where the database is that was there, if one was.
    pub aside: Option<PathBuf>,
}

impl Source {
    /// Opens the database at `path` beside whoever has it, and writes nothing into it.
    ///
    /// # Errors
    /// [`Error::Absent`], or what the database says.
    pub async fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::Absent(path.to_owned()));
        }
        // Not `look`: a server may start meanwhile.
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
        let mut db = SqliteConnection::connect_with(&options).await?;
        let sql = "SELECT (p.page_count - f.freelist_count) * s.page_size \
                   FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s";
        let bytes: i64 = sqlx::query(sql).fetch_one(&mut db).await?.try_get(0)?;
        Ok(Self { db, bytes: bytes.unsigned_abs() })
    }

    /// Copies the state of this moment.
    ///
    /// # Errors
    /// [`Error::Unavailable`], as when the disk is full.
    pub async fn copy_into(mut self, copy: &Unnamed) -> Result<()> {
        let path = copy.file.path().to_string_lossy();
        sqlx::query("VACUUM INTO $1").bind(path.as_ref()).execute(&mut self.db).await?;
        self.db.close().await?;
        Ok(())
    }
}

impl Unnamed {
    /// Room for a backup that will be called `to`, which must be free unless it is to `replace` another; and
    /// never a database with a log beside it, which SQLite would take for that of the backup.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn new(to: &Path, replace: bool) -> Result<Self> {
        let in_use = ["-wal", "-journal"].iter().any(|suffix| with(to, suffix).exists());
        if in_use || (!replace && to.exists()) {
            return Err(Error::file(to)(io::ErrorKind::AlreadyExists.into()));
        }
        let file = files::new_beside(to).map_err(Error::file(to))?;
        Ok(Self { file, to: to.to_owned(), replace })
    }

    /// Where the bytes go.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Syncs it, gives it its name, and writes its SHA-256 beside it; answers its size. Reads all of it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn name(self) -> Result<u64> {
        let Self { file, to, replace } = self;
        let dir = parent(&to);
        // By its name: what a program puts in its place would be another file.
        let written = fs::File::open(file.path()).and_then(|f| {
            f.sync_all()?;
            f.metadata()
        });
        let bytes = written.map_err(Error::file(&to))?.len();
        let sum = files::sha256(file.path()).map_err(Error::file(&to))?;
        let sum_path = with(&to, SUM);
        // That of a file that is replaced would be wrong.
        if replace {
            remove(&sum_path)?;
        }
        let named = if replace { file.persist(&to) } else { file.persist_noclobber(&to) };
        named.map_err(|e| Error::file(&to)(e.error))?;
        files::sync_dir(dir).map_err(Error::file(dir))?;
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        fs::write(&sum_path, format!("{sum}  {name}\n")).map_err(Error::file(&sum_path))?;
        let synced = fs::File::open(&sum_path).and_then(|f| f.sync_all());
        synced.and_then(|()| files::sync_dir(dir)).map_err(Error::file(&sum_path))?;
        Ok(bytes)
    }
}

/// As `sha256sum` names such files.
const SUM: &str = ".sha256";

/// Compares `copy`, which is or should be what `file` is, with the SHA-256 that stands beside `file`.
///
/// # Errors
/// [`Error::Damaged`] when it differs.
pub fn check_sum(file: &Path, copy: &Path) -> Result<Sum> {
    let sum_path = with(file, SUM);
    let text = match fs::read_to_string(&sum_path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Sum::Missing),
        Err(e) => return Err(Error::file(&sum_path)(e)),
    };
    let expected = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if files::sha256(copy).map_err(Error::file(copy))? == expected {
        return Ok(Sum::Same);
    }
    let sum_path = sum_path.display();
    Err(Error::Damaged(format!("it is not what was written: its SHA-256 is not the one in {sum_path}")))
}

/// Checks a file as SQLite can: its structure, its references; and that its schema is known here.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Newer`], [`Error::Inconsistent`] when it is no database of ours.
pub async fn inspect(path: &Path) -> Result<Contents> {
    let mut db = look(path).await?;
    let contents = inspect_in(&mut db).await;
    db.close().await?;
    let bytes = fs::metadata(path).map_err(Error::file(path))?.len();
    Ok(Contents { bytes, ..contents? })
}

async fn inspect_in(db: &mut SqliteConnection) -> Result<Contents> {
    let found = sqlx::query("PRAGMA integrity_check(10)").fetch_all(&mut *db).await?;
    let found: Vec<String> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if found != ["ok"] {
        return Err(Error::Damaged(found.join("; ")));
    }
    let orphans = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *db).await?;
    if let Some(row) = orphans.first() {
        let (table, of): (String, String) = (row.try_get(0)?, row.try_get(2)?);
        let n = orphans.len();
        return Err(Error::Damaged(format!("{n} rows, the first in {table}, refer to missing ones of {of}")));
    }
    let applied = migrations::applied(db).await?;
    migrations::check(SQLITE, &applied)?;
    let last = applied.last().ok_or_else(|| Error::inconsistent("it is not an Alertrace database"))?;
    let sql = "SELECT (SELECT COUNT(*) FROM empresas), (SELECT COUNT(*) FROM sensores), \
               (SELECT COUNT(*) FROM lecturas), (SELECT MAX(ts) FROM ultimas_lecturas)";
    let row = sqlx::query(sql).fetch_one(db).await?;
    Ok(Contents {
        schema: last.version,
        description: last.description.clone(),
        bytes: 0,
        empresas: row.try_get(0)?,
        sensores: row.try_get(1)?,
        lecturas: Some(row.try_get(2)?),
        newest: row.try_get::<Option<i64>, _>(3)?.map(Timestamp::clamped),
    })
}

/// The versions of the schema, as the database at `path` has them. One that is not there has none.
///
/// # Errors
/// What the database says.
pub async fn schema(path: &Path) -> Result<Vec<Step>> {
    let mut applied = Vec::new();
    if fs::metadata(path).map_or(0, |m| m.len()) > 0 {
        let mut db = look(path).await?;
        applied = migrations::applied(&mut db).await?;
        db.close().await?;
    }
    Ok(migrations::steps(SQLITE, applied))
}

/// A connection that changes nothing of a database, and leaves nothing beside it.
pub(super) async fn look(path: &Path) -> Result<SqliteConnection> {
    if !path.exists() {
        return Err(Error::Absent(path.to_owned()));
    }
    let beside = |suffix| with(path, suffix).exists();
    let (wal, journal) = (beside("-wal"), beside("-journal"));
    let options = SqliteConnectOptions::new()
        .filename(path)
        // What a crash has left of the very first transactions has to be rolled back.
        .read_only(!journal)
        // Without a WAL nobody is writing, and nothing has to be locked, or made to be locked.
        .immutable(!wal && !journal)
        .busy_timeout(BUSY);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Puts the backup `file` in the place of the database at `db`, which no server may have. What was there is
/// in `backups/` afterwards; an error leaves everything as it was.
///
/// # Errors
/// [`Error::Locked`]; what [`check_sum`] and [`inspect`] find; [`Error::File`].
pub async fn restore(file: &Path, db: &Path) -> Result<Restored> {
    let _lock = FileLock::take(&db.with_extension("lock"))?;
    if !file.exists() {
        return Err(Error::file(file)(io::ErrorKind::NotFound.into()));
    }
    files::remove_partial_of(db);
    // What is checked is what will be used: the copy on this disk.
    let copy = files::new_beside(db).map_err(Error::file(parent(db)))?;
    copy_bytes(file, copy.path()).map_err(Error::file(file))?;
    let sum = check_sum(file, copy.path())?;
    let wal = with(file, "-wal");
    if fs::metadata(&wal).map_or(0, |m| m.len()) > 0 {
        // A copy that was made after a crash: the log beside it is part of it.
        let _log = Log(copy.path());
        copy_bytes(&wal, &with(copy.path(), "-wal")).map_err(Error::file(&wal))?;
        fold(copy.path()).await?;
    }
    let contents = inspect(copy.path()).await?;
    files::give(copy.as_file(), if db.exists() { db } else { parent(db) });
    copy.as_file().sync_all().map_err(Error::file(db))?;
    let aside = if db.exists() { Some(set_aside(db).await?) } else { None };
    // The name of the old log must be gone before there is a database that it does not belong to.
    for beside in [with(db, "-wal"), with(db, "-shm"), with(db, "-journal")] {
        remove(&beside)?;
    }
    files::sync_dir(parent(db)).map_err(Error::file(parent(db)))?;
    copy.persist(db).map_err(|e| Error::file(db)(e.error))?;
    files::sync_dir(parent(db)).map_err(Error::file(parent(db)))?;
    Ok(Restored { contents, sum, aside })
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file(path)(e)),
        _ => Ok(()),
    }
}

/// What SQLite leaves beside a copy that came to nothing.
struct Log<'a>(&'a Path);

impl Drop for Log<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(with(self.0, "-wal"));
        let _ = fs::remove_file(with(self.0, "-shm"));
    }
}

fn copy_bytes(from: &Path, to: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut to = options.write(true).create(true).truncate(true).open(to)?;
    io::copy(&mut fs::File::open(from)?, &mut to)?;
    Ok(())
}

/// Puts what the WAL holds into the database; closing removes the log.
async fn fold(path: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY);
    let mut db = SqliteConnection::connect_with(&options).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut db).await?;
    db.close().await?;
    Ok(())
}

/// Gives the database a second name, in `backups/`; both are there until one is replaced.
async fn set_aside(db: &Path) -> Result<PathBuf> {
    if let Err(e) = fold(db).await {
        // It may be damaged, which is why another is put in its place: the log goes with it as it is.
        tracing::warn!(error = %e, "the present database is set aside as it is");
    }
    let dir = copia::dir(db);
    files::private_dir(&dir).map_err(Error::file(&dir))?;
    let stem = db.file_stem().unwrap_or_default().to_string_lossy();
    let (_, aside) = files::dated(&dir, &format!("{stem}-replaced"));
    for suffix in ["-wal", "-journal"] {
        let (log, to) = (with(db, suffix), with(&aside, suffix));
        if log.exists() {
            link(&log, &to).map_err(Error::file(&to))?;
        }
    }
    link(db, &aside).map_err(Error::file(&aside))?;
    files::sync_dir(&dir).map_err(Error::file(&dir))?;
    Ok(aside)
}

/// Some file systems have one name for a file.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => files::copy(from, to),
        linked => linked,
    }
}
