//! PUBLISH (section 3.3): what is delivered, to whom, and how.

use super::broker;
use super::wire::{
    BOTH, Connect, PUBACK, PUBREC, Peer, Publish, SUBSCRIPTION_ID, TOPIC_ALIAS, Verdicts, number,
};
use crate::support::Server;

#[tokio::test]
async fn a_message_arrives_with_the_lower_of_the_two_qos() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for granted in 0..=2 {
            let mut reader = Peer::clean(&server, version, "reader").await;
            assert_eq!(reader.subscribe("q", granted).await, granted);
            for sent in 0..=2 {
                publisher.publish("q", &format!("{sent}"), sent).await;
                let got = reader.take().await;
                // [3.1.1 MQTT-3.8.4-6] [5.0 MQTT-3.8.4-8]
                assert_eq!((got.qos(), got.body()), (sent.min(granted), format!("{sent}").as_str()));
                // [3.1.1 MQTT-3.3.2-1] [5.0 MQTT-3.3.2-1] [3.1.1 MQTT-3.3.2-3] [5.0 MQTT-3.3.2-3]
                assert_eq!(got.topic, "q");
                // [3.1.1 MQTT-3.3.1-2] [5.0 MQTT-3.3.1-2] [3.1.1 MQTT-4.3.1-1] [5.0 MQTT-4.3.1-1]
                assert!(!got.dup());
                if got.qos() > 0 {
                    // [3.1.1 MQTT-2.3.1-4] [5.0 MQTT-2.2.1-4]
                    assert_ne!(got.pid, 0);
                } else {
                    // [3.1.1 MQTT-2.3.1-5] [5.0 MQTT-2.2.1-2]: else its bytes would be in the payload.
                    assert_eq!(got.payload, format!("{sent}").as_bytes());
                }
                // [5.0 MQTT-2.2.2-1]: nothing to say, and that in one byte; the reader would stumble else.
                // [3.1.1 MQTT-7.0.0-2]: nor anything that only this broker knows.
                assert_eq!(got.properties, []);
            }
        }
    }
}

#[tokio::test]
async fn packet_identifiers_of_the_server_are_not_used_twice_at_a_time() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("many", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for n in 0..20_u8 {
            publisher.publish("many", &n.to_string(), 1 + n % 2).await;
        }
        let mut open = Vec::new();
        for n in 0..20 {
            let got = reader.hear().await;
            assert_eq!(got.body(), n.to_string());
            // [3.1.1 MQTT-2.3.1-4] [5.0 MQTT-2.2.1-4] [3.1.1 MQTT-4.3.2-1] [5.0 MQTT-4.3.2-1]
            // [3.1.1 MQTT-4.3.3-1] [5.0 MQTT-4.3.3-1]
            assert!(got.pid > 0 && open.iter().all(|o: &super::wire::Got| o.pid != got.pid));
            // [5.0 MQTT-4.3.2-2] [5.0 MQTT-4.3.3-2]
            assert!(!got.dup());
            open.push(got);
        }
        for got in &open {
            reader.acknowledge(got).await;
        }
        reader.quiet().await;
    }
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_once_at_the_highest_qos() {
    let server = broker().await;
    // [3.1.1 MQTT-3.3.5-1] [5.0 MQTT-3.3.4-2], for filters that are found by their topic, by the router, by both.
    for filters in [
        [("o/#", 0), ("o/+", 2), ("o/a", 1), ("x/#", 2)],
        [("+/a", 0), ("+/#", 2), ("+/+/#", 1), ("+/x", 2)],
        [("+/a", 2), ("o/a", 1), ("+/#", 0), ("#", 0)],
        [("o/#", 2), ("+/a", 1), ("o/a", 0), ("+/x", 2)],
    ] {
        for version in BOTH {
            for kept in [false, true] {
                overlap(&server, version, kept, &filters).await;
            }
        }
    }
}

