//! Properties of 5.0 that are passed on, counted down, or asked for.

use std::time::Duration;

use super::broker;
use super::wire::{
    CONTENT_TYPE, CORRELATION_DATA, Connect, MAXIMUM_PACKET_SIZE, MESSAGE_EXPIRY, PAYLOAD_FORMAT, PUBACK,
    PUBCOMP, PUBREC, PUBREL, Peer, Publish, REASON_STRING, RECEIVE_MAXIMUM, REQUEST_PROBLEM_INFO,
    REQUEST_RESPONSE_INFO, RESPONSE_TOPIC, SESSION_EXPIRY, SUBACK, TOPIC_ALIAS_MAXIMUM, UNSUBACK,
    USER_PROPERTY, Value, Verdicts, ack, binary, number, packet, string, subscribe, unsubscribe, user,
};

#[tokio::test]
async fn the_properties_of_a_message_arrive_unaltered() {
    let server = broker().await;
    let mut live = Peer::clean(&server, 5, "live").await;
    let away = Connect::new(5, "away").kept();
    let mut old = Peer::clean(&server, 4, "old").await;
    let mut early = Peer::enter(&server, &away).await;
    for peer in [&mut live, &mut old, &mut early] {
        assert_eq!(peer.subscribe("p", 1).await, 1);
    }
    early.leave().await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let users = [("b", "1"), ("a", "2"), ("b", "1"), ("b", "0"), ("", ""), ("ñ", "\u{feff}x")];
    let properties = [
        number(PAYLOAD_FORMAT, 1),
        string(CONTENT_TYPE, "text/plain; charset=utf-8"),
        string(RESPONSE_TOPIC, "answers/here"),
        binary(CORRELATION_DATA, &[0, 255, 7, 0]),
    ];
    let mut message = Publish::new("p", "x").qos(1, 1).retained();
    for property in properties.into_iter().chain(users.map(|(name, value)| user(name, value))) {
        message = message.with(property);
    }
    publisher.say(&message).await;
    let mut late = Peer::clean(&server, 5, "late").await;
    assert_eq!(late.subscribe("p", 1).await, 1);
    let mut away = Peer::enter(&server, &away).await;
    // As it is published, from the queue, and as retained.
    for peer in [&mut live, &mut away, &mut late] {
        let got = peer.take().await;
        // [5.0 MQTT-3.3.2-4]
        assert_eq!(got.number(PAYLOAD_FORMAT), Some(1));
        // [5.0 MQTT-3.3.2-20]
        assert_eq!(got.string(CONTENT_TYPE), Some("text/plain; charset=utf-8"));
        // [5.0 MQTT-3.3.2-15]
        assert_eq!(got.string(RESPONSE_TOPIC), Some("answers/here"));
        // [5.0 MQTT-3.3.2-16]
        assert_eq!(got.value(CORRELATION_DATA), Some(&Value::Binary(vec![0, 255, 7, 0])));
        // [5.0 MQTT-3.3.2-17] [5.0 MQTT-3.3.2-18]
        assert_eq!(got.users(), users);
        assert_eq!(got.properties.len(), 4 + users.len(), "and nothing else");
    }
    // 3.1.1 has no place for them.
    assert_eq!(old.take().await.said(), ("p", "x"));
}

