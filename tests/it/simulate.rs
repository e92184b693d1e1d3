//! The load command reports what it saw, over either transport and with every QoS.

use std::process::{Command, Output};

use crate::support::Server;
use crate::support::server::{EMAIL, PASSWORD};

fn simulate(server: &Server, broker: &str, more: &[&str]) -> Output {
    let api = format!("http://{}", server.http);
    let count = ["--connections", "3", "--rate", "300", "--seconds", "1"];
    Command::new(env!("CARGO_BIN_EXE_alertrace"))
        .current_dir(server.dir())
        .args(["simulate", "--broker", broker, "--api", &api, "--email", EMAIL, "--verify", "--sockets", "4"])
        .args(count)
        .args(more)
        .env("ALERTRACE_PASSWORD", PASSWORD)
        .output()
        .expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_qos_over_tls_and_in_clear_is_sent_and_found_again() {
    let server = Server::start().await;
    for qos in ["0", "1", "2"] {
        for (broker, tls) in [(&server.mqtt, &[][..]), (&server.mqtts, &["--ca", "certs/ca.pem"])] {
            let answer = simulate(&server, broker, &[&["--qos", qos, "--mqtt-version", "5"], tls].concat());
            let said = String::from_utf8_lossy(&answer.stdout);
            assert!(answer.status.success(), "{said}{}", String::from_utf8_lossy(&answer.stderr));
            assert!(said.contains(" stored readings: 0 "), "{said}");
            assert!(said.contains("4 of 4 sockets heard "), "{said}");
            assert_eq!(said.contains("acknowledgement: p50"), qos != "0", "{said}");
            // No faster than it was told to.
            let rate = said.lines().last().and_then(|l| l.split(' ').next()?.parse::<u64>().ok());
            assert!(rate.is_some_and(|r| (1..400).contains(&r)), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_at_the_pace_of_sensors_unless_load_is_asked_for() {
    let server = Server::start().await;
    let sent = |load: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alertrace"));
        let api = format!("http://{}", server.http);
        command.current_dir(server.dir()).env("ALERTRACE_PASSWORD", PASSWORD);
        command.args(["simulate", "--broker", &server.mqtt, "--api", &api, "--email", EMAIL, "--verify"]);
        let answer = command.args(["--connections", "3", "--seconds", "2"]).args(load).output();
        let answer = answer.expect("it runs");
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(answer.status.success(), "{said}{}", String::from_utf8_lossy(&answer.stderr));
        let sent = said.strip_prefix("sent ").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
        sent.unwrap_or_else(|| panic!("{said}"))
    };
    let (pace, load) = (sent(&[]), sent(&["--load"]));
    assert!((3..=6).contains(&pace), "one a second of each: {pace}");
    assert!(load > 6, "{load}");
    let none = Command::new(env!("CARGO_BIN_EXE_alertrace")).args(["simulate", "--rate", "0"]).output();
    assert_eq!(none.expect("it runs").status.code(), Some(2), "nothing a second is no pace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_another_authority_vouches_for_is_not_spoken_to() {
    let (server, other) = (Server::start().await, Server::start().await);
    let ca = other.dir().join("certs/ca.pem");
    let answer = simulate(&server, &server.mqtts, &["--ca", ca.to_str().expect("text")]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("certificate"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_nobody_sent_is_found() {
    let server = Server::start().await;
    // As soon as there is one of a device's, another beside it: a message that was stored twice.
    let twice = "INSERT INTO lecturas SELECT id_sensor, ts + 1, valores FROM lecturas ORDER BY ts LIMIT 1";
    let none = server.rows("lecturas");
    let answer = std::thread::scope(|threads| {
        threads.spawn(|| {
            while server.rows("lecturas") == none {}
            server.sql(twice);
        });
        simulate(&server, &server.mqtt, &[])
    });
    let said = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(
        said.contains(" stored readings: 0 acknowledged and missing, 0 stored twice, 1 that nobody sent"),
        "{said}"
    );
}
