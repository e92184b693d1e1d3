//! Session state (sections 3.1.2.4, 4.1, 4.4 and 4.5): what outlives a connection, and for how long.

use std::time::Duration;

use super::wire::{
    BOTH, CONNACK, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Peer, Publish, SESSION_EXPIRY, SUBSCRIPTION_ID,
    Will, ack, disconnect, number,
};
use super::{broker, broker_on_sqlite, holds, lets_go};

#[tokio::test]
async fn a_kept_session_has_its_subscriptions_and_what_it_missed() {
    let server = broker().await;
    for version in BOTH {
        let connect = Connect::new(version, "reader").kept();
        let mut reader = Peer::enter(&server, &connect).await;
        assert_eq!(reader.subscribe("k/#", 2).await, 2);
        reader.leave().await;
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for n in 0..6_u8 {
            publisher.publish("k/a", &n.to_string(), 1 + n % 2).await;
        }
        let (mut reader, connack) = Peer::connect(&server, &connect).await;
        // [3.1.1 MQTT-3.1.2-4] [5.0 MQTT-3.1.2-5] [5.0 MQTT-3.1.2-23] [5.0 MQTT-3.2.0-1]
        assert!(connack.session_present);
        for n in 0..6_u8 {
            // [3.1.1 MQTT-3.1.2-5] [3.1.1 MQTT-4.5.0-1] [5.0 MQTT-4.5.0-1]
            let got = reader.take().await;
            assert_eq!((got.body(), got.qos(), got.dup()), (n.to_string().as_str(), 1 + n % 2, false));
        }
        reader.quiet().await;
        // [3.1.1 MQTT-4.1.0-1] [5.0 MQTT-4.1.0-1]
        publisher.publish("k/b", "live", 1).await;
        assert_eq!(reader.take().await.body(), "live");
        reader.leave().await;
    }
}

#[tokio::test]
async fn a_clean_start_finds_nothing_and_leaves_nothing() {
    let server = broker().await;
    for version in BOTH {
        let (kept, clean) = (Connect::new(version, "reader").kept(), Connect::new(version, "reader"));
        let mut reader = Peer::enter(&server, &kept).await;
        assert_eq!(reader.subscribe("c", 1).await, 1);
        reader.leave().await;
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.publish("c", "missed", 1).await;
        // [3.1.1 MQTT-3.1.2-6] [5.0 MQTT-3.1.2-4] [3.1.1 MQTT-3.1.4-3] [5.0 MQTT-3.1.4-4]
        let (mut reader, connack) = Peer::connect(&server, &clean).await;
        assert!(!connack.session_present);
        publisher.publish("c", "nobody's", 1).await;
        reader.quiet().await;
        assert_eq!(reader.subscribe("c", 1).await, 1);
        publisher.publish("c", "live", 1).await;
        assert_eq!(reader.take().await.body(), "live");
        reader.leave().await;
        publisher.publish("c", "missed too", 1).await;
        let (mut reader, connack) = Peer::connect(&server, &kept).await;
        // [3.1.1 MQTT-3.1.2-6] [5.0 MQTT-4.1.0-2]: it lasted as long as its connection.
        assert!(!connack.session_present);
        assert_eq!(reader.subscribe("c", 1).await, 1);
        publisher.publish("c", "new", 1).await;
        assert_eq!(reader.take().await.body(), "new");
        Peer::enter(&server, &clean).await.leave().await;
    }
}

