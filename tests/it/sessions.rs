//! What a session is promised survives `kill -9`: its subscriptions, its queue, what is in flight in
//! both directions, and retained messages.

use crate::support::mqtt::{Packet, packet, text};
use crate::support::{Client, Server};

async fn open_server(queued: &'static str) -> Server {
    Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true").env("ALERTRACE__MQTT__MAX_QUEUED_MESSAGES", queued);
        command
    })
    .await
}

/// Connects without credentials with a session of `expiry` seconds; answers whether it was there.
async fn connect(server: &Server, id: &str, clean: bool, expiry: u32) -> (Client, bool) {
    let mut body = text("MQTT");
    body.extend([5, if clean { 2 } else { 0 }, 0, 60, 5, 0x11]);
    body.extend(expiry.to_be_bytes());
    body.extend(text(id));
    connected(server, 5, &body).await
}

async fn connected(server: &Server, version: u8, body: &[u8]) -> (Client, bool) {
    let mut client = Client::open(&server.mqtt, version).await;
    client.send(&packet(0x10, body)).await;
    let (first, body) = client.read().await.expect("a CONNACK");
    assert_eq!((first, body[1]), (0x20, 0));
    (client, body[0] == 1)
}

async fn subscribe(client: &mut Client, filter: &str, qos: u8) {
    let mut body = vec![0, 9, 0];
    body.extend(text(filter));
    body.push(qos);
    client.send(&packet(0x82, &body)).await;
    let (first, body) = client.read().await.expect("a SUBACK");
    assert_eq!((first, body.last()), (0x90, Some(&qos)));
}

/// The next PUBLISH: DUP, QoS, packet id, payload.
async fn message(client: &mut Client) -> (bool, u8, u16, String) {
    let (first, body) = client.read().await.expect("a packet");
    assert_eq!(first & 0xf0, 0x30, "a PUBLISH");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let pid = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
    let properties = usize::from(body[4 + topic]);
    let payload = String::from_utf8(body[5 + topic + properties..].to_vec()).expect("text");
    (first & 8 != 0, first >> 1 & 3, pid, payload)
}

fn ack(first: u8, pid: u16) -> Vec<u8> {
    packet(first, &pid.to_be_bytes())
}

/// Nothing else is on its way: a PINGRESP is the next packet.
async fn silent(client: &mut Client) {
    client.send(&[0xc0, 0]).await;
    let expected: Packet = (0xd0, Vec::new());
    assert_eq!(client.read().await, Some(expected));
}

#[tokio::test]
async fn subscriptions_and_what_waits_for_them_survive_a_kill() {
    let mut server = open_server("1000").await;
    let (mut one, present) = connect(&server, "uno", false, 600).await;
    assert!(!present);
    subscribe(&mut one, "a/+", 1).await;
    drop(one);
    let (mut two, _) = connect(&server, "dos", true, 0).await;
    for n in 1..=5 {
        assert_eq!(two.publish(&format!("a/{n}"), n, &format!("m{n}")).await, 0);
    }
    // QoS 0 is not kept for somebody who is not there.
    let bytes = two.publish_packet("a/0", 0, 0, b"lost");
    two.send(&bytes).await;
    silent(&mut two).await;
    server.kill_and_restart();

    let (mut one, present) = connect(&server, "uno", false, 600).await;
    assert!(present, "the session is there");
    for n in 1..=5 {
        let (dup, qos, pid, payload) = message(&mut one).await;
        assert_eq!((dup, qos, payload), (false, 1, format!("m{n}")), "in order, for the first time");
        one.send(&ack(0x40, pid)).await;
    }
    silent(&mut one).await;
    // The subscription works, and what was completed does not come back.
    let (mut two, _) = connect(&server, "dos", true, 0).await;
    assert_eq!(two.publish("a/6", 1, "m6").await, 0);
    let (_, _, pid, payload) = message(&mut one).await;
    assert_eq!(payload, "m6");
    one.send(&ack(0x40, pid)).await;
    silent(&mut one).await;
    drop(one);
    let (mut one, present) = connect(&server, "uno", false, 600).await;
    assert!(present);
    silent(&mut one).await;
}

