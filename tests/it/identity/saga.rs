//! A registration that fails half-way, or whose process dies, leaves nothing behind.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::double::{Double, Fault};
use super::{empresa, login, post, server};
use crate::support::Server;
use crate::support::server::PASSWORD;

const USERS: &str = "/auth/v1/admin/users";

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

fn there(double: &Double, email: &str) -> bool {
    double.emails().iter().any(|e| e == email)
}

/// Sends a registration and does not wait for its answer.
fn begin(server: &Server, body: Value) -> tokio::task::JoinHandle<Option<u16>> {
    let url = format!("http://{}/api/v1/auth/register", server.http);
    tokio::spawn(async move {
        let answer = reqwest::Client::new().request(Method::POST, url).json(&body).send().await;
        answer.ok().map(|a| a.status().as_u16())
    })
}

#[tokio::test]
async fn of_two_registrations_with_one_ruc_the_later_ones_identity_is_removed() {
    let double = Double::start();
    let server = server(&double).await;
    // Both find nothing in their way, and both get an identity.
    double.fault(USERS, Some(Fault::Held));
    let (one, mut two) = (empresa(1), empresa(2));
    two["empresa"]["ruc"] = one["empresa"]["ruc"].clone();
    let both = [begin(&server, one), begin(&server, two)];
    until("both are there", || there(&double, "e1@x.pe") && there(&double, "e2@x.pe")).await;
    double.release();
    let mut statuses = Vec::new();
    for one in both {
        statuses.push(one.await.expect("it ends").expect("an answer"));
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    let left = double.emails().iter().filter(|e| e.starts_with('e')).count();
    assert_eq!(left, 1, "{:?}", double.emails());
    // The one that lost is free to come with its own RUC.
    double.fault(USERS, None);
    let loser = if there(&double, "e1@x.pe") { 2 } else { 1 };
    let mut again = empresa(loser);
    again["empresa"]["ruc"] = "20999999999".into();
    assert_eq!(post(&server, "/api/v1/auth/register", again).await.0, 201);
}

#[tokio::test]
async fn a_server_that_dies_before_it_hears_of_the_identity_undoes_it_at_its_start() {
    let double = Double::start();
    let mut server = server(&double).await;
    double.fault(USERS, Some(Fault::Held));
    let hangs = begin(&server, empresa(1));
    until("the identity is there", || there(&double, "e1@x.pe")).await;
    server.kill_and_restart();
    hangs.await.expect("it ends");
    double.fault(USERS, None);
    until("it is gone", || !there(&double, "e1@x.pe")).await;
    assert!(there(&double, "admin@fundo.pe"), "and nobody else's");
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201, "all is free");
    assert_eq!(login(&server, "e1@x.pe", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn a_server_that_dies_between_the_identity_and_its_person_undoes_it_at_its_start() {
    let double = Double::start();
    let mut server = server(&double).await;
    if server.place.iter().any(|(name, _)| *name == "DATABASE_URL") {
        // What holds the writer up here is a lock on SQLite's file.
        return;
    }
    double.fault(USERS, Some(Fault::Held));
    let hangs = begin(&server, empresa(1));
    until("the identity is there", || there(&double, "e1@x.pe")).await;
    // From here on nobody else writes: the server hears of the identity, and cannot make the person.
    let script = "import sqlite3, sys, time\n\
                  db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  db.execute('BEGIN IMMEDIATE')\n\
                  print('locked', flush=True)\n\
                  time.sleep(60)";
    let mut lock = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(server.data_dir().join("alertrace.db"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut line = String::new();
    let out = lock.stdout.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    double.release();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The server first: what it could not do it has not done.
    server.kill();
    lock.kill().expect("it ends");
    lock.wait().expect("it ended");
    server.kill_and_restart();
    hangs.await.expect("it ends");
    double.fault(USERS, None);
    until("it is gone", || !there(&double, "e1@x.pe")).await;
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201, "all is free");
    assert_eq!(login(&server, "e1@x.pe", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_undone() {
    let double = Double::start();
    let server = server(&double).await;
    double.fault(USERS, Some(Fault::Cut));
    let (status, said) = post(&server, "/api/v1/auth/register", empresa(1)).await;
    assert_eq!((status, &said["code"]), (503, &"identity_unavailable".into()));
    double.fault(USERS, None);
    // Whoever does not wait for that registers again, with the same password: it is theirs.
    assert!(there(&double, "e1@x.pe"));
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201);
    assert_eq!(login(&server, "e1@x.pe", PASSWORD).await.0, 200);
}
