//! The WebSocket of the contract's section 3, sentence by sentence.

use std::time::{Duration, Instant};

use alertrace::domain::{Clock as _, SystemClock};
use alertrace::identity::tokens::{Claims, Firmante};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Device, Server};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens one, with headers of its own; answers the subprotocol too, or the status that refused it.
pub async fn open(
    server: &Server,
    query: &str,
    headers: &[(&str, &str)],
) -> Result<(Socket, Option<String>), u16> {
    let url = format!("ws://{}/api/v1/sensores/live{query}", server.http);
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        let name = tokio_tungstenite::tungstenite::http::HeaderName::from_bytes(name.as_bytes());
        request.headers_mut().insert(name.expect("a name"), value.parse().expect("a value"));
    }
    match connect_async(request).await {
        Ok((socket, answer)) => {
            let protocol = answer.headers().get("sec-websocket-protocol");
            Ok((socket, protocol.map(|p| p.to_str().expect("text").to_owned())))
        }
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(e) => panic!("{e}"),
    }
}

pub async fn signed_in(server: &Server, query: &str) -> Socket {
    let bearer = format!("Bearer {}", server.token);
    open(server, query, &[("authorization", &bearer)]).await.expect("it opens").0
}

/// The next message that is no ping.
async fn next(socket: &mut Socket) -> Message {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(15), socket.next()).await.expect("in time");
        match message.expect("it is open").expect("a message") {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

pub async fn event(socket: &mut Socket) -> Value {
    let message = next(socket).await;
    serde_json::from_str(message.to_text().expect("text")).expect("JSON")
}

pub async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        if let Message::Close(frame) = next(socket).await {
            return frame.expect("a reason").code.into();
        }
    }
}

async fn say(server: &Server, device: &Device, body: &Value) {
    let url = format!("http://{}/api/v1/sensores/data", server.http);
    let request = reqwest::Client::new().post(url).basic_auth(&device.id, Some(&device.token)).json(body);
    assert_eq!(request.send().await.expect("an answer").status(), 201);
}

