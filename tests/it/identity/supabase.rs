//! Supabase as the identity provider: people who are known there and not here, keys that change, secrets.

use std::path::Path;
use std::process::Command;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::double::{ANON, Double, Fault, Key, SERVICE};
use super::{beside, empresa, flow, login, me, post, server, server_with};
use crate::support::server::{EMAIL, PASSWORD, place};
use crate::support::{Server, postgres};

const JWKS: &str = "/auth/v1/.well-known/jwks.json";

/// Waits until a server has asked for the double's keys.
pub async fn ready(double: &Double) {
    for _ in 0..100 {
        if double.asked(JWKS) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it never asks for keys");
}

#[tokio::test]
async fn somebody_who_is_known_there_alone_has_no_profile_until_they_register() {
    let double = Double::start();
    let server = server(&double).await;
    let user_id = double.add("sola@x.pe", PASSWORD, true);
    let (status, refused) = login(&server, "sola@x.pe", PASSWORD).await;
    assert_eq!((status, &refused["code"]), (403, &"perfil_incompleto".into()));
    // With a token that a front end got from Supabase itself, too.
    let token = double.key().sign(&double.claims(&user_id));
    let (status, refused) = me(&server, &token).await;
    assert_eq!((status, &refused["code"]), (403, &"perfil_incompleto".into()));

    let mut body = empresa(7);
    body["email"] = "sola@x.pe".into();
    body["password"] = "another long password".into();
    let (status, refused) = post(&server, "/api/v1/auth/register", body.clone()).await;
    assert_eq!((status, &refused["code"]), (409, &"email_in_use".into()), "not with another's password");
    body["password"] = PASSWORD.into();
    let (status, made) = post(&server, "/api/v1/auth/register", body).await;
    assert_eq!((status, &made["user_id"]), (201, &user_id.clone().into()));
    let (status, profile) = me(&server, &token).await;
    assert_eq!((status, &profile["empresa_nombre"]), (200, &"Fundo 7".into()), "with the same token");
}

#[tokio::test]
async fn without_the_service_role_key_people_confirm_their_address_first() {
    let double = Double::start();
    double.confirms_by_mail();
    double.add(EMAIL, PASSWORD, true);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut place = beside(&dir, &double);
    place.retain(|(name, _)| *name != "SUPABASE_SERVICE_ROLE_KEY");
    // `user create` finds the administrator there, by the same password.
    let server = Server::start_in(dir, place, |command| command).await;
    let (status, made) = post(&server, "/api/v1/auth/register", empresa(8)).await;
    assert_eq!(status, 201, "{made}");
    let (status, refused) = login(&server, "e8@x.pe", PASSWORD).await;
    assert_eq!((status, &refused["code"]), (401, &"email_not_confirmed".into()));
    // An address that somebody has is answered there as if it were new.
    double.add("ya@x.pe", "another long password", true);
    let mut body = empresa(9);
    body["email"] = "ya@x.pe".into();
    let (status, refused) = post(&server, "/api/v1/auth/register", body).await;
    assert_eq!((status, &refused["code"]), (409, &"email_in_use".into()));
    assert_eq!(double.asked("/auth/v1/admin/users"), 0);
}

#[tokio::test]
async fn keys_that_change_are_followed_and_outages_survived() {
    let double = Double::start();
    let server = server(&double).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let old = session["access_token"].as_str().expect("a token");
    assert_eq!(me(&server, old).await.0, 200);
    assert_eq!(double.asked(JWKS), 1, "kept");
    // Nobody publishes keys for a while.
    double.fault(JWKS, Some(Fault::Says(500, "")));
    let stranger = Key::new("k9", Algorithm::ES256).sign(&double.claims("x"));
    assert_eq!(me(&server, &stranger).await.0, 401);
    assert_eq!(me(&server, old).await.0, 200, "what is known goes on");
    double.fault(JWKS, None);
    // Another key, of another kind.
    double.rotate(Key::new("k2", Algorithm::RS256));
    let (status, session) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(status, 200);
    assert_eq!(me(&server, session["access_token"].as_str().expect("a token")).await.0, 200);
    assert_eq!(me(&server, old).await.0, 401, "its key was withdrawn");
    // However many names are invented, the provider is asked a few times.
    let before = double.asked(JWKS);
    let key = double.key();
    for n in 0..50 {
        let invented = Key { kid: format!("invented-{n}"), ..key.clone() };
        assert_eq!(me(&server, &invented.sign(&double.claims("x"))).await.0, 401);
    }
    let more = double.asked(JWKS) - before;
    assert!(more <= 2, "asked {more} times");
}

#[tokio::test]
async fn no_secret_is_in_any_line_of_the_log() {
    let double = Double::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let mut place = beside(&dir, &double);
    place.push(("SUPABASE_JWT_SECRET", "shared-secret-of-thirty-two-bytes!".to_owned()));
    let server = Server::start_in(dir, place, |inner| talkative(&inner, &log)).await;
    flow::whole(&server).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    double.fault("/auth/v1/token", Some(Fault::Says(500, "")));
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 502);
    tells_nothing(&log, &session, &[ANON, SERVICE, "shared-secret-of-thirty-two-bytes!"]);
}

