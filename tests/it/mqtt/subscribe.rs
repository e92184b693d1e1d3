//! SUBSCRIBE and SUBACK (sections 3.8 and 3.9).

use super::broker;
use super::wire::{
    BOTH, Got, NO_LOCAL, PUBLISH, Peer, Publish, SUBACK, SUBSCRIPTION_ID, Verdicts, number, packet, subscribe,
};

#[tokio::test]
async fn a_suback_answers_every_filter_in_order() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        let filters = [("a/b", 2), ("sensores/#", 1), ("c/#", 0), ("d/#/e", 1), ("+/f", 1)];
        peer.send(&subscribe(version, 0x1234, &[], &filters)).await;
        let suback = peer.expect(SUBACK).await;
        // [3.1.1 MQTT-3.8.4-1] [5.0 MQTT-3.8.4-1] [3.1.1 MQTT-3.8.4-2] [5.0 MQTT-3.8.4-2] [3.1.1 MQTT-2.3.1-7]
        // [5.0 MQTT-2.2.1-6]
        assert_eq!(suback.pid, 0x1234);
        let (denied, invalid) = if version == 5 { (0x87, 0x8f) } else { (0x80, 0x80) };
        // [3.1.1 MQTT-3.8.4-4] [5.0 MQTT-3.8.4-5] [3.1.1 MQTT-3.8.4-5] [5.0 MQTT-3.8.4-6] [5.0 MQTT-3.8.4-7]
        // [3.1.1 MQTT-3.9.3-1] [5.0 MQTT-3.9.3-1] [3.1.1 MQTT-3.9.3-2] [5.0 MQTT-3.9.3-2]
        assert_eq!(suback.codes, [2, denied, 0, invalid, 1], "version {version}");
        // One refusal does not stand in the way of the others.
        let mut publisher = Peer::clean(&server, version, "b").await;
        for topic in ["a/b", "c/x", "x/f"] {
            publisher.publish(topic, topic, 1).await;
            assert_eq!(peer.take().await.topic, topic);
        }
    }
}

#[tokio::test]
async fn a_malformed_subscribe_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    // [3.1.1 MQTT-3.8.3-3] [5.0 MQTT-3.8.3-2]
    verdicts.ends(&server, 4, &packet(0x82, &[0, 1]), &[], "no filter").await;
    verdicts.ends(&server, 5, &packet(0x82, &[0, 1, 0]), &[0x82], "no filter").await;
    for options in [0x03, 0x04, 0x08, 0x10, 0x40, 0x80, 0xff] {
        // [3.1.1 MQTT-3.8.3-4]
        let bytes = subscribe(4, 1, &[], &[("a", options)]);
        verdicts.ends(&server, 4, &bytes, &[], &format!("options {options:#x}")).await;
    }
    for (options, reasons) in [
        // [5.0 MQTT-3.8.3-5]
        (0x40, &[0x81][..]),
        (0x80, &[0x81]),
        // Section 3.8.3.1: QoS 3 and Retain Handling 3 are Protocol Errors.
        (0x03, &[0x81, 0x82]),
        (0x30, &[0x81, 0x82]),
    ] {
        let bytes = subscribe(5, 1, &[], &[("a", options)]);
        verdicts.ends(&server, 5, &bytes, reasons, &format!("options {options:#x}")).await;
    }
    verdicts.close();
}

#[tokio::test]
async fn a_filter_with_a_misplaced_wildcard_is_not_granted() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        let invalid = if version == 5 { 0x8f } else { 0x80 };
        // [3.1.1 MQTT-4.7.1-2] [5.0 MQTT-4.7.1-1]
        for filter in ["a/#/b", "a#", "#a", "a/b#", "##", "#/"] {
            assert_eq!(peer.subscribe(filter, 0).await, invalid, "{filter}");
        }
        // [3.1.1 MQTT-4.7.1-3] [5.0 MQTT-4.7.1-2]
        for filter in ["a+", "+a", "a/b+/c", "++", "a/+b"] {
            assert_eq!(peer.subscribe(filter, 0).await, invalid, "{filter}");
        }
        // [3.1.1 MQTT-4.7.3-1] [5.0 MQTT-4.7.3-1]
        assert_eq!(peer.subscribe("", 0).await, invalid, "an empty filter");
        for filter in ["+", "#", "a/+/b/+", "/+", "+/", "/", "a//b", "+/#"] {
            assert_eq!(peer.subscribe(filter, 0).await, 0, "{filter}");
        }
    }
}