#[tokio::test]
async fn a_token_comes_in_a_header_in_the_subprotocols_or_first_of_all() {
    let server = Server::start().await;
    server.device("s1").await;
    let bearer = format!("Bearer {}", server.token);
    let offered = format!("bearer, {}", server.token);
    for (header, protocol) in [
        (Some(("authorization", bearer.as_str())), None),
        (Some(("sec-websocket-protocol", offered.as_str())), Some("bearer")),
        (None, None),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let (mut socket, answered) = open(&server, "", &headers).await.expect("it opens");
        assert_eq!(answered.as_deref(), protocol);
        if header.is_none() {
            let auth = json!({ "type": "auth", "token": server.token }).to_string();
            socket.send(Message::text(auth)).await.expect("it is heard");
        }
        let snapshot = event(&mut socket).await;
        assert_eq!(
            (&snapshot["type"], &snapshot["sensores"][0]["device_id"]),
            (&json!("snapshot"), &json!("s1"))
        );
    }
    for (header, status) in
        [(("authorization", "Bearer no"), 401), (("sec-websocket-protocol", "bearer, no"), 401)]
    {
        assert_eq!(open(&server, "", &[header]).await.err(), Some(status));
    }
    let (mut socket, _) = open(&server, "", &[]).await.expect("it opens");
    socket.send(Message::text(r#"{"type":"auth","token":"no"}"#)).await.expect("it is heard");
    assert_eq!(close_code(&mut socket).await, 4401);
}

#[tokio::test]
async fn who_says_nothing_for_five_seconds_is_not_signed_in() {
    let server = Server::start().await;
    let (mut socket, _) = open(&server, "", &[]).await.expect("it opens");
    let start = Instant::now();
    assert_eq!(close_code(&mut socket).await, 4401);
    assert!((4..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_token_that_expires_closes_the_socket() {
    let server = Server::start().await;
    let me = server.get("/api/v1/auth/me").await;
    let secret = std::fs::read_to_string(server.data_dir().join("jwt.secret")).expect("the secret");
    let sesion = server.get("/api/v1/auth/sesiones").await[0]["id"].clone();
    let (user_id, sesion) = (me["user_id"].as_str().expect("a key"), sesion.as_str().expect("its name"));
    let claims = Claims::new(user_id, sesion, SystemClock.now(), 3, "x");
    let token = Firmante::new(secret.trim().as_bytes()).firma(&claims).expect("a token");
    let bearer = format!("Bearer {token}");
    let (mut socket, _) = open(&server, "", &[("authorization", &bearer)]).await.expect("it opens");
    assert_eq!(event(&mut socket).await["type"], "snapshot");
    assert_eq!(close_code(&mut socket).await, 4401);
}

#[tokio::test]
async fn a_query_or_a_message_narrows_what_is_heard() {
    let server = Server::start().await;
    let (one, other) = (server.device("s1").await, server.device("s2").await);
    let query = format!("?sensores={}&eventos=lectura", one.id_sensor);
    let mut socket = signed_in(&server, &query).await;
    let snapshot = event(&mut socket).await;
    assert_eq!(snapshot["sensores"].as_array().map(Vec::len), Some(1));
    say(&server, &other, &json!({ "temperatura": 20 })).await;
    // Outside its bounds: an alert too, which is not asked for.
    say(&server, &one, &json!({ "temperatura": 45 })).await;
    say(&server, &one, &json!({ "temperatura": 46 })).await;
    for value in [45.0, 46.0] {
        let event = event(&mut socket).await;
        assert_eq!((&event["type"], &event["device_id"]), (&json!("sensor_update"), &json!("s1")));
        assert_eq!(event["data"]["temperatura"], value);
        assert!(event["data"]["timestamp"].is_string() && event["id_sensor"] == one.id_sensor);
    }
    let message = json!({ "type": "subscribe", "sensores": [other.id_sensor], "eventos": ["alerta"] });
    socket.send(Message::text(message.to_string())).await.expect("it is heard");
    // Heard once an alert of the other comes: messages and events are told apart by nothing else.
    tokio::time::sleep(Duration::from_millis(300)).await;
    say(&server, &one, &json!({ "temperatura": 47 })).await;
    say(&server, &other, &json!({ "temperatura": 45 })).await;
    let alert = event(&mut socket).await;
    assert_eq!((&alert["type"], &alert["accion"]), (&json!("alerta"), &json!("creada")));
    assert_eq!(alert["alerta"]["device_id"], "s2");
    assert_eq!(open(&server, "?eventos=todo", &[]).await.err(), Some(422));
    socket.send(Message::text(r#"{"type":"subscribe","eventos":["todo"]}"#)).await.expect("it is heard");
    assert_eq!(close_code(&mut socket).await, 1008, "it would believe itself narrowed");
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_told_to_begin_again_and_holds_up_nobody() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__SOCKET_QUEUE", "8");
        command
    })
    .await;
    let device = server.device("s1").await;
    let mut slow = signed_in(&server, "?eventos=lectura").await;
    assert_eq!(event(&mut slow).await["type"], "snapshot");
    // Some 20 MB of events: more than the system keeps for a socket that is not read.
    let readings = |round: i64| {
        let reading = |n: i64| {
            let mut reading = serde_json::Map::new();
            for variable in 0..30 {
                reading.insert(format!("variable_{variable:02}_with_a_long_name"), json!(0.123_456_789));
            }
            reading.insert("timestamp".into(), json!(1_790_000_000 + round * 1_000 + n));
            Value::Object(reading)
        };
        Value::Array((0..500).map(reading).collect())
    };
    for round in 0..30 {
        say(&server, &device, &readings(round)).await;
    }
    let mut updates = 0;
    loop {
        match event(&mut slow).await["type"].as_str() {
            Some("sensor_update") => updates += 1,
            Some("resync") => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(updates < 15_000, "{updates}: it missed nothing");
    let snapshot = event(&mut slow).await;
    assert_eq!(
        (&snapshot["type"], &snapshot["sensores"][0]["device_id"]),
        (&json!("snapshot"), &json!("s1"))
    );
    say(&server, &device, &json!({ "temperatura": 21.5 })).await;
    loop {
        let event = event(&mut slow).await;
        if event["data"]["temperatura"] == 21.5 {
            break;
        }
    }
}

#[tokio::test]
async fn a_ping_comes_every_thirty_seconds() {
    let server = Server::start().await;
    let mut socket = signed_in(&server, "").await;
    assert_eq!(event(&mut socket).await["type"], "snapshot");
    let start = Instant::now();
    let ping = tokio::time::timeout(Duration::from_secs(40), socket.next()).await.expect("in time");
    assert!(matches!(ping, Some(Ok(Message::Ping(_)))), "{ping:?}");
    assert!((28..33).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}
