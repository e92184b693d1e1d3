//! `alertrace doctor`: what it says of a server that runs, of one that does not, and of what is wrong.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use alertrace::domain::{Clock as _, SystemClock};
use alertrace::identity::Prueba;
use serde_json::Value;

use crate::support::postgres::Database;
use crate::support::server::{Place, command};
use crate::support::{Client, Server};

fn doctor(mut command: Command, args: &[&str]) -> Output {
    command.arg("doctor").args(args).output().expect("the binary runs")
}

/// The binary with the configuration of a server that runs.
fn beside(server: &Server) -> Command {
    let mut command = server.command();
    command
        .env("ALERTRACE__HTTP__LISTEN", &server.http)
        .env("ALERTRACE__MQTT__LISTEN", &server.mqtt)
        .env("ALERTRACE__MQTT__TLS_LISTEN", &server.mqtts);
    command
}

/// The line of a check, of which there is one.
fn line<'a>(report: &'a Value, check: &str) -> &'a Value {
    let all = report["checks"].as_array().expect("checks");
    all.iter().find(|c| c["check"] == check).unwrap_or_else(|| panic!("no {check} in {report:#}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", text(&output.stdout), text(&output.stderr)))
}

/// How each check stands: the worst, where there are several of a name.
fn status<'a>(report: &'a Value, check: &str) -> &'a str {
    let all = report["checks"].as_array().expect("checks").iter().filter(|c| c["check"] == check);
    let all: Vec<&str> = all.map(|c| c["status"].as_str().expect("a status")).collect();
    ["fail", "warn", "ok"].into_iter().find(|s| all.contains(s)).unwrap_or("absent")
}

fn files(dir: &Path) -> BTreeSet<String> {
    let name = |e: std::io::Result<std::fs::DirEntry>| e.expect("an entry").file_name();
    std::fs::read_dir(dir).expect("a directory").map(|e| name(e).to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn beside_a_running_server_all_is_well_and_nothing_stays_behind() {
    let mut server = Server::start().await;
    let here = beside;
    let before = files(&server.data_dir());
    let output = doctor(here(&server), &["--json", "--lang", "en"]);
    let said = report(&output);
    assert!(output.status.success(), "{said:#}");
    assert_eq!(said["ok"], true);
    for check in ["server", "port", "certificate", "disk", "clock", "database", "self_test"] {
        assert_eq!(status(&said, check), "ok", "{check}: {said:#}");
    }
    let tried = line(&said, "self_test")["detail"].as_str().expect("text");
    assert!(tried.starts_with("the running server acknowledged a reading published over TLS"), "{tried}");
    assert_eq!(files(&server.data_dir()), before);
    assert_eq!(server.get("/api/v1/sensores").await, serde_json::json!([]), "the server has not noticed");
    let quick = doctor(here(&server), &["--quick"]);
    assert!(quick.status.success() && quick.stdout.is_empty(), "{}", text(&quick.stderr));

    let (http, mqtt, mqtts) = (server.http.clone(), server.mqtt.clone(), server.mqtts.clone());
    server.terminate().await;
    (server.http, server.mqtt, server.mqtts) = (http, mqtt, mqtts);
    assert_eq!(doctor(here(&server), &["--quick"]).status.code(), Some(1));
    let output = doctor(here(&server), &["--json"]);
    let said = report(&output);
    assert!(output.status.success(), "it may be started: {said:#}");
    assert_eq!(status(&said, "server"), "warn");
    for check in ["port", "certificate", "disk", "clock", "database", "self_test"] {
        assert_eq!(status(&said, check), "ok", "{check}: {said:#}");
    }
}

#[test]
fn before_the_first_start_it_says_what_will_be_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = doctor(command(dir.path()), &["--json"]);
    let said = report(&output);
    assert!(output.status.success(), "{said:#}");
    assert_eq!((status(&said, "certificate"), status(&said, "database")), ("warn", "warn"));
    assert_eq!(status(&said, "self_test"), "ok");
    assert_eq!(files(dir.path()), BTreeSet::new(), "it makes nothing");
}

#[test]
fn a_port_that_somebody_has_fails_with_a_remedy_in_the_language_of_whoever_asks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let somebody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = somebody.local_addr().expect("an address").to_string();
    let asked = |lang: &str, args: &[&str]| {
        let mut command = command(dir.path());
        command.env("ALERTRACE__MQTT__LISTEN", &address).env("LANG", lang);
        let output = doctor(command, args);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stdout)
    };
    let spanish = asked("C.UTF-8", &[]);
    assert!(spanish.contains("FALLA  Puerto mqtt.listen"), "{spanish}");
    assert!(
        spanish.contains("→ Detenga lo que lo usa (ss -ltnp), o elija otro en mqtt.listen."),
        "{spanish}"
    );
    let english = asked("en_US.UTF-8", &[]);
    assert!(english.contains("FAIL   Port mqtt.listen"), "{english}");
    assert!(
        english.contains("→ Stop what uses it (ss -ltnp), or choose another in mqtt.listen."),
        "{english}"
    );
    assert!(asked("en_US.UTF-8", &["--lang", "es"]).contains("FALLA"));
}

