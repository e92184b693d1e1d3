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

/// Takes the last version of the schema back, as if an older Alertrace had written it.
fn make_older(server: &Server) -> String {
    let schema = schema(server);
    shared().sql(&format!(
        "SET search_path TO {schema}; ALTER TABLE trabajadores DROP COLUMN valen_desde; \
         DELETE FROM migraciones WHERE version = 10"
    ));
    format!("SELECT COUNT(*) FROM {schema}.migraciones WHERE version = 10")
}

/// The copies that were made by themselves.
fn copies(server: &Server) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(server.data_dir().join("backups")) else { return Vec::new() };
    let names = entries.map(|e| e.expect("an entry").file_name().into_string().expect("text"));
    names.filter(|name| !name.ends_with(".sha256")).collect()
}

#[tokio::test]
async fn the_schema_changes_after_it_has_been_dumped_and_not_before() {
    let mut server = Server::start_on(Database::Postgres).await;
    server.device("s1").await;
    assert_eq!(copies(&server), Vec::<String>::new(), "a new schema has nothing to copy");
    assert_eq!(server.terminate().await.0, Some(0));
    let changed = make_older(&server);
    // Where there is less room than the tables take.
    let small = "mkdir -p data/backups; mount -t tmpfs -o size=12m small data/backups; exec \"$0\" \"$@\"";
    let wrapped = ["--mount", "--map-root-user", "sh", "-c", small];
    let mut narrow = Server::wrapped("unshare", &wrapped, &server.command());
    let (code, text) = said(&narrow.arg("migrate").output().expect("starts"));
    assert_eq!((code, shared().sql(&changed).as_str()), (Some(1), "0"), "{text}");
    assert!(text.contains("make room") && text.contains("nothing was changed"), "{text}");
    let nowhere = |args: &[&str], copy: &str| {
        let mut command = server.command();
        command.env("PATH", server.dir()).env("ALERTRACE__DATABASE__COPY_BEFORE_MIGRATING", copy).args(args);
        said(&command.output().expect("starts"))
    };
    for args in [&["serve"][..], &["migrate"]] {
        let (code, text) = nowhere(args, "true");
        assert_eq!(code, Some(1), "{text}");
        let help = [
            "pg_dump is not in the PATH",
            "postgresql-client",
            "migrate --without-copy",
            "(umask 077; pg_dump --format=custom",
            "docker compose run --rm alertrace migrate --without-copy",
        ];
        for part in [&help[..], &[&schema(&server)]].concat() {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("secreta"), "{text}");
        assert_eq!(shared().sql(&changed), "0", "nothing was changed");
    }
    assert_eq!(copies(&server), Vec::<String>::new(), "nor is there half of a copy");
    // By whoever has a copy of their own.
    assert_eq!(nowhere(&["migrate", "--without-copy"], "true").0, Some(0));
    assert_eq!(shared().sql(&changed), "1");
    make_older(&server);
    assert_eq!(nowhere(&["migrate"], "false").0, Some(0));
    assert_eq!((shared().sql(&changed), copies(&server).len()), (String::from("1"), 0));

    // Where pg_dump is, it is made by itself, and is one to rely on.
    make_older(&server);
    server.kill_and_restart();
    assert_eq!(shared().sql(&changed), "1");
    let made = copies(&server);
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(
        made[0].starts_with(&format!("{}-v", schema(&server))) && made[0].strip_suffix(".dump").is_some(),
        "{made:?}"
    );
    let verified = server.run(&["backup", "--verify", &format!("data/backups/{}", made[0])]);
    for part in ["good", "1 empresas, 1 sensores", "SHA-256"] {
        assert!(verified.contains(part), "{part}: {verified}");
    }
    assert!(!verified.contains(": reactivacion"), "of before: {verified}");
}

/// A dump through a pooler would leave its session's settings to whoever has that session next.
#[tokio::test]
async fn no_dump_goes_through_a_pooler() {
    let mut server = Server::start_on(Database::Pgbouncer).await;
    assert_eq!(server.terminate().await.0, Some(0));
    let changed = make_older(&server);
    let mut command = server.command();
    let (code, text) = said(&command.env_remove("DIRECT_URL").arg("migrate").output().expect("starts"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("set DIRECT_URL"), "{text}");
    assert_eq!(shared().sql(&changed), "0");
    let (code, text) = said(&server.command().arg("migrate").output().expect("starts"));
    assert_eq!(code, Some(0), "past it: {text}");
    assert_eq!((shared().sql(&changed), copies(&server).len()), (String::from("1"), 1));
}