async fn overlap(server: &Server, version: u8, kept: bool, filters: &[(&str, u8)]) {
    let mut reader = if kept {
        Peer::enter(server, &Connect::new(version, "kept").kept()).await
    } else {
        Peer::clean(server, version, "reader").await
    };
    for (filter, qos) in filters {
        assert_eq!(reader.subscribe(filter, *qos).await, *qos);
    }
    let mut publisher = Peer::clean(server, version, "publisher").await;
    for (n, sent) in [2, 1, 0, 2].into_iter().enumerate() {
        publisher.publish("o/a", &n.to_string(), sent).await;
    }
    let mut got = Vec::new();
    for _ in 0..4 {
        let message = reader.take().await;
        got.push((message.body().to_owned(), message.qos()));
    }
    // Messages of another QoS may come another way, and so sooner: the order holds within one.
    got.sort();
    let expected = [("0", 2), ("1", 1), ("2", 0), ("3", 2)].map(|(n, qos)| (n.to_owned(), qos));
    assert_eq!(got, expected, "version {version}, kept {kept}, {filters:?}");
    reader.quiet().await;
    if kept {
        // Its end.
        Peer::clean(server, version, "kept").await;
    }
}

#[tokio::test]
async fn one_publish_carries_the_identifiers_of_all_its_subscriptions() {
    let server = broker().await;
    let mut reader = Peer::clean(&server, 5, "reader").await;
    for (filter, id) in [("o/#", Some(7)), ("+/a", Some(268_435_455)), ("o/a", None), ("x/#", Some(9))] {
        let properties = id.map(|id| number(SUBSCRIPTION_ID, id)).unwrap_or_default();
        assert_eq!(reader.subscribe_with(&properties, filter, 1).await, 1);
    }
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.publish("o/a", "both", 1).await;
    publisher.publish("x/y", "one", 1).await;
    // [5.0 MQTT-3.3.4-3] [5.0 MQTT-3.3.4-4]
    let got = reader.take().await;
    let mut ids = got.numbers(SUBSCRIPTION_ID);
    ids.sort_unstable();
    assert_eq!((got.body(), ids), ("both", vec![7, 268_435_455]));
    let got = reader.take().await;
    assert_eq!((got.body(), got.numbers(SUBSCRIPTION_ID)), ("one", vec![9]));
    // With no identifier there is none to send.
    let mut plain = Peer::clean(&server, 5, "plain").await;
    assert_eq!(plain.subscribe("o/#", 0).await, 0);
    publisher.publish("o/b", "none", 0).await;
    assert!(plain.take().await.numbers(SUBSCRIPTION_ID).is_empty());
    reader.take().await;
    reader.quiet().await;
}

#[tokio::test]
async fn the_dup_flag_of_a_publisher_is_not_passed_on() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("d", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for qos in [1, 2] {
            publisher.say(&Publish::new("d", "x").qos(qos, 5).dup()).await;
            // [3.1.1 MQTT-3.3.1-3] [5.0 MQTT-3.3.1-3]
            assert!(!reader.take().await.dup());
        }
    }
}

#[tokio::test]
async fn messages_of_a_publisher_arrive_in_their_order() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("order/+", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for qos in 0..=2_u8 {
            let messages = (1..=60_u16).map(|n| {
                let pid = if qos > 0 { n } else { 0 };
                Publish::new("order/a", &n.to_string()).qos(qos, pid).bytes(version)
            });
            publisher.send(&messages.collect::<Vec<_>>().concat()).await;
            for n in 1..=60 {
                // [3.1.1 MQTT-4.6.0-5] [3.1.1 MQTT-4.6.0-6] [5.0 MQTT-4.6.0-5] [5.0 MQTT-4.6.0-6]
                assert_eq!(reader.take().await.body(), n.to_string(), "QoS {qos}");
            }
            for n in 1..=60 {
                // [3.1.1 MQTT-3.3.4-1] [5.0 MQTT-3.3.4-1]: answered as the QoS asks, and in order too.
                match qos {
                    0 => break,
                    1 => assert_eq!(publisher.expect(PUBACK).await.pid, n),
                    _ => assert_eq!(publisher.expect(PUBREC).await.pid, n),
                }
            }
            for n in 1..=60 {
                if qos == 2 {
                    publisher.send(&super::wire::ack(super::wire::PUBREL, n)).await;
                    assert_eq!(publisher.expect(super::wire::PUBCOMP).await.pid, n);
                }
            }
            publisher.quiet().await;
        }
    }
}

