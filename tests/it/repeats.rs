//! Requests that are sent again, changes that cross, lists that have not changed.

use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::Server;

fn http(server: &Server, method: Method, path: &str) -> RequestBuilder {
    let url = format!("http://{}{path}", server.http);
    reqwest::Client::new().request(method, url).bearer_auth(&server.token)
}

fn create(server: &Server, key: &str, device_id: &str) -> RequestBuilder {
    let body = json!({ "device_id": device_id, "nombre": device_id, "tipo": "t" });
    http(server, Method::POST, "/api/v1/sensores").header("idempotency-key", key).json(&body)
}

async fn code(answer: reqwest::Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.expect("JSON");
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_post_that_is_sent_again_is_carried_out_once_and_answered_alike_even_after_a_restart() {
    let mut server = Server::start().await;
    let first = create(&server, "uno", "s1").send().await.expect("an answer");
    assert_eq!(first.status(), 201);
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let first = first.text().await.expect("text");
    for restart in [false, true] {
        if restart {
            server.kill_and_restart();
        }
        let again = create(&server, "uno", "s1").send().await.expect("an answer");
        assert_eq!(
            (again.status().as_u16(), &again.headers()["idempotency-replayed"]),
            (201, &"true".parse().unwrap())
        );
        assert_eq!(again.headers()["content-type"], "application/json");
        assert_eq!(again.text().await.expect("text"), first, "the token of the first time");
    }
    assert_eq!(server.get("/api/v1/sensores").await.as_array().map(Vec::len), Some(1));
    // Without a key, and under another, it is another request.
    let other = create(&server, "dos", "s1").send().await.expect("an answer");
    assert_eq!(code(other).await, (409, "device_id_in_use".into()));
    let another_body = create(&server, "uno", "s2").send().await.expect("an answer");
    assert_eq!(code(another_body).await, (422, "idempotency_key_reused".into()));
    let bad = create(&server, "con espacio", "s2").send().await.expect("an answer");
    assert_eq!(code(bad).await, (400, "bad_idempotency_key".into()));
    // What was refused may be sent again, mended.
    let refused = create(&server, "tres", "").send().await.expect("an answer");
    assert_eq!(refused.status(), 422);
    assert_eq!(create(&server, "tres", "s3").send().await.expect("an answer").status(), 201);
}

#[tokio::test]
async fn the_same_key_at_the_same_time_is_carried_out_once() {
    let server = Server::start().await;
    let all = (0..8).map(|_| create(&server, "uno", "s1").send());
    let answers = futures_util::future::join_all(all).await;
    let mut made = 0;
    for answer in answers {
        let answer = answer.expect("an answer");
        match answer.status().as_u16() {
            201 => made += usize::from(!answer.headers().contains_key("idempotency-replayed")),
            _ => assert_eq!(code(answer).await, (409, "idempotency_in_progress".into())),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(server.get("/api/v1/sensores").await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_key_is_its_accounts_own_and_what_is_kept_of_it_is_unreadable() {
    let server = Server::start().await;
    let first = create(&server, "uno", "s1").send().await.expect("an answer");
    let first: Value = first.json().await.expect("JSON");
    let other = json!({ "email": "o@x.pe", "password": crate::support::server::PASSWORD, "user_type": "empresa",
        "nombre_empresa": "O", "ruc": "20111111111" });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(other)).await;
    assert_eq!(answer.status(), 201);
    let token = server.sign_in("o@x.pe").await;
    let url = format!("http://{}/api/v1/sensores", server.http);
    let theirs = reqwest::Client::new().post(url).bearer_auth(token).header("idempotency-key", "uno");
    let theirs = theirs.json(&json!({ "device_id": "s1", "nombre": "s1", "tipo": "t" })).send().await;
    assert_eq!(code(theirs.expect("an answer")).await, (409, "device_id_in_use".into()));
    let token = first["credenciales"]["token"].as_str().expect("a token");
    for file in std::fs::read_dir(server.data_dir()).expect("a directory").flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        let found = bytes.windows(token.len()).any(|w| w == token.as_bytes());
        assert!(!found, "the device's token is in {}", file.path().display());
    }
}

#[tokio::test]
async fn a_key_whose_request_was_cut_off_is_not_carried_out_again() {
    let server = Server::start().await;
    assert_eq!(create(&server, "uno", "s1").send().await.expect("an answer").status(), 201);
    server.sql("UPDATE idempotencia SET estado = NULL, respuesta = NULL");
    let again = create(&server, "uno", "s1").send().await.expect("an answer");
    assert_eq!(code(again).await, (409, "idempotency_outcome_unknown".into()));
}

#[tokio::test]
async fn a_change_over_somebody_elses_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let sensor = format!("/api/v1/sensores/{}", device.id_sensor);
    let one = json!({ "nombre": "Uno" });
    let bounds = json!({ "temperatura": { "min": 1, "max": 30 } });
    for (method, path, body) in
        [(Method::PATCH, sensor.as_str(), one), (Method::PUT, "/api/v1/umbrales", bounds)]
    {
        let seen =
            http(&server, Method::GET, path).send().await.expect("an answer").headers()["etag"].clone();
        // What a device says does not change what people set.
        let url = format!("http://{}/api/v1/sensores/data", server.http);
        let reading = reqwest::Client::new().post(url).basic_auth("s1", Some(&device.token));
        let said = reading.json(&json!({ "temperatura": 20 })).send().await.expect("an answer");
        assert_eq!(said.status(), 201);
        let change = |tag: &str| http(&server, method.clone(), path).header("if-match", tag).json(&body);
        let tag = seen.to_str().expect("text");
        let changed = change(tag).send().await.expect("an answer");
        assert_eq!(changed.status(), 200, "{path}");
        let next = changed.headers()["etag"].clone();
        assert_ne!(next, seen);
        let late = change(tag).send().await.expect("an answer");
        assert_eq!(code(late).await, (412, "changed_meanwhile".into()), "{path}");
        for good in [next.to_str().expect("text"), "*"] {
            assert_eq!(change(good).send().await.expect("an answer").status(), 200, "{path} {good}");
        }
        let unsaid = http(&server, method.clone(), path).json(&body).send().await.expect("an answer");
        assert_eq!(unsaid.status(), 200, "who does not ask is not held to it");
    }
}

#[tokio::test]
async fn bounds_of_a_crop_or_a_sensor_are_changed_by_one_of_two_who_saw_the_same() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let crop = http(&server, Method::POST, "/api/v1/cultivos").json(&json!({ "tipo_cultivo": "Palta" }));
    let crop: Value = crop.send().await.expect("an answer").json().await.expect("JSON");
    for thing in [format!("sensores/{}", device.id_sensor), format!("cultivos/{}", crop["id_cultivo"])] {
        let all = format!("/api/v1/{thing}/umbrales");
        let one = format!("{all}/temperatura");
        let read = http(&server, Method::GET, &all).send().await.expect("an answer");
        let tag = read.headers()["etag"].clone();
        let same =
            http(&server, Method::GET, &all).header("if-none-match", &tag).send().await.expect("an answer");
        assert_eq!((same.status().as_u16(), &same.headers()["etag"]), (304, &tag), "{thing}");
        let set = |max: i64, tag: &HeaderValue| {
            let body = json!({ "min": 1, "max": max });
            http(&server, Method::PUT, &one).header("if-match", tag).json(&body).send()
        };
        // At the same time: what one of them saw is no longer so.
        let (a, b) = tokio::join!(set(20, &tag), set(21, &tag));
        let (a, b) = (a.expect("an answer"), b.expect("an answer"));
        let mut statuses = [a.status().as_u16(), b.status().as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "{thing}");
        let done = if a.status() == 200 { a } else { b };
        let next = done.headers()["etag"].clone();
        assert_ne!(next, tag);
        let remove = |tag: &HeaderValue| http(&server, Method::DELETE, &one).header("if-match", tag).send();
        assert_eq!(
            code(remove(&tag).await.expect("an answer")).await,
            (412, "changed_meanwhile".into()),
            "{thing}"
        );
        assert_eq!(remove(&next).await.expect("an answer").status(), 204, "{thing}");
    }
    let all = format!("/api/v1/cultivos/{}/umbrales", crop["id_cultivo"]);
    let body = json!({ "temp_max": 20 });
    let late = http(&server, Method::PUT, &all).header("if-match", "\"x\"").json(&body).send().await;
    assert_eq!(code(late.expect("an answer")).await, (412, "changed_meanwhile".into()));
}

#[tokio::test]
async fn a_list_that_has_not_changed_is_not_sent_again() {
    let server = Server::start().await;
    server.device("s1").await;
    let list = || http(&server, Method::GET, "/api/v1/sensores");
    let first = list().send().await.expect("an answer");
    let tag = first.headers()["etag"].clone();
    assert_eq!(first.headers()["cache-control"], "private, no-cache");
    let same = list().header("if-none-match", &tag).send().await.expect("an answer");
    assert_eq!((same.status().as_u16(), &same.headers()["etag"]), (304, &tag));
    assert_eq!(same.headers()["x-total-count"], "1");
    assert_eq!(same.text().await.expect("text"), "");
    server.device("s2").await;
    let changed = list().header("if-none-match", &tag).send().await.expect("an answer");
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.headers()["etag"], tag);
    let me = http(&server, Method::GET, "/api/v1/auth/me").send().await.expect("an answer");
    assert!(!me.headers().contains_key("etag"), "what must not be kept has no tag");
}
