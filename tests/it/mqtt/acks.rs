//! The handshakes of QoS 1 and 2 (sections 3.4 to 3.7 and 4.3), in both directions.

use super::broker;
use super::wire::{BOTH, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Peer, Publish, ack, ack_with};

#[tokio::test]
async fn a_qos_1_message_is_acknowledged_and_its_identifier_is_free_again() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("a", 0).await, 0);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for pid in [1, 0xffff, 300] {
            // [3.1.1 MQTT-2.3.1-6] [5.0 MQTT-2.2.1-5] [3.1.1 MQTT-4.3.2-2] [5.0 MQTT-4.3.2-4] [5.0 MQTT-3.4.2-1]
            publisher.say(&Publish::new("a", "first").qos(1, pid)).await;
            // [3.1.1 MQTT-4.3.2-2] [5.0 MQTT-4.3.2-5]: a new publication, whatever DUP says.
            publisher.say(&Publish::new("a", "second").qos(1, pid).dup()).await;
            assert_eq!(reader.take().await.body(), "first");
            assert_eq!(reader.take().await.body(), "second");
        }
        reader.quiet().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_is_delivered_once_however_often_it_is_sent() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("a", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for round in ["one", "two"] {
            // [3.1.1 MQTT-4.3.3-2] [5.0 MQTT-4.3.3-8] [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-2.3.1-6] [5.0 MQTT-2.2.1-5]
            let message = Publish::new("a", round).qos(2, 9);
            for bytes in [message.bytes(version), message.clone().dup().bytes(version)] {
                publisher.send(&bytes).await;
                assert_eq!(publisher.expect(PUBREC).await.pid, 9);
            }
            // [5.0 MQTT-4.3.3-11] [5.0 MQTT-3.7.2-1]: as often as it is asked.
            for known in [true, false] {
                publisher.send(&ack(PUBREL, 9)).await;
                let pubcomp = publisher.expect(PUBCOMP).await;
                let unknown = version == 5 && !known;
                assert_eq!((pubcomp.pid, pubcomp.reason), (9, if unknown { 0x92 } else { 0 }));
            }
            // [5.0 MQTT-4.3.3-12]: the identifier was free for the second round.
            assert_eq!(reader.take().await.body(), round);
        }
        reader.quiet().await;
    }
}

#[tokio::test]
async fn a_refused_qos_2_message_leaves_its_identifier_free() {
    let server = broker().await;
    let mut reader = Peer::clean(&server, 5, "reader").await;
    assert_eq!(reader.subscribe("a", 2).await, 2);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    publisher.send(&Publish::new("sensores/x/data", "{}").qos(2, 4).bytes(5)).await;
    assert_eq!(publisher.expect(PUBREC).await.reason, 0x87);
    // [5.0 MQTT-4.3.3-9]
    publisher.say(&Publish::new("a", "allowed").qos(2, 4)).await;
    assert_eq!(reader.take().await.body(), "allowed");
}

#[tokio::test]
async fn a_qos_2_delivery_goes_through_its_four_packets() {
    let server = broker().await;
    for version in BOTH {
        let mut reader = Peer::clean(&server, version, "reader").await;
        assert_eq!(reader.subscribe("a", 2).await, 2);
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        publisher.publish("a", "x", 2).await;
        let got = reader.hear().await;
        assert_eq!((got.qos(), got.dup()), (2, false));
        // [3.1.1 MQTT-4.4.0-1] [5.0 MQTT-4.4.0-1]: within a connection nothing is sent again.
        reader.quiet().await;
        reader.send(&ack(PUBREC, got.pid)).await;
        // [3.1.1 MQTT-4.3.3-1] [5.0 MQTT-4.3.3-4] [5.0 MQTT-3.6.2-1] [5.0 MQTT-2.2.1-5]
        let pubrel = reader.expect(PUBREL).await;
        assert_eq!((pubrel.pid, pubrel.reason), (got.pid, 0));
        reader.quiet().await;
        reader.send(&ack(PUBCOMP, got.pid)).await;
        reader.quiet().await;
    }
}

#[tokio::test]
async fn a_delivery_that_the_reader_refuses_is_over() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").kept();
    let mut reader = Peer::enter(&server, &connect).await;
    assert_eq!(reader.subscribe("a", 2).await, 2);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for qos in [1, 2] {
        publisher.publish("a", "refused", qos).await;
        let got = reader.hear().await;
        reader.send(&ack_with(if qos == 1 { PUBACK } else { PUBREC }, got.pid, 0x97)).await;
        reader.quiet().await;
    }
    reader.lose().await;
    let mut reader = Peer::enter(&server, &connect).await;
    // [5.0 MQTT-4.4.0-2]: nothing of them is sent again.
    reader.quiet().await;
    publisher.publish("a", "new", 2).await;
    assert_eq!(reader.take().await.body(), "new");
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_harms_nobody() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        peer.send(&ack(PUBREL, 77)).await;
        // [3.1.1 MQTT-4.3.3-2] [5.0 MQTT-4.3.3-11] [5.0 MQTT-3.7.2-1]
        let pubcomp = peer.expect(PUBCOMP).await;
        assert_eq!((pubcomp.pid, pubcomp.reason), (77, if version == 5 { 0x92 } else { 0 }));
        // A late answer to a delivery that an earlier session began.
        peer.send(&ack(PUBREC, 78)).await;
        // [3.1.1 MQTT-4.3.3-1] [5.0 MQTT-4.3.3-4] [5.0 MQTT-3.6.2-1]
        let pubrel = peer.expect(PUBREL).await;
        assert_eq!((pubrel.pid, pubrel.reason), (78, if version == 5 { 0x92 } else { 0 }));
        peer.quiet().await;
    }
}

#[tokio::test]
async fn acknowledgements_go_out_in_the_order_of_the_messages() {
    let server = broker().await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        let order = [5, 3, 9, 1, 7];
        let all = |qos| order.map(|pid| Publish::new("a", "x").qos(qos, pid).bytes(version)).concat();
        publisher.send(&all(1)).await;
        for pid in order {
            // [3.1.1 MQTT-3.3.4-1] [5.0 MQTT-3.3.4-1]
            assert_eq!(publisher.expect(PUBACK).await.pid, pid);
        }
        publisher.send(&all(2)).await;
        for pid in order {
            assert_eq!(publisher.expect(PUBREC).await.pid, pid);
        }
        publisher.send(&order.map(|pid| ack(PUBREL, pid)).concat()).await;
        for pid in order {
            assert_eq!(publisher.expect(PUBCOMP).await.pid, pid);
        }
    }
}
