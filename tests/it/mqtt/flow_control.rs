//! Receive Maximum (sections 3.3.4 and 4.9), in both directions, and who is held up by it.

use super::wire::{
    BOTH, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Peer, Publish, RECEIVE_MAXIMUM, ack, ack_with, number,
};
use super::{broker, broker_with};

#[tokio::test]
async fn a_client_that_acknowledges_nothing_gets_no_more_than_its_window() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").kept().with(number(RECEIVE_MAXIMUM, 3));
    let mut reader = Peer::enter(&server, &connect).await;
    let mut other = Peer::clean(&server, 5, "other").await;
    for peer in [&mut reader, &mut other] {
        assert_eq!(peer.subscribe("w", 2).await, 2);
    }
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for n in 0..8_u8 {
        publisher.publish("w", &n.to_string(), 1 + n % 2).await;
        // The others flow on.
        assert_eq!(other.take().await.body(), n.to_string());
    }
    let mut open = Vec::new();
    for n in 0..3 {
        // [5.0 MQTT-4.9.0-1]: the first of them come without anything being acknowledged.
        open.push(reader.hear().await);
        assert_eq!(open[n].body(), n.to_string());
    }
    // [5.0 MQTT-3.3.4-9] [5.0 MQTT-4.9.0-2] [5.0 MQTT-3.3.4-10] [5.0 MQTT-4.9.0-3]: a ping, a subscription and a
    // handshake are answered, and no fourth message comes.
    reader.quiet().await;
    assert_eq!(reader.subscribe("elsewhere", 0).await, 0);
    reader.say(&Publish::new("unheard", "x").qos(2, 9)).await;
    // A PUBACK makes room for one,
    reader.send(&ack(PUBACK, open[0].pid)).await;
    assert_eq!(reader.hear().await.body(), "3");
    reader.quiet().await;
    // a PUBREC does not, the PUBCOMP does,
    reader.send(&ack(PUBREC, open[1].pid)).await;
    reader.expect(PUBREL).await;
    reader.quiet().await;
    reader.send(&ack(PUBCOMP, open[1].pid)).await;
    let four = reader.hear().await;
    assert_eq!(four.body(), "4");
    // and a PUBREC that refuses does.
    reader.send(&ack(PUBACK, open[2].pid)).await;
    let five = reader.hear().await;
    assert_eq!((five.body(), five.qos()), ("5", 2));
    reader.send(&ack_with(PUBREC, five.pid, 0x80)).await;
    assert_eq!(reader.hear().await.body(), "6");
    reader.quiet().await;
    // The window is a connection's: what is sent again takes its places. [5.0 MQTT-4.4.0-1]
    reader.lose().await;
    let connect = Connect::new(5, "reader").kept().with(number(RECEIVE_MAXIMUM, 2));
    let mut reader = Peer::enter(&server, &connect).await;
    let (three, four) = (reader.hear().await, reader.hear().await);
    assert_eq!((three.body(), four.body()), ("3", "4"));
    reader.quiet().await;
    reader.acknowledge(&three).await;
    assert_eq!(reader.take().await.body(), "6");
    assert_eq!(reader.take().await.body(), "7");
    reader.acknowledge(&four).await;
    reader.quiet().await;
}

#[tokio::test]
async fn a_window_that_is_full_holds_back_messages_and_nothing_else() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").with(number(RECEIVE_MAXIMUM, 1));
    let mut reader = Peer::enter(&server, &connect).await;
    assert_eq!(reader.subscribe("w", 1).await, 1);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for n in 0..2 {
        publisher.publish("w", &n.to_string(), 1).await;
    }
    let first = reader.hear().await;
    // [5.0 MQTT-3.3.4-10] [5.0 MQTT-4.9.0-3]
    reader.quiet().await;
    reader.publish("elsewhere", "x", 1).await;
    reader.publish("elsewhere", "x", 2).await;
    assert_eq!(reader.unsubscribe("elsewhere").await, 0x11);
    reader.acknowledge(&first).await;
    assert_eq!(reader.take().await.body(), "1");
}

#[tokio::test]
async fn a_client_of_3_1_1_that_acknowledges_nothing_holds_up_nobody() {
    let server = broker_with(&[("RECEIVE_MAXIMUM", "4")]).await;
    let mut reader = Peer::clean(&server, 4, "reader").await;
    let mut other = Peer::clean(&server, 4, "other").await;
    for peer in [&mut reader, &mut other] {
        assert_eq!(peer.subscribe("w", 1).await, 1);
    }
    let mut publisher = Peer::clean(&server, 4, "publisher").await;
    for n in 0..30 {
        publisher.publish("w", &n.to_string(), 1).await;
        assert_eq!(other.take().await.body(), n.to_string());
    }
    // The server bounds what is open here too.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(reader.hear().await);
    }
    reader.quiet().await;
    for got in &open {
        reader.acknowledge(got).await;
    }
    for n in 4..30 {
        assert_eq!(reader.take().await.body(), n.to_string());
    }
}

#[tokio::test]
async fn a_client_that_exceeds_the_servers_receive_maximum_is_told_so() {
    let server = broker_with(&[("RECEIVE_MAXIMUM", "2")]).await;
    let (mut publisher, connack) = Peer::connect(&server, &Connect::new(5, "publisher")).await;
    assert_eq!(connack.number(RECEIVE_MAXIMUM), Some(2));
    // A message of QoS 2 is open until its PUBCOMP.
    for pid in [1, 2] {
        publisher.send(&Publish::new("w", "x").qos(2, pid).bytes(5)).await;
        assert_eq!(publisher.expect(PUBREC).await.pid, pid);
    }
    // One that is known already is not another one, and QoS 0 does not count.
    publisher.send(&Publish::new("w", "x").qos(2, 2).dup().bytes(5)).await;
    assert_eq!(publisher.expect(PUBREC).await.pid, 2);
    publisher.publish("w", "x", 0).await;
    publisher.send(&ack(PUBREL, 1)).await;
    assert_eq!(publisher.expect(PUBCOMP).await.pid, 1);
    publisher.send(&Publish::new("w", "x").qos(2, 3).bytes(5)).await;
    assert_eq!(publisher.expect(PUBREC).await.pid, 3);
    publisher.send(&Publish::new("w", "x").qos(2, 4).bytes(5)).await;
    // Section 3.3.4: the third. [5.0 MQTT-4.13.1-1]
    publisher.ends_with(0x93, "more than Receive Maximum").await;
    // 3.1.1 knows no such limit: the server acknowledges what it reads.
    let mut old = Peer::clean(&server, 4, "old").await;
    for pid in 1..=6 {
        old.send(&Publish::new("w", "x").qos(2, pid).bytes(4)).await;
        assert_eq!(old.expect(PUBREC).await.pid, pid);
    }
}

#[tokio::test]
async fn a_burst_within_the_window_is_taken() {
    let server = broker_with(&[("RECEIVE_MAXIMUM", "20")]).await;
    for version in BOTH {
        let mut publisher = Peer::clean(&server, version, "publisher").await;
        for _ in 0..3 {
            let burst = (1..=20).map(|pid| Publish::new("w", "x").qos(1, pid).bytes(version));
            publisher.send(&burst.collect::<Vec<_>>().concat()).await;
            for pid in 1..=20 {
                assert_eq!(publisher.expect(PUBACK).await.pid, pid);
            }
        }
        publisher.quiet().await;
    }
}