#[tokio::test]
async fn a_clean_start_may_begin_a_session_that_is_kept() {
    let server = broker().await;
    let begin = Connect::new(5, "s").with(number(SESSION_EXPIRY, 60));
    let mut reader = Peer::enter(&server, &begin).await;
    assert_eq!(reader.subscribe("b", 1).await, 1);
    reader.lose().await;
    Peer::clean(&server, 5, "publisher").await.publish("b", "missed", 1).await;
    // Clean Start and expiry are two things in 5.0: this one resumes, and keeps nothing afterwards.
    let (mut reader, connack) = Peer::connect(&server, &Connect::new(5, "s").resumes()).await;
    // [5.0 MQTT-3.1.2-5] [5.0 MQTT-3.2.2-3]
    assert!(connack.session_present);
    assert_eq!(reader.take().await.body(), "missed");
    reader.lose().await;
    let (_, connack) = Peer::connect(&server, &Connect::new(5, "s").resumes()).await;
    // [5.0 MQTT-4.1.0-2] [5.0 MQTT-3.1.2-6]
    assert!(!connack.session_present);
}

#[tokio::test]
async fn a_session_ends_when_its_expiry_has_passed_and_not_before() {
    let server = broker().await;
    let connect = |id: &str, expiry| Connect::new(5, id).resumes().with(number(SESSION_EXPIRY, expiry));
    let (short, long) = (connect("short", 1), connect("long", 60));
    // [5.0 MQTT-4.1.0-1]: while its connection is open a session does not expire; the wait below is longer.
    let mut open = Peer::enter(&server, &connect("open", 1)).await;
    assert_eq!(open.subscribe("x", 1).await, 1);
    for connect in [&long, &short] {
        let mut reader = Peer::enter(&server, connect).await;
        assert_eq!(reader.subscribe("x", 1).await, 1);
        reader.leave().await;
    }
    // [5.0 MQTT-3.1.2-23]
    let (reader, connack) = Peer::connect(&server, &short).await;
    assert!(connack.session_present, "in time");
    reader.leave().await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    // [5.0 MQTT-4.1.0-2]
    let (mut reader, connack) = Peer::connect(&server, &short).await;
    assert!(!connack.session_present, "too late");
    Peer::clean(&server, 5, "publisher").await.publish("x", "x", 1).await;
    assert_eq!(open.take().await.body(), "x");
    reader.quiet().await;
    let (mut reader, connack) = Peer::connect(&server, &long).await;
    assert!(connack.session_present);
    assert_eq!(reader.take().await.body(), "x");
}

