//! Shared subscriptions (section 4.8.2).

use super::broker;
use super::wire::{
    Connect, DISCONNECT, Got, NO_LOCAL, PINGRESP, PUBACK, PUBREC, PUBREL, Peer, Publish, SHARED_AVAILABLE,
    SUBACK, ack, ack_with, subscribe,
};
use crate::support::Server;

/// A member of the group `g` on `filter`.
async fn member(server: &Server, connect: &Connect, filter: &str, qos: u8) -> Peer {
    let mut peer = Peer::enter(server, connect).await;
    assert_eq!(
        peer.subscribe(&format!("$share/g/{filter}"), qos).await,
        qos,
        "shared subscriptions are granted"
    );
    peer
}

/// What has arrived at a peer, acknowledged; with a ping as the last word.
async fn arrived(peer: &mut Peer) -> Vec<Got> {
    peer.send(&[0xc0, 0]).await;
    let mut all = Vec::new();
    loop {
        let got = peer.recv().await.expect("a packet");
        if got.kind == PINGRESP {
            return all;
        }
        peer.acknowledge(&got).await;
        all.push(got);
    }
}

/// Waits until `n` messages have arrived at the two together; answers who got which.
async fn between(one: &mut Peer, two: &mut Peer, n: usize) -> (Vec<Got>, Vec<Got>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let start = std::time::Instant::now();
    while first.len() + second.len() < n {
        first.extend(arrived(one).await);
        second.extend(arrived(two).await);
        assert!(start.elapsed().as_secs() < 5, "{} of {n} messages arrive", first.len() + second.len());
    }
    first.extend(arrived(one).await);
    second.extend(arrived(two).await);
    (first, second)
}

fn bodies(all: &[Got]) -> Vec<String> {
    let mut bodies: Vec<String> = all.iter().map(|got| got.body().to_owned()).collect();
    bodies.sort();
    bodies
}

#[tokio::test]
async fn each_message_goes_to_one_member_and_every_other_subscription_gets_its_own() {
    let server = broker().await;
    let (_, connack) = Peer::connect(&server, &Connect::new(5, "a")).await;
    assert_ne!(connack.number(SHARED_AVAILABLE), Some(0));
    let mut one = member(&server, &Connect::new(5, "one"), "s/+", 1).await;
    let mut two = member(&server, &Connect::new(5, "two"), "s/+", 1).await;
    let mut alone = Peer::clean(&server, 5, "alone").await;
    assert_eq!(alone.subscribe("$share/h/s/+", 1).await, 1);
    let mut plain = Peer::clean(&server, 5, "plain").await;
    assert_eq!(plain.subscribe("s/+", 1).await, 1);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for n in 10..30 {
        publisher.publish("s/a", &n.to_string(), 1).await;
    }
    let (first, second) = between(&mut one, &mut two, 20).await;
    let expected: Vec<String> = (10..30).map(|n: i32| n.to_string()).collect();
    let mut both = [bodies(&first), bodies(&second)].concat();
    both.sort();
    // [5.0 MQTT-4.8.2-1] [5.0 MQTT-4.8.2-2]
    assert_eq!(both, expected, "each once, to one of them");
    assert!(!first.is_empty() && !second.is_empty(), "both have their part");
    for peer in [&mut alone, &mut plain] {
        for body in &expected {
            assert_eq!(peer.take().await.body(), body);
        }
        peer.quiet().await;
    }
    // Who leaves the group gets nothing more, and the others everything.
    assert_eq!(one.unsubscribe("s/+").await, 0x11, "the filter with its group, not without");
    assert_eq!(one.unsubscribe("$share/g/s/+").await, 0);
    for n in 0..4 {
        publisher.publish("s/a", &n.to_string(), 1).await;
        assert_eq!(two.take().await.body(), n.to_string());
    }
    one.quiet().await;
}

#[tokio::test]
async fn a_member_gets_messages_at_the_qos_that_it_was_granted() {
    let server = broker().await;
    for granted in 0..=2 {
        let mut only = member(&server, &Connect::new(5, "only"), "q", granted).await;
        let mut publisher = Peer::clean(&server, 5, "publisher").await;
        for sent in 0..=2 {
            publisher.publish("q", "x", sent).await;
            // [5.0 MQTT-4.8.2-3] [5.0 MQTT-3.8.4-8]
            assert_eq!(only.take().await.qos(), sent.min(granted));
        }
    }
}

