//! MQTT by the numbers: what MQTT 3.1.1 and 5.0 demand of a server, statement by statement, as raw bytes
//! over sockets against the broker in `mqtt.open` mode.
//!
//! A comment names the statements that an assertion holds the broker to, with the version whose
//! numbering it is: the two specifications number differently. `docs/mqtt-conformance.md` lists all
//! statements and names these tests; `scripts/check-conformance` keeps the two in step.

mod acks;
mod aliases;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod flow_control;
mod malformed;
mod ping;
mod properties;
mod publish;
mod retained;
mod sessions;
mod shared;
mod subscribe;
mod topics;
mod unsubscribe;
mod websocket;
mod will;
mod wire;

use std::process::Child;

use crate::support::Server;
use crate::support::postgres::Database;
use crate::support::server::place;

/// A broker for anybody and any topic.
async fn broker() -> Server {
    broker_with(&[]).await
}

/// As [`broker`], with settings (`mqtt.…`) of its own.
async fn broker_with(settings: &[(&str, &str)]) -> Server {
    Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true");
        for (key, value) in settings {
            command.env(format!("ALERTRACE__MQTT__{key}"), value);
        }
        command
    })
    .await
}

/// As [`broker`], on SQLite, and patient with whoever locks the file.
async fn broker_on_sqlite(connect_deadline_s: &str) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), Database::Sqlite);
    Server::start_in(dir, place, |mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true").env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "30000");
        command.env("ALERTRACE__MQTT__CONNECT_DEADLINE_S", connect_deadline_s);
        command
    })
    .await
}

/// Holds the file of a [`broker_on_sqlite`], so that nothing is committed, until [`lets_go`].
fn holds(server: &Server) -> Child {
    crate::store::python(server, "db.execute('BEGIN IMMEDIATE')")
}

fn lets_go(mut holder: Child) {
    drop(holder.stdin.take());
    assert!(holder.wait().expect("it ends").success());
}