#[tokio::test]
async fn what_is_unacknowledged_is_sent_again_in_order_with_dup_and_its_identifier() {
    let server = broker().await;
    for version in BOTH {
        let connect = Connect::new(version, "reader").kept();
        let mut reader = Peer::enter(&server, &connect).await;
        assert_eq!(reader.subscribe("d", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for n in 0..6_u8 {
            publisher.publish("d", &n.to_string(), 1 + n % 2).await;
        }
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(reader.hear().await);
        }
        // One is acknowledged, one is received but not completed.
        reader.acknowledge(&sent[2]).await;
        reader.send(&ack(PUBREC, sent[3].pid)).await;
        // [5.0 MQTT-4.3.3-4]
        assert_eq!(reader.expect(PUBREL).await.pid, sent[3].pid);
        for round in 0..2 {
            reader.lose().await;
            reader = Peer::enter(&server, &connect).await;
            publisher.publish("d", &format!("new{round}"), 1).await;
            for n in [0, 1, 3, 4, 5] {
                let got = reader.recv().await.expect("a packet");
                // [3.1.1 MQTT-4.4.0-1] [5.0 MQTT-4.4.0-1] [3.1.1 MQTT-4.6.0-1] [3.1.1 MQTT-4.6.0-6]
                // [3.1.1 MQTT-2.3.1-3] [3.1.1 MQTT-2.3.1-4]
                assert_eq!(got.pid, sent[n].pid, "in the order of the first time");
                if n == 3 {
                    // [3.1.1 MQTT-4.3.3-1] [5.0 MQTT-4.3.3-5] [5.0 MQTT-4.3.3-6]: not the message again.
                    assert_eq!(got.kind, PUBREL);
                } else {
                    // [3.1.1 MQTT-3.3.1-1] [5.0 MQTT-3.3.1-1] [3.1.1 MQTT-4.3.2-1] [5.0 MQTT-4.3.2-3]
                    // [5.0 MQTT-4.3.3-3]
                    assert_eq!((got.said(), got.qos(), got.dup()), (sent[n].said(), sent[n].qos(), true));
                }
            }
            // After what was begun comes what is new; it stays open for the second round, as DUP then.
            let got = reader.hear().await;
            assert_eq!(got.body(), "new0");
            assert_eq!(got.dup(), round == 1);
            if round == 1 {
                assert_eq!(reader.hear().await.body(), "new1");
            }
        }
        reader.send(&ack(PUBCOMP, sent[3].pid)).await;
        reader.quiet().await;
        reader.leave().await;
        Peer::clean(&server, version, "reader").await.leave().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_that_is_not_released_stays_known_over_connections() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("e", 2).await, 2);
        let connect = Connect::new(version, "publisher").kept();
        let message = Publish::new("e", "once").qos(2, 21);
        let mut publisher = Peer::enter(&server, &connect).await;
        publisher.send(&message.bytes(version)).await;
        assert_eq!(publisher.expect(PUBREC).await.pid, 21);
        publisher.lose().await;
        let mut publisher = Peer::enter(&server, &connect).await;
        publisher.send(&message.dup().bytes(version)).await;
        // [3.1.1 MQTT-4.3.3-2] [5.0 MQTT-4.3.3-10]
        assert_eq!(publisher.expect(PUBREC).await.pid, 21);
        publisher.lose().await;
        let mut publisher = Peer::enter(&server, &connect).await;
        publisher.send(&ack(PUBREL, 21)).await;
        // [5.0 MQTT-4.3.3-11]
        let pubcomp = publisher.expect(PUBCOMP).await;
        assert_eq!((pubcomp.pid, pubcomp.reason), (21, 0));
        publisher.say(&Publish::new("e", "next").qos(2, 21)).await;
        assert_eq!(reader.take().await.body(), "once");
        assert_eq!(reader.take().await.body(), "next");
        publisher.leave().await;
        Peer::clean(&server, version, "publisher").await.leave().await;
    }
}

#[tokio::test]
async fn a_take_over_resumes_where_the_other_connection_was() {
    let server = broker().await;
    for version in BOTH {
        let connect = Connect::new(version, "reader").kept();
        let mut first = Peer::enter(&server, &connect).await;
        assert_eq!(first.subscribe("t", 1).await, 1);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.publish("t", "open", 1).await;
        let open = first.hear().await;
        let (mut second, connack) = Peer::connect(&server, &connect).await;
        // [3.1.1 MQTT-3.1.4-2] [5.0 MQTT-3.1.4-3]
        first.ends_with(0x8e, "taken over").await;
        assert!(connack.session_present);
        // [3.1.1 MQTT-4.4.0-1] [5.0 MQTT-4.4.0-1]
        let again = second.take().await;
        assert_eq!((again.pid, again.said(), again.dup()), (open.pid, open.said(), true));
        publisher.publish("t", "live", 1).await;
        assert_eq!(second.take().await.body(), "live");
        second.leave().await;
        Peer::clean(&server, version, "reader").await.leave().await;
    }
}

#[tokio::test]
async fn a_session_keeps_the_options_of_its_subscriptions() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").kept();
    let mut reader = Peer::enter(&server, &connect).await;
    let own = super::wire::NO_LOCAL | super::wire::RETAIN_AS_PUBLISHED;
    assert_eq!(reader.subscribe_with(&number(SUBSCRIPTION_ID, 77), "o", 1 | own).await, 1);
    reader.lose().await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.say(&Publish::new("o", "away").retained().qos(1, 1)).await;
    let mut reader = Peer::enter(&server, &connect).await;
    reader.send(&Publish::new("o", "own").bytes(5)).await;
    publisher.say(&Publish::new("o", "here").retained().qos(1, 1)).await;
    for body in ["away", "here"] {
        // [5.0 MQTT-3.1.2-5] [5.0 MQTT-3.3.1-13] [5.0 MQTT-3.8.3-3]
        let got = reader.take().await;
        assert_eq!((got.body(), got.retain(), got.numbers(SUBSCRIPTION_ID)), (body, true, vec![77]));
    }
}

