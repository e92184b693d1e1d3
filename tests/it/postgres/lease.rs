//! One process writes: the second is refused, and one that has been replaced acknowledges nothing more.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{schema, signal};
use crate::support::postgres::{Database, shared};
use crate::support::{Client, Server};

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_goes_on() {
    let server = Server::start_on(Database::Postgres).await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    // From another directory, so that no lock file is in the way.
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let mut second = server.command();
    second.current_dir(elsewhere.path()).env("ALERTRACE__DATA_DIR", elsewhere.path().join("data"));
    let output = second.arg("serve").output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("another alertrace is running on this database (process "), "{error}");
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    // From the same directory, the lock file says so at once.
    let output = server.command().arg("serve").output().expect("the binary starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("alertrace.lock is locked"));
}

#[tokio::test]
async fn an_installation_on_postgresql_does_not_begin_anew_in_sqlite_for_want_of_its_address() {
    let mut server = Server::start_on(Database::Postgres).await;
    assert_eq!(server.terminate().await.0, Some(0));
    let without = |args: &[&str]| {
        let mut command = server.command();
        command.env_remove("DATABASE_URL").env_remove("ALERTRACE__DATABASE__SCHEMA").args(args);
        let output = command.output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [&["serve"][..], &["migrate"]] {
        let (code, said) = without(args);
        assert_eq!(code, Some(1), "{said}");
        for part in ["DATABASE_URL is not set", "data/instance", "remove that file"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(!server.data_dir().join("alertrace.db").exists(), "nothing was begun");
    std::fs::remove_file(server.data_dir().join("instance")).expect("the mark");
    let (code, said) = without(&["migrate"]);
    assert_eq!(code, Some(0), "it is meant: {said}");
}

#[tokio::test]
async fn a_restart_waits_for_nobody() {
    let mut server = Server::start_on(Database::Postgres).await;
    let start = Instant::now();
    server.kill_and_restart();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_process_that_was_replaced_while_it_stood_still_acknowledges_nothing_more() {
    let mut first = Server::start_on(Database::Postgres).await;
    let device = first.device("s1").await;
    let mut client = Client::device(&first.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    signal(&first, "-STOP");
    // Another takes over once the lease has expired.
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let second = Server::take_over(elsewhere, first.place.clone()).await;
    let bytes = client.publish_packet("sensores/s1/data", 1, 2, br#"{"temperatura":30}"#);
    client.send(&bytes).await;
    signal(&first, "-CONT");
    // The first reads what was sent to it, and ends without a word of having stored it.
    let answer = timeout(Duration::from_secs(20), client.read()).await.expect("it ends");
    assert!(answer.is_none_or(|(first, _)| first != 0x40), "acknowledged by one that may not write");
    assert_eq!(first.ended().await, Some(1), "a failing exit code");
    let stored = format!("SELECT COUNT(*) FROM {}.lecturas", schema(&first));
    assert_eq!(shared().sql(&stored), "1");
    // The device goes to the second, which is the one that writes.
    let mut client = Client::device(&second.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":30}"#).await, 0);
    assert_eq!(shared().sql(&stored), "2");
}