#[tokio::test]
async fn a_shared_filter_must_have_a_name_and_a_filter() {
    let server = broker().await;
    for filter in
        ["$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a", "$share/g/a/#/b"]
    {
        let mut peer = Peer::clean(&server, 5, "a").await;
        peer.send(&subscribe(5, 9, &[], &[(filter, 0)])).await;
        // [5.0 MQTT-4.8.2-1] [5.0 MQTT-4.8.2-2]: not granted, or the end.
        let answer = peer.recv().await.expect("an answer");
        match answer.kind {
            SUBACK => assert_eq!(answer.codes, [0x8f], "{filter}"),
            _ => assert!(answer.kind == DISCONNECT && matches!(answer.reason, 0x81 | 0x82), "{filter}"),
        }
    }
    let mut peer = Peer::clean(&server, 5, "a").await;
    peer.send(&subscribe(5, 9, &[], &[("$share/g/a", NO_LOCAL)])).await;
    // [5.0 MQTT-3.8.3-4]
    peer.ends_with(0x82, "No Local on a Shared Subscription").await;
}

#[tokio::test]
async fn a_shared_subscription_finds_no_retained_message() {
    let server = broker().await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.say(&Publish::new("r", "kept").retained()).await;
    let mut only = member(&server, &Connect::new(5, "only"), "r", 1).await;
    only.quiet().await;
    publisher.say(&Publish::new("r", "live").retained().qos(1, 1)).await;
    let got = only.take().await;
    assert_eq!((got.body(), got.retain()), ("live", false));
}

#[tokio::test]
async fn a_member_whose_session_ends_with_messages_in_flight_leaves_them_to_the_others() {
    let server = broker().await;
    let mut gone = member(&server, &Connect::new(5, "gone"), "f", 1).await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for n in 0..5 {
        publisher.publish("f", &n.to_string(), 1).await;
    }
    for n in 0..5 {
        assert_eq!(gone.hear().await.body(), n.to_string());
    }
    let mut other = member(&server, &Connect::new(5, "other"), "f", 1).await;
    other.quiet().await;
    gone.lose().await;
    // Section 4.8.2: QoS 1 goes to another member when the session ends first.
    for n in 0..5 {
        assert_eq!(other.take().await.body(), n.to_string());
    }
    other.quiet().await;
}

#[tokio::test]
async fn a_member_that_disconnects_with_qos_1_in_flight_loses_nothing_of_the_group() {
    let server = broker().await;
    let connect = Connect::new(5, "away").kept();
    let mut away = member(&server, &connect, "f", 1).await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for n in 0..5 {
        publisher.publish("f", &n.to_string(), 1).await;
        assert_eq!(away.hear().await.body(), n.to_string());
    }
    let mut other = member(&server, &Connect::new(5, "other"), "f", 1).await;
    away.lose().await;
    // While it is away the group has somebody who is there.
    for n in 5..8 {
        publisher.publish("f", &n.to_string(), 1).await;
    }
    let mut away = Peer::enter(&server, &connect).await;
    // The server may have waited or not: each message comes to at least one of them.
    let (first, second) = between(&mut away, &mut other, 8).await;
    let mut all = [bodies(&first), bodies(&second)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all, (0..8).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_qos_2_delivery_stays_with_the_member_with_whom_it_began() {
    let server = broker().await;
    let connect = Connect::new(5, "away").kept();
    let mut away = member(&server, &connect, "f", 2).await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.publish("f", "sent", 2).await;
    publisher.publish("f", "received", 2).await;
    let (sent, received) = (away.hear().await, away.hear().await);
    away.send(&ack(PUBREC, received.pid)).await;
    away.expect(PUBREL).await;
    let mut other = member(&server, &Connect::new(5, "other"), "f", 2).await;
    away.lose().await;
    other.quiet().await;
    let mut away = Peer::enter(&server, &connect).await;
    // [5.0 MQTT-4.8.2-4]
    let again = away.hear().await;
    assert_eq!((again.pid, again.body(), again.dup()), (sent.pid, "sent", true));
    assert_eq!(away.expect(PUBREL).await.pid, received.pid);
    away.lose().await;
    // A clean start ends the session, and with it what it had begun.
    Peer::clean(&server, 5, "away").await.leave().await;
    // [5.0 MQTT-4.8.2-5]
    publisher.publish("f", "new", 2).await;
    assert_eq!(other.take().await.body(), "new");
    other.quiet().await;
}

#[tokio::test]
async fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    let server = broker().await;
    let mut one = member(&server, &Connect::new(5, "one"), "f", 2).await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
        publisher.publish("f", "refused", qos).await;
        let got = one.hear().await;
        one.send(&ack_with(kind, got.pid, 0x97)).await;
        one.quiet().await;
    }
    let mut two = member(&server, &Connect::new(5, "two"), "f", 2).await;
    one.lose().await;
    publisher.publish("f", "new", 1).await;
    // [5.0 MQTT-4.8.2-6]
    assert_eq!(two.take().await.body(), "new");
    two.quiet().await;
}
