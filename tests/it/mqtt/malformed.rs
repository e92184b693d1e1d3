//! Packets that are none, and packets that a client must not send (chapters 1 and 2, sections 4.8 of
//! 3.1.1 and 4.13 of 5.0). The connection ends, and nobody else notices.

use super::broker;
use super::wire::{
    BOTH, Connect, PUBACK, PUBREL, Peer, Publish, Verdicts, ack, bytes, packet, subscribe, unsubscribe,
};

#[tokio::test]
async fn a_string_that_is_no_utf8_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        // A lone continuation, a cut sequence, an overlong form, surrogates, above U+10FFFF.
        for topic in
            [&[b'a', 0x80][..], &[0xe2, 0x82], &[0xc0, 0xaf], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80]]
        {
            // [3.1.1 MQTT-1.5.3-1] [5.0 MQTT-1.5.4-1] [3.1.1 MQTT-3.3.2-1] [5.0 MQTT-3.3.2-1]
            let bytes = Publish::raw(topic, b"x").bytes(version);
            verdicts.ends(&server, version, &bytes, &[0x81], &format!("topic {topic:x?}")).await;
        }
        for topic in [&b"a\0"[..], b"\0", b"a/\0/b"] {
            // [3.1.1 MQTT-1.5.3-2] [5.0 MQTT-1.5.4-2] [3.1.1 MQTT-4.7.3-2] [5.0 MQTT-4.7.3-2]
            let bytes = Publish::raw(topic, b"x").bytes(version);
            verdicts.ends(&server, version, &bytes, &[0x81, 0x90], &format!("topic {topic:x?}")).await;
        }
    }
    verdicts.close();
}

#[tokio::test]
async fn wrong_flags_in_the_first_byte_end_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        for (what, good) in [
            // [3.1.1 MQTT-2.2.2-1] [3.1.1 MQTT-2.2.2-2] [5.0 MQTT-2.1.3-1]
            ("PUBACK", ack(PUBACK, 1)),
            ("PINGREQ", vec![0xc0, 0]),
            // [3.1.1 MQTT-3.6.1-1] [5.0 MQTT-3.6.1-1]
            ("PUBREL", ack(PUBREL, 1)),
            // [3.1.1 MQTT-3.8.1-1] [5.0 MQTT-3.8.1-1]
            ("SUBSCRIBE", subscribe(version, 1, &[], &[("a", 0)])),
            // [3.1.1 MQTT-3.10.1-1] [5.0 MQTT-3.10.1-1]
            ("UNSUBSCRIBE", unsubscribe(version, 1, &["a"])),
            // [3.1.1 MQTT-3.14.1-1] [5.0 MQTT-3.14.1-1]
            ("DISCONNECT", vec![0xe0, 0]),
            // [5.0 MQTT-3.15.1-1]
            ("AUTH", vec![0xf0, 0]),
        ] {
            for flag in [1, 2, 4, 8] {
                let mut bad = good.clone();
                bad[0] ^= flag;
                let what = format!("{what} with {:#x}", bad[0]);
                verdicts.ends(&server, version, &bad, &[0x81], &what).await;
            }
        }
        let mut connect = Connect::new(version, "a").bytes();
        connect[0] |= 1;
        let mut peer = Peer::dial(&server, version).await;
        peer.try_send(&connect).await;
        assert!(peer.recv().await.is_none_or(|got| got.reason == 0x81));
    }
    verdicts.close();
}

#[tokio::test]
async fn a_will_is_sent_for_a_disconnect_with_wrong_flags() {
    let server = broker().await;
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, "heir").await;
        assert_eq!(heir.subscribe("w", 0).await, 0);
        let will = super::wire::Will::new("w", "no leave was taken");
        let mut owner = Peer::enter(&server, &Connect::new(version, "owner").will(will)).await;
        owner.send(&[0xe1, 0]).await;
        // [3.1.1 MQTT-3.14.1-1] [5.0 MQTT-3.14.1-1]
        assert_eq!(heir.take().await.body(), "no leave was taken");
    }
}

