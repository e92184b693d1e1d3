//! Crops, and the bounds that are set for them, for one sensor and for the empresa: the closer one holds.

use reqwest::Method;
use serde_json::{Value, json};

use super::people::{another_empresa, delete, get, list, patch, person, post, put, refusal};
use crate::support::{Client, Device, Server};

async fn cultivo(server: &Server, body: Value) -> Value {
    let answer = post(server, "/api/v1/cultivos", &server.token, body).await;
    assert_eq!(answer.status(), 201);
    answer.json().await.expect("JSON")
}

async fn plant(server: &Server, device: &Device, cultivo: &Value) {
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let answer = patch(server, &path, &server.token, json!({ "id_cultivo": cultivo })).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_crop_is_registered_changed_and_removed() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let made = cultivo(&server, json!({ "tipo_cultivo": "Palta", "variedad": "Hass", "hectareas": 12.5,
        "fecha_siembra": "2026-03-01", "fecha_estimada_cosecha": "2026-12-01T10:00:00-05:00", "estado": "en crecimiento",
        "ubicacion_especifica": "Lote 4", "coordenadas_lat": -8.1, "coordenadas_lng": -79.0 }))
    .await;
    let path = format!("/api/v1/cultivos/{}", made["id_cultivo"]);
    let found = server.get(&path).await;
    assert_eq!(found, made);
    assert_eq!(
        (&found["fecha_siembra"], &found["fecha_estimada_cosecha"], &found["estado"]),
        (&json!("2026-03-01T00:00:00Z"), &json!("2026-12-01T15:00:00Z"), &json!("en crecimiento"))
    );
    plant(&server, &device, &made["id_cultivo"]).await;
    assert_eq!(server.get(&path).await["sensores"], 1);
    for change in [Method::PATCH, Method::PUT] {
        let body = json!({ "variedad": null, "estado": "cosechado" });
        let answer = server.request(change, &path, &server.token, Some(body)).await;
        let changed: Value = answer.json().await.expect("JSON");
        assert_eq!(
            (&changed["variedad"], &changed["estado"], &changed["hectareas"]),
            (&Value::Null, &json!("cosechado"), &json!(12.5))
        );
    }
    for (body, field) in [
        (json!({ "hectareas": 0 }), "hectareas"),
        (json!({ "coordenadas_lat": 91 }), "coordenadas_lat"),
        (json!({ "fecha_siembra": "ayer" }), "fecha_siembra"),
        (json!({ "fecha_siembra": "2027-01-01" }), "fecha_estimada_cosecha"),
        (json!({ "tipo_cultivo": "" }), "tipo_cultivo"),
        (json!({ "hectareas": "muchas" }), "hectareas"),
    ] {
        let answer = patch(&server, &path, &server.token, body).await;
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.json::<Value>().await.expect("JSON")["errors"][0]["campo"], field);
    }
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    assert_eq!(get(&server, &path, &server.token).await.status(), 404);
    let sensor = server.get(&format!("/api/v1/sensores/{}", device.id_sensor)).await;
    assert_eq!((&sensor["id_cultivo"], &sensor["activo"]), (&Value::Null, &json!(true)));
}

