//! Backups, restoring them, and upgrades: what was acknowledged is never lost, whoever makes a mistake.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::server::command;
use crate::support::{Client, Server};

/// What a command said, on either stream, and its exit code.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn alertrace(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    said(&command(dir).args(args).output().expect("the binary starts"))
}

/// Runs Python on a database; answers what it prints. It ends without closing, so that a WAL stays.
fn python(db: &Path, code: &str) -> String {
    let prelude =
        "import sqlite3, sys, os, hashlib\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n";
    let code = format!("{prelude}{code}\nsys.stdout.flush()\nos._exit(0)");
    let output = Command::new("python3").args(["-c", &code]).arg(db).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A database as an older version leaves it when it is killed: some of it in the WAL.
fn older_database(dir: &Path) -> PathBuf {
    let db = dir.join("data/alertrace.db");
    std::fs::create_dir_all(dir.join("data")).expect("a directory");
    let migrations = concat!("r'", env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite'");
    let code = format!(
        "db.execute('PRAGMA auto_vacuum = INCREMENTAL')\n\
         db.execute('PRAGMA journal_mode = WAL')\n\
         db.execute('''CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, \
         checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)''')\n\
         for name in sorted(os.listdir({migrations}))[:3]:\n  \
           sql = open(os.path.join({migrations}, name)).read()\n  \
           db.executescript(sql)\n  \
           sha = hashlib.sha384(sql.encode()).digest()\n  \
           db.execute('INSERT INTO _sqlx_migrations VALUES (?, ?, CURRENT_TIMESTAMP, TRUE, ?, 1)', \
             (int(name[:4]), name[5:-4].replace('_', ' '), sha))\n\
         db.execute(\"INSERT INTO empresas (ruc, razon_social, creada) VALUES ('20123456789', 'Vieja', 1)\")\n\
         db.execute('PRAGMA wal_checkpoint(TRUNCATE)')\n\
         db.execute(\"INSERT INTO empresas (ruc, razon_social, creada) VALUES ('20123456788', 'Del WAL', 2)\")\n"
    );
    python(&db, &code);
    assert!(std::fs::metadata(with(&db, "-wal")).expect("a WAL").len() > 0);
    db
}

/// The versions of the schema that there are.
pub fn schemas() -> Vec<u32> {
    let names = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite"));
    names.iter().map(|name| name[..4].parse().expect("a number")).collect()
}

pub fn newest_schema() -> u32 {
    *schemas().last().expect("a version")
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).map_or_else(|_| Vec::new(), |d| d.flatten().collect());
    let mut names: Vec<_> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Kills the server as a power cut would.
async fn kill(server: &mut Server) {
    let pid = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().expect("kill runs").success());
    server.ended().await;
}

const COUNT: &str = "print(db.execute('SELECT COUNT(*) FROM lecturas').fetchone()[0])\ndb.close()";

#[tokio::test]
async fn a_backup_does_not_replace_a_file_and_does_not_make_a_database() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, text) = alertrace(dir.path(), &["backup", "copia.db"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no database at"), "{text}");
    assert_eq!(files(dir.path()), Vec::<String>::new(), "nothing was made");

    let server = Server::start().await;
    std::fs::write(server.dir().join("copia.db"), "mine").expect("a file");
    let (code, text) = said(&server.command().args(["backup", "copia.db"]).output().expect("it starts"));
    assert_eq!(code, Some(1));
    assert!(text.contains("--force"), "{text}");
    assert_eq!(std::fs::read(server.dir().join("copia.db")).expect("a file"), b"mine");
    // Not even then: itself, and what has a log that SQLite would take for the backup's.
    std::fs::write(server.dir().join("otra.db-wal"), "").expect("a file");
    for file in ["data/alertrace.db", "otra.db"] {
        let (code, text) =
            said(&server.command().args(["backup", file, "--force"]).output().expect("starts"));
        assert_eq!(code, Some(1), "{file}: {text}");
    }
    let before = files(server.dir());
    server.run(&["backup", "copia.db", "--force"]);
    server.run(&["backup", "copia.db", "--force"]);
    server.run(&["backup", "--verify", "copia.db"]);
    let mut expected = before;
    expected.push(String::from("copia.db.sha256"));
    expected.sort();
    assert_eq!(files(server.dir()), expected, "no half of a file is left");
}

#[tokio::test]
async fn a_backup_under_load_has_every_reading_acknowledged_before_it_began() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let acknowledged: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    let noted = acknowledged.clone();
    let start = alertrace::domain::Clock::now(&alertrace::domain::SystemClock).micros() / 1_000 - 3_600_000;
    let load = tokio::spawn(async move {
        for n in 0_u16.. {
            let moment = start + i64::from(n);
            let payload = format!("{{\"temperatura\":20.5,\"timestamp\":{moment}}}");
            assert_eq!(client.publish("sensores/s1/data", n % 60_000 + 1, &payload).await, 0);
            noted.lock().expect("a lock").insert(moment * 1_000);
        }
    });
    for round in 0..5 {
        while acknowledged.lock().expect("a lock").len() < 300 * (round + 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = acknowledged.lock().expect("a lock").clone();
        let mut backup = server.command();
        let name = format!("copia-{round}.db");
        backup.args(["backup", &name]);
        let output = tokio::task::spawn_blocking(move || backup.output()).await.expect("it ends");
        let (code, text) = said(&output.expect("it starts"));
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("jwt.secret"), "what it does not have: {text}");
        let copy = server.dir().join(&name);
        let mode = std::fs::metadata(&copy).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        let stored = python(&copy, "print(*[r[0] for r in db.execute('SELECT ts FROM lecturas')])");
        let stored: BTreeSet<i64> = stored.split(' ').map(|ts| ts.parse().expect("a moment")).collect();
        let missing = before.difference(&stored).count();
        assert_eq!(missing, 0, "of {} acknowledged", before.len());
        let verified = server.run(&["backup", "--verify", &name]);
        assert!(verified.contains(&format!("{} lecturas", stored.len())), "{verified}");
        assert!(verified.contains("1 empresas, 1 sensores"), "{verified}");
    }
    assert!(!load.is_finished(), "the device noticed nothing");
    load.abort();
}