#[tokio::test]
async fn a_packet_identifier_of_zero_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        for (what, bad) in [
            // [3.1.1 MQTT-2.3.1-1] [5.0 MQTT-2.2.1-3]
            ("SUBSCRIBE", subscribe(version, 0, &[], &[("a", 0)])),
            ("UNSUBSCRIBE", unsubscribe(version, 0, &["a"])),
            ("PUBLISH with QoS 1", Publish::new("a", "x").qos(1, 0).bytes(version)),
            ("PUBLISH with QoS 2", Publish::new("a", "x").qos(2, 0).bytes(version)),
        ] {
            verdicts.ends(&server, version, &bad, &[0x81, 0x82], what).await;
        }
    }
    verdicts.close();
}

#[tokio::test]
async fn a_length_of_more_than_four_bytes_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        // [5.0 MQTT-1.5.5-1]: five bytes are never the fewest that there are. [3.1.1 MQTT-4.8.0-1]
        let long = [0x30, 0xff, 0xff, 0xff, 0xff, 0x01];
        verdicts.ends(&server, version, &long, &[0x81], "five bytes of length").await;
    }
    let long = packet(0x30, &[0, 1, b'a', 0x80, 0x80, 0x80, 0x80, 0x01, b'x']);
    verdicts.ends(&server, 5, &long, &[0x81], "five bytes of length of properties").await;
    verdicts.close();
}

#[tokio::test]
async fn a_packet_that_only_a_server_sends_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        let none = vec![0; usize::from(version == 5)];
        for (what, bad) in [
            // [3.1.1 MQTT-4.8.0-1] [5.0 MQTT-4.13.1-1]
            ("CONNACK", packet(0x20, &[vec![0, 0], none.clone()].concat())),
            ("SUBACK", packet(0x90, &[vec![0, 1], none.clone(), vec![0]].concat())),
            ("UNSUBACK", packet(0xb0, &[vec![0, 1], none.clone(), none.clone()].concat())),
            ("PINGRESP", packet(0xd0, &[])),
            ("type 0", packet(0x00, &[])),
        ] {
            verdicts.ends(&server, version, &bad, &[0x81, 0x82], what).await;
        }
    }
    verdicts.close();
}

#[tokio::test]
async fn a_body_that_ends_too_soon_or_too_late_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        let mut bodies = vec![
            ("PUBLISH without a topic", packet(0x30, &[])),
            ("PUBLISH with half a topic", packet(0x30, &[0, 9, b'a'])),
            ("PUBLISH without its identifier", packet(0x32, &bytes(b"a"))),
            ("PUBACK without its identifier", packet(0x40, &[0])),
            ("PUBREL without its identifier", packet(0x62, &[])),
            ("SUBSCRIBE without options", packet(0x82, &[vec![0, 1, 0], bytes(b"abc")].concat())),
            ("PINGREQ with a body", packet(0xc0, &[1])),
        ];
        if version == 4 {
            bodies.push(("PUBACK with more", packet(0x40, &[0, 1, 0])));
            bodies.push(("DISCONNECT with a body", packet(0xe0, &[0])));
        }
        for (what, bad) in bodies {
            // [3.1.1 MQTT-4.8.0-1] [5.0 MQTT-4.13.1-1]
            verdicts.ends(&server, version, &bad, &[0x81], what).await;
        }
    }
    verdicts.close();
}

#[tokio::test]
async fn an_error_ends_one_connection_and_no_other() {
    let server = broker().await;
    for version in BOTH {
        let mut bystander = Peer::clean(&server, version, "bystander").await;
        assert_eq!(bystander.subscribe("b", 1).await, 1);
        let http = "GET / HTTP/1.1\r\nHost: alertrace\r\nAccept: text/html, application/json, */*\r\n\r\n";
        for bad in [&[0xff; 64][..], &[0; 64], http.as_bytes(), &[0x36, 2, 0, 0]] {
            let mut peer = Peer::clean(&server, version, "a").await;
            peer.try_send(bad).await;
            // [3.1.1 MQTT-4.8.0-2] [5.0 MQTT-4.13.2-1]
            peer.ends("nonsense").await;
        }
        // The same client may come again.
        Peer::clean(&server, version, "a").await.publish("b", "all is well", 1).await;
        assert_eq!(bystander.take().await.body(), "all is well");
    }
}