#[tokio::test]
async fn a_message_expires_while_it_waits_and_says_what_is_left() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").kept();
    let mut reader = Peer::enter(&server, &connect).await;
    assert_eq!(reader.subscribe("x/#", 2).await, 2);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let expiring =
        |topic: &str, pid, expiry| Publish::new(topic, "x").qos(2, pid).with(number(MESSAGE_EXPIRY, expiry));
    // Delivered at once: nothing has passed of it.
    publisher.say(&expiring("x/now", 1, 100)).await;
    assert!(reader.take().await.number(MESSAGE_EXPIRY).is_some_and(|left| (99..=100).contains(&left)));
    // Begun before it expires: sent, and not completed.
    publisher.say(&expiring("x/begun", 2, 1)).await;
    let begun = reader.hear().await;
    reader.lose().await;
    // Waiting, of which one expires.
    publisher.say(&expiring("x/short", 3, 1)).await;
    publisher.say(&expiring("x/long", 4, 100)).await;
    // Received and not yet released by its publisher.
    publisher.send(&expiring("x/open", 5, 1).bytes(5)).await;
    assert_eq!(publisher.expect(PUBREC).await.reason, 0);
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    publisher.send(&ack(PUBREL, 5)).await;
    // [5.0 MQTT-4.3.3-13]
    assert_eq!(publisher.expect(PUBCOMP).await.reason, 0);
    let mut reader = Peer::enter(&server, &connect).await;
    let again = reader.take().await;
    // [5.0 MQTT-4.3.3-7]
    assert_eq!((again.pid, again.topic.as_str(), again.dup()), (begun.pid, "x/begun", true));
    let got = reader.take().await;
    // [5.0 MQTT-3.3.2-5] [5.0 MQTT-3.3.2-6]
    assert_eq!(got.topic, "x/long");
    assert!(got.number(MESSAGE_EXPIRY).is_some_and(|left| (97..=99).contains(&left)), "{got:?}");
    reader.quiet().await;
}

