//! Every limit on the broker's clients holds, is said where the protocol has a way to, and is counted.

use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;

use crate::support::mqtt::{connect, packet, text};
use crate::support::{Client, Device, Server};

/// A server with one limit of `[mqtt]`, open to anybody where `open`.
async fn server(key: &'static str, value: &'static str, open: bool) -> Server {
    Server::start_with(|mut command| {
        command.env(format!("ALERTRACE__MQTT__{key}"), value);
        command.env("ALERTRACE__MQTT__OPEN", open.to_string());
        command
    })
    .await
}

/// How often a limit was met.
async fn met(server: &Server, limit: &str) -> u64 {
    let metrics = server.request(Method::GET, "/metrics", "", None).await.text().await.expect("text");
    let name = format!("alertrace_mqtt_limited_total{{limit=\"{limit}\"}} ");
    let line = metrics.lines().find_map(|l| l.strip_prefix(&name));
    line.map_or(0, |n| n.parse().expect("a number"))
}

async fn anonymous(server: &Server, id: &str) -> Client {
    let mut body = text("MQTT");
    body.extend([5, 2, 0, 60, 0]);
    body.extend(text(id));
    let mut client = Client::open(&server.mqtt, 5).await;
    client.send(&packet(0x10, &body)).await;
    assert_eq!(client.read().await.map(|(first, body)| (first, body[1])), Some((0x20, 0)));
    client
}

/// Connects a device without waiting for more than a moment; answers whether it was let in.
async fn lets_in(server: &Server, device: &Device) -> Option<Client> {
    let mut client = Client::open(&server.mqtt, 5).await;
    let hello = connect(5, &device.id, &device.id, &device.token);
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &hello).await;
    let answer = timeout(Duration::from_millis(700), client.read()).await.ok()??;
    (answer.0 == 0x20 && answer.1[1] == 0).then_some(client)
}

