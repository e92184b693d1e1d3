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
            let rate = said.lines().last().and_then(|l| l.split(' ').next()?.parse::<u64>().ok());
            assert!(rate.is_some_and(|r| (200..400).contains(&r)), "{said}");
        }
    }
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
    let twice = "import threading, time\ndef again():\n  while not db.execute('SELECT COUNT(*) FROM lecturas').fetchone()[0]: time.sleep(0.01)\n  \
                 db.execute('INSERT INTO lecturas SELECT id_sensor, ts + 1, valores FROM lecturas ORDER BY ts LIMIT 1')\n\
                 db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10, check_same_thread=False)\n\
                 threading.Thread(target=again).start()";
    let mut other = crate::store::python(&server, twice);
    let answer = simulate(&server, &server.mqtt, &[]);
    drop(other.stdin.take());
    other.wait().expect("it ends");
    let said = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(
        said.contains(" stored readings: 0 acknowledged and missing, 0 stored twice, 1 that nobody sent"),
        "{said}"
    );
}
