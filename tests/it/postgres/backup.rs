//! Backups by PostgreSQL's own programs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use super::schema;
use crate::backup::{newest_schema, schemas};
use crate::support::postgres::{Database, PASSWORD, shared};
use crate::support::server::EMAIL;
use crate::support::{Client, Server};

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn without_pg_dump_a_person_is_told_what_to_run() {
    let server = Server::start_on(Database::Postgres).await;
    let mut command = server.command();
    let (code, text) =
        said(&command.env("PATH", server.dir()).args(["backup", "copia.dump"]).output().expect("starts"));
    assert_eq!(code, Some(1));
    for part in ["pg_dump is not in the PATH", "postgresql-client", "--format=custom", &schema(&server)] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secreta"), "{text}");
    assert!(!server.dir().join("copia.dump").exists());
}

#[tokio::test]
async fn a_dump_is_made_while_the_server_runs_and_the_lines_that_are_shown_restore_it() {
    // Through a pooler the dump goes past it.
    let mut server = Server::start_on(Database::Pgbouncer).await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":1}"#).await, 0);
    let text = server.run(&["backup", "copia.dump"]);
    assert!(text.contains("jwt.secret"), "{text}");
    assert_eq!(client.publish("sensores/s1/data", 2, r#"{"temperatura":2}"#).await, 0);
    let dump = server.dir().join("copia.dump");
    assert_eq!(std::fs::metadata(&dump).expect("a file").permissions().mode() & 0o777, 0o600);
    let verified = server.run(&["backup", "--verify", "copia.dump"]);
    for part in [
        "good",
        &format!("schema {}", newest_schema()),
        "1 empresas, 1 sensores",
        "newest reading 2",
        "SHA-256",
    ] {
        assert!(verified.contains(part), "{part}: {verified}");
    }

    // What is not whole is found without the sum as well.
    let good = std::fs::read(&dump).expect("a file");
    std::fs::write(server.dir().join("mala.dump"), &good[..good.len() - 500]).expect("a file");
    let mut command = server.command();
    let (code, text) = said(&command.args(["backup", "--verify", "mala.dump"]).output().expect("starts"));
    assert_eq!(code, Some(1), "{text}");

    assert_eq!(server.terminate().await.0, Some(0));
    let text = server.run(&["restore", "copia.dump"]);
    let lines: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("  ")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in lines {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env("PGPASSWORD", PASSWORD).current_dir(server.dir());
        let (code, text) = said(&shell.output().expect("sh runs"));
        assert_eq!(code, Some(0), "{line}: {text}");
    }
    server.kill_and_restart();
    server.token = server.sign_in(EMAIL).await;
    assert_eq!(server.readings(&device).await.len(), 1, "the reading of before");
    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":3}"#).await, 0);
    let aside = format!(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE '{}\\_2%'",
        schema(&server).replace('_', "\\_")
    );
    let aside = shared().sql(&aside);
    assert_eq!(shared().sql(&format!("SELECT COUNT(*) FROM {aside}.lecturas")), "2", "today is kept");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_status_makes_none() {
    let mut server = Server::start_on(Database::Postgres).await;
    assert_eq!(server.run(&["migrate", "--status"]).matches("  applied  ").count(), schemas().len());
    assert_eq!(server.terminate().await.0, Some(0));
    let name = schema(&server);
    shared().sql(&format!("INSERT INTO {name}.migraciones VALUES (99, 'futuro (alertrace 9.1.0)', '')"));
    for args in [&["serve"][..], &["migrate", "--status"]] {
        let (code, text) = said(&server.command().args(args).output().expect("starts"));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("schema 99") && text.contains("install alertrace 9.1.0 or newer"), "{text}");
    }
    let mut command = server.command();
    command.env("ALERTRACE__DATABASE__SCHEMA", "nadie_la_hizo").args(["migrate", "--status"]);
    let (code, text) = said(&command.output().expect("starts"));
    assert_eq!((code, text.matches("pending").count()), (Some(0), schemas().len()), "{text}");
    assert_eq!(shared().sql("SELECT COUNT(*) FROM pg_namespace WHERE nspname = 'nadie_la_hizo'"), "0");
}