#[tokio::test]
async fn connections_in_all_wait_and_those_of_one_address_are_refused() {
    let all = server("MAX_CONNECTIONS", "2", false).await;
    let devices = [all.device("a").await, all.device("b").await, all.device("c").await];
    let first = lets_in(&all, &devices[0]).await.expect("a place");
    let _second = lets_in(&all, &devices[1]).await.expect("a place");
    assert!(lets_in(&all, &devices[2]).await.is_none(), "it waits in the kernel");
    drop(first);
    assert!(lets_in(&all, &devices[2]).await.is_some(), "as soon as there is a place");

    let one = server("MAX_CONNECTIONS_PER_ADDRESS", "2", false).await;
    let devices = [one.device("a").await, one.device("b").await, one.device("c").await];
    let _first = lets_in(&one, &devices[0]).await.expect("a place");
    let _second = lets_in(&one, &devices[1]).await.expect("a place");
    assert!(lets_in(&one, &devices[2]).await.is_none());
    assert_eq!(met(&one, "max_connections_per_address").await, 1);
    // Another address has places of its own.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.9:0".parse().expect("an address")).expect("loopback is wide");
    let stream = socket.connect(one.mqtt.parse().expect("an address")).await.expect("a connection");
    let mut client = Client::open(&one.mqtt, 5).await;
    client.stream = stream;
    client.send(&connect(5, "c", "c", &devices[2].token)).await;
    assert_eq!(client.read().await.map(|(first, body)| (first, body[1])), Some((0x20, 0)));
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_one_that_does() {
    let server = server("MAX_CONNECTIONS", "4", false).await;
    let devices = [server.device("a").await, server.device("b").await];
    let mut first = lets_in(&server, &devices[0]).await.expect("a place");
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(Client::open(&server.mqtt, 5).await);
    }
    // Long before the deadline of those (5 s), and who is in stays in.
    lets_in(&server, &devices[1]).await.expect("a place");
    assert_eq!(silent[0].read().await, None);
    assert_eq!(first.publish("sensores/a/data", 1, r#"{"temperatura":1}"#).await, 0);
    assert!(met(&server, "max_connections").await > 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_at_its_deadline() {
    let server = server("CONNECT_DEADLINE_S", "1", false).await;
    let mut client = Client::open(&server.mqtt, 5).await;
    let start = std::time::Instant::now();
    // A byte at a time is nothing, too.
    client.send(&[0x10]).await;
    assert_eq!(client.read().await, None);
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&start.elapsed()));
    assert_eq!(met(&server, "connect_deadline_s").await, 1);
}

#[tokio::test]
async fn subscriptions_and_distinct_filters_are_bounded() {
    let server_a = server("MAX_SUBSCRIPTIONS", "2", true).await;
    let mut client = anonymous(&server_a, "a").await;
    assert_eq!((client.subscribe("a").await, client.subscribe("b").await), (1, 1));
    assert_eq!(client.subscribe("c").await, 0x97);
    assert_eq!(client.subscribe("a").await, 1, "the same again is no more");
    assert_eq!(met(&server_a, "max_subscriptions").await, 1);

    let server_b = server("MAX_FILTERS", "2", true).await;
    let (mut one, mut two) = (anonymous(&server_b, "a").await, anonymous(&server_b, "b").await);
    assert_eq!((one.subscribe("+/a").await, one.subscribe("+/b").await), (1, 1));
    assert_eq!(two.subscribe("+/c").await, 0x97);
    assert_eq!(two.subscribe("+/b").await, 1, "a filter that is there already");
    assert_eq!((two.subscribe("c/#").await, two.subscribe("c").await), (1, 1), "only gaps cost");
    assert_eq!(met(&server_b, "max_filters").await, 1);
}

#[tokio::test]
async fn one_subscribe_with_too_many_filters_is_counted_too() {
    let server = server("MAX_SUBSCRIPTIONS", "2", true).await;
    let mut client = anonymous(&server, "a").await;
    let filters: Vec<u8> = ["a", "b", "c", "d"].iter().flat_map(|f| [text(f), vec![1]].concat()).collect();
    client.send(&packet(0x82, &[&[0, 1, 0], &filters[..]].concat())).await;
    assert_eq!(client.read().await, Some((0x90, vec![0, 1, 0, 1, 1, 0x97, 0x97])));
    assert_eq!(met(&server, "max_subscriptions").await, 2);
}

#[tokio::test]
async fn shared_subscriptions_are_bounded_in_all_and_of_one_person() {
    let server_a = server("MAX_FILTERS", "2", true).await;
    let (mut one, mut two) = (anonymous(&server_a, "a").await, anonymous(&server_a, "b").await);
    assert_eq!((one.subscribe("$share/a/x").await, one.subscribe("$share/b/x").await), (1, 1));
    assert_eq!(two.subscribe("$share/c/x").await, 0x97);
    assert_eq!(two.subscribe("$share/b/x").await, 1, "a member more is no more");
    assert_eq!(met(&server_a, "max_filters").await, 1);

    let server_b = server("MAX_SESSIONS_PER_CLIENT", "2", false).await;
    let connect = async |id: &str| Client::connect(&server_b.mqtt, 5, id, "jwt", &server_b.token).await.0;
    let (mut one, mut two) = (connect("uno").await, connect("dos").await);
    let filter = |group: &str| format!("$share/{group}/sensores/+/data");
    assert_eq!((one.subscribe(&filter("a")).await, two.subscribe(&filter("b")).await), (1, 1));
    for client in [&mut one, &mut two] {
        assert_eq!(client.subscribe(&filter("c")).await, 0x97);
        assert_eq!(client.subscribe(&filter("a")).await, 1);
    }
    assert_eq!(met(&server_b, "max_sessions_per_client").await, 2);
}

#[tokio::test]
async fn subscribing_over_and_over_is_slowed_down_as_publishing_is() {
    let server = server("MAX_MESSAGES_PER_S", "40", true).await;
    let mut client = anonymous(&server, "a").await;
    let filters: Vec<u8> = (0..20).flat_map(|n| [text(&format!("f/{n}")), vec![0]].concat()).collect();
    let subscribe = packet(0x82, &[&[0, 1, 0], &filters[..]].concat());
    let start = std::time::Instant::now();
    // 200 filters at 40 a second, of which a second's worth may come at once.
    for _ in 0..10 {
        client.send(&subscribe).await;
        assert_eq!(client.read().await.map(|p| p.0), Some(0x90));
    }
    assert!(client.alive().await);
    assert!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(met(&server, "rate").await > 0);
}

#[tokio::test]
async fn what_the_server_says_of_devices_is_retained_beside_all_that_clients_have() {
    let server = server("MAX_RETAINED", "1", true).await;
    let mut client = anonymous(&server, "a").await;
    let mut full = client.publish_packet("x", 1, 1, b"x");
    full[0] |= 1;
    client.send(&full).await;
    assert_eq!(client.read().await.map(|p| p.0), Some(0x40));
    let devices = [server.device("s1").await, server.device("s2").await];
    let _one = Client::device(&server.mqtt, 5, &devices[0]).await;
    let _two = Client::device(&server.mqtt, 5, &devices[1]).await;
    for _ in 0..100 {
        let (mut panel, _) = Client::connect(&server.mqtt, 4, "panel", "jwt", &server.token).await;
        assert_eq!(panel.subscribe("sensores/+/estado").await, 1);
        panel.send(&[0xc0, 0]).await;
        let mut said = 0;
        while panel.read().await.expect("a packet").0 != 0xd0 {
            said += 1;
        }
        if said == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("who subscribes later never hears of both");
}

#[tokio::test]
async fn what_a_client_has_in_flight_and_how_often_it_fails_is_counted() {
    let server_a = server("RECEIVE_MAXIMUM", "2", true).await;
    let mut client = anonymous(&server_a, "a").await;
    let all: Vec<u8> = (1..=4).flat_map(|pid| client.publish_packet("a", 2, pid, b"x")).collect();
    client.send(&all).await;
    // PUBREC for two that are never released, and the end.
    let mut last = client.read().await;
    while last.as_ref().is_some_and(|(first, _)| *first == 0x50) {
        last = client.read().await;
    }
    assert_eq!(last.map(|(first, body)| (first, body[0])), Some((0xe0, 0x93)));
    assert_eq!(met(&server_a, "receive_maximum").await, 1);

    let server_b = Server::start().await;
    for _ in 0..6 {
        let _ = Client::connect(&server_b.mqtt, 5, "x", "nadie", "mala").await;
    }
    assert_eq!(Client::connect(&server_b.mqtt, 5, "x", "nadie", "mala").await.1, 0x9f);
    assert!(met(&server_b, "sign_in").await > 0);
}

#[tokio::test]
async fn topics_packets_and_retained_messages_are_bounded() {
    let server_a = server("MAX_TOPIC_LEVELS", "3", true).await;
    let mut client = anonymous(&server_a, "a").await;
    assert_eq!(client.publish("a/b/c", 1, "x").await, 0);
    assert_eq!(client.publish("a/b/c/d", 2, "x").await, 0x90);
    assert_eq!(client.subscribe("a/b/c/#").await, 0x8f);
    assert_eq!(met(&server_a, "topic").await, 2);

    let server_l = server("MAX_TOPIC_BYTES", "64", true).await;
    let mut client = anonymous(&server_l, "a").await;
    assert_eq!(client.publish(&"x".repeat(64), 1, "x").await & 0xef, 0);
    assert_eq!(client.publish(&"x".repeat(65), 2, "x").await, 0x90);
    assert_eq!(client.subscribe(&"x".repeat(65)).await, 0x8f);
    // A will's topic, too.
    let mut body = text("MQTT");
    body.extend([5, 6, 0, 60, 0]);
    body.extend(text("b"));
    body.push(0);
    body.extend(text(&"x".repeat(65)));
    body.extend(text("x"));
    let mut heir = Client::open(&server_l.mqtt, 5).await;
    heir.send(&packet(0x10, &body)).await;
    assert_eq!(heir.read().await.map(|(first, body)| (first, body[1])), Some((0x20, 0x90)));
    assert_eq!(met(&server_l, "topic").await, 3);

    let server_b = server("MAX_PACKET_BYTES", "1024", true).await;
    let mut client = anonymous(&server_b, "a").await;
    assert_eq!(client.publish("a", 1, &"x".repeat(900)).await, 0);
    let large = client.publish_packet("a", 1, 2, &[b'x'; 1_100]);
    client.send(&large).await;
    assert_eq!(client.read().await.map(|(first, body)| (first, body[0])), Some((0xe0, 0x95)));
    assert_eq!(met(&server_b, "max_packet_bytes").await, 1);
    // A CONNECT is a packet.
    let mut other = Client::open(&server_b.mqtt, 5).await;
    other.send(&connect(5, &"x".repeat(1_100), "x", "x")).await;
    while other.read().await.is_some() {}
    assert_eq!(met(&server_b, "max_packet_bytes").await, 2);

    let server_c = server("MAX_RETAINED", "1", true).await;
    let mut client = anonymous(&server_c, "a").await;
    for (pid, topic, payload, code) in
        [(1, "a", "x", 0), (2, "b", "x", 0x97), (3, "a", "", 0), (4, "b", "x", 0)]
    {
        let mut bytes = client.publish_packet(topic, 1, pid, payload.as_bytes());
        bytes[0] |= 1;
        client.send(&bytes).await;
        let (first, body) = client.read().await.expect("a PUBACK");
        // 0x10: nobody subscribes.
        assert_eq!(
            (first, body.get(2).copied().unwrap_or(0) & 0xef),
            (0x40, code & 0xef),
            "{topic} {payload:?}"
        );
    }
    assert_eq!(met(&server_c, "max_retained").await, 1);
}

#[tokio::test]
async fn one_device_has_so_many_sessions_and_no_more() {
    let server = server("MAX_SESSIONS_PER_CLIENT", "2", false).await;
    let (device, other) = (server.device("a").await, server.device("b").await);
    let (_one, code) = Client::connect(&server.mqtt, 5, "uno", "a", &device.token).await;
    assert_eq!(code, 0);
    let (two, code) = Client::connect(&server.mqtt, 5, "dos", "a", &device.token).await;
    assert_eq!(code, 0);
    assert_eq!(Client::connect(&server.mqtt, 5, "tres", "a", &device.token).await.1, 0x88);
    assert_eq!(met(&server, "max_sessions_per_client").await, 1);
    let _other = Client::device(&server.mqtt, 5, &other).await;
    drop(two);
    for _ in 0..100 {
        if Client::connect(&server.mqtt, 5, "tres", "a", &device.token).await.1 == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a session that is over still counts");
}

#[tokio::test]
async fn what_a_client_calls_itself_is_bounded_and_costs_nobody_else_anything() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    for version in [4, 5] {
        let refused = if version == 5 { 0x85 } else { 2 };
        // Not the same letter over and over: a database would press that together.
        let long: String = (1..300_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
        let (_, code) = Client::connect(&server.mqtt, version, &long, "s1", &device.token).await;
        assert_eq!(code, refused, "an identifier of {} bytes", long.len());
        let (_, code) = Client::connect(&server.mqtt, version, &long[..1_024], "s1", &device.token).await;
        assert_eq!(code, 0);
        let (_, code) = Client::connect(&server.mqtt, version, "c", &long, "x").await;
        assert_ne!(code, 0);
    }
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    let seen = server.get("/api/v1/mqtt/clientes").await.to_string();
    assert!(seen.len() < 8_000, "{} bytes of it are kept", seen.len());
}

#[tokio::test]
async fn a_stale_token_makes_nobody_else_wait() {
    let server = Server::start().await;
    for user in ["jwt", "key"] {
        let mut codes = Vec::new();
        for n in 0..12 {
            codes.push(Client::connect(&server.mqtt, 5, &format!("c{n}"), user, "stale").await.1);
        }
        assert!(codes.contains(&0x97) || codes.iter().any(|c| *c != codes[0]), "it is held back: {codes:x?}");
        let (_, code) = Client::connect(&server.mqtt, 5, "good", "jwt", &server.token).await;
        assert_eq!(code, 0, "after {user}");
    }
}
