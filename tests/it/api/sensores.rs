//! Sensors: the list and its filters, what PATCH changes, places.

use reqwest::Method;
use serde_json::{Value, json};

use super::people::{another_empresa, delete, get, list, patch, person, post, refusal};
use crate::support::{Client, Server};

async fn register(server: &Server, body: Value) -> i64 {
    let answer = post(server, "/api/v1/sensores", &server.token, body).await;
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.expect("JSON")["sensor"]["id_sensor"].as_i64().expect("a key")
}

fn names(found: &[Value]) -> Vec<&str> {
    found.iter().map(|s| s["device_id"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn the_list_is_filtered_by_place_state_and_use() {
    let server = Server::start().await;
    for (id, place) in [("a", "Lote 1"), ("b", "Lote 1"), ("c", "Lote 2")] {
        register(
            &server,
            json!({ "device_id": id, "nombre_sensor": id, "tipo_sensor": "t", "latitud": -8.1,
            "longitud": -79.0, "ubicacion_sensor": place }),
        )
        .await;
    }
    let all = list(&server, "/api/v1/sensores", &server.token).await;
    assert_eq!(
        (&all[0]["nombre"], &all[0]["tipo"], &all[0]["coordenadas_lat"], &all[0]["coordenadas_lng"]),
        (&json!("a"), &json!("t"), &json!(-8.1), &json!(-79.0)),
        "under either name"
    );
    let id = |n: usize| all[n]["id_sensor"].as_i64().expect("a key");
    let state = |estado: &str| json!({ "estado": estado });
    for (n, estado) in [(1, "mantenimiento"), (2, "inactivo")] {
        let path = format!("/api/v1/sensores/{}", id(n));
        assert_eq!(patch(&server, &path, &server.token, state(estado)).await.status(), 200);
    }
    for (query, expected) in [
        ("?activo=true", vec!["a", "b"]),
        ("?activo=false", vec!["c"]),
        ("?estado=mantenimiento", vec!["b"]),
        ("?ubicacion=Lote%201", vec!["a", "b"]),
        ("?ubicacion=Lote%201&estado=activo", vec!["a"]),
        ("?ubicacion=Lote%202&activo=true", vec![]),
        ("?ubicacion=lote%201", vec![]),
    ] {
        for route in ["/api/v1/sensores", "/api/v1/sensores/with-readings"] {
            let answer = get(&server, &format!("{route}{query}"), &server.token).await;
            assert_eq!(answer.headers()["x-total-count"], expected.len().to_string(), "{query}");
            let found: Vec<Value> = answer.json().await.expect("an array");
            assert_eq!(names(&found), expected, "{query}");
        }
    }
    for query in ["?estado=roto", "?activo=quizas"] {
        assert_eq!(get(&server, &format!("/api/v1/sensores{query}"), &server.token).await.status(), 400);
    }
}

#[tokio::test]
async fn patch_clears_with_null_and_leaves_what_is_absent() {
    let server = Server::start().await;
    let id = register(
        &server,
        json!({ "device_id": "a", "nombre": "A", "tipo": "t", "ubicacion_sensor": "Lote 1",
        "coordenadas_lat": 1.0, "coordenadas_lng": 2.0, "intervalo_lectura": 60 }),
    )
    .await;
    let path = format!("/api/v1/sensores/{id}");
    let changed: Value =
        patch(&server, &path, &server.token, json!({ "latitud": null, "nombre_sensor": "B" }))
            .await
            .json()
            .await
            .expect("JSON");
    assert_eq!(
        (&changed["nombre"], &changed["coordenadas_lat"], &changed["coordenadas_lng"]),
        (&json!("B"), &Value::Null, &json!(2.0))
    );
    assert_eq!((&changed["ubicacion_sensor"], &changed["intervalo_lectura"]), (&json!("Lote 1"), &json!(60)));
    let wrong = patch(&server, &path, &server.token, json!({ "id_cultivo": 99 })).await;
    assert_eq!(refusal(wrong).await, (404, "not_found".to_owned()));
    for name in ["jwt", "key"] {
        let body = json!({ "device_id": name, "nombre": "A", "tipo": "t" });
        assert_eq!(post(&server, "/api/v1/sensores", &server.token, body).await.status(), 422, "{name}");
    }
}

#[tokio::test]
async fn sensors_of_a_place_move_all_or_none() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        let body = json!({ "device_id": id, "nombre": id, "tipo": "t", "ubicacion_sensor": "Lote 1" });
        ids.push(register(&server, body).await);
    }
    let other = another_empresa(&server).await;
    let boss = person(&server, "s", "supervisor").await;
    let body = |from: &str, to: &str| json!({ "from_ubicacion": from, "to_ubicacion": to });
    let go = |token: &str, body: Value| {
        let (server, token) = (&server, token.to_owned());
        async move { post(server, "/api/v1/sensores/move", &token, body).await }
    };
    assert_eq!(go(&boss.token, body("Lote 1", "Lote 2")).await.status(), 403);
    assert_eq!(go(&other, body("Lote 1", "Lote 2")).await.status(), 404);
    assert_eq!(go(&server.token, body("Lote 9", "Lote 2")).await.status(), 404);
    assert_eq!(go(&server.token, body("Lote 1", "")).await.status(), 422);
    let mut some = body("Lote 1", "Lote 2");
    some["sensor_ids"] = json!([ids[0], 999]);
    assert_eq!(go(&server.token, some.clone()).await.status(), 404);
    let at = async |place: &str| {
        let path = format!("/api/v1/sensores?ubicacion={}", place.replace(' ', "%20"));
        list(&server, &path, &server.token).await.len()
    };
    assert_eq!((at("Lote 1").await, at("Lote 2").await), (3, 0), "nothing was moved");
    some["sensor_ids"] = json!([ids[0], ids[0], ids[1]]);
    let moved: Value = go(&server.token, some).await.json().await.expect("JSON");
    assert_eq!(moved["movidos"], 2);
    assert_eq!((at("Lote 1").await, at("Lote 2").await), (1, 2));
    let moved: Value = go(&server.token, body("Lote 1", "Lote 2")).await.json().await.expect("JSON");
    assert_eq!((&moved["movidos"], at("Lote 2").await), (&json!(1), 3));
}

#[tokio::test]
async fn sensors_of_a_place_are_retired_together() {
    let server = Server::start().await;
    let (a, b) = (server.device("a").await, server.device("b").await);
    for (device, place) in [(&a, "Lote 1/Norte"), (&b, "Lote 2")] {
        let path = format!("/api/v1/sensores/{}", device.id_sensor);
        assert_eq!(
            patch(&server, &path, &server.token, json!({ "ubicacion_sensor": place })).await.status(),
            200
        );
    }
    let (mut gone, mut stays) =
        (Client::device(&server.mqtt, 5, &a).await, Client::device(&server.mqtt, 5, &b).await);
    assert_eq!(gone.publish("sensores/a/data", 1, r#"{"temperatura":20}"#).await, 0);
    let path = "/api/v1/sensores/by-ubicacion/Lote%201%2FNorte";
    let other = another_empresa(&server).await;
    assert_eq!(delete(&server, path, &other).await, 404);
    assert_eq!(delete(&server, path, &person(&server, "s", "supervisor").await.token).await, 403);
    assert!(gone.alive().await);
    let retired = server.request(Method::DELETE, path, &server.token, None).await;
    assert_eq!(retired.status(), 200);
    assert_eq!(retired.json::<Value>().await.expect("JSON")["desactivados"], 1);
    assert_eq!(gone.read().await.map(|(f, body)| (f, body[0])), Some((0xe0, 0x87)));
    assert_eq!(Client::connect(&server.mqtt, 5, "a", "a", &a.token).await.1, 0x86);
    assert!(stays.alive().await);
    assert_eq!(server.readings(&a).await.len(), 1, "its history is kept");
    assert_eq!(server.get(&format!("/api/v1/sensores/{}", a.id_sensor)).await["activo"], false);
}
