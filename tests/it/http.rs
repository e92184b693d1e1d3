//! What stands around every route: limits, headers, ids, errors that tell nothing.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::Server;
use crate::support::server::{EMAIL, PASSWORD};

async fn limited(key: &'static str, n: &'static str) -> Server {
    Server::start_with(|mut command| {
        command.env(format!("ALERTRACE__HTTP__{key}"), n);
        command
    })
    .await
}

async fn asks(server: &Server, path: &str, token: &str, times: usize) -> (usize, Option<Response>) {
    let mut good = 0;
    for _ in 0..times {
        let answer = server.request(Method::GET, path, token, None).await;
        if answer.status() == 429 {
            return (good, Some(answer));
        }
        good += 1;
    }
    (good, None)
}

async fn is_a_problem(answer: Response) {
    let wait: u32 = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "too_many_requests");
}

#[tokio::test]
async fn requests_of_one_address_are_limited_and_probes_are_not() {
    let server = limited("MAX_REQUESTS_PER_ADDRESS_PER_S", "2").await;
    let (good, refused) = asks(&server, "/openapi.json", "", 30).await;
    assert!((1..=8).contains(&good), "{good}");
    is_a_problem(refused.expect("one too many")).await;
    assert_eq!(asks(&server, "/health", "", 30).await.0, 30);
    let metrics = server.request(Method::GET, "/metrics", "", None).await.text().await.expect("text");
    assert!(metrics.contains("alertrace_http_limited_total{limit=\"address\"} 1"), "{metrics}");
}

#[tokio::test]
async fn requests_with_one_token_are_limited_and_another_is_not_held_up() {
    let server = limited("MAX_REQUESTS_PER_TOKEN_PER_S", "2").await;
    let other = server.sign_in(EMAIL).await;
    let (good, refused) = asks(&server, "/api/v1/auth/me", &server.token, 30).await;
    assert!((1..=8).contains(&good), "{good}");
    is_a_problem(refused.expect("one too many")).await;
    assert_eq!(server.request(Method::GET, "/api/v1/auth/me", &other, None).await.status(), 200);
}

#[tokio::test]
async fn sign_ins_are_limited_more_strictly() {
    let server = limited("MAX_SIGN_INS_PER_ADDRESS_PER_MIN", "3").await;
    let mut statuses = Vec::new();
    for password in [PASSWORD, "no es esta", "tampoco esta"] {
        let body = json!({ "email": EMAIL, "password": password });
        let answer = server.request(Method::POST, "/api/v1/auth/login", "", Some(body)).await;
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 401, 429], "one was the test's own");
    assert_eq!(server.request(Method::GET, "/api/v1/auth/me", &server.token, None).await.status(), 200);
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_a_browser_is_protected_by() {
    let server = Server::start().await;
    for (path, status) in [("/api/v1/sensores", 401), ("/health", 200), ("/nada", 404), ("/docs/", 200)] {
        let answer = server.request(Method::GET, path, "", None).await;
        assert_eq!(answer.status(), status, "{path}");
        let header = |name: &str| answer.headers().get(name).map(|v| v.to_str().expect("text").to_owned());
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        assert_eq!(header("x-frame-options").as_deref(), Some("DENY"), "{path}");
        assert_eq!(header("referrer-policy").as_deref(), Some("no-referrer"), "{path}");
        assert_eq!(header("strict-transport-security"), None, "{path}: in clear it means nothing");
        let policy = header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe-eval"), "{policy}");
        assert_eq!(policy.contains("script-src 'self'"), path.starts_with("/docs"), "{path}: {policy}");
        assert!(header("x-request-id").is_some_and(|id| id.len() == 36), "{path}");
    }
    let https = limited("TLS", "true").await;
    let answer = https.request(Method::GET, "/health", "", None).await;
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=2592000");
}

#[tokio::test]
async fn a_failure_of_the_servers_own_tells_nothing_of_its_inside() {
    let server = Server::start().await;
    server.sql("ALTER TABLE cultivos RENAME TO otra_cosa");
    let answer = server.request(Method::GET, "/api/v1/cultivos", &server.token, None).await;
    assert_eq!(answer.status(), 500);
    let text = answer.text().await.expect("text");
    let problem: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(problem["code"], "internal_error");
    for inside in ["cultivos", "no such table", "sqlx", "SELECT", "src/"] {
        assert!(!text.contains(inside), "{inside}: {text}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_each_field_is_said_in_the_language_asked_for() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    let body = json!({ "device_id": "s1", "nombre": "", "tipo": "t", "intervalo_lectura": 0 });
    let mut said = Vec::new();
    for language in ["es", "en", "fr"] {
        let url = format!("http://{}/api/v1/sensores", server.http);
        let request =
            http.post(url).bearer_auth(&server.token).header("accept-language", language).json(&body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 422);
        let problem: Value = answer.json().await.expect("JSON");
        let errors = problem["errors"].as_array().expect("errors").clone();
        let fields: Vec<&str> = errors.iter().filter_map(|e| e["campo"].as_str()).collect();
        assert_eq!(fields, ["nombre", "intervalo_lectura"], "{problem}");
        said.push(errors.iter().map(|e| e["mensaje"].as_str().expect("text").to_owned()).collect::<Vec<_>>());
    }
    assert!(said[0].iter().zip(&said[1]).all(|(es, en)| es != en && !es.is_empty()), "{said:?}");
    assert_eq!(said[0], said[2], "Spanish is what everybody else gets");
}
