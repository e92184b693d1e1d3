//! A database that fails a change before its commit, or leaves it open whether there was one.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{on, start};
use crate::support::postgres::Cluster;
use crate::support::server::PASSWORD;
use crate::support::{Client, Server};

/// Makes every row that comes into `table` fail as if the server went, at once or at the commit.
fn fail(cluster: &Cluster, table: &str, at_commit: bool) {
    let (constraint, deferred) =
        if at_commit { ("CONSTRAINT ", "DEFERRABLE INITIALLY DEFERRED") } else { ("", "") };
    cluster.sql(&format!(
        "SET search_path TO alertrace; CREATE FUNCTION go() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = '57P01'; END $$; \
         CREATE {constraint}TRIGGER go AFTER INSERT ON {table} {deferred} FOR EACH ROW EXECUTE FUNCTION go()"
    ));
}

fn mend(cluster: &Cluster, table: &str) {
    cluster.sql(&format!("SET search_path TO alertrace; DROP TRIGGER go ON {table}; DROP FUNCTION go()"));
}

async fn code(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

async fn create(server: &Server, key: &str) -> Response {
    let url = format!("http://{}/api/v1/sensores", server.http);
    let body = json!({ "device_id": "s1", "nombre": "s1", "tipo": "t" });
    let request = reqwest::Client::new().post(url).bearer_auth(&server.token).header("idempotency-key", key);
    request.json(&body).send().await.expect("an answer")
}

#[tokio::test]
async fn a_key_is_free_again_when_nothing_was_done_and_not_when_that_is_unknown() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    for (at_commit, again) in [(true, (409, "idempotency_outcome_unknown")), (false, (201, ""))] {
        let key = format!("k{at_commit}");
        fail(&cluster, "sensores", at_commit);
        assert_eq!(code(create(&server, &key).await).await, (503, "store_unavailable".to_owned()));
        mend(&cluster, "sensores");
        let (status, said) = again;
        assert_eq!(code(create(&server, &key).await).await, (status, said.to_owned()), "{at_commit}");
    }
}

#[tokio::test]
async fn what_a_commit_of_unknown_outcome_changed_is_known_without_a_restart() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    let (one, two) = (server.device("s1").await, server.device("s2").await);
    let body = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    let worker: Value = made.json().await.expect("JSON");
    let (mut panel, _) = Client::connect(&server.mqtt, 4, "p", "jwt", &server.sign_in("w@x.pe").await).await;
    // Committed behind the server's back, as what it was not told of would be.
    let id = &worker["id_trabajador"];
    cluster.sql(&format!(
        "INSERT INTO alertrace.asignaciones (id_empresa, id_trabajador, id_sensor, desde) \
         SELECT id_empresa, {id}, {}, 0 FROM alertrace.trabajadores WHERE id_trabajador = {id}",
        one.id_sensor
    ));
    assert_eq!(panel.subscribe("sensores/s1/data").await, 0x80, "nobody has told it yet");
    fail(&cluster, "asignaciones", true);
    let body = json!({ "id_trabajador": id, "id_sensor": two.id_sensor });
    let answer = server.request(Method::POST, "/api/v1/asignaciones", &server.token, Some(body)).await;
    assert_eq!(code(answer).await, (503, "store_unavailable".to_owned()));
    for _ in 0..100 {
        if panel.subscribe("sensores/s1/data").await == 1 {
            assert_eq!(panel.subscribe("sensores/s2/data").await, 0x80, "that one was not committed");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is never known");
}

#[tokio::test]
async fn what_a_commit_of_unknown_outcome_made_of_a_person_holds_on_their_next_request() {
    let cluster = Cluster::own();
    let server = start(on(&cluster)).await;
    let body = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "Luz", "apellido": "Rey" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(body)).await;
    let worker: Value = made.json().await.expect("JSON");
    let token = server.sign_in("w@x.pe").await;
    let people =
        async || server.request(Method::GET, "/api/v1/trabajadores", &token, None).await.status().as_u16();
    assert_eq!([people().await, people().await], [403, 403], "what is kept of them is of before");
    fail(&cluster, "auditoria", true);
    let path = format!("/api/v1/trabajadores/{}", worker["id_trabajador"]);
    let change =
        server.request(Method::PUT, &path, &server.token, Some(json!({ "rol": "supervisor" }))).await;
    assert_eq!(code(change).await, (503, "store_unavailable".to_owned()));
    mend(&cluster, "auditoria");
    // As if it had been one.
    cluster.sql("UPDATE alertrace.trabajadores SET rol = 'supervisor' WHERE email = 'w@x.pe'");
    assert_eq!(people().await, 200);
}