#[test]
fn a_configuration_and_a_certificate_that_are_no_good_fail() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut bad = command(dir.path());
    bad.env("ALERTRACE__HTTP__PORT", "1");
    let output = doctor(bad, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = report(&output);
    assert_eq!(status(&said, "configuration"), "fail");
    assert!(said["checks"][0]["detail"].as_str().expect("text").contains("http.port"), "{said:#}");

    let certs = dir.path().join("certs");
    std::fs::create_dir(&certs).expect("a directory");
    for name in ["ca.pem", "server.pem"] {
        std::fs::write(certs.join(name), "nothing").expect("a file");
    }
    let output = doctor(command(dir.path()), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(status(&report(&output), "certificate"), "fail");
}

#[test]
fn a_clock_of_before_the_program_fails() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let inner = command(dir.path());
    let past = Server::wrapped("faketime", &["-f", "@2020-01-01 00:00:00"], &inner);
    let output = doctor(past, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(status(&report(&output), "clock"), "fail");
}

/// What `doctor` says beside a server that was started with `change`, and is asked with `asked`.
async fn of_a_server(
    database: Database,
    change: impl FnOnce(&mut Command),
    asked: impl FnOnce(&Server, &mut Command),
) -> Value {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = crate::support::server::place(dir.path(), database);
    let server = Server::start_in(dir, place, |mut command| {
        change(&mut command);
        command
    })
    .await;
    let mut command = beside(&server);
    asked(&server, &mut command);
    report(&doctor(command, &["--json", "--lang", "en"]))
}

#[tokio::test]
async fn a_running_server_is_tried_on_postgresql_and_through_a_pooler() {
    for database in [Database::Postgres, Database::Pgbouncer] {
        let said = of_a_server(database, |_| {}, |_, _| {}).await;
        assert_eq!(status(&said, "self_test"), "ok", "{said:#}");
        let (tried, database) = (&line(&said, "self_test")["detail"], &line(&said, "database")["detail"]);
        assert!(tried.as_str().expect("text").contains("it was in PostgreSQL"), "{tried}");
        assert!(database.as_str().expect("text").starts_with("PostgreSQL 1"), "with its version: {database}");
    }
}

#[tokio::test]
async fn a_running_server_is_tried_as_it_is_configured() {
    let required = |command: &mut Command| {
        command
            .env("ALERTRACE__MQTT__CLIENT_CERTS", "required")
            .env("ALERTRACE__MQTT__PROXY_PROTOCOL", "true")
            .env("ALERTRACE__MQTT__PROXY_FROM", "127.0.0.1/32");
    };
    let said = of_a_server(Database::Sqlite, required, |_, command| required(command)).await;
    assert_eq!(status(&said, "self_test"), "ok", "{said:#}");

    // Its own server, when none runs, asks for certificates too.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = command(dir.path());
    required(&mut command);
    let said = report(&doctor(command, &["--json"]));
    assert_eq!(status(&said, "self_test"), "ok", "{said:#}");
}

#[tokio::test]
async fn a_server_that_is_not_the_one_of_the_configuration_fails() {
    let secret = "another secret of more than thirty-two bytes";
    let strange = |_: &Server, command: &mut Command| {
        command.env("JWT_SECRET_KEY", secret);
    };
    let said = of_a_server(Database::Sqlite, |_| {}, strange).await;
    let tried = line(&said, "self_test")["detail"].as_str().expect("text").to_owned();
    assert!(tried.contains("does not know this credential"), "{said:#}");

    // The same secret, and a database that the server does not write to.
    let elsewhere = |server: &Server, command: &mut Command| {
        let other = server.dir().join("other.db");
        std::fs::copy(server.data_dir().join("alertrace.db"), &other).expect("a copy");
        command.env("DATABASE_URL", format!("sqlite://{}", other.display()));
    };
    let said = of_a_server(Database::Sqlite, |_| {}, elsewhere).await;
    assert_eq!(status(&said, "self_test"), "fail", "{said:#}");
}

#[tokio::test]
async fn a_server_that_acknowledges_nothing_fails_and_says_why() {
    let mut server =
        Server::start_in(tempfile::tempdir().expect("a directory"), Place::new(), |mut serve| {
            serve.env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "250");
            serve
        })
        .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let mut holder = crate::store::python(&server, "db.execute('BEGIN IMMEDIATE')");
    let publish = client.publish_packet("sensores/s1/data", 1, 7, b"{\"temperatura\":20}");
    client.send(&publish).await;
    let start = Instant::now();
    while doctor(beside(&server), &["--quick"]).status.success() {
        assert!(start.elapsed() < Duration::from_secs(20), "it says that it is ready");
    }
    let output = doctor(beside(&server), &["--json", "--lang", "en"]);
    assert_eq!(output.status.code(), Some(1));
    let said = report(&output);
    assert_eq!((status(&said, "server"), status(&said, "self_test")), ("fail", "fail"), "{said:#}");
    assert!(line(&said, "server")["detail"].as_str().expect("text").contains("503"), "{said:#}");
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    server.kill();
}

