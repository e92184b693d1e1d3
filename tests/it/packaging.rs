//! `packaging/alertrace.service`: systemd takes it, finds little to object to, and the server needs nothing that it forbids.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::server::Place;
use crate::support::{Client, Server};

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/alertrace.service");
    std::fs::read_to_string(path).expect("the unit")
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("it runs; scripts/test installs what it needs");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn systemd_takes_the_unit_and_finds_it_little_exposed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("alertrace.service");
    // The binary of this build stands in for the installed one.
    std::fs::write(&path, unit().replace("/usr/bin/alertrace", env!("CARGO_BIN_EXE_alertrace")))
        .expect("a file");
    let (fine, text) = said(Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&path));
    let ours: Vec<_> = text.lines().filter(|line| line.contains("alertrace.service")).collect();
    assert!(fine && ours.is_empty(), "{text}");
    let security = ["security", "--offline=yes", "--threshold=20"];
    let (fine, text) = said(Command::new("systemd-analyze").args(security).arg(&path));
    assert!(fine, "an exposure above 2.0: {text}");
    for line in
        ["Type=notify", "WatchdogSec=", "User=alertrace", "ProtectSystem=strict", "CapabilityBoundingSet=\n"]
    {
        assert!(unit().contains(line), "{line}");
    }
}

/// What a group of system calls has, with the groups in it.
fn group(name: &str, calls: &mut BTreeSet<String>) {
    let (fine, text) = said(Command::new("systemd-analyze").args(["syscall-filter", name]));
    assert!(fine, "{name}: {text}");
    for line in text.lines().filter(|line| line.starts_with(' ')).map(str::trim) {
        if line.starts_with('@') {
            group(line, calls);
        } else if !line.starts_with('#') {
            calls.insert(line.to_owned());
        }
    }
}

#[tokio::test]
async fn the_server_makes_no_system_call_that_the_unit_forbids() {
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let out = trace.path().display().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start_in(dir, Place::new(), |serve| {
        Server::wrapped("strace", &["-f", "-qq", "-c", "-U", "name", "-o", &out], &serve)
    })
    .await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, "{\"temperatura\":20}").await, 0);
    server.get("/api/v1/sensores/1/lecturas").await;
    assert_eq!(server.terminate().await.0, Some(0));
    let text = std::fs::read_to_string(trace.path()).expect("a list");
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let word = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let made: BTreeSet<String> =
        text.lines().filter_map(name).filter(word).filter(|n| n != "total" && n != "syscall").collect();
    assert!(made.contains("fsync") && made.contains("accept4"), "{text}");

    let mut allowed = BTreeSet::new();
    for filter in unit().lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (names, forbidden) = filter.strip_prefix('~').map_or((filter, false), |rest| (rest, true));
        let mut calls = BTreeSet::new();
        names.split(' ').for_each(|name| group(name, &mut calls));
        if forbidden {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    let missing: Vec<_> = made.difference(&allowed).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