#[tokio::test]
async fn a_reason_string_explains_unless_it_was_declined() {
    let server = broker().await;
    // Deeper than this broker takes:  with an explanation.
    let deep = vec!["x"; 40].join("/");
    for (asked, explained) in [(None, true), (Some(1), true), (Some(0), false)] {
        let mut connect = Connect::new(5, "a");
        if let Some(asked) = asked {
            connect = connect.with(number(REQUEST_PROBLEM_INFO, asked));
        }
        let mut peer = Peer::enter(&server, &connect).await;
        for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
            peer.send(&Publish::new(&deep, "x").qos(qos, 1).bytes(5)).await;
            let answer = peer.expect(kind).await;
            // [5.0 MQTT-3.4.2-1] [5.0 MQTT-3.5.2-1]
            assert_eq!(answer.reason, 0x90);
            // [5.0 MQTT-3.1.2-29]
            assert_eq!(answer.string(REASON_STRING).is_some(), explained, "{asked:?}");
        }
        // [5.0 MQTT-3.1.2-29]: nor anywhere else.
        peer.send(&subscribe(5, 2, &[], &[("a/#/b", 0), (&deep, 0)])).await;
        peer.send(&unsubscribe(5, 3, &["none"])).await;
        for kind in [SUBACK, UNSUBACK] {
            let answer = peer.expect(kind).await;
            let said = [REASON_STRING, USER_PROPERTY].map(|id| answer.value(id).is_some());
            assert!(explained || said == [false, false], "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_the_clients_maximum_packet_size_is_left_out() {
    let server = broker().await;
    let deep = vec!["x"; 40].join("/");
    let limit = 24;
    let connect = Connect::new(5, "small").with(number(MAXIMUM_PACKET_SIZE, limit));
    let mut peer = Peer::dial(&server, 5).await;
    peer.send(&connect.bytes()).await;
    // [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.2.2-19] [5.0 MQTT-3.2.2-20]
    let connack = peer.expect(super::wire::CONNACK).await;
    assert!(connack.size <= limit as usize, "{connack:?}");
    for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
        peer.send(&Publish::new(&deep, "x").qos(qos, 1).bytes(5)).await;
        // [5.0 MQTT-3.4.2-2] [5.0 MQTT-3.4.2-3] [5.0 MQTT-3.5.2-2] [5.0 MQTT-3.5.2-3]: the answer without the words.
        let answer = peer.expect(kind).await;
        assert_eq!((answer.reason, answer.string(REASON_STRING)), (0x90, None));
        assert!(answer.size <= limit as usize);
    }
    peer.send(&ack(PUBREL, 9)).await;
    peer.send(&subscribe(5, 2, &[], &[("a/#/b", 0)])).await;
    peer.send(&unsubscribe(5, 3, &["none"])).await;
    // [5.0 MQTT-3.7.2-2] [5.0 MQTT-3.7.2-3] [5.0 MQTT-3.9.2-1] [5.0 MQTT-3.9.2-2] [5.0 MQTT-3.11.2-1]
    // [5.0 MQTT-3.11.2-2]
    for kind in [PUBCOMP, SUBACK, UNSUBACK] {
        assert!(peer.expect(kind).await.size <= limit as usize);
    }
    // Neither a PUBREL [5.0 MQTT-3.6.2-2] [5.0 MQTT-3.6.2-3]
    peer.send(&ack(PUBREC, 77)).await;
    assert!(peer.expect(PUBREL).await.size <= limit as usize);
    // nor a DISCONNECT. [5.0 MQTT-3.14.2-3] [5.0 MQTT-3.14.2-4]
    peer.send(&connect.bytes()).await;
    assert!(peer.expect(super::wire::DISCONNECT).await.size <= limit as usize);
}

#[tokio::test]
async fn a_message_that_is_too_large_for_a_client_is_taken_as_delivered() {
    let server = broker().await;
    let connect = Connect::new(5, "small").kept().with(number(MAXIMUM_PACKET_SIZE, 40));
    let mut small = Peer::enter(&server, &connect.with(number(RECEIVE_MAXIMUM, 2))).await;
    let mut large = Peer::clean(&server, 5, "large").await;
    for peer in [&mut small, &mut large] {
        assert_eq!(peer.subscribe("m", 2).await, 2);
    }
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let (big, fits) = ("x".repeat(40), "y".repeat(29));
    for qos in [0, 1, 2] {
        // More of them than its window has places.
        for _ in 0..3 {
            publisher.publish("m", &big, qos).await;
            assert_eq!(large.take().await.body(), big);
        }
        // 40 bytes to the last, with an identifier.
        publisher.publish("m", &fits, qos).await;
        large.take().await;
        // [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
        let got = small.take().await;
        assert_eq!((got.body(), got.qos()), (fits.as_str(), qos));
        assert!(got.size <= 40);
    }
    small.quiet().await;
}

#[tokio::test]
async fn values_that_a_property_cannot_have_end_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    // Sections 3.1.2.11 and 3.3.2.3 call each of these a Protocol Error. [5.0 MQTT-4.13.1-1]
    for property in [
        number(RECEIVE_MAXIMUM, 0),
        number(MAXIMUM_PACKET_SIZE, 0),
        number(REQUEST_PROBLEM_INFO, 2),
        number(REQUEST_RESPONSE_INFO, 2),
        [number(SESSION_EXPIRY, 1), number(SESSION_EXPIRY, 1)].concat(),
        [number(RECEIVE_MAXIMUM, 1), number(RECEIVE_MAXIMUM, 1)].concat(),
        [number(TOPIC_ALIAS_MAXIMUM, 1), number(TOPIC_ALIAS_MAXIMUM, 1)].concat(),
    ] {
        let what = format!("{property:x?}");
        let ways = ["CONNACK 0x81, closed", "CONNACK 0x82, closed"];
        verdicts.answers(&server, 5, &Connect::new(5, "a").with(property).bytes(), &ways, &what).await;
    }
    let publish = |property: Vec<u8>| Publish::new("a", "x").with(property).bytes(5);
    for (bytes, reason, what) in [
        (publish(number(PAYLOAD_FORMAT, 2)), 0x82, "Payload Format Indicator 2"),
        (publish(vec![number(MESSAGE_EXPIRY, 1); 2].concat()), 0x82, "an expiry twice"),
        (publish(vec![string(CONTENT_TYPE, "a"); 2].concat()), 0x82, "a Content Type twice"),
        // [5.0 MQTT-3.3.2-14]
        (publish(string(RESPONSE_TOPIC, "a/#")), 0x82, "a Response Topic with a wildcard"),
        // [5.0 MQTT-3.3.2-13]
        (publish(binary(RESPONSE_TOPIC, &[0xff])), 0x81, "a Response Topic that is no UTF-8"),
        // [5.0 MQTT-3.3.2-19]
        (publish(binary(CONTENT_TYPE, &[0xc0, 0x80])), 0x81, "a Content Type that is no UTF-8"),
        // [5.0 MQTT-1.5.7-1]
        (publish([&[USER_PROPERTY, 0, 1, 0xff][..], &[0, 1, b'v']].concat()), 0x81, "a name"),
        (publish([&[USER_PROPERTY, 0, 1, b'k'][..], &[0, 1, 0xff]].concat()), 0x81, "a value"),
        (publish([&[USER_PROPERTY, 0, 1, b'k'][..], &[0, 1, 0]].concat()), 0x81, "a null character"),
        // Section 2.2.2.2: an identifier that does not belong to the packet, or to none.
        (publish(number(SESSION_EXPIRY, 1)), 0x82, "a Session Expiry Interval"),
        (publish(vec![0x7f, 0]), 0x81, "no property at all"),
        (publish(vec![MESSAGE_EXPIRY, 0, 0]), 0x81, "half a property"),
        (packet(0x30, &[0, 1, b'a', 5, PAYLOAD_FORMAT, 1]), 0x81, "a length past the end"),
    ] {
        // Where one is as good as the other, 0x81 may be said of an error of either kind.
        let reasons: &[u8] = if reason == 0x82 { &[0x81, 0x82] } else { &[0x81] };
        verdicts.ends(&server, 5, &bytes, reasons, what).await;
    }
    verdicts.close();
}

