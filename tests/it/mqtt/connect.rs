//! CONNECT (section 3.1): what is let in, what is not, and what of it is acted upon.

use super::wire::{
    ASSIGNED_CLIENT_ID, BOTH, CONNACK, Connect, DISCONNECT, PINGRESP, Peer, Publish, SUBACK, Verdicts, Will,
    bytes, packet, subscribe, text,
};
use super::{broker, broker_with};
use crate::support::server::EMAIL;

#[tokio::test]
async fn the_first_packet_must_be_a_connect() {
    let server = broker().await;
    for version in BOTH {
        let publish = Publish::new("a", "x").qos(1, 1).bytes(version);
        for first in [publish, subscribe(version, 1, &[], &[("a", 0)]), vec![0xc0, 0], vec![0xe0, 0]] {
            let mut peer = Peer::dial(&server, version).await;
            peer.try_send(&first).await;
            // [3.1.1 MQTT-3.1.0-1] [5.0 MQTT-3.1.0-1] [5.0 MQTT-3.14.0-1]
            assert_eq!(peer.recv().await, None, "closed, and nothing said, after {first:x?}");
        }
    }
}

#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let server = broker().await;
    for version in BOTH {
        let connect = Connect::new(version, "twice");
        let mut peer = Peer::enter(&server, &connect).await;
        peer.send(&connect.bytes()).await;
        // [3.1.1 MQTT-3.1.0-2] [5.0 MQTT-3.1.0-2] [5.0 MQTT-3.2.0-2] [5.0 MQTT-4.13.1-1]
        peer.ends_with(0x82, "a second CONNECT").await;
    }
}

#[tokio::test]
async fn another_protocol_name_or_level_is_refused() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        for name in ["MQTX", "mqtt", "MQTTT", ""] {
            let none = vec![0; usize::from(version == 5)];
            let body = [text(name), vec![version, 2, 0, 0], none, text("a")].concat();
            // [3.1.1 MQTT-3.1.2-1] [3.1.1 MQTT-3.2.2-6] [5.0 MQTT-3.1.2-1]: no return code of 3.1.1 says it.
            let ways = if version == 5 { &["closed", "CONNACK 0x84, closed"][..] } else { &["closed"] };
            verdicts.answers(&server, version, &packet(0x10, &body), ways, &format!("name {name:?}")).await;
        }
    }
    verdicts.close();
    for level in [3, 6, 0x84] {
        let body = [text("MQTT"), vec![level, 2, 0, 0], vec![0; usize::from(level != 3)], text("a")].concat();
        let mut peer = Peer::dial(&server, 4).await;
        peer.try_send(&packet(0x10, &body)).await;
        let said = peer.rest().await;
        // [3.1.1 MQTT-3.1.2-2] [5.0 MQTT-3.1.2-2]: in the form of 3.1.1, or of 5.0 to what may be newer.
        let old = said == [0x20, 2, 0, 1];
        let new = level != 3 && said.starts_with(&[0x20]) && said.get(2..4) == Some(&[0, 0x84]);
        assert!(old || new, "level {level}: {said:x?}");
    }
}

#[tokio::test]
async fn the_reserved_connect_flag_must_be_zero() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        let connect = Connect::new(version, "a").with_flags(0b0000_0011);
        // [3.1.1 MQTT-3.1.2-3] [5.0 MQTT-3.1.2-3]
        verdicts.refuses(&server, version, &connect, 0x81, "the reserved flag").await;
    }
    verdicts.close();
}

