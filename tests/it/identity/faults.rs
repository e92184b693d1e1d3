//! A Supabase that is slow, busy, broken or gone.

use std::time::{Duration, Instant};

use reqwest::Method;

use super::double::{Double, Fault};
use super::{login, me, server};
use crate::support::server::{EMAIL, PASSWORD};

const TOKEN: &str = "/auth/v1/token";

#[tokio::test]
async fn every_failure_has_a_code_of_its_own_and_ends_with_its_cause() {
    let double = Double::start();
    let server = server(&double).await;
    // `internal/api/errors.go`: HTTPError; `internal/api/apierrors/errorcode.go`.
    let busy = r#"{"code":429,"error_code":"over_request_rate_limit","msg":"Request rate limit reached"}"#;
    let broken = r#"{"code":500,"error_code":"unexpected_failure","msg":"Unexpected failure, please check server logs for more information"}"#;
    for (fault, status, code) in [
        (Fault::Slow(Duration::from_secs(5)), 503, "identity_unavailable"),
        (Fault::Cut, 503, "identity_unavailable"),
        (Fault::Says(429, busy), 429, "too_many_requests"),
        (Fault::Says(500, broken), 502, "identity_failed"),
        // Its gateway (Kong, key-auth): the project's key has expired, or was taken back.
        (Fault::Says(401, r#"{"message":"Invalid API key"}"#), 502, "identity_failed"),
        (Fault::Says(503, "<html>upstream</html>"), 502, "identity_failed"),
        (Fault::Says(200, "{\"not\":\"a session\"}"), 502, "identity_failed"),
        (Fault::Says(200, "<html>"), 502, "identity_failed"),
        (Fault::Says(302, ""), 502, "identity_failed"),
    ] {
        double.fault(TOKEN, Some(fault.clone()));
        let body = serde_json::json!({ "email": EMAIL, "password": PASSWORD });
        let answer = server.request(Method::POST, "/api/v1/auth/login", "", Some(body)).await;
        let wait = answer.headers().get("retry-after").is_some();
        let said = super::said(answer).await;
        assert_eq!((said.0, &said.1["code"]), (status, &code.into()), "{fault:?}");
        assert_eq!(wait, status != 502, "{fault:?}");
        double.fault(TOKEN, None);
        assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 200, "after {fault:?}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_left_alone_and_found_again() {
    let double = Double::start();
    let server = server(&double).await;
    double.fault(TOKEN, Some(Fault::Cut));
    for _ in 0..5 {
        assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 503);
    }
    let asked = double.asked(TOKEN);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 503);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "nobody waits for it");
    assert_eq!(double.asked(TOKEN), asked, "and it is left alone");
    // Whoever is signed in goes on: their token is checked here.
    assert_eq!(me(&server, &server.token).await.0, 200);
    double.fault(TOKEN, None);
    let found = async {
        while login(&server, EMAIL, PASSWORD).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("it is found again");
}

#[tokio::test]
async fn what_only_reads_is_tried_once_more_and_nothing_else() {
    const USER: &str = "/auth/v1/user";
    let double = Double::start();
    let server = server(&double).await;
    let before = double.asked(TOKEN);
    double.fault(TOKEN, Some(Fault::Cut));
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 503);
    assert_eq!(double.asked(TOKEN), before + 1, "a sign-in may have happened");
    double.fault(TOKEN, None);
    double.fault(USER, Some(Fault::Cut));
    let body = serde_json::json!({ "token": server.token, "new_password": "otra clave larga" });
    assert_eq!(super::post(&server, "/api/v1/auth/reset-password", body).await.0, 503);
    assert_eq!(double.asked(USER), 2, "who somebody is can be asked again");
}

#[tokio::test]
async fn who_asks_for_a_message_does_not_wait_until_it_is_sent() {
    const RECOVER: &str = "/auth/v1/recover";
    let double = Double::start();
    let server = server(&double).await;
    // It sends to whoever has an account, and answers after that: how long that takes is nobody's to learn.
    double.fault(RECOVER, Some(Fault::Held));
    for email in [EMAIL, "nobody@x.pe"] {
        assert_eq!(super::mail::forgot(&server, email).await.0, 202, "{email}");
    }
    double.recovered(EMAIL).await;
    // However many ask, no more than so many wait there for us.
    let mut last = (202, serde_json::Value::Null);
    for _ in 0..40 {
        if last.0 == 202 {
            last = super::mail::forgot(&server, "nobody@x.pe").await;
        }
    }
    assert_eq!((last.0, &last.1["code"]), (429, &"too_many_requests".into()));
    double.release();
}

#[tokio::test]
async fn a_provider_that_is_gone_is_said_to_be_and_alertrace_goes_on() {
    let double = Double::start();
    let server = server(&double).await;
    // Keys are read at the start, ahead of the first token; it may take a moment.
    super::supabase::ready(&double).await;
    double.stop();
    let device = server.device("s1").await;
    assert!(!device.token.is_empty());
    tokio::time::sleep(Duration::from_millis(100)).await;
    double.fault(TOKEN, Some(Fault::Cut));
    let (status, said) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!((status, &said["code"]), (503, &"identity_unavailable".into()));
}
