//! Every list is walked to its end by `Link`, and says how long it is.

use serde_json::{Value, json};

use super::people::{get, person, post};
use crate::support::{Client, Server};

/// The keys of a whole list, page by page, each of at most `limit`.
async fn walk(server: &Server, path: &str, key: &str, limit: usize) -> Vec<Value> {
    let mut next = Some(format!("{path}{}limit={limit}", if path.contains('?') { '&' } else { '?' }));
    let mut all = Vec::new();
    while let Some(page) = next {
        let answer = get(server, &page, &server.token).await;
        assert_eq!(answer.status(), 200, "{page}");
        let total: usize =
            answer.headers()["x-total-count"].to_str().expect("text").parse().expect("a number");
        let link = answer.headers().get("link").map(|v| v.to_str().expect("text").to_owned());
        let found: Vec<Value> = answer.json().await.expect("an array");
        all.extend(found.iter().map(|x| x[key].clone()));
        assert_eq!(link.is_some(), all.len() < total, "{path}: a link where there is more");
        next = link
            .map(|l| l.strip_prefix('<').and_then(|l| l.split('>').next()).expect("an address").to_owned());
    }
    all
}

#[tokio::test]
async fn every_list_is_walked_to_its_end() {
    let server = Server::start().await;
    let worker = person(&server, "w0", "worker").await;
    for n in 1..5 {
        person(&server, &format!("w{n}"), "worker").await;
    }
    let mut first = None;
    for n in 0..5 {
        let device = server.device(&format!("s{n}")).await;
        let mut client = Client::device(&server.mqtt, 5, &device).await;
        for (pid, text) in [(1, r#"{"temperatura":99}"#), (2, "no")] {
            client.publish(&format!("sensores/s{n}/data"), pid, text).await;
        }
        let body = json!({ "id_trabajador": worker.id, "id_sensor": device.id_sensor });
        assert_eq!(post(&server, "/api/v1/asignaciones", &server.token, body).await.status(), 201);
        first.get_or_insert(device);
    }
    let first = first.expect("a device");
    let commands = format!("/api/v1/sensores/{}/comandos", first.id_sensor);
    for n in 0..5 {
        for (path, body) in [
            ("/api/v1/cultivos", json!({ "tipo_cultivo": format!("c{n}") })),
            ("/api/v1/trabajadores/invitaciones", json!({})),
            ("/api/v1/api-keys", json!({ "nombre": "k", "scopes": ["lecturas:read"] })),
            (&commands, json!({ "comando": "c" })),
        ] {
            assert_eq!(post(&server, path, &server.token, body).await.status(), 201, "{path}");
        }
    }
    let by_person = format!("/api/v1/asignaciones/trabajador/{}", worker.id);
    for (path, key, total, ascending) in [
        ("/api/v1/sensores", "id_sensor", 5, true),
        ("/api/v1/sensores/with-readings?activo=true", "id_sensor", 5, true),
        ("/api/v1/alertas", "id_alerta", 5, false),
        ("/api/v1/trabajadores", "id_trabajador", 6, true),
        ("/api/v1/dashboard/trabajadores", "id", 6, true),
        ("/api/v1/asignaciones", "id_asignacion", 5, true),
        (&by_person, "id_asignacion", 5, true),
        ("/api/v1/cultivos", "id_cultivo", 5, true),
        ("/api/v1/trabajadores/invitaciones", "id_invitacion", 5, false),
        ("/api/v1/api-keys", "id_api_key", 5, false),
        (&commands, "id_comando", 5, false),
        ("/api/v1/mqtt/clientes", "device_id", 5, true),
    ] {
        let whole = walk(&server, path, key, 1_000).await;
        assert_eq!(whole.len(), total, "{path}");
        let keys: Vec<i64> = whole.iter().filter_map(Value::as_i64).collect();
        let mut sorted = keys.clone();
        sorted.sort_by_key(|k| if ascending { *k } else { -*k });
        assert_eq!(keys, sorted, "{path}");
        for limit in [1, 2, 5] {
            assert_eq!(walk(&server, path, key, limit).await, whole, "{path} by {limit}");
        }
    }
    // What is skipped is not skipped again on the next page.
    let all = walk(&server, "/api/v1/sensores", "id_sensor", 10).await;
    assert_eq!(walk_from(&server, "/api/v1/sensores?skip=2&limit=2").await, all[2..]);
    for (query, field) in
        [("limit=0", "limit"), ("limit=1001", "limit"), ("skip=10001", "skip"), ("cursor=x", "cursor")]
    {
        let answer = get(&server, &format!("/api/v1/alertas?{query}"), &server.token).await;
        assert_eq!(answer.status(), 422, "{query}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["errors"][0]["campo"], field);
    }
}

async fn walk_from(server: &Server, first: &str) -> Vec<Value> {
    let (mut next, mut all) = (Some(first.to_owned()), Vec::new());
    while let Some(page) = next {
        let answer = get(server, &page, &server.token).await;
        let link = answer.headers().get("link").map(|v| v.to_str().expect("text").to_owned());
        next = link
            .map(|l| l.strip_prefix('<').and_then(|l| l.split('>').next()).expect("an address").to_owned());
        all.extend(
            answer.json::<Vec<Value>>().await.expect("an array").iter().map(|x| x["id_sensor"].clone()),
        );
    }
    all
}
