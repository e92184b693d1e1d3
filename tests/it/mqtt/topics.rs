//! Topic names and filters (section 4.7).

use super::broker;
use super::wire::{BOTH, PUBACK, Peer, Publish};

#[tokio::test]
async fn filters_match_as_the_specification_says() {
    let server = broker().await;
    // Of section 4.7 and its examples: a filter, topics that it matches, topics that it does not.
    let cases: [(&str, &[&str], &[&str]); 12] = [
        ("sport/tennis/player1/#", &["sport/tennis/player1", "sport/tennis/player1/a/b"], &["sport/tennis"]),
        ("sport/#", &["sport", "sport/", "sport/a"], &["sports", "Sport/a"]),
        ("sport/tennis/+", &["sport/tennis/player1", "sport/tennis/"], &["sport/tennis/player1/ranking"]),
        ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
        ("+/+", &["/finance", "a/b"], &["finance", "a/b/c"]),
        ("/+", &["/finance"], &["finance", "a/b"]),
        ("+", &["finance", "ñ"], &["/finance", "$finance", "a/b"]),
        ("#", &["a", "/", "a//b"], &["$a", "$SYS/uptime"]),
        ("+/monitor/Clients", &["a/monitor/Clients"], &["$test/monitor/Clients", "a/monitor/clients"]),
        ("a//b", &["a//b"], &["a/b", "a/x/b"]),
        ("a/+/b", &["a//b", "a/ /b"], &["a/b"]),
        ("accents/é", &["accents/é"], &["accents/e\u{301}", "accents/É"]),
    ];
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for (filter, matched, others) in cases {
            let mut reader = Peer::clean(&server, version, "reader").await;
            assert_eq!(reader.subscribe(filter, 0).await, 0, "{filter}");
            // What must not arrive goes first, so that it would be seen.
            for topic in others.iter().chain(matched) {
                publisher.send(&Publish::new(topic, "x").bytes(version)).await;
            }
            publisher.quiet().await;
            for topic in matched {
                // [3.1.1 MQTT-4.7.1-2] [5.0 MQTT-4.7.1-1] [3.1.1 MQTT-4.7.1-3] [5.0 MQTT-4.7.1-2]
                // [3.1.1 MQTT-4.7.2-1] [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.3-4] [5.0 MQTT-4.7.3-4]
                // [3.1.1 MQTT-3.3.2-3] [5.0 MQTT-3.3.2-3]
                assert_eq!(reader.take().await.topic, *topic, "{filter}");
            }
            reader.quiet().await;
        }
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_a_character_like_any_other() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("bom/\u{feff}a", 0).await, 0);
        let mut other = Peer::clean(&server, version, "other").await;
        assert_eq!(other.subscribe("bom/a", 0).await, 0);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.publish("bom/\u{feff}a", "marked", 0).await;
        publisher.publish("bom/a", "plain", 0).await;
        // [3.1.1 MQTT-1.5.3-3] [5.0 MQTT-1.5.4-3]
        assert_eq!(reader.take().await.said(), ("bom/\u{feff}a", "marked"));
        assert_eq!(other.take().await.said(), ("bom/a", "plain"));
        reader.quiet().await;
    }
}

#[tokio::test]
async fn clients_exchange_nothing_over_topics_that_begin_with_a_dollar() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        for filter in ["#", "+/monitor", "+", "$test/#"] {
            assert_eq!(reader.subscribe(filter, 0).await, 0);
        }
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for topic in ["$test/monitor", "$", "$SYS/uptime"] {
            publisher.send(&Publish::new(topic, "x").qos(1, 1).bytes(version)).await;
            // Section 4.7.2: the server SHOULD prevent it; only 5.0 can be told.
            let reason = publisher.expect(PUBACK).await.reason;
            assert_eq!(reason, if version == 5 { 0x87 } else { 0 });
        }
        publisher.publish("test/monitor", "seen", 1).await;
        // [3.1.1 MQTT-4.7.2-1] [5.0 MQTT-4.7.2-1]
        assert_eq!(reader.take().await.said(), ("test/monitor", "seen"));
        reader.quiet().await;
    }
}