#[tokio::test]
async fn flags_and_payload_of_a_connect_must_agree() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        let plain = Connect::new(version, "a");
        let will = plain.clone().will(Will::new("w", "x"));
        let user = plain.clone().user(b"u");
        for (what, connect) in [
            // [3.1.1 MQTT-3.1.2-11] [3.1.1 MQTT-3.1.2-13] [5.0 MQTT-3.1.2-11]
            ("a QoS of no will", plain.with_flags(0b0000_1010)),
            // [3.1.1 MQTT-3.1.2-15] [5.0 MQTT-3.1.2-13]
            ("RETAIN of no will", plain.with_flags(0b0010_0010)),
            // [3.1.1 MQTT-3.1.2-14] [5.0 MQTT-3.1.2-12]
            ("a will with QoS 3", will.with_flags(0b0001_1110)),
            // [3.1.1 MQTT-3.1.2-9] [5.0 MQTT-3.1.2-9]
            ("a will that is not there", plain.with_flags(0b0000_0110)),
            ("a will that no flag announces", will.with_flags(0b0000_0010)),
            // [3.1.1 MQTT-3.1.2-19] [5.0 MQTT-3.1.2-17]
            ("a user name that is not there", plain.with_flags(0b1000_0010)),
            // [3.1.1 MQTT-3.1.2-18] [5.0 MQTT-3.1.2-16]
            ("a user name that no flag announces", user.with_flags(0b0000_0010)),
            // [3.1.1 MQTT-3.1.2-21] [5.0 MQTT-3.1.2-19]
            ("a password that is not there", user.with_flags(0b1100_0010)),
            // [3.1.1 MQTT-3.1.2-20] [5.0 MQTT-3.1.2-18]
            ("a password that no flag announces", user.clone().password(b"p").with_flags(0b1000_0010)),
        ] {
            // [3.1.1 MQTT-3.1.4-1] [5.0 MQTT-3.1.4-1]
            verdicts.refuses(&server, version, &connect, 0x81, what).await;
        }
    }
    // [3.1.1 MQTT-3.1.2-22]; 5.0 allows it.
    let password = Connect::new(4, "a").password(b"p").bytes();
    verdicts.refuses(&server, 4, &password, 0, "a password without a user name").await;
    let password = Connect::new(5, "a").password(b"p").bytes();
    let welcome = ["CONNACK 0x00, all is well"];
    verdicts.answers(&server, 5, &password, &welcome, "a password without a user name").await;
    verdicts.close();
}

#[tokio::test]
async fn the_payload_of_a_connect_is_read_in_its_order() {
    let server = broker().await;
    let device = server.device("orden").await;
    for version in BOTH {
        // A person who may hear what the device says.
        let mut panel = Connect::new(version, "panel").user(b"jwt").password(server.token.as_bytes());
        panel = panel.keep_alive(60);
        let mut panel = Peer::enter(&server, &panel).await;
        assert_eq!(panel.subscribe("sensores/+/respuestas", 0).await, 0, "{EMAIL} sees it");
        // [3.1.1 MQTT-3.1.3-1] [5.0 MQTT-3.1.3-1]: identifier, will, user name, password.
        let connect = Connect::new(version, "yo")
            .will(Will::new("sensores/orden/respuestas", "perdido"))
            .user(device.id.as_bytes())
            .password(device.token.as_bytes());
        Peer::enter(&server, &connect).await.lose().await;
        assert_eq!(panel.hear().await.said(), ("sensores/orden/respuestas", "perdido"));
        // In another order it is another device's password.
        let swapped = connect.user(device.token.as_bytes()).password(device.id.as_bytes());
        let (_, connack) = Peer::connect(&server, &swapped).await;
        assert_eq!(connack.reason, if version == 5 { 0x86 } else { 4 });
    }
}