#[tokio::test]
async fn no_secret_is_in_any_line_of_the_log_with_accounts_of_our_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let mut place = place(dir.path(), postgres::of_this_run());
    let secret = "our-own-secret-of-thirty-two-bytes!";
    place.extend([
        ("JWT_SECRET_KEY", secret.to_owned()),
        ("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true".to_owned()),
        ("SUPABASE_KEY", ANON.to_owned()),
        ("SUPABASE_SERVICE_ROLE_KEY", SERVICE.to_owned()),
    ]);
    let server = Server::start_in(dir, place, |inner| talkative(&inner, &log)).await;
    flow::whole(&server).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let url = format!("http://{}/auth/v1/token?grant_type=password", server.http);
    let body = json!({ "email": EMAIL, "password": PASSWORD });
    let answer = reqwest::Client::new().post(url).header("apikey", ANON).json(&body).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    tells_nothing(&log, &session, &[ANON, SERVICE, secret]);
}

/// The binary at its most talkative, into a file.
fn talkative(inner: &Command, log: &Path) -> Command {
    let script = format!("exec \"$0\" \"$@\" 2> >(tee -a {} >&2)", log.display());
    let mut command = Server::wrapped("bash", &["-c", &script], inner);
    command.env("ALERTRACE__LOG__LEVEL", "trace");
    command
}

/// Neither the password, however it is written, nor the tokens of a session, nor the keys are in a log.
fn tells_nothing(log: &Path, session: &Value, keys: &[&str]) {
    let log = std::fs::read_to_string(log).expect("the log");
    assert!(log.lines().count() > 100, "at its most talkative");
    let password = [PASSWORD.to_owned(), PASSWORD.replace(' ', "+"), PASSWORD.replace(' ', "%20")];
    let tokens = ["access_token", "refresh_token"].map(|name| session[name].as_str().expect("a token"));
    for secret in password.iter().map(String::as_str).chain(tokens).chain(keys.iter().copied()) {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in {}", line.unwrap_or_default());
    }
}

#[tokio::test]
async fn what_supabase_refuses_to_our_key_is_said_in_the_log_and_not_to_people() {
    let double = Double::start();
    let server = server_with(&double, |mut command| {
        command.env("SUPABASE_SERVICE_ROLE_KEY", "another-key");
        command
    })
    .await;
    let (status, refused) = post(&server, "/api/v1/auth/register", empresa(3)).await;
    assert_eq!((status, &refused["code"]), (502, &"identity_failed".into()));
    assert!(!refused.to_string().contains("API key"), "{refused}");
    assert_eq!(json!(double.emails().len()), 1);
}