#[tokio::test]
async fn a_subscription_to_the_same_filter_takes_the_place_of_the_first() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.say(&Publish::new("r/a", "kept").retained()).await;
        let mut reader = Peer::clean(&server, version, "reader").await;
        let mut id = 0;
        for qos in [2, 0, 1] {
            id += 1;
            let properties = if version == 5 { number(SUBSCRIPTION_ID, id) } else { Vec::new() };
            // [3.1.1 MQTT-3.8.4-3] [5.0 MQTT-3.8.4-3]
            assert_eq!(reader.subscribe_with(&properties, "r/+", qos).await, qos);
            // [5.0 MQTT-3.8.4-4] [5.0 MQTT-3.3.1-9]: what is retained comes again.
            let got = reader.take().await;
            assert_eq!((got.body(), got.retain()), ("kept", true));
            publisher.publish("r/a", "live", 2).await;
            let got = reader.take().await;
            assert_eq!((got.body(), got.qos()), ("live", qos), "once, at the new QoS");
            if version == 5 {
                assert_eq!(got.numbers(SUBSCRIPTION_ID), [id]);
            }
            reader.quiet().await;
        }
        publisher.say(&Publish::new("r/a", "").retained()).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_while_a_subscription_is_replaced() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("flow", 1).await, 1);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        let mut got: Vec<Got> = Vec::new();
        for n in 0..40_u16 {
            publisher.send(&Publish::new("flow", &n.to_string()).qos(1, n + 1).bytes(version)).await;
            if n % 8 == 0 {
                reader.send(&subscribe(version, 100 + n, &[], &[("flow", 1)])).await;
            }
        }
        let mut subacks = 0;
        while got.len() < 40 || subacks < 5 {
            let next = reader.recv().await.expect("a packet");
            if next.kind == PUBLISH {
                reader.acknowledge(&next).await;
                got.push(next);
            } else {
                assert_eq!(next.kind, SUBACK);
                subacks += 1;
            }
        }
        // [3.1.1 MQTT-3.8.4-3] [5.0 MQTT-3.8.4-4]
        let bodies: Vec<String> = got.iter().map(|g| g.body().to_owned()).collect();
        assert_eq!(bodies, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
        reader.quiet().await;
    }
}

#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let server = broker().await;
    let mut peer = Peer::clean(&server, 5, "peer").await;
    assert_eq!(peer.subscribe("n/#", 1 | NO_LOCAL).await, 1);
    let mut other = Peer::clean(&server, 5, "other").await;
    peer.publish("n/a", "own", 1).await;
    other.publish("n/a", "other's", 1).await;
    // [5.0 MQTT-3.8.3-3]
    assert_eq!(peer.take().await.body(), "other's");
    // A second filter without it lets them through, once.
    assert_eq!(peer.subscribe("n/a", 0).await, 0);
    let own = Publish::new("n/a", "own").bytes(5);
    peer.send(&own).await;
    let got = peer.take().await;
    assert_eq!((got.body(), got.qos()), ("own", 0));
    peer.quiet().await;
}

#[tokio::test]
async fn a_subscription_identifier_is_at_least_one_and_there_is_one() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    let (zero, one) = (vec![SUBSCRIPTION_ID, 0], number(SUBSCRIPTION_ID, 1));
    for (what, properties) in [("identifier 0", zero), ("two identifiers", [one.clone(), one].concat())] {
        // Section 3.8.2.1.2: both are Protocol Errors. [5.0 MQTT-4.13.1-1]
        let bytes = subscribe(5, 1, &properties, &[("a", 0)]);
        verdicts.ends(&server, 5, &bytes, &[0x82], what).await;
    }
    verdicts.close();
}

#[tokio::test]
async fn a_filter_must_be_utf8_and_may_be_long() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        for filter in [&[b'a', 0xff][..], &[0xed, 0xbf, 0xbf], b"a\0b"] {
            let mut body = vec![0, 1];
            body.extend(vec![0; usize::from(version == 5)]);
            body.extend(super::wire::bytes(filter));
            body.push(0);
            // [3.1.1 MQTT-3.8.3-1] [5.0 MQTT-3.8.3-1] [3.1.1 MQTT-4.7.3-2] [5.0 MQTT-4.7.3-2]
            let what = format!("filter {filter:x?}");
            verdicts.ends(&server, version, &packet(0x82, &body), &[0x81], &what).await;
        }
        // The longest that the two bytes of its length can say is no error of the protocol.
        let long = "x".repeat(65_535);
        let mut peer = Peer::clean(&server, version, "a").await;
        let code = peer.subscribe(&long, 0).await;
        // [3.1.1 MQTT-4.7.3-3] [5.0 MQTT-4.7.3-3]: longer than this broker takes, so not granted.
        assert_eq!(code, if version == 5 { 0x8f } else { 0x80 });
        peer.quiet().await;
    }
    verdicts.close();
}
