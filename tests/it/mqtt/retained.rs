//! Retained messages (section 3.3.1.3) and Retain Handling.

use std::time::Duration;

use super::wire::{
    BOTH, Connect, MESSAGE_EXPIRY, PUBACK, Peer, Publish, RETAIN_AS_PUBLISHED, RETAIN_IF_NEW, RETAIN_NEVER,
    SUBACK, SUBSCRIPTION_ID, number, subscribe,
};
use super::{broker, broker_on_sqlite, broker_with, holds, lets_go};
use crate::support::Server;

#[tokio::test]
async fn the_last_retained_message_waits_for_new_subscriptions() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        // [3.1.1 MQTT-3.3.1-5] [5.0 MQTT-3.3.1-5]: each takes the place of the last, [3.1.1 MQTT-3.3.1-7] whatever
        // its QoS.
        for (payload, qos) in [("one", 2), ("two", 1), ("three", 0)] {
            let pid = u16::from(qos > 0);
            publisher.say(&Publish::new("r/a", payload).retained().qos(qos, pid)).await;
            for granted in 0..=2 {
                let mut reader = Peer::clean(&server, version, "reader").await;
                assert_eq!(reader.subscribe("r/+", granted).await, granted);
                // [3.1.1 MQTT-3.3.1-6] [3.1.1 MQTT-3.3.1-8] [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.8.4-6]
                // [5.0 MQTT-3.8.4-8]
                let got = reader.take().await;
                assert_eq!(got.said(), ("r/a", payload));
                assert_eq!((got.retain(), got.qos(), got.dup()), (true, qos.min(granted), false));
                reader.quiet().await;
            }
        }
        // It is the publisher's no more than anybody's: [3.1.1 MQTT-3.1.2-7], which is printed with a dot there.
        publisher.leave().await;
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("#", 0).await, 0);
        assert_eq!(reader.take().await.said(), ("r/a", "three"));
        let mut cleaner = Peer::clean(&server, version, "cleaner").await;
        cleaner.say(&Publish::new("r/a", "").retained().qos(1, 9)).await;
    }
}

#[tokio::test]
async fn every_retained_message_that_matches_is_sent() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for topic in ["m/a", "m/b", "m/b/c", "n/a", "$m/a"] {
            publisher.say(&Publish::new(topic, topic).retained()).await;
        }
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("m/#", 0).await, 0);
        // [3.1.1 MQTT-3.3.1-6] [5.0 MQTT-3.3.1-9]
        let mut topics = Vec::new();
        for _ in 0..3 {
            topics.push(reader.take().await.topic);
        }
        topics.sort();
        assert_eq!(topics, ["m/a", "m/b", "m/b/c"]);
        // [3.1.1 MQTT-4.7.2-1] [5.0 MQTT-4.7.2-1]: a leading wildcard finds no `$` here either.
        assert_eq!(reader.subscribe("+/a", 0).await, 0);
        let mut topics = vec![reader.take().await.topic, reader.take().await.topic];
        topics.sort();
        assert_eq!(topics, ["m/a", "n/a"]);
        reader.quiet().await;
    }
}

#[tokio::test]
async fn an_empty_retained_message_clears_and_nothing_else_does() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.say(&Publish::new("z/a", "kept").retained().qos(1, 1)).await;
        let mut present = Peer::clean(&server, version, "present").await;
        assert_eq!(present.subscribe("z/a", 1).await, 1);
        assert_eq!(present.take().await.body(), "kept");
        let late = async |expected: Option<&str>| {
            let mut late = Peer::clean(&server, version, "late").await;
            assert_eq!(late.subscribe("z/#", 0).await, 0);
            if let Some(expected) = expected {
                assert_eq!(late.take().await.body(), expected);
            }
            late.quiet().await;
        };
        // [3.1.1 MQTT-3.3.1-12] [5.0 MQTT-3.3.1-8]: without RETAIN, empty or not, nothing is stored or cleared.
        for payload in ["", "live"] {
            publisher.say(&Publish::new("z/a", payload).qos(1, 2)).await;
            let got = present.take().await;
            assert_eq!((got.body(), got.retain()), (payload, false));
            late(Some("kept")).await;
        }
        // [3.1.1 MQTT-3.3.1-10] [5.0 MQTT-3.3.1-6]: to who is there it is a message like any other.
        publisher.say(&Publish::new("z/a", "").retained().qos(1, 3)).await;
        let got = present.take().await;
        assert_eq!((got.body(), got.retain()), ("", false));
        // [3.1.1 MQTT-3.3.1-10] [3.1.1 MQTT-3.3.1-11] [5.0 MQTT-3.3.1-6] [5.0 MQTT-3.3.1-7]
        late(None).await;
        publisher.say(&Publish::new("z/a", "").retained().qos(1, 4)).await;
        late(None).await;
    }
}