#[tokio::test]
async fn a_crop_is_seen_by_its_people_and_by_nobody_else() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (mine, bare) = (
        cultivo(&server, json!({ "tipo_cultivo": "Palta" })).await,
        cultivo(&server, json!({ "tipo_cultivo": "Uva" })).await,
    );
    plant(&server, &device, &mine["id_cultivo"]).await;
    let (worker, boss) = (person(&server, "w", "worker").await, person(&server, "s", "supervisor").await);
    let other = another_empresa(&server).await;
    assert_eq!(list(&server, "/api/v1/cultivos", &worker.token).await.len(), 0);
    let body = json!({ "id_trabajador": worker.id, "id_sensor": device.id_sensor });
    assert_eq!(post(&server, "/api/v1/asignaciones", &server.token, body).await.status(), 201);
    assert_eq!(list(&server, "/api/v1/cultivos", &worker.token).await[0]["id_cultivo"], mine["id_cultivo"]);
    assert_eq!(list(&server, "/api/v1/cultivos", &boss.token).await.len(), 2);
    assert_eq!(list(&server, "/api/v1/cultivos", &other).await.len(), 0);
    let path = format!("/api/v1/cultivos/{}", bare["id_cultivo"]);
    let bounds = format!("{path}/umbrales");
    let one = format!("{bounds}/temperatura");
    for (token, read, write, limits) in
        [(&worker.token, 404, 403, 403), (&boss.token, 200, 403, 200), (&other, 404, 404, 404)]
    {
        assert_eq!(get(&server, &path, token).await.status(), read);
        assert_eq!(get(&server, &bounds, token).await.status(), read);
        assert_eq!(patch(&server, &path, token, json!({ "estado": "x" })).await.status(), write);
        assert_eq!(delete(&server, &path, token).await, write);
        assert_eq!(put(&server, &bounds, token, json!({ "temp_max": 30 })).await.status(), limits);
        assert_eq!(put(&server, &one, token, json!({ "min": 1, "max": 30 })).await.status(), limits);
    }
    let sensor = format!("/api/v1/sensores/{}", server.device_of("s2", &other).await.id_sensor);
    let answer = patch(&server, &sensor, &other, json!({ "id_cultivo": mine["id_cultivo"] })).await;
    assert_eq!(answer.status(), 404, "another's crop is no crop");
    let create = json!({ "device_id": "s3", "nombre": "n", "tipo": "t", "id_cultivo": mine["id_cultivo"] });
    assert_eq!(post(&server, "/api/v1/sensores", &other, create).await.status(), 404);
    let own = format!("/api/v1/sensores/{}/umbrales", device.id_sensor);
    assert_eq!(get(&server, &own, &worker.token).await.status(), 200);
    assert_eq!(get(&server, &own, &other).await.status(), 404);
    for (token, status) in [(&worker.token, 403), (&other, 404)] {
        let answer = put(&server, &format!("{own}/temperatura"), token, json!({ "min": 1, "max": 2 })).await;
        assert_eq!(answer.status(), status);
        assert_eq!(delete(&server, &format!("{own}/temperatura"), token).await, status);
    }
}

#[tokio::test]
async fn a_reading_is_held_against_the_closest_bound_as_soon_as_it_is_set() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let made = cultivo(&server, json!({ "tipo_cultivo": "Palta" })).await;
    let of_crop = format!("/api/v1/cultivos/{}/umbrales", made["id_cultivo"]);
    let own = format!("/api/v1/sensores/{}/umbrales", device.id_sensor);
    let mut pid = 0;
    // Closes what is open, and says whether 28 °C opens an alert.
    let mut raises = async |server: &Server| {
        let mut client = Client::device(&server.mqtt, 5, &device).await;
        for value in [15, 15, 15, 28] {
            pid += 1;
            let text = format!("{{\"temperatura\":{value}}}");
            assert_eq!(client.publish("sensores/s1/data", pid, &text).await, 0);
        }
        server.get("/api/v1/alertas/count/pendientes").await["pendientes"] == 1
    };
    let bounds = |max: i32| json!({ "min": 5, "max": max });
    let origin = async |server: &Server| {
        let all = server.get(&own).await;
        let one = all.as_array().expect("an array").iter().find(|u| u["variable"] == "temperatura").cloned();
        let one = one.expect("it is there");
        (one["origen"].as_str().expect("text").to_owned(), one["max"].as_f64().expect("a number").to_bits())
    };
    assert!(!raises(&server).await, "the default is 35");
    assert_eq!(origin(&server).await, ("defecto".to_owned(), 35f64.to_bits()));
    let answer = put(&server, "/api/v1/umbrales", &server.token, json!({ "temp_max": 25 })).await;
    assert_eq!(answer.status(), 200);
    assert!(raises(&server).await, "the empresa's 25");
    // The crop takes the older form too.
    assert_eq!(put(&server, &of_crop, &server.token, json!({ "temp_max": 30 })).await.status(), 200);
    assert!(raises(&server).await, "it does not stand in the crop yet");
    plant(&server, &device, &made["id_cultivo"]).await;
    assert!(!raises(&server).await, "the crop's 30");
    assert_eq!(origin(&server).await, ("cultivo".to_owned(), 30f64.to_bits()));
    let answer = put(&server, &format!("{own}/temperatura"), &server.token, bounds(20)).await;
    assert_eq!(answer.status(), 200);
    assert!(raises(&server).await, "its own 20");
    // Changes further off do not matter to it.
    let answer = put(&server, &format!("{of_crop}/temperatura"), &server.token, bounds(32)).await;
    assert_eq!(answer.status(), 200);
    assert!(raises(&server).await);
    server.kill_and_restart();
    assert!(raises(&server).await, "after a restart too");
    assert_eq!(origin(&server).await, ("sensor".to_owned(), 20f64.to_bits()));
    assert_eq!(delete(&server, &format!("{own}/temperatura"), &server.token).await, 204);
    assert_eq!(delete(&server, &format!("{own}/temperatura"), &server.token).await, 404);
    assert!(!raises(&server).await, "the crop's 32");
    assert_eq!(delete(&server, &format!("{of_crop}/temperatura"), &server.token).await, 204);
    assert!(raises(&server).await, "the empresa's 25");
    put(&server, &of_crop, &server.token, json!({ "temp_max": 30 })).await;
    assert!(!raises(&server).await);
    let path = format!("/api/v1/cultivos/{}", made["id_cultivo"]);
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    assert!(raises(&server).await, "the crop is gone");
}