#[tokio::test]
async fn a_flipped_byte_and_a_missing_end_are_found() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    for pid in 1..=200 {
        assert_eq!(client.publish("sensores/s1/data", pid, &format!("{{\"temperatura\":{pid}}}")).await, 0);
    }
    server.run(&["backup", "copia.db"]);
    let (copy, sum) = (server.dir().join("copia.db"), server.dir().join("copia.db.sha256"));
    let mut checked = Command::new("sha256sum");
    checked.args(["-c", "copia.db.sha256"]).current_dir(server.dir());
    assert!(checked.status().expect("sha256sum runs").success(), "by others' tools as well");
    let good = std::fs::read(&copy).expect("a file");
    let verify =
        || said(&server.command().args(["backup", "--verify", "copia.db"]).output().expect("starts"));

    // A digit of a reading: no structure of SQLite's says that it was another.
    let place = good.windows(14).position(|w| w == b"\"temperatura\":").expect("a reading") + 14;
    let mut bad = good.clone();
    bad[place] ^= 1;
    std::fs::write(&copy, &bad).expect("a file");
    let (code, text) = verify();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not what was written"), "{text}");

    std::fs::remove_file(&sum).expect("a file");
    std::fs::write(&copy, &good).expect("a file");
    let (code, text) = verify();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("cannot be told"), "{text}");
    for (what, bytes) in [
        ("the end is missing", good[..good.len() - 4096].to_vec()),
        ("the end of a page is missing", good[..good.len() - 1000].to_vec()),
        ("half is missing", good[..good.len() / 2].to_vec()),
        ("pages were lost", [&good[..8192], &vec![0; good.len() - 8192][..]].concat()),
        ("it is empty", Vec::new()),
        ("it is something else", b"not a database, by far".to_vec()),
    ] {
        std::fs::write(&copy, bytes).expect("a file");
        let (code, text) = verify();
        assert_eq!(code, Some(1), "{what}: {text}");
    }
    // A row that refers to one that is not there.
    std::fs::write(&copy, &good).expect("a file");
    python(&copy, "db.execute('PRAGMA foreign_keys = OFF')\ndb.execute('DELETE FROM sensores')");
    let (code, text) = verify();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("refer to missing ones of sensores"), "{text}");
}

#[tokio::test]
async fn restore_refuses_while_a_server_runs_and_what_is_not_good() {
    let mut server = Server::start().await;
    server.run(&["backup", "copia.db"]);
    let restore =
        |s: &Server, file: &str| said(&s.command().args(["restore", file]).output().expect("starts"));
    let (code, text) = restore(&server, "copia.db");
    assert_eq!(code, Some(1));
    assert!(text.contains("another alertrace is running"), "{text}");

    assert_eq!(server.terminate().await.0, Some(0));
    let db = server.data_dir().join("alertrace.db");
    let before = std::fs::read(&db).expect("a file");
    let mut bad = std::fs::read(server.dir().join("copia.db")).expect("a file");
    bad.truncate(20_000);
    std::fs::write(server.dir().join("mala.db"), bad).expect("a file");
    std::fs::write(server.dir().join("nada.db"), "").expect("a file");
    python(&server.dir().join("ajena.db"), "db.execute('CREATE TABLE t (a)')");
    for file in ["mala.db", "nada.db", "ajena.db", "falta.db"] {
        let (code, text) = restore(&server, file);
        assert_eq!(code, Some(1), "{file}: {text}");
    }
    assert_eq!(std::fs::read(&db).expect("a file"), before, "nothing was changed");
    let left: Vec<_> = files(&server.data_dir()).into_iter().filter(|f| f.starts_with('.')).collect();
    assert_eq!(left, Vec::<String>::new(), "and nothing is left");
}