#[tokio::test]
async fn what_was_sent_and_not_acknowledged_is_sent_again_with_its_id_after_a_kill() {
    let mut server = open_server("1000").await;
    let (mut one, _) = connect(&server, "uno", false, 600).await;
    subscribe(&mut one, "a/#", 2).await;
    let (mut two, _) = connect(&server, "dos", true, 0).await;
    for n in 1..=3 {
        assert_eq!(two.publish("a/1", n, &format!("m{n}")).await, 0);
    }
    let bytes = two.publish_packet("a/2", 2, 9, b"exactly once");
    two.send(&bytes).await;
    assert_eq!(two.read().await.map(|p| p.0), Some(0x50));
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.push(message(&mut one).await);
    }
    let released = sent[3].2;
    assert_eq!((sent[3].1, sent[3].3.as_str()), (2, "exactly once"));
    // The second is acknowledged, the last one received (PUBREC): PUBREL shows that this is kept.
    one.send(&ack(0x40, sent[1].2)).await;
    one.send(&ack(0x50, released)).await;
    assert_eq!(one.read().await, Some((0x62, released.to_be_bytes().to_vec())));
    server.kill_and_restart();

    let (mut one, present) = connect(&server, "uno", false, 600).await;
    assert!(present);
    for expected in [&sent[0], &sent[2]] {
        // The acknowledgement of the second may or may not have been kept; then it comes again.
        let mut again = message(&mut one).await;
        if again.2 == sent[1].2 {
            assert!(again.0, "marked as repeated");
            again = message(&mut one).await;
        }
        assert_eq!(again, (true, expected.1, expected.2, expected.3.clone()));
        one.send(&ack(0x40, again.2)).await;
    }
    assert_eq!(one.read().await, Some((0x62, released.to_be_bytes().to_vec())), "PUBREL, not the message");
    one.send(&ack(0x70, released)).await;
    silent(&mut one).await;
}

#[tokio::test]
async fn a_qos_2_message_repeated_after_a_kill_is_not_a_second_message() {
    let mut server = open_server("1000").await;
    let (mut hears, _) = connect(&server, "oye", false, 600).await;
    subscribe(&mut hears, "a", 1).await;
    drop(hears);
    let (mut says, _) = connect(&server, "dice", false, 600).await;
    let bytes = says.publish_packet("a", 2, 7, b"once");
    says.send(&bytes).await;
    assert_eq!(says.read().await.map(|p| (p.0, p.1[..2].to_vec())), Some((0x50, vec![0, 7])));
    server.kill_and_restart();

    let (mut says, present) = connect(&server, "dice", false, 600).await;
    assert!(present);
    let mut again = bytes;
    again[0] |= 8;
    says.send(&again).await;
    assert_eq!(says.read().await.map(|p| (p.0, p.1[..2].to_vec())), Some((0x50, vec![0, 7])));
    says.send(&ack(0x62, 7)).await;
    assert_eq!(says.read().await.map(|p| (p.0, p.1)), Some((0x70, vec![0, 7])));
    // Released for good: after another kill the id is free for another message.
    server.kill_and_restart();
    let (mut says, _) = connect(&server, "dice", false, 600).await;
    let bytes = says.publish_packet("a", 2, 7, b"another");
    says.send(&bytes).await;
    assert_eq!(says.read().await.map(|p| p.0), Some(0x50));

    let (mut hears, _) = connect(&server, "oye", false, 600).await;
    for expected in ["once", "another"] {
        let (_, _, pid, payload) = message(&mut hears).await;
        assert_eq!(payload, expected);
        hears.send(&ack(0x40, pid)).await;
    }
    silent(&mut hears).await;
}

#[tokio::test]
async fn retained_messages_survive_a_kill_and_so_does_their_end() {
    let mut server = open_server("1000").await;
    let (mut one, _) = connect(&server, "uno", true, 0).await;
    for (topic, payload) in [("r/1", "a"), ("r/2", "b"), ("r/1", "c"), ("r/2", "")] {
        let mut bytes = one.publish_packet(topic, 1, 1, payload.as_bytes());
        bytes[0] |= 1;
        one.send(&bytes).await;
        assert_eq!(one.read().await.map(|p| p.0), Some(0x40));
    }
    server.kill_and_restart();
    let (mut one, _) = connect(&server, "uno", true, 0).await;
    subscribe(&mut one, "r/#", 1).await;
    assert_eq!(message(&mut one).await.3, "c");
    silent(&mut one).await;
}

#[tokio::test]
async fn a_full_queue_loses_its_oldest_and_counts_them() {
    let mut server = open_server("10").await;
    let (mut one, _) = connect(&server, "uno", false, 600).await;
    subscribe(&mut one, "a", 1).await;
    drop(one);
    let (mut two, _) = connect(&server, "dos", true, 0).await;
    for n in 1..=25 {
        assert_eq!(two.publish("a", n, &n.to_string()).await, 0);
    }
    let metrics =
        server.request(reqwest::Method::GET, "/metrics", "", None).await.text().await.expect("text");
    assert!(metrics.contains("alertrace_mqtt_messages_dropped_total{reason=\"queue_full\"} 15"), "{metrics}");
    // What was dropped leaves the store, within a moment.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    server.kill_and_restart();
    let (mut one, _) = connect(&server, "uno", false, 600).await;
    for n in 16..=25 {
        let (_, _, pid, payload) = message(&mut one).await;
        assert_eq!(payload, n.to_string());
        one.send(&ack(0x40, pid)).await;
    }
    silent(&mut one).await;
}

/// A CONNECT of a person, 3.1.1, whose session is kept.
fn panel(server: &Server) -> Vec<u8> {
    // Clean session off, user name and password.
    let mut body = text("MQTT");
    body.extend([4, 0b1100_0000, 0, 60]);
    for part in ["panel", "jwt", &server.token] {
        body.extend(text(part));
    }
    body
}

