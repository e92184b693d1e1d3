//! What a worker sees, and that it changes at once.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::people::{Person, another_empresa, delete, get, list, person, post, refusal};
use crate::support::{Client, Device, Server};

async fn assign(server: &Server, who: &Person, device: &Device) -> i64 {
    let body = json!({ "id_trabajador": who.id, "id_sensor": device.id_sensor });
    let answer = post(server, "/api/v1/asignaciones", &server.token, body).await;
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.expect("JSON");
    assert_eq!((&made["activa"], &made["device_id"]), (&json!(true), &json!(device.id)));
    made["id_asignacion"].as_i64().expect("a key")
}

#[tokio::test]
async fn a_worker_sees_what_is_assigned_as_soon_and_as_long_as_it_is() {
    let server = Server::start().await;
    let (mine, not) = (server.device("mio").await, server.device("ajeno").await);
    let worker = person(&server, "w", "worker").await;
    let mut socket = super::live_as(&server, &worker.token).await;
    let (mut panel, _) = Client::connect(&server.mqtt, 4, "p", "jwt", &worker.token).await;
    assert_eq!(panel.subscribe("sensores/+/data").await, 1);
    assert_eq!(panel.subscribe("sensores/mio/data").await, 0x80, "not yet theirs");
    // To ask for a sensor by name does not show it.
    let both = format!("?sensores={},{}", mine.id_sensor, not.id_sensor);
    let mut by_name = super::live_of(&server, &worker.token, &both).await;
    for socket in [&mut socket, &mut by_name] {
        let Some(Ok(Message::Text(snapshot))) = socket.next().await else { panic!("a snapshot") };
        assert_eq!(snapshot.as_str(), r#"{"type":"snapshot","sensores":[]}"#);
    }

    let mut devices =
        [Client::device(&server.mqtt, 5, &mine).await, Client::device(&server.mqtt, 5, &not).await];
    let mut pid = 0;
    let mut say = async |value: i32| {
        pid += 1;
        for (client, name) in devices.iter_mut().zip(["mio", "ajeno"]) {
            let topic = format!("sensores/{name}/data");
            assert_eq!(client.publish(&topic, pid, &format!("{{\"temperatura\":{value}}}")).await, 0);
        }
    };
    say(20).await;
    let id = assign(&server, &worker, &mine).await;
    let found = list(&server, "/api/v1/sensores", &worker.token).await;
    assert_eq!(found.iter().map(|s| &s["device_id"]).collect::<Vec<_>>(), [&json!("mio")]);
    let me = format!("/api/v1/trabajadores/{}", worker.id);
    assert_eq!(server.get(&me).await["sensores_asignados"], 1);
    say(21).await;
    // On both, nothing of before and nothing of the other.
    let (_, body) = panel.read().await.expect("a reading");
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(text.contains("sensores/mio/data") && text.contains("21"), "{text}");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    panel.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
    for socket in [&mut socket, &mut by_name] {
        let heard = next_update(socket).await.expect("a reading");
        assert_eq!((&heard["device_id"], &heard["data"]["temperatura"]), (&json!("mio"), &json!(21.0)));
    }
    assert_eq!(panel.subscribe("sensores/mio/data").await, 1);

    assert_eq!(delete(&server, &format!("/api/v1/asignaciones/{id}"), &server.token).await, 204);
    assert_eq!(delete(&server, &format!("/api/v1/asignaciones/{id}"), &server.token).await, 204);
    let path = format!("/api/v1/sensores/{}", mine.id_sensor);
    assert_eq!(get(&server, &path, &worker.token).await.status(), 404);
    say(22).await;
    assert_eq!(next_update(&mut socket).await, None);
    assert_eq!(next_update(&mut by_name).await, None);
    panel.send(&[0xc0, 0]).await;
    assert_eq!(panel.read().await.map(|p| p.0), Some(0xd0), "nothing was delivered before");
}

/// The next reading that a WebSocket says within half a second.
async fn next_update(socket: &mut super::Socket) -> Option<Value> {
    let wait = async {
        loop {
            if let Some(Ok(Message::Text(text))) = socket.next().await {
                let event: Value = serde_json::from_str(&text).expect("JSON");
                if event["type"] == "sensor_update" {
                    return event;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(500), wait).await.ok()
}

#[tokio::test]
async fn assignments_are_listed_by_either_side_and_kept_when_they_end() {
    let server = Server::start().await;
    let (one, two) = (server.device("s1").await, server.device("s2").await);
    let (a, b) = (person(&server, "a", "worker").await, person(&server, "b", "worker").await);
    let ended = assign(&server, &a, &one).await;
    assign(&server, &a, &two).await;
    assign(&server, &b, &one).await;
    let again = json!({ "id_trabajador": a.id, "id_sensor": one.id_sensor });
    let answer = post(&server, "/api/v1/asignaciones", &server.token, again).await;
    assert_eq!(refusal(answer).await, (409, "already_assigned".to_owned()));
    assert_eq!(delete(&server, &format!("/api/v1/asignaciones/{ended}"), &server.token).await, 204);
    let anew = assign(&server, &a, &one).await;
    // Ending again what had ended before takes nothing away that was assigned since.
    assert_eq!(delete(&server, &format!("/api/v1/asignaciones/{ended}"), &server.token).await, 204);
    assert_eq!(list(&server, "/api/v1/sensores", &a.token).await.len(), 2);

    let count = async |path: String| list(&server, &path, &server.token).await.len();
    assert_eq!(count("/api/v1/asignaciones".to_owned()).await, 3);
    assert_eq!(count("/api/v1/asignaciones?activas_solo=false".to_owned()).await, 4);
    assert_eq!(count(format!("/api/v1/asignaciones/trabajador/{}", a.id)).await, 2);
    assert_eq!(count(format!("/api/v1/asignaciones/trabajador/{}?activas_solo=false", a.id)).await, 3);
    assert_eq!(count(format!("/api/v1/asignaciones/sensor/{}", one.id_sensor)).await, 2);
    let path = format!("/api/v1/asignaciones/sensor/{}?activas_solo=false", one.id_sensor);
    let all = list(&server, &path, &server.token).await;
    let of = |id: i64| all.iter().find(|x| x["id_asignacion"] == id).expect("it is there");
    assert!(of(ended)["fecha_fin"].is_string() && of(anew)["fecha_fin"].is_null(), "{all:?}");
}

#[tokio::test]
async fn nobody_assigns_what_is_anothers_and_roles_are_kept() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (worker, supervisor) =
        (person(&server, "w", "worker").await, person(&server, "s", "supervisor").await);
    let other = another_empresa(&server).await;
    let theirs = server.device_of("s2", &other).await;
    let id = assign(&server, &worker, &device).await;
    for (token, body, fields) in [
        (
            &server.token,
            json!({ "id_trabajador": worker.id, "id_sensor": theirs.id_sensor }),
            vec!["id_sensor"],
        ),
        (&other, json!({ "id_trabajador": worker.id, "id_sensor": theirs.id_sensor }), vec!["id_trabajador"]),
        (
            &other,
            json!({ "id_trabajador": worker.id, "id_sensor": device.id_sensor }),
            vec!["id_trabajador", "id_sensor"],
        ),
    ] {
        let answer = post(&server, "/api/v1/asignaciones", token, body).await;
        assert_eq!(answer.status(), 404);
        let problem: Value = answer.json().await.expect("JSON");
        let named: Vec<_> =
            problem["errors"].as_array().expect("fields").iter().map(|e| &e["campo"]).collect();
        assert_eq!(named, fields);
    }
    let of_person = format!("/api/v1/asignaciones/trabajador/{}", worker.id);
    let of_sensor = format!("/api/v1/asignaciones/sensor/{}", device.id_sensor);
    let one = format!("/api/v1/asignaciones/{id}");
    for (token, all, some, change) in
        [(&worker.token, 403, 403, 403), (&supervisor.token, 200, 200, 403), (&other, 200, 404, 404)]
    {
        assert_eq!(get(&server, "/api/v1/asignaciones", token).await.status(), all);
        assert_eq!(get(&server, &of_person, token).await.status(), some);
        assert_eq!(get(&server, &of_sensor, token).await.status(), some);
        assert_eq!(delete(&server, &one, token).await, change);
    }
    assert_eq!(list(&server, "/api/v1/asignaciones", &other).await.len(), 0);
    assert_eq!(list(&server, "/api/v1/sensores", &worker.token).await.len(), 1);
}
