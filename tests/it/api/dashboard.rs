//! The front page: counted from data, null where the data gives nothing.

use reqwest::Method;
use serde_json::{Value, json};

use super::people::{another_empresa, get, list, person, post};
use crate::support::{Client, Server};

#[tokio::test]
async fn what_the_data_does_not_give_is_null() {
    let server = Server::start().await;
    let kpis = server.get("/api/v1/dashboard/kpis").await;
    assert_eq!(
        kpis,
        json!({ "sensores_activos": 0, "cultivos_monitoreados": 0, "alertas_pendientes": 0,
            "temperaturas_promedio": null, "humedad_promedio": null, "areas_bajo_monitoreo": null,
            "ultima_actualizacion": null })
    );
    let device = server.device("s1").await;
    let path = format!("/api/v1/dashboard/sensor-data/{}", device.id_sensor);
    assert_eq!(server.get(&path).await, json!([]));
}

#[tokio::test]
async fn the_figures_are_those_of_the_data_that_one_may_see() {
    let server = Server::start().await;
    let (a, b) = (server.device("a").await, server.device("b").await);
    let other = another_empresa(&server).await;
    let theirs = server.device_of("c", &other).await;
    let mut clients = Vec::new();
    for (device, text) in [
        (&a, r#"{"temperatura":20,"humedad":50}"#),
        (&b, r#"{"temperatura":40}"#),
        (&theirs, r#"{"temperatura":100}"#),
    ] {
        let mut client = Client::device(&server.mqtt, 5, device).await;
        assert_eq!(client.publish(&format!("sensores/{}/data", device.id), 1, text).await, 0);
        clients.push(client);
    }
    for (crop, area, state) in
        [("Palta", json!(10.5), "activo"), ("Uva", json!(2), "cosechado"), ("Maíz", Value::Null, "activo")]
    {
        let body = json!({ "tipo_cultivo": crop, "hectareas": area, "estado": state });
        assert_eq!(post(&server, "/api/v1/cultivos", &server.token, body).await.status(), 201);
    }
    let worker = person(&server, "w", "worker").await;
    let body = json!({ "id_trabajador": worker.id, "id_sensor": b.id_sensor });
    assert_eq!(post(&server, "/api/v1/asignaciones", &server.token, body).await.status(), 201);

    let page = server.get("/api/v1/dashboard").await;
    let kpis = &page["kpis"];
    assert_eq!(
        (&kpis["sensores_activos"], &kpis["temperaturas_promedio"], &kpis["humedad_promedio"]),
        (&json!(2), &json!(30.0), &json!(50.0))
    );
    assert_eq!(
        (&kpis["cultivos_monitoreados"], &kpis["areas_bajo_monitoreo"], &kpis["alertas_pendientes"]),
        (&json!(2), &json!(10.5), &json!(1))
    );
    assert_eq!(page["sensores_por_estado"], json!({ "activo": 2, "inactivo": 0, "mantenimiento": 0 }));
    assert_eq!(page["sensores_por_conexion"], json!({ "desconocida": 0, "offline": 0, "online": 2 }));
    assert_eq!(page["alertas_por_severidad"], json!({ "alta": 1, "baja": 0, "critica": 0, "media": 0 }));
    assert_eq!(page["alertas_recientes"][0]["device_id"], "b");
    let answer = get(&server, "/api/v1/dashboard/kpis", &worker.token).await;
    let theirs: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (&theirs["sensores_activos"], &theirs["temperaturas_promedio"], &theirs["cultivos_monitoreados"]),
        (&json!(1), &json!(40.0), &json!(0))
    );

    let people = list(&server, "/api/v1/dashboard/trabajadores", &server.token).await;
    let one = people.iter().find(|p| p["id"] == worker.id).expect("it is there");
    assert_eq!(
        (&one["name"], &one["role"], &one["status"], &one["assignedSensors"], &one["department"]),
        (&json!("w Paz"), &json!("worker"), &json!("active"), &json!(1), &Value::Null)
    );
    assert!(one["lastActive"].is_string() && one["phone"].is_null(), "{one}");
    assert_eq!(get(&server, "/api/v1/dashboard/trabajadores", &worker.token).await.status(), 403);
    assert_eq!(list(&server, "/api/v1/dashboard/trabajadores", &other).await.len(), 1);
}

#[tokio::test]
async fn the_days_of_a_sensor_are_means_by_the_hour_or_the_day() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let now = alertrace::domain::Clock::now(&alertrace::domain::SystemClock);
    let ago = |hours: u64, s: u64| {
        now.hora()
            .minus(std::time::Duration::from_secs(hours * 3_600))
            .plus(std::time::Duration::from_secs(s))
    };
    let text = [(ago(60, 0), 10), (ago(3, 0), 20), (ago(3, 60), 30), (ago(2, 0), 26)]
        .map(|(ts, value)| format!("{{\"timestamp\":\"{ts}\",\"temperatura\":{value}}}"));
    assert_eq!(client.publish("sensores/s1/data", 1, &format!("[{}]", text.join(","))).await, 0);
    let path = format!("/api/v1/dashboard/sensor-data/{}", device.id_sensor);
    let of = async |days: u32| list(&server, &format!("{path}?days={days}"), &server.token).await;
    let points = |found: &[Value]| -> Vec<(Value, Value)> {
        found.iter().map(|p| (p["timestamp"].clone(), p["temperatura"].clone())).collect()
    };
    let hour = |hours| json!(ago(hours, 0).to_string());
    assert_eq!(points(&of(1).await), [(hour(3), json!(25.0)), (hour(2), json!(26.0))]);
    assert_eq!(points(&of(7).await)[0], (hour(60), json!(10.0)));
    let by_day = of(90).await;
    assert!(
        by_day.iter().all(|p| p["timestamp"].as_str().is_some_and(|t| t.ends_with("T00:00:00Z"))),
        "{by_day:?}"
    );
    for days in ["0", "366", "-1", "x"] {
        let status = get(&server, &format!("{path}?days={days}"), &server.token).await.status();
        assert!(status == 422 || status == 400, "{days}: {status}");
    }
    assert_eq!(get(&server, &path, &another_empresa(&server).await).await.status(), 404);
    assert_eq!(get(&server, &path, &person(&server, "w", "worker").await.token).await.status(), 404);
}

#[tokio::test]
async fn every_sensor_is_counted_in_the_state_that_it_is_in() {
    let server = Server::start().await;
    let mut made = Vec::new();
    for n in 0..4 {
        made.push(server.device(&format!("s{n}")).await);
    }
    let path = |n: usize| format!("/api/v1/sensores/{}", made[n].id_sensor);
    let repair = json!({ "estado": "mantenimiento" });
    let answer = server.request(Method::PATCH, &path(0), &server.token, Some(repair)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(server.request(Method::DELETE, &path(1), &server.token, None).await.status(), 204);
    let page = server.get("/api/v1/dashboard").await;
    assert_eq!(page["sensores_por_estado"], json!({ "activo": 2, "inactivo": 1, "mantenimiento": 1 }));
    assert_eq!(page["kpis"]["sensores_activos"], 3, "one under repair is in use");
}
