//! `alertrace doctor`: what it says of a server that runs, of one that does not, and of what is wrong.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::Server;
use crate::support::server::command;

fn doctor(mut command: Command, args: &[&str]) -> Output {
    command.arg("doctor").args(args).output().expect("the binary runs")
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
    let here = |server: &Server| {
        let mut command = server.command();
        command
            .env("ALERTRACE__HTTP__LISTEN", &server.http)
            .env("ALERTRACE__MQTT__LISTEN", &server.mqtt)
            .env("ALERTRACE__MQTT__TLS_LISTEN", &server.mqtts);
        command
    };
    let before = files(&server.data_dir());
    let output = doctor(here(&server), &["--json"]);
    let said = report(&output);
    assert!(output.status.success(), "{said:#}");
    assert_eq!(said["ok"], true);
    for check in ["server", "port", "certificate", "disk", "clock", "database", "self_test"] {
        assert_eq!(status(&said, check), "ok", "{check}: {said:#}");
    }
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