#[tokio::test]
async fn the_credential_of_the_self_test_opens_nothing_else() {
    let server = Server::start().await;
    server.device("s1").await;
    for password in [server.token.as_str(), "", "AAAA"] {
        let (_, refused) = Client::connect(&server.mqtt, 5, "x", "$doctor", password).await;
        assert_eq!(refused, 0x86, "{password:?}");
    }
    let secret = std::fs::read_to_string(server.data_dir().join("jwt.secret")).expect("the secret");
    let made = Prueba::new(secret.trim().as_bytes()).expect("a key");
    let password = made.firma(SystemClock.now()).expect("a credential");
    let (mut client, taken) = Client::connect(&server.mqtt, 5, "x", "$doctor", &password).await;
    assert_eq!(taken, 0);
    for (topic, payload, code) in [
        ("sensores/s1/data", r#"{"temperatura":20}"#, 0x87),
        ("alertas/1", "{}", 0x87),
        ("$doctor/x/y", r#"{"temperatura":20}"#, 0x87),
        ("$doctor/x", "nonsense", 0x99),
        ("$doctor/x", r#"{"temperatura":-127}"#, 0x99),
        ("$doctor/x", r#"{"temperatura":20}"#, 0),
        ("$doctor/x", "", 0),
    ] {
        assert_eq!(client.publish(topic, 1, payload).await, code, "{topic} {payload}");
    }
    for filter in ["$doctor/#", "#", "sensores/+/data", "$SYS/#"] {
        assert_eq!(client.subscribe(filter).await, 0x87, "{filter}");
    }
    let whoami = server.request(reqwest::Method::GET, "/api/v1/auth/me", &password, None).await;
    assert_eq!(whoami.status(), 401, "it is no access token");
}

/// Answers every connection with `answer`.
fn somebody(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn another_program_at_the_port_is_not_taken_for_a_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let address = somebody(answer);
        let asked = |args: &[&str]| {
            let mut command = command(dir.path());
            command.env("ALERTRACE__HTTP__LISTEN", &address);
            doctor(command, args)
        };
        assert_eq!(asked(&["--quick"]).status.code(), Some(1), "{answer}");
        let said = report(&asked(&["--json", "--lang", "en"]));
        let server = line(&said, "server");
        assert!(
            server["detail"].as_str().expect("text").starts_with("another program"),
            "{answer}: {server}"
        );
        assert_eq!(status(&said, "port"), "fail", "{answer}: {said:#}");
    }
}

#[tokio::test]
async fn a_database_of_before_or_of_later_is_told_from_one_that_is_damaged() {
    let mut server = Server::start_in(tempfile::tempdir().expect("a directory"), Place::new(), |s| s).await;
    assert_eq!(server.terminate().await.0, Some(0));
    let remedy = || {
        let said = report(&doctor(server.command(), &["--json", "--lang", "en"]));
        let database = line(&said, "database");
        let text = |key: &str| database[key].as_str().expect("text").to_owned();
        (text("status"), text("detail"), text("remedy"))
    };
    server.sql("UPDATE _sqlx_migrations SET version = 99 WHERE version = 1");
    let (status, detail, said) = remedy();
    assert!(status == "fail" && said.starts_with("Update alertrace"), "{status} {detail} {said}");
    server.sql("UPDATE _sqlx_migrations SET version = 1 WHERE version = 99");
    server.sql("DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)");
    let (status, detail, said) = remedy();
    assert!(status == "warn" && detail.contains(", 1 steps pending"), "{status} {detail} {said}");
    assert!(detail.starts_with("SQLite 3."), "{detail}");
    std::fs::write(server.data_dir().join("alertrace.db"), "nothing of a database ".repeat(500))
        .expect("a file");
    let (status, detail, said) = remedy();
    assert!(status == "fail" && said.starts_with("Put a backup back"), "{status} {detail} {said}");
    std::fs::remove_file(server.data_dir().join("alertrace.db")).expect("a file");
    std::fs::create_dir(server.data_dir().join("alertrace.db")).expect("a directory");
    let (status, detail, said) = remedy();
    assert!(status == "fail" && said.starts_with("Run doctor as the user"), "{status} {detail} {said}");
}

#[test]
fn a_certificate_is_looked_at_before_and_after_its_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert!(command(dir.path()).args(["cert", "init"]).status().expect("it runs").success());
    let served = std::fs::read(dir.path().join("certs/server.pem")).expect("a certificate");
    for (later, expected) in [("+1d", "ok"), ("+385d", "warn"), ("+400d", "fail")] {
        let then = Server::wrapped("faketime", &["-f", later], &command(dir.path()));
        let said = report(&doctor(then, &["--json"]));
        assert_eq!(status(&said, "certificate"), expected, "{later}: {said:#}");
    }
    assert_eq!(
        std::fs::read(dir.path().join("certs/server.pem")).expect("a file"),
        served,
        "nothing is renewed"
    );
}

#[test]
fn of_a_doctor_that_is_stopped_nothing_stays_and_what_was_left_is_swept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    for name in [".doctor-old", ".doctor-new"] {
        std::fs::create_dir_all(data.join(name)).expect("a directory");
    }
    let touch = ["-d", "3 hours ago"];
    assert!(
        Command::new("touch").args(touch).arg(data.join(".doctor-old")).status().expect("it runs").success()
    );
    let mut asked = command(dir.path());
    let mut child = asked.arg("doctor").stdout(Stdio::null()).spawn().expect("the binary starts");
    let own = |name: &String| name.starts_with(".doctor-") && name != ".doctor-old" && name != ".doctor-new";
    let start = Instant::now();
    // Whether it is found at work or is through already: nothing is to be there afterwards.
    while !files(&data).iter().any(own) && child.try_wait().expect("it can be waited for").is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does nothing");
    }
    let pid = child.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
    child.wait().expect("it ends");
    let left = files(&data);
    assert!(!left.iter().any(own) && !left.contains(".doctor-old"), "{left:?}");
    assert!(left.contains(".doctor-new"), "another that is at work is left alone: {left:?}");
}