#[tokio::test]
async fn a_session_that_subscribed_keeps_no_message_for_who_left_it() {
    let server = broker().await;
    for version in BOTH {
        let connect = Connect::new(version, "reader").kept();
        let mut reader = Peer::enter(&server, &connect).await;
        for filter in ["u/a", "u/b"] {
            assert_eq!(reader.subscribe(filter, 1).await, 1);
        }
        assert_eq!(reader.unsubscribe("u/a").await, 0);
        reader.leave().await;
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.publish("u/a", "nobody's", 1).await;
        publisher.publish("u/b", "kept", 1).await;
        let mut reader = Peer::enter(&server, &connect).await;
        // [3.1.1 MQTT-3.10.4-2] [5.0 MQTT-3.10.4-2] [3.1.1 MQTT-4.1.0-2]
        assert_eq!(reader.take().await.body(), "kept");
        reader.quiet().await;
        reader.leave().await;
        Peer::clean(&server, version, "reader").await.leave().await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_not_sent_again_however_soon_its_owner_is_back() {
    let server = broker_on_sqlite("5").await;
    let connect = Connect::new(5, "reader").kept();
    let mut reader = Peer::enter(&server, &connect.clone().will(Will::new("w", "x").qos(1))).await;
    assert_eq!(reader.subscribe("k", 2).await, 2);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.publish("k", "once", 1).await;
    publisher.publish("k", "exactly once", 2).await;
    let (first, second) = (reader.hear().await.pid, reader.hear().await.pid);
    reader.send(&ack(PUBREC, second)).await;
    assert_eq!(reader.expect(PUBREL).await.pid, second);
    // While nothing is committed it completes both, goes, has its will sent, and is back.
    let holder = holds(&server);
    reader.send(&[ack(PUBACK, first), ack(PUBCOMP, second), disconnect(4, &[])].concat()).await;
    reader.rest().await;
    let mut reader = Peer::dial(&server, 5).await;
    reader.send(&connect.bytes()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    lets_go(holder);
    assert!(reader.expect(CONNACK).await.session_present);
    reader.quiet().await;
    publisher.publish("k", "live", 1).await;
    assert_eq!(reader.take().await.body(), "live");
    reader.quiet().await;
}

#[tokio::test]
async fn who_is_told_that_what_it_says_was_taken_is_not_given_again_what_it_acknowledged_before() {
    let mut server = broker_on_sqlite("5").await;
    let connect = Connect::new(5, "worker").kept();
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    // Nobody keeps its results, or they are kept.
    for (round, retained) in (1..).zip([false, true, false]) {
        let mut worker = Peer::enter(&server, &connect).await;
        assert_eq!(worker.subscribe("orders", 1).await, 1);
        publisher.publish("orders", "act", 1).await;
        let order = worker.hear().await;
        let holder = holds(&server);
        let result = Publish::new("results", "done").qos(1, 77);
        let result = if retained { result.retained() } else { result };
        let (taken, said) = (ack(PUBACK, order.pid), result.bytes(5));
        if round < 3 {
            worker.send(&[taken, said].concat()).await;
        } else {
            // What it took is in the writer's hands when it says so.
            worker.send(&taken).await;
            worker.quiet().await;
            worker.send(&said).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        worker.quiet().await;
        lets_go(holder);
        assert_eq!(worker.expect(PUBACK).await.pid, 77);
        server.kill_and_restart();
        let mut worker = Peer::enter(&server, &connect).await;
        worker.quiet().await;
        worker.leave().await;
        publisher = Peer::clean(&server, 5, "publisher").await;
    }
}