#[tokio::test]
async fn identifiers_of_letters_and_digits_are_accepted_and_others_must_be_utf8() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        // [3.1.1 MQTT-3.1.3-5] [5.0 MQTT-3.1.3-5]
        for id in ["0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            Peer::clean(&server, version, id).await.quiet().await;
        }
        // Longer ones and other characters too.
        Peer::clean(&server, version, &"ñ/+#$ ".repeat(40)).await.quiet().await;
        // [3.1.1 MQTT-3.1.3-4] [5.0 MQTT-3.1.3-4]
        for id in [&[b'a', 0xff][..], &[0xed, 0xa0, 0x80], &[0xc0, 0x80], &[b'a', 0]] {
            let connect = Connect::new(version, "").raw_id(id).bytes();
            verdicts.refuses(&server, version, &connect, 0x81, "an identifier that is no UTF-8").await;
        }
        // [3.1.1 MQTT-3.1.3-3] [5.0 MQTT-3.1.3-3]
        let body = [text("MQTT"), vec![version, 2, 0, 0], vec![0; usize::from(version == 5)]].concat();
        verdicts.refuses(&server, version, &packet(0x10, &body), 0x81, "no identifier field").await;
    }
    verdicts.close();
}

#[tokio::test]
async fn a_client_without_an_identifier_gets_a_session_of_its_own() {
    let server = broker().await;
    for version in BOTH {
        // [3.1.1 MQTT-3.1.3-6] [5.0 MQTT-3.1.3-6]: neither takes the other over.
        let (mut one, first) = Peer::connect(&server, &Connect::new(version, "")).await;
        let (mut two, second) = Peer::connect(&server, &Connect::new(version, "")).await;
        assert_eq!((first.reason, second.reason), (0, 0));
        one.quiet().await;
        two.quiet().await;
        if version == 5 {
            // [5.0 MQTT-3.1.3-7] [5.0 MQTT-3.2.2-16]
            let assigned = [&first, &second].map(|c| c.string(ASSIGNED_CLIENT_ID).expect("an identifier"));
            assert_ne!(assigned[0], assigned[1]);
            assert!(!assigned[0].is_empty());
        }
    }
    // 5.0 lets it begin a session that is kept, to which the assigned identifier is the key.
    let (peer, connack) = Peer::connect(&server, &Connect::new(5, "").kept()).await;
    let id = connack.string(ASSIGNED_CLIENT_ID).expect("an identifier").to_owned();
    peer.leave().await;
    let (_, connack) = Peer::connect(&server, &Connect::new(5, &id).kept()).await;
    assert!(connack.session_present);
    assert_eq!(connack.string(ASSIGNED_CLIENT_ID), None);
    // [3.1.1 MQTT-3.1.3-8] [3.1.1 MQTT-3.1.3-9]
    let (mut peer, connack) = Peer::connect(&server, &Connect::new(4, "").kept()).await;
    assert_eq!((connack.reason, connack.session_present), (2, false));
    assert_eq!(peer.recv().await, None);
}

#[tokio::test]
async fn the_same_identifier_takes_over() {
    let server = broker().await;
    for version in BOTH {
        // [3.1.1 MQTT-3.1.3-2] [5.0 MQTT-3.1.3-2]: another identifier is another session.
        let mut other = Peer::clean(&server, version, "other").await;
        let mut first = Peer::clean(&server, version, "same").await;
        let mut second = Peer::clean(&server, version, "same").await;
        // [3.1.1 MQTT-3.1.4-2] [5.0 MQTT-3.1.4-3] [5.0 MQTT-3.14.2-1]
        first.ends_with(0x8e, "the connection that was there").await;
        second.quiet().await;
        other.quiet().await;
    }
}

#[tokio::test]
async fn packets_may_follow_a_connect_at_once_and_its_answer_comes_first() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::dial(&server, version).await;
        let connect = Connect::new(version, "eager").bytes();
        let all = [connect, subscribe(version, 7, &[], &[("a", 0)]), vec![0xc0, 0]].concat();
        peer.send(&all).await;
        // [3.1.1 MQTT-3.2.0-1] [5.0 MQTT-3.2.0-1] [3.1.1 MQTT-3.1.4-4] [5.0 MQTT-3.1.4-5]
        assert_eq!(peer.expect(CONNACK).await.reason, 0);
        peer.expect(SUBACK).await;
        peer.expect(PINGRESP).await;
    }
}

