//! What each version left on a disk (`tests/fixtures/`), opened by this one: everything is there, and the copy that was
//! made before the schema changed is what the older one wrote, to the byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::server::Place;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).expect("the directory").flatten();
    let dirs = entries.filter(|e| e.path().is_dir());
    let mut names: Vec<_> = dirs.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn unpacked(path: &Path) -> Vec<u8> {
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip runs");
    assert!(output.status.success(), "{}", path.display());
    output.stdout
}

/// The files of the copies that were made by themselves, by name.
fn copies(data: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(data.join("backups")) else { return Vec::new() };
    let read = |e: std::fs::DirEntry| {
        (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).expect("a copy"))
    };
    let mut files: Vec<_> = entries.flatten().map(read).collect();
    files.sort();
    files
}

/// Opens what a version left, and looks at everything as its people would.
async fn open(name: &str, how: &str) {
    let of = fixtures().join(name);
    let expected = std::fs::read_to_string(of.join("expected.json")).expect("what is in it");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let db = unpacked(&of.join(format!("{how}.db.gz")));
    std::fs::write(data.join("alertrace.db"), &db).expect("a file");
    let wal = of.join(format!("{how}.db-wal.gz"));
    let wal = wal.exists().then(|| unpacked(&wal));
    if let Some(wal) = &wal {
        std::fs::write(data.join("alertrace.db-wal"), wal).expect("a file");
    }

    // The administrator of support/ has another address: this one is of the fixture.
    let mut server = Server::open(dir, Place::new(), |mut serve| {
        serve
            .env("ALERTRACE__STORE__RETENTION_DAYS", "36500")
            .env("ALERTRACE__STORE__HOURLY_RETENTION_DAYS", "36500");
        serve
    });
    server.token = server.sign_in(expected["email"].as_str().expect("an address")).await;

    let me = server.get("/api/v1/auth/me").await;
    assert_eq!((&me["email"], &me["rol"]), (&expected["email"], &json!("admin_empresa")), "{name} {how}");
    let people = server.get("/api/v1/trabajadores").await;
    assert_eq!(people[0]["email"], expected["email"], "{name} {how}: {people}");
    let sensors = server.get("/api/v1/sensores").await;
    assert_eq!(sensors[0]["device_id"], expected["device"], "{name} {how}: {sensors}");
    let history =
        server.get("/api/v1/sensores/1/lecturas?orden=asc&limit=1000&desde=2026-01-01T00:00:00Z").await;
    let history: Vec<_> = history.as_array().expect("readings").iter().collect();
    let history: Vec<_> = history.iter().map(|r| json!([r["timestamp"], r["temperatura"]])).collect();
    assert_eq!(json!(history), expected[how]["lecturas"], "{name} {how}");
    let alerts = server.get("/api/v1/alertas?estado=pendiente").await;
    let alerts: Vec<_> = alerts
        .as_array()
        .expect("alerts")
        .iter()
        .map(|a| json!([a["id_alerta"], a["tipo_alerta"], a["severidad"], a["valor_actual"]]))
        .collect();
    assert_eq!(json!(alerts), expected[how]["alertas"], "{name} {how}");

    let schema = expected["schema"].as_u64().expect("a number");
    let copies = copies(&data);
    if schema == u64::from(crate::backup::newest_schema()) {
        assert!(copies.is_empty(), "{name} {how}: nothing changes, and nothing is copied");
        return;
    }
    // Two files are one database: what is committed in the WAL is nowhere else. The index of the WAL (-shm) is made
    // anew by whoever opens it, and is not copied.
    let mut left = vec![("db", &db)];
    left.extend(wal.as_ref().map(|wal| ("db-wal", wal)));
    assert_eq!(
        copies.len(),
        left.len(),
        "{name} {how}: {:?}",
        copies.iter().map(|c| &c.0).collect::<Vec<_>>()
    );
    for ((file, bytes), (suffix, wrote)) in copies.iter().zip(left) {
        assert!(file.starts_with(&format!("alertrace-v{schema}-")) && file.ends_with(suffix), "{file}");
        assert!(bytes == wrote, "{name} {how}: {file} is not what the older version wrote");
    }
}

#[tokio::test]
async fn what_every_version_left_after_a_clean_stop_is_opened_and_copied() {
    for name in names() {
        open(&name, "stopped").await;
    }
}

#[tokio::test]
async fn what_every_version_left_when_it_was_killed_is_opened_and_copied() {
    for name in names() {
        open(&name, "killed").await;
    }
}

/// Else nothing shows that what this version leaves is opened again, nor that a start which changes nothing copies nothing.
#[test]
fn this_version_has_left_one_of_its_newest_schema() {
    let expected = fixtures().join(env!("CARGO_PKG_VERSION")).join("expected.json");
    let expected = std::fs::read_to_string(expected).expect("scripts/make-fixture makes it");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    assert_eq!(
        expected["schema"],
        json!(crate::backup::newest_schema()),
        "a migration is newer: run scripts/make-fixture"
    );
}

#[test]
fn every_version_of_the_changelog_has_left_one() {
    let changelog = Path::new(env!("CARGO_MANIFEST_DIR")).join("CHANGELOG.md");
    let changelog = std::fs::read_to_string(changelog).expect("the changelog");
    let versions = changelog.lines().filter_map(|line| line.strip_prefix("## ")?.split(' ').next());
    let (versions, names) = (versions.collect::<Vec<_>>(), names());
    assert!(!versions.is_empty());
    for version in versions {
        assert!(
            names.iter().any(|name| name == version),
            "{version} has none; tests/fixtures/README.md says how"
        );
    }
}