#[tokio::test]
async fn a_live_message_carries_retain_only_as_published_and_only_where_asked() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        let mut plain = Peer::clean(&server, version, "plain").await;
        assert_eq!(plain.subscribe("l", 0).await, 0);
        let mut asked = Peer::clean(&server, version, "asked").await;
        let option = if version == 5 { RETAIN_AS_PUBLISHED } else { 0 };
        assert_eq!(asked.subscribe("l", option).await, 0);
        for retained in [true, false] {
            let message = Publish::new("l", "x").qos(1, 1);
            publisher.say(&if retained { message.retained() } else { message }).await;
            // [3.1.1 MQTT-3.3.1-9] [5.0 MQTT-3.3.1-12]
            assert!(!plain.take().await.retain());
            // [5.0 MQTT-3.3.1-13]
            assert_eq!(asked.take().await.retain(), retained && version == 5);
        }
        // What a new subscription finds carries it, whatever was asked (section 3.3.1.3).
        let mut late = Peer::clean(&server, version, "late").await;
        assert_eq!(late.subscribe("l", 0).await, 0);
        assert!(late.take().await.retain());
        publisher.say(&Publish::new("l", "").retained()).await;
    }
}

#[tokio::test]
async fn retain_handling_decides_what_a_subscription_finds() {
    let server = broker().await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.say(&Publish::new("h", "kept").retained()).await;
    let connect = Connect::new(5, "reader").kept();
    let mut reader = Peer::enter(&server, &connect).await;
    let mut id = 10;
    // (option, whether the subscription was there, whether the message comes), over three connections.
    for (options, comes) in [
        // [5.0 MQTT-3.3.1-11]
        (RETAIN_NEVER, false),
        // [5.0 MQTT-3.3.1-9]
        (0, true),
        (0, true),
        // [5.0 MQTT-3.3.1-10]: there was one, which is not the same as that it brought something.
        (RETAIN_IF_NEW, false),
        (RETAIN_NEVER, false),
    ] {
        id += 1;
        assert_eq!(reader.subscribe_with(&number(SUBSCRIPTION_ID, id), "h", options).await, 0);
        if comes {
            let got = reader.take().await;
            assert_eq!((got.body(), got.numbers(SUBSCRIPTION_ID)), ("kept", vec![id]));
        }
        reader.quiet().await;
    }
    reader.lose().await;
    let mut reader = Peer::enter(&server, &connect).await;
    // [5.0 MQTT-3.3.1-9] [5.0 MQTT-3.3.1-10] [5.0 MQTT-3.3.1-11]: the session has it, so it is not new.
    reader.quiet().await;
    for (options, comes) in [(RETAIN_IF_NEW, false), (RETAIN_NEVER, false), (0, true)] {
        assert_eq!(reader.subscribe("h", options).await, 0);
        if comes {
            assert_eq!(reader.take().await.body(), "kept");
        }
        reader.quiet().await;
    }
    // Taken away and made again, it is new.
    assert_eq!(reader.unsubscribe("h").await, 0);
    assert_eq!(reader.subscribe("h", RETAIN_IF_NEW).await, 0);
    assert_eq!(reader.take().await.body(), "kept");
    // In one SUBSCRIBE, each filter by its own option.
    let filters = [("h", RETAIN_NEVER), ("+", RETAIN_IF_NEW), ("#", RETAIN_NEVER)];
    reader.send(&subscribe(5, 99, &[], &filters)).await;
    reader.expect(super::wire::SUBACK).await;
    assert_eq!(reader.take().await.body(), "kept");
    reader.quiet().await;
}

#[tokio::test]
async fn a_retained_message_expires() {
    let server = broker().await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let (mut early, mut late) =
        (Peer::clean(&server, 5, "early").await, Peer::clean(&server, 5, "late").await);
    for (topic, expiry) in [("e/long", 60), ("e/short", 1)] {
        publisher.say(&Publish::new(topic, "x").retained().with(number(MESSAGE_EXPIRY, expiry))).await;
    }
    assert_eq!(early.subscribe("e/#", 0).await, 0);
    let mut found = [early.take().await, early.take().await];
    found.sort_by(|a, b| a.topic.cmp(&b.topic));
    assert_eq!([&found[0].topic, &found[1].topic], ["e/long", "e/short"]);
    // [5.0 MQTT-3.3.2-6]: whole seconds, of which none need have passed.
    assert!(found[0].number(MESSAGE_EXPIRY).is_some_and(|left| (57..=60).contains(&left)), "{found:?}");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(late.subscribe("e/#", 0).await, 0);
    // [5.0 MQTT-3.3.2-5] [5.0 MQTT-3.3.2-6]
    let left = late.take().await;
    assert_eq!(left.topic, "e/long");
    assert!(left.number(MESSAGE_EXPIRY).is_some_and(|left| (54..=59).contains(&left)), "{left:?}");
    late.quiet().await;
}