#[tokio::test]
async fn restore_brings_yesterday_back_and_keeps_today() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let send = async |server: &Server, value: u16| {
        let mut client = Client::device(&server.mqtt, 4, &device).await;
        let payload = format!("{{\"temperatura\":{value}}}");
        assert_eq!(client.publish("sensores/s1/data", 1, &payload).await, 0);
    };
    send(&server, 1).await;
    server.run(&["backup", "ayer.db"]);
    send(&server, 2).await;
    // Today's reading is in the WAL alone.
    kill(&mut server).await;
    let text = server.run(&["restore", "ayer.db"]);
    let aside = files(&server.data_dir().join("backups"));
    assert_eq!(aside.len(), 1, "{aside:?}: all of it in one file");
    let aside = server.data_dir().join("backups").join(&aside[0]);
    assert!(text.contains(aside.to_str().expect("UTF-8")), "where today is: {text}");
    assert_eq!(python(&aside, COUNT), "2");
    assert!(!with(&server.data_dir().join("alertrace.db"), "-wal").exists());
    server.kill_and_restart();
    server.token = server.sign_in(crate::support::server::EMAIL).await;
    assert_eq!(server.readings(&device).await.len(), 1);

    // And forth again.
    assert_eq!(server.terminate().await.0, Some(0));
    server.run(&["restore", aside.to_str().expect("UTF-8")]);
    server.kill_and_restart();
    server.token = server.sign_in(crate::support::server::EMAIL).await;
    assert_eq!(server.readings(&device).await.len(), 2);
    assert_eq!(files(&server.data_dir().join("backups")).len(), 2, "nothing is ever removed");
}

#[test]
fn a_database_that_cannot_be_copied_is_not_migrated() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = older_database(dir.path());
    let before = [&db, &with(&db, "-wal")].map(|file| std::fs::read(file).expect("a file"));
    // Files may not grow beyond 64 KiB: what a full disk does to a write, without one.
    let inner = command(dir.path());
    let limited = "trap '' XFSZ; ulimit -S -f 128; exec \"$0\" \"$@\"";
    let mut limited = Server::wrapped("sh", &["-c", limited], &inner);
    let (code, text) = said(&limited.arg("migrate").output().expect("it starts"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("nothing was changed") && text.contains("File too large"), "{text}");
    let after = [&db, &with(&db, "-wal")].map(|file| std::fs::read(file).expect("a file"));
    assert!(before == after, "nothing was changed");
    assert_eq!(files(&dir.path().join("data/backups")), Vec::<String>::new(), "no half of a copy");

    // Larger than the disk, if only by its name.
    std::fs::OpenOptions::new()
        .write(true)
        .open(&db)
        .and_then(|f| f.set_len(12 << 40))
        .expect("a sparse file");
    let (code, text) = alertrace(dir.path(), &["serve"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("make room") && text.contains("nothing was changed"), "{text}");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&db)
        .and_then(|f| f.set_len(before[0].len() as u64))
        .expect("a file");
    let (code, text) = alertrace(dir.path(), &["migrate"]);
    assert_eq!(code, Some(0), "room is all it takes: {text}");
    assert_eq!(python(&db, "print(db.execute('SELECT COUNT(*) FROM empresas').fetchone()[0])"), "2");
}

