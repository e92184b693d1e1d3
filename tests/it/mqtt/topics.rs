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

#[tokio::test]
async fn a_subscription_hears_nothing_that_was_acknowledged_before_it() {
    let server = broker().await;
    // The router has much to do for each message on this topic: somebody has all filters that match it.
    let levels = ["a", "b", "c", "d", "e", "f"];
    let mut busy = Peer::clean(&server, 4, "busy").await;
    for mask in 1..1 << levels.len() {
        let level = |(n, level): (usize, &&str)| {
            if mask >> n & 1 == 1 { "+".to_owned() } else { (*level).to_owned() }
        };
        let filter: Vec<String> = levels.iter().enumerate().map(level).collect();
        assert_eq!(busy.subscribe(&format!("{}/g", filter.join("/")), 0).await, 0);
    }
    let mut reader = Peer::clean(&server, 4, "reader").await;
    let mut publisher = Peer::clean(&server, 4, "publisher").await;
    let topic = format!("{}/g", levels.join("/"));
    let before: Vec<u8> =
        (1..=500).flat_map(|pid| Publish::new(&topic, "before").qos(1, pid).bytes(4)).collect();
    publisher.send(&before).await;
    for pid in 1..=500 {
        assert_eq!(publisher.expect(PUBACK).await.pid, pid);
    }
    assert_eq!(reader.subscribe("+/b/c/d/e/f/+", 0).await, 0);
    publisher.say(&Publish::new(&topic, "after").qos(1, 501)).await;
    assert_eq!(reader.take().await.body(), "after");
    reader.quiet().await;
}
