//! Alerts: the filters of the list, and where an alert stands.

use serde_json::{Value, json};

use super::people::{another_empresa, get, list, patch, person, post};
use crate::support::{Client, Server};

fn keys(found: &[Value]) -> Vec<i64> {
    found.iter().map(|a| a["id_alerta"].as_i64().expect("a key")).collect()
}

#[tokio::test]
async fn the_list_is_filtered_and_without_a_state_shows_what_is_open() {
    let server = Server::start().await;
    let (a, b) = (server.device("a").await, server.device("b").await);
    let mut clients = [Client::device(&server.mqtt, 5, &a).await, Client::device(&server.mqtt, 5, &b).await];
    for (client, pid, text) in [
        (0, 1, r#"{"timestamp":"TS","temperatura":36}"#),
        (0, 2, r#"{"humedad":5}"#),
        (1, 1, r#"{"temperatura":60}"#),
    ] {
        let topic = ["sensores/a/data", "sensores/b/data"][client];
        let now = alertrace::domain::Clock::now(&alertrace::domain::SystemClock);
        let early = now.minus(std::time::Duration::from_secs(3_600)).to_string();
        assert_eq!(clients[client].publish(topic, pid, &text.replace("TS", &early)).await, 0);
    }
    let all = keys(&list(&server, "/api/v1/alertas", &server.token).await);
    let [third, second, first] = all[..] else { panic!("{all:?}") };
    let path = format!("/api/v1/alertas/{second}");
    assert_eq!(patch(&server, &path, &server.token, json!({ "estado": "ignorada" })).await.status(), 200);
    let now = alertrace::domain::Clock::now(&alertrace::domain::SystemClock);
    let before = now.minus(std::time::Duration::from_secs(1_800));
    for (query, expected) in [
        (String::new(), vec![third, first]),
        ("?estado=ignorada".to_owned(), vec![second]),
        ("?estado=resuelta".to_owned(), vec![]),
        ("?severidad=media".to_owned(), vec![first]),
        ("?tipo=temperatura".to_owned(), vec![third, first]),
        (format!("?sensor={}", b.id_sensor), vec![third]),
        (format!("?desde={before}"), vec![third]),
        (format!("?hasta={before}"), vec![first]),
        (format!("?hasta={before}&severidad=critica"), vec![]),
        (format!("?sensor={}&estado=ignorada&tipo=humedad_aire", a.id_sensor), vec![second]),
    ] {
        let answer = get(&server, &format!("/api/v1/alertas{query}"), &server.token).await;
        assert_eq!(answer.headers()["x-total-count"], expected.len().to_string(), "{query}");
        let found: Vec<Value> = answer.json().await.expect("an array");
        assert_eq!(keys(&found), expected, "{query}");
    }
    for query in ["?desde=ayer", "?estado=abierta", "?sensor=x", "?severidad=peor"] {
        let status = get(&server, &format!("/api/v1/alertas{query}"), &server.token).await.status();
        assert!(status == 400 || status == 422, "{query}: {status}");
    }
}

#[tokio::test]
async fn an_alert_that_somebody_took_is_open_until_it_is_closed() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let mut pid = 0;
    let mut say = async |value: i32| {
        pid += 1;
        let text = format!("{{\"temperatura\":{value}}}");
        assert_eq!(client.publish("sensores/s1/data", pid, &text).await, 0);
    };
    say(36).await;
    let id = server.get("/api/v1/alertas").await[0]["id_alerta"].clone();
    let path = format!("/api/v1/alertas/{id}");
    let state = async |estado: &str| {
        let answer = patch(&server, &path, &server.token, json!({ "estado": estado, "notas": estado })).await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.expect("JSON")
    };
    let mut socket = super::live_as(&server, &server.token).await;
    crate::alerts::next(&mut socket, "snapshot").await;
    let taken = state("en_proceso").await;
    assert_eq!((&taken["estado"], &taken["resuelta"]), (&json!("en_proceso"), &json!(false)));
    assert_eq!((&taken["notas"], &taken["fecha_resolucion"]), (&json!("en_proceso"), &Value::Null));
    let told = crate::alerts::next(&mut socket, "alerta").await;
    assert_eq!((&told["accion"], &told["alerta"]["estado"]), (&json!("actualizada"), &json!("en_proceso")));
    // It is the same alert: no other opens, and it closes as any other.
    say(36).await;
    assert_eq!(list(&server, "/api/v1/alertas", &server.token).await.len(), 1);
    say(20).await;
    say(20).await;
    assert_eq!(state("pendiente").await["estado"], "pendiente");
    say(20).await;
    assert_eq!(server.get(&path).await["estado"], "resuelta", "two before and one after are three");
    assert_eq!(state("ignorada").await["estado"], "resuelta", "what is closed stays");

    say(36).await;
    let id = server.get("/api/v1/alertas").await[0]["id_alerta"].clone();
    let path = format!("/api/v1/alertas/{id}");
    let ignored: Value = patch(&server, &path, &server.token, json!({ "estado": "ignorada" }))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!((&ignored["estado"], &ignored["resuelta"]), (&json!("ignorada"), &json!(false)));
    assert!(ignored["fecha_resolucion"].is_string() && ignored["resuelta_por"].is_string(), "{ignored}");
    assert_eq!(server.get("/api/v1/alertas").await, json!([]));
    say(36).await;
    assert_eq!(list(&server, "/api/v1/alertas", &server.token).await.len(), 1, "it is still outside");
}

#[tokio::test]
async fn alerts_are_seen_and_closed_by_those_who_see_the_sensor() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    client.publish("sensores/s1/data", 1, r#"{"temperatura":36}"#).await;
    let id = server.get("/api/v1/alertas").await[0]["id_alerta"].clone();
    let path = format!("/api/v1/alertas/{id}");
    let worker = person(&server, "w", "worker").await;
    let other = another_empresa(&server).await;
    for token in [&worker.token, &other] {
        assert_eq!(list(&server, "/api/v1/alertas", token).await.len(), 0);
        assert_eq!(get(&server, &path, token).await.status(), 404);
        assert_eq!(patch(&server, &path, token, json!({ "estado": "ignorada" })).await.status(), 404);
        assert_eq!(post(&server, &format!("{path}/resolve"), token, json!({})).await.status(), 404);
        assert_eq!(post(&server, &format!("{path}/viewed"), token, json!({})).await.status(), 404);
    }
    let body = json!({ "id_trabajador": worker.id, "id_sensor": device.id_sensor });
    assert_eq!(post(&server, "/api/v1/asignaciones", &server.token, body).await.status(), 201);
    assert_eq!(list(&server, "/api/v1/alertas", &worker.token).await.len(), 1);
    let resolved: Value =
        post(&server, &format!("{path}/resolve"), &worker.token, json!({})).await.json().await.expect("JSON");
    assert_eq!(
        (&resolved["resuelta_por"], &resolved["problema_persiste"]),
        (&json!(worker.user_id), &json!(true))
    );
}
