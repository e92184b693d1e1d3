//! The broker as a broker (`mqtt.open`): wills, take-over, sessions, retained messages, keep-alive.

use std::time::Duration;

use crate::support::mqtt::{packet, text};
use crate::support::{Client, Server};

async fn open_broker() -> Server {
    Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true");
        command
    })
    .await
}

/// CONNECT without credentials. `flags` beside the will's; `keep_alive` in seconds.
fn connect(version: u8, id: &str, clean: bool, keep_alive: u8, will: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = text("MQTT");
    let flags = if clean { 0b10 } else { 0 } | if will.is_some() { 0b100 } else { 0 };
    body.extend([version, flags, 0, keep_alive]);
    if version == 5 {
        // Session Expiry Interval: a minute where the session is kept.
        let expiry: &[u8] = if clean { &[0] } else { &[5, 0x11, 0, 0, 0, 60] };
        body.extend(expiry);
    }
    body.extend(text(id));
    if let Some((topic, message)) = will {
        if version == 5 {
            body.push(0);
        }
        body.extend(text(topic));
        body.extend(text(message));
    }
    packet(0x10, &body)
}

/// Connects; answers the client and whether its session was there.
async fn enter(server: &Server, version: u8, id: &str, clean: bool) -> (Client, bool) {
    let mut client = Client::open(&server.mqtt, version).await;
    client.send(&connect(version, id, clean, 0, None)).await;
    let (first, body) = client.read().await.expect("a CONNACK");
    assert_eq!((first, body[1]), (0x20, 0));
    (client, body[0] & 1 == 1)
}

/// The next PUBLISH: first byte, topic, payload; acknowledged when it has QoS 1.
async fn hear(client: &mut Client, version: u8) -> (u8, String, String) {
    let (first, body) = client.read().await.expect("a PUBLISH");
    assert_eq!(first & 0xf0, 0x30, "a PUBLISH, got {first:#x} {body:?}");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let mut at = 2 + topic;
    if first & 0x06 == 0x02 {
        client.send(&[0x40, 2, body[at], body[at + 1]]).await;
        at += 2;
    }
    if version == 5 {
        at += 1 + usize::from(body[at]);
    }
    let utf8 = |b: &[u8]| String::from_utf8(b.to_vec()).expect("text");
    (first, utf8(&body[2..2 + topic]), utf8(&body[at..]))
}

#[tokio::test]
async fn a_will_is_sent_when_its_owner_is_lost_and_not_when_it_takes_leave() {
    let server = open_broker().await;
    for version in [4, 5] {
        let (mut listener, _) = enter(&server, version, "listener", true).await;
        assert_eq!(listener.subscribe("casa/+").await, 1);
        let mut polite = Client::open(&server.mqtt, version).await;
        polite.send(&connect(version, "polite", true, 0, Some(("casa/polite", "lost")))).await;
        polite.read().await.expect("a CONNACK");
        polite.send(&[0xe0, 0]).await;
        assert!(polite.read().await.is_none());
        let mut lost = Client::open(&server.mqtt, version).await;
        lost.send(&connect(version, "lost", true, 0, Some(("casa/lost", "lost")))).await;
        lost.read().await.expect("a CONNACK");
        drop(lost);
        let (_, topic, payload) = hear(&mut listener, version).await;
        assert_eq!(
            (topic.as_str(), payload.as_str()),
            ("casa/lost", "lost"),
            "and nothing of the polite one"
        );
    }
}

#[tokio::test]
async fn the_same_identifier_takes_over() {
    let server = open_broker().await;
    let (mut first, _) = enter(&server, 5, "same", true).await;
    let (mut second, present) = enter(&server, 5, "same", true).await;
    assert!(!present);
    assert_eq!(first.read().await.map(|(f, body)| (f, body[0])), Some((0xe0, 0x8e)), "Session taken over");
    assert!(first.read().await.is_none());
    assert!(second.alive().await);
}

#[tokio::test]
async fn a_kept_session_gets_what_it_missed_in_order_and_a_clean_one_does_not() {
    let server = open_broker().await;
    for version in [4, 5] {
        let (mut reader, present) = enter(&server, version, "reader", false).await;
        assert!(!present);
        assert_eq!(reader.subscribe("cola/#").await, 1);
        drop(reader);
        let (mut writer, _) = enter(&server, version, "writer", true).await;
        // The broker has noticed the loss once a ping has gone round after it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for n in 1..=5 {
            assert_eq!(writer.publish("cola/x", n, &n.to_string()).await, 0);
        }
        let (mut reader, present) = enter(&server, version, "reader", false).await;
        assert!(present, "version {version}");
        for n in 1..=5 {
            assert_eq!(hear(&mut reader, version).await.2, n.to_string());
        }
        drop(reader);
        let (mut reader, present) = enter(&server, version, "reader", true).await;
        assert!(!present);
        assert!(reader.alive().await);
    }
}

