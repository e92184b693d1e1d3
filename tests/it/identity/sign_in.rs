//! How sign-in is hardened: limits, equal costs, passwords that everybody has, sign-ins that can be seen and ended.

use std::time::{Duration, Instant};

use std::collections::BTreeMap;
use std::sync::Arc;

use alertrace::app;
use alertrace::config::{self, Sources};
use alertrace::domain::SystemClock;
use reqwest::Method;
use serde_json::json;

use super::{empresa, login, post, said};
use crate::support::Server;
use crate::support::server::{EMAIL, PASSWORD};

async fn with(name: &'static str, value: &'static str) -> Server {
    Server::start_with(|mut command| {
        command.env(name, value);
        command
    })
    .await
}

#[tokio::test]
async fn passwords_of_one_account_are_tried_a_few_times_a_minute() {
    let server = with("ALERTRACE__IDENTITY__MAX_SIGN_INS_PER_ACCOUNT_PER_MIN", "4").await;
    for email in ["nobody@x.pe", EMAIL] {
        let mut refused = None;
        for _ in 0..6 {
            let (status, said) = login(&server, email, "another long password").await;
            if status == 429 {
                refused = Some(said);
                break;
            }
        }
        assert_eq!(refused.expect("in the end")["code"], "too_many_requests", "{email}");
    }
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 429, "the right one too, for a while");
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201);
    assert_eq!(login(&server, "e1@x.pe", PASSWORD).await.0, 200, "and nobody else's");
}

#[tokio::test]
async fn a_password_that_many_people_have_is_refused() {
    let server = Server::start().await;
    for common in ["1234567890", "Password123", "contraseña123"] {
        let mut body = empresa(1);
        body["password"] = common.into();
        let (status, refused) = post(&server, "/api/v1/auth/register", body).await;
        assert_eq!((status, &refused["code"]), (422, &"weak_password".into()), "{common}");
        assert_eq!(refused["errors"][0]["campo"], "password");
    }
}

#[tokio::test]
async fn an_unknown_email_costs_what_a_wrong_password_costs() {
    let server = with("ALERTRACE__IDENTITY__MAX_SIGN_INS_PER_ACCOUNT_PER_MIN", "0").await;
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    // In turn, so that whatever else the machine does falls on both.
    for n in 0..30 {
        for (which, email) in [EMAIL.to_owned(), format!("nobody{n}@x.pe")].iter().enumerate() {
            let start = Instant::now();
            assert_eq!(login(&server, email, "a wrong and long one").await.0, 401);
            times[which].push(start.elapsed());
        }
    }
    let quartiles = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        [7, 15, 22].map(|i| times[i].as_secs_f64() * 1e3)
    };
    let [wrong, unknown] = times.each_mut().map(quartiles);
    eprintln!("quartiles, ms: wrong password {wrong:.1?}, unknown e-mail {unknown:.1?}");
    let ratio = unknown[0] / wrong[0];
    assert!((0.7..1.4).contains(&ratio), "wrong password {wrong:.1?} ms, unknown e-mail {unknown:.1?} ms");
}

#[tokio::test]
async fn open_sign_ins_are_listed_and_one_can_be_ended() {
    let server = Server::start().await;
    let (_, one) = login(&server, EMAIL, PASSWORD).await;
    let (_, two) = login(&server, EMAIL, PASSWORD).await;
    let token = two["access_token"].as_str().expect("a token");
    let list = server.request(Method::GET, "/api/v1/auth/sesiones", token, None).await;
    let (status, list) = said(list).await;
    assert_eq!(status, 200);
    let list = list.as_array().expect("a list");
    assert_eq!(list.len(), 3, "the test's own, and these: {list:?}");
    let own: Vec<bool> = list.iter().map(|s| s["actual"].as_bool().expect("a flag")).collect();
    assert_eq!(own, [true, false, false], "the latest is the one that asks");
    assert_eq!(list[0]["direccion"], "127.0.0.1");

    let end = |id: &str, token: String| {
        let path = format!("/api/v1/auth/sesiones/{id}");
        let server = &server;
        async move { server.request(Method::DELETE, &path, &token, None).await.status().as_u16() }
    };
    let other = list[1]["id"].as_str().expect("text");
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201);
    let stranger = server.sign_in("e1@x.pe").await;
    assert_eq!(end(other, stranger).await, 404, "nobody ends another's");
    assert_eq!(end(other, token.to_owned()).await, 204);
    assert_eq!(end(other, token.to_owned()).await, 404);
    let refresh = |s: &serde_json::Value| json!({ "refresh_token": s["refresh_token"] });
    assert_eq!(post(&server, "/api/v1/auth/refresh", refresh(&one)).await.0, 401);
    assert_eq!(post(&server, "/api/v1/auth/refresh", refresh(&two)).await.0, 200);
}

#[tokio::test]
#[ignore = "a measurement, for docs/decisions/0013"]
async fn what_a_request_pays_for_knowing_whose_it_is() {
    let mut server = Server::start().await;
    server.terminate().await;
    let data_dir = server.data_dir();
    let mut env = BTreeMap::from([("ALERTRACE__DATA_DIR".to_owned(), data_dir.display().to_string())]);
    env.extend(server.place.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let config = config::load(&Sources { env, ..Sources::default() }).expect("a configuration");
    let store = app::open_store(&config).await.expect("the database");
    let secret = std::fs::read_to_string(data_dir.join("jwt.secret")).expect("the secret");
    let cuentas =
        app::accounts(&config, store, Arc::new(SystemClock), Arc::default(), secret.trim().as_bytes());
    let cuentas = cuentas.expect("accounts");
    let mut times = Vec::new();
    for n in 0..5_500 {
        let start = Instant::now();
        cuentas.usuario(&server.token).await.expect("the administrator");
        if n >= 500 {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
    eprintln!(
        "token and rows, µs: median {:.0}, p10 {:.0}, p90 {:.0}, p99 {:.0}",
        at(50),
        at(10),
        at(90),
        at(99)
    );
}
