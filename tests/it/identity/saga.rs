//! A registration that fails half-way, or whose process dies, leaves nothing behind.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::double::{Double, Fault};
use super::supabase::talkative;
use super::{beside, empresa, login, post, server};
use crate::support::server::PASSWORD;
use crate::support::{Server, postgres};

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
    double.fault(USERS, Some(Fault::Held));
    let hangs = begin(&server, empresa(1));
    until("the identity is there", || there(&double, "e1@x.pe")).await;
    // From here on nobody else writes: the server hears of the identity, and cannot make the person.
    if let Some((_, schema)) =
        server.place.iter().find(|(name, _)| *name == "ALERTRACE__DATABASE__SCHEMA").cloned()
    {
        // Who holds the table goes by the schema's name.
        let hold = format!("LOCK TABLE {schema}.empresas IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)");
        let granted = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{schema}.empresas'::regclass \
                            AND mode = 'AccessExclusiveLock' AND granted"
        );
        let mut lock = std::process::Command::new("psql")
            .args(["-Xq1", "-c", &hold])
            .arg(postgres::shared().url())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("psql runs");
        until("the table is held", || postgres::shared().sql(&granted) == "1").await;
        double.release();
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{schema}.empresas'::regclass AND NOT granted"
        );
        until("the server waits for it", || postgres::shared().sql(&waits) == "1").await;
        server.kill();
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks \
                           WHERE relation = '{schema}.empresas'::regclass AND granted"
        );
        postgres::shared().sql(&end);
        lock.wait().expect("it ended");
        undone_at_its_start(&mut server, &double, hangs).await;
        return;
    }
    let mut lock = hold(&server);
    double.release();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The server first: what it could not do it has not done.
    server.kill();
    lock.kill().expect("it ends");
    lock.wait().expect("it ended");
    undone_at_its_start(&mut server, &double, hangs).await;
}

/// Keeps everybody else from writing into the file of the database until it is killed.
pub(super) fn hold(server: &Server) -> std::process::Child {
    let script = "import sqlite3, sys, time\n\
                  db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)\n\
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
    lock
}