#[tokio::test]
async fn an_unacknowledged_delivery_is_sent_again_with_dup() {
    let server = open_broker().await;
    let (mut reader, _) = enter(&server, 4, "reader", false).await;
    assert_eq!(reader.subscribe("a").await, 1);
    let (mut writer, _) = enter(&server, 4, "writer", true).await;
    writer.publish("a", 1, "once").await;
    let (first, body) = reader.read().await.expect("a PUBLISH");
    assert_eq!(first, 0x32);
    drop(reader);
    let (mut reader, present) = enter(&server, 4, "reader", false).await;
    assert!(present);
    assert_eq!(reader.read().await, Some((0x3a, body)), "the same message and packet id, with DUP");
}

#[tokio::test]
async fn retained_messages_wait_for_subscribers_and_an_empty_one_clears_them() {
    let server = open_broker().await;
    let (mut writer, _) = enter(&server, 4, "writer", true).await;
    let retain = |payload: &str| {
        let mut body = text("r/uno");
        body.extend(payload.as_bytes());
        packet(0x31, &body)
    };
    writer.send(&retain("kept")).await;
    // Answered in order, so that what was before it is kept.
    assert_eq!(writer.publish("nadie", 1, "x").await, 0);
    let (mut reader, _) = enter(&server, 4, "reader", true).await;
    assert_eq!(reader.subscribe("r/+").await, 1);
    let (first, topic, payload) = hear(&mut reader, 4).await;
    assert_eq!((first & 1, topic.as_str(), payload.as_str()), (1, "r/uno", "kept"));
    writer.send(&retain("")).await;
    assert_eq!(writer.publish("nadie", 1, "x").await, 0);
    let (mut late, _) = enter(&server, 4, "late", true).await;
    assert_eq!(late.subscribe("r/+").await, 1);
    late.send(&[0xc0, 0]).await;
    assert_eq!(late.read().await, Some((0xd0, vec![])), "nothing is retained any more");
}

#[tokio::test]
async fn a_silent_client_is_dropped_after_one_and_a_half_keep_alives_and_zero_means_never() {
    let server = open_broker().await;
    let mut silent = Client::open(&server.mqtt, 5).await;
    silent.send(&connect(5, "silent", true, 1, None)).await;
    silent.read().await.expect("a CONNACK");
    let (mut patient, _) = enter(&server, 5, "patient", true).await;
    let start = std::time::Instant::now();
    assert_eq!(silent.read().await.map(|(f, body)| (f, body[0])), Some((0xe0, 0x8d)), "Keep Alive timeout");
    assert!(start.elapsed() >= Duration::from_millis(1_400), "{:?}", start.elapsed());
    assert!(patient.alive().await);
}

#[tokio::test]
async fn a_qos_2_message_is_delivered_once() {
    let server = open_broker().await;
    let (mut reader, _) = enter(&server, 4, "reader", true).await;
    assert_eq!(reader.subscribe("dos").await, 1);
    let (mut writer, _) = enter(&server, 4, "writer", true).await;
    let publish = writer.publish_packet("dos", 2, 9, b"x");
    let mut again = publish.clone();
    again[0] |= 0x08;
    for bytes in [publish, again] {
        writer.send(&bytes).await;
        assert_eq!(writer.read().await, Some((0x50, vec![0, 9])), "PUBREC");
    }
    writer.send(&[0x62, 2, 0, 9]).await;
    assert_eq!(writer.read().await, Some((0x70, vec![0, 9])), "PUBCOMP");
    assert_eq!(hear(&mut reader, 4).await.2, "x");
    reader.send(&[0xc0, 0]).await;
    assert_eq!(reader.read().await, Some((0xd0, vec![])), "and not again");
}

#[tokio::test]
async fn the_products_topics_are_closed_to_strangers() {
    let server = open_broker().await;
    let (mut stranger, _) = enter(&server, 5, "stranger", true).await;
    for topic in ["sensores/x/data", "alertas/1"] {
        assert_eq!(stranger.publish(topic, 1, "{}").await, 0x87, "{topic}");
    }
    assert_eq!(stranger.subscribe("sensores/+/data").await, 0x87);
}