#[tokio::test]
async fn a_malformed_publish_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        let mut bytes = Publish::new("a", "x").qos(1, 1).bytes(version);
        bytes[0] |= 0x06;
        // [3.1.1 MQTT-3.3.1-4] [5.0 MQTT-3.3.1-4]
        verdicts.ends(&server, version, &bytes, &[0x81], "QoS 3").await;
        for topic in ["a/+", "#", "a+b", "a/#/b"] {
            let bytes = Publish::new(topic, "x").qos(1, 1).bytes(version);
            // [3.1.1 MQTT-3.3.2-2] [5.0 MQTT-3.3.2-2] [3.1.1 MQTT-4.7.1-1] [5.0 MQTT-4.7.0-1]
            verdicts.ends(&server, version, &bytes, &[0x81, 0x82, 0x90], topic).await;
        }
        // [3.1.1 MQTT-4.7.3-1] [5.0 MQTT-4.7.3-1]: of 5.0, without an alias (section 3.3.2.1).
        let bytes = Publish::new("", "x").bytes(version);
        verdicts.ends(&server, version, &bytes, &[0x82], "an empty topic").await;
    }
    verdicts.close();
}

#[tokio::test]
async fn a_publish_of_a_client_must_not_carry_a_subscription_identifier() {
    let server = broker().await;
    let mut peer = Peer::clean(&server, 5, "a").await;
    peer.send(&Publish::new("a", "x").with(number(SUBSCRIPTION_ID, 1)).bytes(5)).await;
    // [5.0 MQTT-3.3.4-6]
    peer.ends_with(0x82, "a Subscription Identifier").await;
}

#[tokio::test]
async fn a_publish_that_is_not_allowed_is_answered_and_goes_nowhere() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "stranger").await;
        for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
            peer.send(&Publish::new("sensores/x/data", "{}").qos(qos, 3).bytes(version)).await;
            let answer = peer.expect(kind).await;
            // [3.1.1 MQTT-3.3.5-2] [5.0 MQTT-3.4.2-1] [5.0 MQTT-3.5.2-1]
            assert_eq!((answer.pid, answer.reason), (3, if version == 5 { 0x87 } else { 0 }));
        }
        peer.send(&Publish::new("sensores/x/data", "{}").bytes(version)).await;
        peer.quiet().await;
    }
}

#[tokio::test]
async fn a_message_may_be_empty_or_large() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("size", 1).await, 1);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        // Around the borders of the length's bytes: [5.0 MQTT-1.5.5-1].
        for size in [0, 100, 119, 120, 121, 122, 123, 16_370, 16_380, 200_000] {
            let payload = "x".repeat(size);
            publisher.publish("size", &payload, 1).await;
            assert_eq!(reader.take().await.payload.len(), size);
        }
    }
}

#[tokio::test]
async fn a_topic_alias_is_no_part_of_the_message() {
    let server = broker().await;
    let mut reader = Peer::clean(&server, 5, "reader").await;
    assert_eq!(reader.subscribe("t", 0).await, 0);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.say(&Publish::new("t", "x").with(number(TOPIC_ALIAS, 1))).await;
    // [5.0 MQTT-3.1.2-27]: the reader said nothing of aliases.
    let got = reader.take().await;
    assert_eq!((got.said(), got.number(TOPIC_ALIAS)), (("t", "x"), None));
}