#[test]
fn the_copy_before_a_migration_is_what_the_older_version_left_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = older_database(dir.path());
    let (older, older_wal) =
        (std::fs::read(&db).expect("a file"), std::fs::read(with(&db, "-wal")).expect("a file"));
    let (code, text) = alertrace(dir.path(), &["migrate", "--status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("3  applied") && text.contains("4  pending"), "{text}");
    assert_eq!(std::fs::read(&db).expect("a file"), older, "a look changes nothing");

    let (code, text) = alertrace(dir.path(), &["migrate"]);
    assert_eq!(code, Some(0), "{text}");
    let backups = dir.path().join("data/backups");
    let names = files(&backups);
    assert_eq!(names.len(), 2, "{names:?}");
    let copy = backups.join(&names[0]);
    assert!(names[0].starts_with("alertrace-v3-2"), "{names:?}");
    assert_eq!(std::fs::read(&copy).expect("a file"), older);
    assert_eq!(std::fs::read(with(&copy, "-wal")).expect("a file"), older_wal);
    let mode = std::fs::metadata(&copy).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let (_, text) = alertrace(dir.path(), &["migrate", "--status"]);
    assert!(text.contains(&format!("{}  applied", newest_schema())) && !text.contains("pending"), "{text}");
    let (_, text) = alertrace(dir.path(), &["migrate"]);
    assert!(text.contains("up to date"), "{text}");
    assert_eq!(files(&backups), names, "a start that changes nothing copies nothing");

    // What the crash left in the WAL comes back with it. Twice within a second: names are never taken twice.
    for _ in 0..2 {
        let (code, text) = alertrace(dir.path(), &["restore", copy.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(0), "{text}");
    }
    let (code, text) = alertrace(dir.path(), &["restore", copy.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("schema 3") && text.contains("2 empresas"), "{text}");
    let (_, text) = alertrace(dir.path(), &["migrate", "--status"]);
    assert!(text.contains("4  pending"), "{text}");
    let (code, text) = alertrace(dir.path(), &["migrate"]);
    assert_eq!(code, Some(0), "{text}");
}

/// `alertrace restore` by root, on a machine whose server is somebody else: nothing may be out of its reach.
#[test]
fn what_root_restores_belongs_to_the_server() {
    use std::os::unix::fs::MetadataExt as _;
    if !crate::support::postgres::is_root() {
        // Only root can give a file away; for others it is theirs anyway.
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, text) = alertrace(dir.path(), &["migrate"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = alertrace(dir.path(), &["backup", "copia.db"]);
    assert_eq!(code, Some(0), "{text}");
    let data = dir.path().join("data");
    std::fs::remove_dir_all(&data).expect("a directory");
    let older = older_database(dir.path());
    for path in [&data, &older, &with(&older, "-wal")] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("root may");
    }
    for args in [&["migrate"][..], &["restore", "copia.db"]] {
        let (code, text) = alertrace(dir.path(), args);
        assert_eq!(code, Some(0), "{text}");
    }
    let backups = data.join("backups");
    let mut seen = vec![data.join("alertrace.db"), data.join("alertrace.lock"), backups.clone()];
    seen.extend(files(&backups).iter().map(|name| backups.join(name)));
    assert_eq!(seen.len(), 6, "{seen:?}");
    for path in seen {
        assert_eq!(std::fs::metadata(&path).expect("a file").uid(), 65_534, "{}", path.display());
    }
}

#[test]
fn a_newer_database_is_refused_and_the_version_that_it_needs_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, text) = alertrace(dir.path(), &["migrate"]);
    assert_eq!(code, Some(0), "{text}");
    let db = dir.path().join("data/alertrace.db");
    python(
        &db,
        "db.execute(\"INSERT INTO _sqlx_migrations VALUES (99, 'futuro (alertrace 9.1.0)', 0, TRUE, x'00', 1)\")\n\
         db.execute('PRAGMA wal_checkpoint(TRUNCATE)')",
    );
    let before = std::fs::read(&db).expect("a file");
    for args in [&["serve"][..], &["migrate"], &["migrate", "--status"]] {
        let (code, text) = alertrace(dir.path(), args);
        assert_eq!(code, Some(1), "{args:?}: {text}");
        for part in ["schema 99", &format!("up to {}", newest_schema()), "install alertrace 9.1.0 or newer"] {
            assert!(text.contains(part), "{args:?}, {part}: {text}");
        }
    }
    assert_eq!(std::fs::read(&db).expect("a file"), before, "nothing was changed");
    assert!(!dir.path().join("data/backups").exists(), "and nothing copied");
}

#[tokio::test]
async fn migrate_status_needs_no_database_and_disturbs_no_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, text) = alertrace(dir.path(), &["migrate", "--status"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.matches("pending").count(), schemas().len(), "{text}");
    assert_eq!(files(dir.path()), Vec::<String>::new(), "nothing was made");

    let server = Server::start().await;
    let text = server.run(&["migrate", "--status"]);
    assert_eq!(text.matches("  applied  ").count(), schemas().len(), "{text}");
    assert!(text.contains("alertrace 0.1.0"), "{text}");
    let (code, text) = said(&server.command().arg("migrate").output().expect("it starts"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another alertrace is running"), "{text}");
}