#[tokio::test]
async fn what_a_client_may_say_besides_is_accepted_in_every_form() {
    let server = broker().await;
    let words = [string(REASON_STRING, "why"), user("k", "v"), user("k", "v")].concat();
    let users = [user("k", "v"), user("", "")].concat();
    let mut connect = Connect::new(5, "wordy");
    for property in [
        number(SESSION_EXPIRY, 10),
        number(RECEIVE_MAXIMUM, 10),
        number(MAXIMUM_PACKET_SIZE, 1_000),
        number(TOPIC_ALIAS_MAXIMUM, 0),
        number(REQUEST_RESPONSE_INFO, 1),
        number(REQUEST_PROBLEM_INFO, 1),
        users.clone(),
    ] {
        connect = connect.with(property);
    }
    let mut peer = Peer::enter(&server, &connect).await;
    assert_eq!(peer.subscribe_with(&users, "f", 2).await, 2);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let block = [vec![u8::try_from(words.len()).expect("short")], words.clone()].concat();
    // Without a reason, with one, with a Property Length of 0, and with properties (sections 3.4.2 to 3.7.2).
    for tail in [vec![], vec![0], vec![0, 0], [vec![0], block.clone()].concat()] {
        let answer = |kind: u8, pid: u16| {
            let flags = if kind == PUBREL { 2 } else { 0 };
            packet(kind << 4 | flags, &[pid.to_be_bytes().to_vec(), tail.clone()].concat())
        };
        publisher.publish("f", "one", 1).await;
        let one = peer.hear().await;
        peer.send(&answer(PUBACK, one.pid)).await;
        publisher.send(&Publish::new("f", "two").qos(2, 7).bytes(5)).await;
        publisher.expect(PUBREC).await;
        publisher.send(&answer(PUBREL, 7)).await;
        assert_eq!(publisher.expect(PUBCOMP).await.reason, 0);
        let two = peer.hear().await;
        peer.send(&answer(PUBREC, two.pid)).await;
        assert_eq!(peer.expect(PUBREL).await.pid, two.pid);
        peer.send(&answer(PUBCOMP, two.pid)).await;
        peer.quiet().await;
    }
    let body = [vec![0, 9, u8::try_from(users.len()).expect("short")], users, vec![0, 1, b'f']].concat();
    peer.send(&packet(0xa2, &body)).await;
    assert_eq!(peer.expect(UNSUBACK).await.codes, [0]);
    // DISCONNECT in its three short forms.
    peer.leave().await;
    for form in [&[0xe0, 1, 0][..], &[0xe0, 2, 0, 0]] {
        let mut peer = Peer::clean(&server, 5, "brief").await;
        peer.send(form).await;
        assert_eq!(peer.recv().await, None);
    }
}
