//! UNSUBSCRIBE and UNSUBACK (sections 3.10 and 3.11).

use super::broker;
use super::wire::{
    BOTH, Connect, PUBCOMP, PUBREC, PUBREL, Peer, UNSUBACK, Verdicts, ack, bytes, packet, subscribe,
    unsubscribe,
};

#[tokio::test]
async fn an_unsuback_answers_every_filter_in_order() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        for filter in ["a/b", "c/#"] {
            assert_eq!(peer.subscribe(filter, 1).await, 1);
        }
        peer.send(&unsubscribe(version, 0x4321, &["a/b", "none", "c/#", "a/b"])).await;
        let unsuback = peer.expect(UNSUBACK).await;
        // [3.1.1 MQTT-3.10.4-4] [5.0 MQTT-3.10.4-4] [5.0 MQTT-3.10.4-5] [3.1.1 MQTT-2.3.1-7] [5.0 MQTT-2.2.1-6]
        assert_eq!(unsuback.pid, 0x4321);
        // [3.1.1 MQTT-3.10.4-6] [5.0 MQTT-3.10.4-6] [5.0 MQTT-3.11.3-1] [5.0 MQTT-3.11.3-2]
        let codes: &[u8] = if version == 5 { &[0, 0x11, 0, 0x11] } else { &[] };
        assert_eq!(unsuback.codes, codes);
        // [3.1.1 MQTT-3.10.4-5] [5.0 MQTT-3.10.4-5]: an answer though nothing was deleted.
        assert_eq!(peer.unsubscribe("none").await, if version == 5 { 0x11 } else { 0 });
    }
}

#[tokio::test]
async fn only_the_very_same_filter_is_deleted_and_no_new_message_is_added() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        for filter in ["s/a", "s/+", "S/a"] {
            assert_eq!(peer.subscribe(filter, 0).await, 0);
        }
        let mut publisher = Peer::clean(&server, version, "b").await;
        // [3.1.1 MQTT-3.10.4-1] [5.0 MQTT-3.10.4-1]: wildcards are characters here.
        for filter in ["s/#", "+/a", "s/A", "/s/a", "s/a/"] {
            assert_eq!(peer.unsubscribe(filter).await, if version == 5 { 0x11 } else { 0 });
        }
        publisher.publish("s/a", "two filters", 0).await;
        assert_eq!(peer.take().await.body(), "two filters");
        assert_eq!(peer.unsubscribe("s/+").await, 0);
        publisher.publish("s/b", "nobody's", 0).await;
        publisher.publish("s/a", "one filter", 0).await;
        // [3.1.1 MQTT-3.10.4-2] [5.0 MQTT-3.10.4-2]
        assert_eq!(peer.take().await.body(), "one filter");
        assert_eq!(peer.unsubscribe("s/a").await, 0);
        publisher.publish("s/a", "nobody's", 0).await;
        publisher.publish("S/a", "the last filter", 0).await;
        assert_eq!(peer.take().await.body(), "the last filter");
        peer.quiet().await;
    }
}

#[tokio::test]
async fn a_delivery_that_has_begun_is_completed() {
    let server = broker().await;
    for version in BOTH {
        let connect = Connect::new(version, "a").kept();
        let mut peer = Peer::enter(&server, &connect).await;
        assert_eq!(peer.subscribe("s", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "b").await;
        publisher.publish("s", "one", 1).await;
        publisher.publish("s", "two", 2).await;
        let (one, two) = (peer.hear().await, peer.hear().await);
        assert_eq!(peer.unsubscribe("s").await, 0);
        // [3.1.1 MQTT-3.10.4-3] [5.0 MQTT-3.10.4-3]: the handshake goes on.
        peer.send(&ack(PUBREC, two.pid)).await;
        assert_eq!(peer.expect(PUBREL).await.pid, two.pid);
        peer.lose().await;
        // And over connections.
        let mut peer = Peer::enter(&server, &connect).await;
        let again = peer.hear().await;
        assert_eq!((again.pid, again.body(), again.dup()), (one.pid, "one", true));
        assert_eq!(peer.expect(PUBREL).await.pid, two.pid);
        peer.acknowledge(&again).await;
        peer.send(&ack(PUBCOMP, two.pid)).await;
        peer.quiet().await;
        peer.leave().await;
    }
}

#[tokio::test]
async fn a_malformed_unsubscribe_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        let head = [vec![0, 1], vec![0; usize::from(version == 5)]].concat();
        // [3.1.1 MQTT-3.10.3-2] [5.0 MQTT-3.10.3-2]
        verdicts.ends(&server, version, &packet(0xa2, &head), &[0x82], "no filter").await;
        for filter in [&[0xff][..], b"a\0"] {
            // [3.1.1 MQTT-3.10.3-1] [5.0 MQTT-3.10.3-1]
            let bytes = packet(0xa2, &[head.clone(), bytes(filter)].concat());
            verdicts.ends(&server, version, &bytes, &[0x81], &format!("filter {filter:x?}")).await;
        }
    }
    verdicts.close();
}

#[tokio::test]
async fn a_filter_may_be_subscribed_to_again() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        let mut publisher = Peer::clean(&server, version, "b").await;
        for round in ["one", "two", "three"] {
            assert_eq!(peer.subscribe("again", 1).await, 1);
            publisher.publish("again", round, 1).await;
            assert_eq!(peer.take().await.body(), round);
            // In one packet more of them than there are, each by its own identifier.
            peer.send(&subscribe(version, 50, &[], &[("again/x", 0), ("again/y", 0)])).await;
            peer.expect(super::wire::SUBACK).await;
            peer.send(&unsubscribe(version, 51, &["again", "again/x", "again/y"])).await;
            assert_eq!(peer.expect(UNSUBACK).await.pid, 51);
            publisher.publish("again", "unheard", 1).await;
            peer.quiet().await;
        }
    }
}