/// The next PUBLISH of a 3.1.1 client, acknowledged: topic and payload.
async fn take(client: &mut Client) -> (String, String) {
    let (first, body) = client.read().await.expect("a packet");
    assert_eq!(first & 0xf6, 0x32, "a PUBLISH with QoS 1");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    client.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
    let part = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (part(&body[2..2 + topic]), part(&body[4 + topic..]))
}

#[tokio::test]
async fn what_the_site_says_is_stored_with_what_it_tells_of_however_the_server_ends() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let (mut panel_client, _) = connected(&server, 4, &panel(&server)).await;
    for filter in ["alertas/+", "sensores/+/data"] {
        panel_client.send(&packet(0x82, &[&[0, 1], &text(filter)[..], &[1]].concat())).await;
        assert_eq!(panel_client.read().await.map(|p| p.0), Some(0x90));
    }
    drop(panel_client);
    for (round, killed) in [(0, true), (1, false)] {
        // An alert and its end, sixty times; by MQTT and by HTTP, each answered after one commit.
        let now = alertrace::domain::Clock::now(&alertrace::domain::SystemClock).micros() / 1_000_000;
        let now = now - 4_000 + round * 1_000;
        let reading = |n: i64| {
            let value = if n % 4 == 0 { 36 } else { 20 };
            serde_json::json!({ "timestamp": now + n, "temperatura": value })
        };
        let half = |from: i64| serde_json::json!((from..from + 120).map(reading).collect::<Vec<_>>());
        let mut client = Client::device(&server.mqtt, 5, &device).await;
        assert_eq!(client.publish("sensores/s1/data", 1, &half(0).to_string()).await, 0);
        let by_http = half(120).to_string();
        let answer = reqwest::Client::new()
            .post(format!("http://{}/api/v1/sensores/data", server.http))
            .header("authorization", format!("Device s1:{}", device.token))
            .body(by_http.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 201);
        if !killed {
            assert_eq!(server.terminate().await.0, Some(0));
        }
        server.kill_and_restart();

        let (mut hears, present) = connected(&server, 4, &panel(&server)).await;
        assert!(present);
        let mut said = Vec::new();
        for _ in 0..122 {
            said.push(take(&mut hears).await);
        }
        let data: Vec<_> = said.iter().filter(|(topic, _)| topic == "sensores/s1/data").collect();
        assert!(data.len() == 2 && data[1].1 == by_http, "{} messages, killed: {killed}", data.len());
        for (what, times) in [("creada", 60), ("resuelta", 60)] {
            let told = |(_, payload): &&(String, String)| payload.contains(&format!("\"accion\":\"{what}\""));
            assert_eq!(said.iter().filter(told).count(), times, "{what}, killed: {killed}");
        }
        silent(&mut hears).await;
    }
}

#[tokio::test]
async fn what_has_expired_leaves_the_store_too() {
    let mut server = open_server("1000").await;
    let (mut one, _) = connect(&server, "uno", true, 0).await;
    // Retained, QoS 1, good for a second.
    let mut body = text("r/1");
    body.extend([0, 1, 5, 2, 0, 0, 0, 1]);
    body.extend(b"x");
    one.send(&packet(0x33, &body)).await;
    assert_eq!(one.read().await.map(|p| p.0), Some(0x40));
    let row = |key: &str| {
        format!("INSERT INTO mqtt_retenidos (topic, payload, qos, propiedades) VALUES ('{key}', '', 0, '')")
    };
    server.sql(&row("r/2"));
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    // There is no such row any more, or this would fail.
    server.sql(&row("r/1"));
    server.kill();
}

#[tokio::test]
async fn a_reading_reaches_somebody_who_was_away_through_a_kill() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let login = panel(&server);
    let (mut panel, _) = connected(&server, 4, &login).await;
    panel.send(&packet(0x82, &[&[0, 1], &text("sensores/+/data")[..], &[1]].concat())).await;
    assert_eq!(panel.read().await.map(|p| p.0), Some(0x90));
    drop(panel);
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, "{\"temperatura\":21.5}").await, 0);
    server.kill_and_restart();
    let (mut panel, present) = connected(&server, 4, &login).await;
    assert!(present);
    let (first, body) = panel.read().await.expect("the reading");
    assert_eq!(first & 0xf6, 0x32);
    assert!(String::from_utf8_lossy(&body).ends_with("{\"temperatura\":21.5}"));
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over_even_while_the_server_is_down() {
    let mut server = open_server("1000").await;
    let (mut one, _) = connect(&server, "uno", false, 1).await;
    subscribe(&mut one, "a", 1).await;
    drop(one);
    let (clean, _) = connect(&server, "dos", false, 600).await;
    drop(clean);
    let (_clean, present) = connect(&server, "dos", true, 0).await;
    assert!(!present, "a clean start forgets");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    server.kill_and_restart();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    for id in ["uno", "dos"] {
        assert!(!connect(&server, id, false, 0).await.1, "{id}");
    }
}