#[tokio::test]
async fn what_many_retain_at_once_is_for_all_and_for_good_the_message_that_came_last() {
    const PUBLISHERS: usize = 12;
    const MESSAGES: u16 = 15;
    let mut server = broker_with(&[("MAX_QUEUED_MESSAGES", "10000")]).await;
    let kept = Connect::new(5, "kept").kept();
    let mut hear = vec![Peer::clean(&server, 5, "live").await, Peer::enter(&server, &kept).await];
    for peer in &mut hear {
        assert_eq!(peer.subscribe("o/a", 1 | RETAIN_NEVER).await, 1);
    }
    for round in 0..6 {
        let mut publishers = Vec::new();
        for n in 0..PUBLISHERS {
            let mut publisher = Peer::clean(&server, 5, &format!("p{n}")).await;
            publishers.push(tokio::spawn(async move {
                let qos = u8::from(n % 3 > 0);
                let message =
                    |i: u16| Publish::new("o/a", &format!("{round}/{n}/{i}")).qos(qos, i * u16::from(qos));
                let all: Vec<u8> = (1..=MESSAGES).flat_map(|i| message(i).retained().bytes(5)).collect();
                publisher.send(&all).await;
                for _ in 0..MESSAGES * u16::from(qos) {
                    assert_eq!(publisher.expect(PUBACK).await.reason, 0);
                }
                // Answered in its turn.
                publisher.unsubscribe("none").await;
            }));
        }
        for publisher in publishers {
            publisher.await.expect("it is served");
        }
        let mut last = Vec::new();
        for peer in &mut hear {
            let mut body = String::new();
            for _ in 0..PUBLISHERS * usize::from(MESSAGES) {
                peer.take().await.body().clone_into(&mut body);
            }
            last.push(body);
        }
        last.push(retained(&server).await);
        server.kill_and_restart();
        last.push(retained(&server).await);
        assert!(last.iter().all(|l| *l == last[0]), "live, kept, retained, retained after a kill: {last:?}");
        hear[0] = Peer::clean(&server, 5, "live").await;
        assert_eq!(hear[0].subscribe("o/a", 1 | RETAIN_NEVER).await, 1);
        hear[1] = Peer::enter(&server, &kept).await;
        // What it acknowledged last may come once more.
        while let Some(again) = hear[1].next_before_pong().await {
            hear[1].acknowledge(&again).await;
        }
    }
}

#[tokio::test]
async fn who_subscribes_while_a_message_is_on_its_way_to_the_store_has_it_once() {
    let server = broker_on_sqlite("5").await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for topic in ["w/new", "w/old", "w/gone"] {
        publisher.say(&Publish::new(topic, "before").qos(1, 1).retained()).await;
    }
    let mut reader = Peer::enter(&server, &Connect::new(5, "reader").kept()).await;
    let mut early = Peer::enter(&server, &Connect::new(5, "early").kept()).await;
    assert_eq!(early.subscribe("w/#", 1 | RETAIN_NEVER).await, 1);
    let holder = holds(&server);
    for (topic, payload, pid) in [("w/new", "first", 1), ("w/gone", "", 2), ("w/new", "second", 3)] {
        publisher.send(&Publish::new(topic, payload).qos(1, pid).retained().bytes(5)).await;
    }
    // They were taken in: nothing is acknowledged.
    publisher.quiet().await;
    reader.send(&subscribe(5, 1, &[], &[("w/#", 1)])).await;
    reader.quiet().await;
    lets_go(holder);
    for _ in 0..3 {
        assert_eq!(publisher.expect(PUBACK).await.reason, 0);
    }
    assert_eq!(reader.expect(SUBACK).await.codes, [1]);
    let mut found = Vec::new();
    for _ in 0..2 {
        let message = reader.take().await;
        assert!(message.retain(), "as it is retained: {message:?}");
        found.push(message.said().1.to_owned() + " " + message.said().0);
    }
    found.sort();
    assert_eq!(found, ["before w/old", "second w/new"]);
    reader.quiet().await;
    for expected in [("w/new", "first"), ("w/gone", ""), ("w/new", "second")] {
        let message = early.take().await;
        assert_eq!((message.said(), message.retain()), (expected, false), "who was there hears all of it");
    }
    early.quiet().await;
}

/// What a new subscription to `o/a` finds.
async fn retained(server: &Server) -> String {
    let mut late = Peer::clean(server, 5, "late").await;
    assert_eq!(late.subscribe("o/a", 1).await, 1);
    late.take().await.body().to_owned()
}