async fn undone_at_its_start(
    server: &mut Server,
    double: &Double,
    hangs: tokio::task::JoinHandle<Option<u16>>,
) {
    server.kill_and_restart();
    hangs.await.expect("it ends");
    double.fault(USERS, None);
    until("it is gone", || !there(double, "e1@x.pe")).await;
    assert_eq!(post(server, "/api/v1/auth/register", empresa(1)).await.0, 201, "all is free");
    assert_eq!(login(server, "e1@x.pe", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn without_a_key_to_remove_it_with_the_log_tells_of_the_identity_that_stays() {
    const SIGN_UP: &str = "/auth/v1/signup";
    let double = Double::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let mut place = beside(&dir, &double);
    place.retain(|(name, _)| *name != "SUPABASE_SERVICE_ROLE_KEY");
    let server = Server::start_in(dir, place, |inner| talkative(&inner, &log)).await;
    double.fault(SIGN_UP, Some(Fault::Held));
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
    let written = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the log tells of it", || written().contains("an account without a person stays in Supabase"))
        .await;
    let line = written();
    let line = line.lines().find(|l| l.contains("stays in Supabase")).expect("the line").to_owned();
    assert!(line.contains("supabase_service_role_key") && line.contains("user_id"), "{line}");
}

/// Registrations that have not ended, as the file of the database has them; on PostgreSQL they are not looked at.
fn waiting(server: &Server) -> usize {
    if postgres::of_this_run() != postgres::Database::Sqlite {
        return 0;
    }
    let script = "import sqlite3, sys\n\
                  print(sqlite3.connect(sys.argv[1]).execute('SELECT COUNT(*) FROM altas').fetchone()[0])";
    let mut python = std::process::Command::new("python3");
    let output = python.args(["-c", script]).arg(server.data_dir().join("alertrace.db")).output();
    String::from_utf8_lossy(&output.expect("python3 runs").stdout).trim().parse().expect("a number")
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_undone_at_the_next_start() {
    let double = Double::start();
    let mut server = server(&double).await;
    double.fault(USERS, Some(Fault::Cut));
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 503);
    double.fault(USERS, None);
    assert!(there(&double, "e1@x.pe"));
    server.kill_and_restart();
    until("it is gone", || !there(&double, "e1@x.pe")).await;
    assert!(there(&double, "admin@fundo.pe"), "and nobody else's");
}

#[tokio::test]
async fn an_account_that_cannot_be_removed_keeps_no_other_from_it_and_is_tried_again() {
    const ONE: &str = "/auth/v1/admin/users/*";
    let double = Double::start();
    let mut server = server(&double).await;
    // Of two with one RUC the later one's is to be removed; the connection breaks, and it is asked once more.
    let lose = async |one: u32| {
        double.fault(USERS, Some(Fault::Held));
        let (first, mut second) = (empresa(one), empresa(one + 1));
        second["empresa"]["ruc"] = first["empresa"]["ruc"].clone();
        let both = [begin(&server, first), begin(&server, second)];
        let email = |n: u32| format!("e{n}@x.pe");
        until("both are there", || there(&double, &email(one)) && there(&double, &email(one + 1))).await;
        double.release();
        for one in both {
            one.await.expect("it ends").expect("an answer");
        }
        double.fault(USERS, None);
    };
    double.fault(ONE, Some(Fault::Cut));
    lose(1).await;
    assert_eq!(double.asked(ONE), 2, "what removes is asked once more");
    let left = |n: u32| double.emails().iter().filter(|e| **e == format!("e{n}@x.pe")).count();
    assert_eq!(left(1) + left(2), 1);
    // It refuses; what is left of two registrations waits.
    double.fault(
        ONE,
        Some(Fault::Says(403, r#"{"code":403,"error_code":"not_admin","msg":"User not allowed"}"#)),
    );
    lose(3).await;
    lose(5).await;
    assert_eq!([left(3) + left(4), left(5) + left(6)], [2, 2]);
    let asked = double.asked(ONE);
    server.kill_and_restart();
    until("both are tried", || double.asked(ONE) >= asked + 2).await;
    assert_eq!([left(3) + left(4), left(5) + left(6)], [2, 2]);
    double.fault(ONE, None);
    server.kill_and_restart();
    until("both are gone", || [left(3) + left(4), left(5) + left(6)] == [1, 1]).await;
}

#[tokio::test]
async fn an_account_that_is_being_removed_is_nobodys_to_take() {
    const ONE: &str = "/auth/v1/admin/users/*";
    let double = Double::start();
    let mut server = server(&double).await;
    double.fault(USERS, Some(Fault::Cut));
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 503);
    double.fault(USERS, None);
    double.fault(ONE, Some(Fault::Slow(Duration::from_millis(1_200))));
    server.kill_and_restart();
    until("its removal is under way", || double.asked(ONE) == 1).await;
    // With the same e-mail and password, which are good until it is gone.
    let (status, said) = post(&server, "/api/v1/auth/register", empresa(1)).await;
    if status != 201 {
        assert_eq!((status, &said["code"]), (409, &"email_in_use".into()), "{said}");
        assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201, "all is free");
    }
    assert_eq!(login(&server, "e1@x.pe", PASSWORD).await.0, 200, "whoever was told that they are in is");
}

#[tokio::test]
async fn who_registers_again_before_it_is_undone_keeps_the_account() {
    let double = Double::start();
    let mut server = server(&double).await;
    double.fault(USERS, Some(Fault::Cut));
    let (status, said) = post(&server, "/api/v1/auth/register", empresa(1)).await;
    assert_eq!((status, &said["code"]), (503, &"identity_unavailable".into()));
    double.fault(USERS, None);
    // Whoever does not wait for that registers again, with the same password: it is theirs.
    assert!(there(&double, "e1@x.pe"));
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201);
    // The first of the two is looked at again, and was complete after all.
    let listed = double.asked(USERS);
    server.kill_and_restart();
    until("the account is looked for", || double.asked(USERS) > listed).await;
    until("nothing is left to be undone", || waiting(&server) == 0).await;
    assert!(there(&double, "e1@x.pe"));
    assert_eq!(login(&server, "e1@x.pe", PASSWORD).await.0, 200);
}