#[tokio::test]
async fn a_new_sensor_is_held_against_its_crops_bounds_from_the_first_reading() {
    let server = Server::start().await;
    let made = cultivo(&server, json!({ "tipo_cultivo": "Palta" })).await;
    let of_crop = format!("/api/v1/cultivos/{}/umbrales", made["id_cultivo"]);
    assert_eq!(put(&server, &of_crop, &server.token, json!({ "temp_max": 25 })).await.status(), 200);
    let body = json!({ "device_id": "s1", "nombre": "n", "tipo": "t", "id_cultivo": made["id_cultivo"] });
    let made: Value =
        post(&server, "/api/v1/sensores", &server.token, body).await.json().await.expect("JSON");
    let token = made["credenciales"]["token"].as_str().expect("a token");
    let (mut client, _) = Client::connect(&server.mqtt, 5, "s1", "s1", token).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":28}"#).await, 0);
    assert_eq!(server.get("/api/v1/alertas/count/pendientes").await["pendientes"], 1);
}

#[tokio::test]
async fn bounds_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let own = format!("/api/v1/sensores/{}/umbrales", device.id_sensor);
    for (variable, body) in [
        ("temperatura", json!({ "min": 30, "max": 30 })),
        ("temperatura", json!({ "min": 0, "max": 500 })),
        ("temperatura", json!({ "min": 0 })),
    ] {
        let answer = put(&server, &format!("{own}/{variable}"), &server.token, body).await;
        assert_eq!(refusal(answer).await, (422, "validation_failed".to_owned()));
    }
    let answer = put(&server, &format!("{own}/No%20es"), &server.token, json!({ "min": 0, "max": 1 })).await;
    assert_eq!(answer.status(), 404);
    let many: serde_json::Map<_, _> =
        (0..129).map(|n| (format!("v{n}"), json!({ "min": 0, "max": 1 }))).collect();
    let answer = put(&server, "/api/v1/umbrales", &server.token, many.into()).await;
    assert_eq!(refusal(answer).await, (409, "too_many_umbrales".to_owned()));
    // A variable of the site's own has whatever bounds it is given.
    let answer = put(&server, &format!("{own}/caudal"), &server.token, json!({ "min": 0, "max": 1 })).await;
    assert_eq!(answer.status(), 200);
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"caudal":2}"#).await, 0);
    assert_eq!(list(&server, "/api/v1/alertas", &server.token).await[0]["tipo_alerta"], "caudal");
}
