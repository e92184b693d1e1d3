//! An alert appears, rises and closes, and every listener is told.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Server};

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

pub async fn live(server: &Server) -> Socket {
    let url = format!("ws://{}/api/v1/sensores/live", server.http);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
    let auth = json!({ "type": "auth", "token": server.token }).to_string();
    socket.send(Message::text(auth)).await.expect("it is heard");
    socket
}

/// The next event of a kind.
pub async fn next(socket: &mut Socket, kind: &str) -> Value {
    let wait = async {
        loop {
            let event = next_of_any(socket).await;
            if event["type"] == kind {
                return event;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.expect("in time")
}

/// The next event, whatever it is.
pub async fn next_of_any(socket: &mut Socket) -> Value {
    let wait = async {
        loop {
            let message = socket.next().await.expect("an event").expect("the socket is open");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.expect("in time")
}

#[tokio::test]
async fn an_alert_appears_rises_and_closes_on_rest_and_websocket_and_mqtt() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut socket = live(&server).await;
    let snapshot = next(&mut socket, "snapshot").await;
    assert_eq!(snapshot["sensores"][0]["device_id"], "s1");
    let (mut listener, code) = Client::connect(&server.mqtt, 5, "panel", "jwt", &server.token).await;
    assert_eq!(code, 0);
    assert_eq!(listener.subscribe("alertas/+").await, 1);

    let mut client = Client::device(&server.mqtt, 4, &device).await;
    assert_eq!(next(&mut socket, "estado").await["estado"], "online");
    let mut pid = 0;
    let mut say = async |value: f64| {
        pid += 1;
        client.publish("sensores/s1/data", pid, &format!("{{\"temperatura\":{value}}}")).await;
    };

    say(36.0).await;
    assert_eq!(next(&mut socket, "sensor_update").await["data"]["temperatura"], 36.0);
    let opened = next(&mut socket, "alerta").await;
    assert_eq!((&opened["accion"], &opened["alerta"]["severidad"]), (&json!("creada"), &json!("media")));
    say(36.1).await;
    say(50.0).await;
    let raised = next(&mut socket, "alerta").await;
    assert_eq!(
        (&raised["accion"], &raised["alerta"]["severidad"]),
        (&json!("actualizada"), &json!("critica"))
    );
    assert_eq!(raised["alerta"]["id_alerta"], opened["alerta"]["id_alerta"]);
    let open = server.get("/api/v1/alertas").await;
    assert_eq!(open.as_array().map(Vec::len), Some(1), "never duplicated: {open}");

    for value in [20.0, 21.0, 22.0] {
        say(value).await;
    }
    let closed = next(&mut socket, "alerta").await;
    assert_eq!(closed["accion"], "resuelta");
    assert_eq!(server.get("/api/v1/alertas").await, json!([]));
    let all = server.get("/api/v1/alertas?estado=resuelta").await;
    assert_eq!(all[0]["id_alerta"], opened["alerta"]["id_alerta"]);

    let mut heard = Vec::new();
    for _ in 0..3 {
        let (first, body) = listener.read().await.expect("a PUBLISH");
        assert_eq!(first & 0xf6, 0x32, "QoS 1");
        let start = body.iter().position(|b| *b == b'{').expect("JSON");
        let event: Value = serde_json::from_slice(&body[start..]).expect("JSON");
        heard.push(event["accion"].as_str().expect("text").to_owned());
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        listener.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
    }
    assert_eq!(heard, ["creada", "actualizada", "resuelta"]);
}

#[tokio::test]
async fn resolving_while_the_problem_persists_opens_one_a_step_worse() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    client.publish("sensores/s1/data", 1, r#"{"temperatura":36}"#).await;
    let id = server.get("/api/v1/alertas").await[0]["id_alerta"].clone();
    let path = format!("/api/v1/alertas/{id}/resolve");
    let body = Some(json!({ "notas": "abierta la ventana" }));
    let answer = server.request(reqwest::Method::PATCH, &path, &server.token, body).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["problema_persiste"], true);
    assert_eq!(answer["notas"], "abierta la ventana");
    assert_eq!(answer["nueva_alerta"]["severidad"], "alta");
}

#[tokio::test]
async fn the_same_reading_twice_is_stored_once_and_acknowledged_twice() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let now = alertrace::domain::Clock::now(&alertrace::domain::SystemClock);
    let reading = |extra: &str| format!("{{\"timestamp\":\"{now}\"{extra}}}");
    for pid in 1..3 {
        assert_eq!(client.publish("sensores/s1/data", pid, &reading(",\"temperatura\":20")).await, 0);
    }
    // Other variables of the same moment are merged; another value of the same variable is not.
    assert_eq!(client.publish("sensores/s1/data", 3, &reading(",\"humedad\":50")).await, 0);
    assert_eq!(client.publish("sensores/s1/data", 4, &reading(",\"temperatura\":21")).await, 0x99);
    let stored = server.readings(&device).await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!((&stored[0]["temperatura"], &stored[0]["humedad_aire"]), (&json!(20.0), &json!(50.0)));
    let refused = server.get(&format!("/api/v1/sensores/{}/rechazos", device.id_sensor)).await;
    assert_eq!(refused[0]["motivo"], "conflicto");
}
