//! The commands behind the figures of `docs/benchmarks.md`, in a short form: that they run, and say what they
//! are cited for. How fast anything is, no test says.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::postgres::shared;

const BIN: &str = env!("CARGO_BIN_EXE_alertrace");

/// Runs one; answers what it says, which must be a success.
fn run(script: &str, args: &[&str], env: &[(&str, &str)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("scripts").join(script));
    // Each has a server of its own, on SQLite unless it is said.
    command.env_remove("DATABASE_URL").env_remove("STACK");
    command.args(args).env("BIN", BIN).envs(env.iter().copied());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    said
}

/// A program of `examples/`, which is built with the tests.
fn example(name: &str) -> String {
    let path: PathBuf = Path::new(BIN).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is not built: cargo build --examples", path.display());
    path.display().to_string()
}

fn contains(said: &str, expected: &[&str]) {
    for text in expected {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
}

#[test]
fn bench_verifies_what_was_acknowledged() {
    let said = run("bench", &["--rate", "200", "--seconds", "1", "--connections", "3"], &[]);
    contains(&said, &["acknowledged/s", "acknowledgement: p50", " stored readings: 0 "]);
}

#[test]
fn bench_verifies_on_postgresql_and_through_a_pooler() {
    let (direct, pooler) = (shared().url(), shared().pooler_url());
    for (name, place) in [
        ("d", &[("DATABASE_URL", direct.as_str())][..]),
        ("p", &[("DATABASE_URL", pooler.as_str()), ("DIRECT_URL", direct.as_str())]),
    ] {
        let schema = format!("bench{}{name}", std::process::id());
        let env = [place, &[("ALERTRACE__DATABASE__SCHEMA", schema.as_str())]].concat();
        let said = run("bench", &["--rate", "200", "--seconds", "1", "--connections", "3"], &env);
        contains(&said, &["acknowledged/s", " stored readings: 0 "]);
        let stored: u32 =
            shared().sql(&format!("SELECT COUNT(*) FROM {schema}.lecturas")).parse().expect("a number");
        assert!(stored > 0, "it is there that they are");
    }
}

#[test]
fn bench_history_asks_and_deletes() {
    let short = ["--mine", "3000", "--others", "20000", "--rounds", "1", "--seconds", "1", "--binary", BIN];
    let said = run("bench-history", &short, &[]);
    let questions = ["500 points", "by the day", "by the hour", "figures of a year", "100 readings"];
    contains(&said, &questions);
    contains(
        &said,
        &["quiet:", "while readings older than 100 days are deleted:", "readings were deleted meanwhile"],
    );
}

#[test]
fn bench_sockets_are_heard() {
    let short = ["--rate", "100", "--seconds", "1", "--connections", "3", "--sockets", "6"];
    for (how, heard) in [(&[][..], "6 of 6 sockets heard"), (&["--sockets-hear-all"], "p50")] {
        let said = run("bench", &[&short[..], how].concat(), &[]);
        contains(&said, &[heard, "0 resyncs"]);
    }
}

#[test]
fn bench_lists_asks_for_every_list() {
    let args =
        ["--sensors", "1000", "--readings", "1000", "--alerts", "500", "--rounds", "1", "--binary", BIN];
    let said = run("bench-lists", &args, &[]);
    contains(&said, &["| admin | `/sensores` | 100 |", "| worker | `/sensores` | 10 |", "`/dashboard/kpis`"]);
}

#[test]
fn compare_puts_one_beside_the_other() {
    let said = run("compare", &["1"], &[("CONNECTIONS", "5"), ("CROWD", "20"), ("SENSORS", "200")]);
    let rows =
        ["one fdatasync", "Mosquitto, storing nothing", "of Mosquitto", "over TLS", "1,000 messages/s"];
    contains(&said, &rows);
    contains(&said, &["20 connections, a device each", "verified"]);
    contains(
        &said,
        &["200 connections over TLS", "MiB at most", "alertrace_alerts_total{action=\"created\"}"],
    );
    // What the stack beside it has stored, of what its broker acknowledged.
    for mode in ["(orm)", "(async)"] {
        let line = said.lines().find(|l| l.starts_with("Mosquitto + FastAPI") && l.contains(mode));
        let line = line.unwrap_or_else(|| panic!("{mode} is not in: {said}"));
        let stored = line.split_once(mode).and_then(|(_, rest)| rest.trim().split(' ').next()?.parse().ok());
        assert!(
            stored.is_some_and(|n: u32| n > 0) && line.contains(" acknowledged/s; Alertrace: "),
            "{line}"
        );
    }
}

#[test]
fn soak_idle_weighs_connections() {
    let args = ["idle", "--connections", "20", "--seconds", "1", "--bound", "1000000000"];
    let said = run("soak", &args, &[("SOAK", &example("soak"))]);
    contains(&said, &["alertrace", "mosquitto"]);
}

#[test]
fn soak_churn_loses_nothing() {
    let args = ["churn", "--connections", "16", "--seconds", "10", "--life", "3", "--growth", "10000"];
    let said = run("soak", &args, &[("SOAK", &example("soak"))]);
    contains(&said, &["resident"]);
}

#[test]
fn soak_hostile_does_each_thing_and_devices_go_on() {
    let short = ["--seconds", "2", "--quiet", "1", "--rate", "40"];
    let few =
        ["--slow", "10", "--connects", "50", "--handshakes", "20", "--garbage", "20", "--messages", "200"];
    let args = [&["hostile", "--factor", "1000000"], &short[..], &few[..]].concat();
    let said = run("soak", &args, &[("HOSTILE", &example("hostile"))]);
    contains(&said, &["one byte a second", "subscribers that never read", "connections without CONNECT"]);
    contains(
        &said,
        &["subscriber to everything", "retained messages", "TLS handshakes that stop", "garbage"],
    );
    contains(&said, &["filters that come and go", "subscribed to and taken back"]);
}