#[tokio::test]
async fn packets_may_come_in_pieces_of_any_size() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::dial(&server, version).await;
        let connect = Connect::new(version, "slow").will(Will::new("w", "x")).bytes();
        // [3.1.1 MQTT-7.1.1-1] [5.0 MQTT-4.2-1]: the transport is a stream of bytes, without borders.
        for byte in [connect, subscribe(version, 1, &[], &[("a", 1)]), vec![0xc0, 0]].concat() {
            peer.send(&[byte]).await;
        }
        for kind in [CONNACK, SUBACK, PINGRESP] {
            peer.expect(kind).await;
        }
    }
}

#[tokio::test]
async fn nothing_that_follows_a_refused_connect_is_acted_upon() {
    let server = broker().await;
    for version in BOTH {
        let mut watcher = Peer::clean(&server, version, "watcher").await;
        assert_eq!(watcher.subscribe("refused/#", 0).await, 0);
        let mut peer = Peer::dial(&server, version).await;
        let connect = Connect::new(version, "stranger").user(b"nobody").password(b"guess").bytes();
        let publish = Publish::new("refused/a", "x").retained().bytes(version);
        peer.send(&[connect, publish].concat()).await;
        // [3.1.1 MQTT-3.2.2-4] [3.1.1 MQTT-3.2.2-5] [5.0 MQTT-3.1.4-2] [5.0 MQTT-3.2.2-6] [5.0 MQTT-3.2.2-7]
        // [5.0 MQTT-3.2.2-8] [5.0 MQTT-4.13.2-1]
        let connack = peer.expect(CONNACK).await;
        assert_eq!(connack.reason, if version == 5 { 0x86 } else { 4 });
        assert!(!connack.session_present);
        assert_eq!(peer.recv().await, None);
        // [3.1.1 MQTT-3.1.4-5] [5.0 MQTT-3.1.4-6]: only what an admitted client says arrives.
        Peer::clean(&server, version, "admitted").await.publish("refused/b", "y", 0).await;
        assert_eq!(watcher.hear().await.said(), ("refused/b", "y"));
    }
}

#[tokio::test]
async fn a_user_name_and_a_will_topic_must_be_utf8() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for version in BOTH {
        // [3.1.1 MQTT-3.1.3-11] [5.0 MQTT-3.1.3-12]
        let user = Connect::new(version, "a").user(&[0xc3, 0x28]).bytes();
        if version == 5 {
            verdicts.refuses(&server, version, &user, 0x81, "a user name that is no UTF-8").await;
        } else {
            // 3.1.1 has a return code that says so: the data is malformed.
            let mut peer = Peer::dial(&server, version).await;
            peer.send(&user).await;
            let said = peer.rest().await;
            assert!(said.is_empty() || said == [0x20, 2, 0, 4], "{said:x?}");
        }
        // [3.1.1 MQTT-3.1.3-10] [5.0 MQTT-3.1.3-11]
        let mut body = [text("MQTT"), vec![version, 0b110, 0, 0]].concat();
        let none = vec![0; usize::from(version == 5)];
        body.extend([none.clone(), text("a"), none, bytes(&[b'w', 0xff]), text("x")].concat());
        verdicts.refuses(&server, version, &packet(0x10, &body), 0x81, "a will topic that is no UTF-8").await;
    }
    verdicts.close();
}

#[tokio::test]
async fn a_client_that_is_not_let_in_never_gets_a_disconnect() {
    let server = broker_with(&[("CONNECT_DEADLINE_S", "1")]).await;
    for version in BOTH {
        let mut silent = Peer::dial(&server, version).await;
        let mut half = Peer::dial(&server, version).await;
        half.send(&Connect::new(version, "half").bytes()[..8]).await;
        // [5.0 MQTT-3.14.0-1]; both are closed after the second in which a CONNECT has to come.
        for peer in [&mut silent, &mut half] {
            assert_ne!(peer.recv().await.map(|got| got.kind), Some(DISCONNECT));
        }
    }
}
