//! CONNACK (section 3.2): what it says of the session, and what it announces.

use super::wire::{
    ASSIGNED_CLIENT_ID, AUTH_DATA, AUTH_METHOD, BOTH, Connect, MAXIMUM_PACKET_SIZE, MAXIMUM_QOS, Peer,
    Publish, RECEIVE_MAXIMUM, REQUEST_RESPONSE_INFO, RESPONSE_INFO, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE,
    SERVER_REFERENCE, SESSION_EXPIRY, SHARED_AVAILABLE, TOPIC_ALIAS_MAXIMUM, Verdicts, number,
};
use super::{broker, broker_with};

#[tokio::test]
async fn session_present_says_whether_the_session_was_there() {
    let server = broker().await;
    for version in BOTH {
        let present = async |connect: &Connect| {
            let (peer, connack) = Peer::connect(&server, connect).await;
            assert_eq!(connack.reason, 0);
            peer.leave().await;
            connack.session_present
        };
        let id = format!("s{version}");
        let (clean, kept) = (Connect::new(version, &id), Connect::new(version, &id).kept());
        // [3.1.1 MQTT-3.2.2-3] [5.0 MQTT-3.2.2-3] [5.0 MQTT-3.1.2-6]
        assert!(!present(&kept).await, "there was none");
        // [3.1.1 MQTT-3.2.2-2] [5.0 MQTT-3.2.2-3] [5.0 MQTT-3.2.2-1]
        assert!(present(&kept).await, "there was one");
        // [3.1.1 MQTT-3.2.2-1] [5.0 MQTT-3.2.2-2] [3.1.1 MQTT-3.1.4-3] [5.0 MQTT-3.1.4-4]
        assert!(!present(&clean).await, "it was discarded");
        assert!(!present(&kept).await, "and is gone");
    }
}

#[tokio::test]
async fn a_refusal_says_nothing_of_the_session_that_is_there() {
    let server = broker().await;
    let device = server.device("s1").await;
    for version in BOTH {
        let connect = Connect::new(version, "s").kept().user(b"s1").password(device.token.as_bytes());
        Peer::enter(&server, &connect).await.leave().await;
        let (mut peer, connack) = Peer::connect(&server, &connect.clone().password(b"wrong")).await;
        // [3.1.1 MQTT-3.2.2-4] [3.1.1 MQTT-3.2.2-5] [5.0 MQTT-3.2.2-6] [5.0 MQTT-3.2.2-7] [5.0 MQTT-3.2.2-8]
        assert_eq!(connack.reason, if version == 5 { 0x86 } else { 4 });
        assert!(!connack.session_present);
        assert_eq!(peer.recv().await, None);
        let (_, connack) = Peer::connect(&server, &connect).await;
        assert!(connack.session_present, "which is there all the same");
    }
}

#[tokio::test]
async fn connack_announces_what_the_server_cannot_do_and_nothing_that_was_not_asked() {
    let server = broker_with(&[("RECEIVE_MAXIMUM", "7")]).await;
    let (_, connack) = Peer::connect(&server, &Connect::new(5, "a")).await;
    assert_eq!(connack.number(RECEIVE_MAXIMUM), Some(7));
    assert!(connack.number(TOPIC_ALIAS_MAXIMUM).is_some_and(|n| n > 0));
    assert_eq!(connack.number(MAXIMUM_PACKET_SIZE), Some(1_048_576), "there is a limit, so it is told");
    // Absent or 1 means that QoS 2, retained messages and shared subscriptions are there.
    for available in [MAXIMUM_QOS, RETAIN_AVAILABLE, SHARED_AVAILABLE] {
        assert_ne!(connack.number(available), Some(0), "{available:#x}");
    }
    // Absent means as the client said.
    for id in [ASSIGNED_CLIENT_ID, SERVER_KEEP_ALIVE, SESSION_EXPIRY, SERVER_REFERENCE] {
        assert_eq!(connack.value(id), None, "{id:#x}");
    }
    // [5.0 MQTT-4.12.0-6]
    assert_eq!((connack.value(AUTH_METHOD), connack.value(AUTH_DATA)), (None, None));
    // [5.0 MQTT-3.1.2-28]: absent is 0.
    assert_eq!(connack.value(RESPONSE_INFO), None);
    let asked = Connect::new(5, "b").with(number(REQUEST_RESPONSE_INFO, 0));
    assert_eq!(Peer::connect(&server, &asked).await.1.value(RESPONSE_INFO), None);
}

#[tokio::test]
async fn a_session_expiry_that_is_not_granted_is_told() {
    let server = broker_with(&[("MAX_SESSION_EXPIRY_S", "100")]).await;
    for (asked, granted) in [(50, None), (100, None), (101, Some(100)), (u32::MAX, Some(100))] {
        let connect = Connect::new(5, "a").with(number(SESSION_EXPIRY, asked));
        let (_, connack) = Peer::connect(&server, &connect).await;
        assert_eq!(connack.number(SESSION_EXPIRY), granted, "{asked}");
    }
}

#[tokio::test]
async fn a_packet_larger_than_announced_ends_the_connection() {
    let server = broker_with(&[("MAX_PACKET_BYTES", "2000")]).await;
    for version in BOTH {
        let (mut peer, connack) = Peer::connect(&server, &Connect::new(version, "big")).await;
        if version == 5 {
            assert_eq!(connack.number(MAXIMUM_PACKET_SIZE), Some(2_000));
        }
        let size = |payload: usize| Publish::new("big", &"x".repeat(payload)).qos(1, 1);
        let overhead = size(0).bytes(version).len() + 1;
        peer.say(&size(2_000 - overhead)).await;
        peer.try_send(&size(2_001 - overhead).bytes(version)).await;
        peer.ends_with(0x95, "a packet that is too large").await;
    }
}

#[tokio::test]
async fn a_client_that_cannot_take_a_connack_is_not_served_without_one() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for size in [1, 4] {
        let connect = Connect::new(5, "tiny").with(number(MAXIMUM_PACKET_SIZE, size));
        // [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.2.0-1]: neither the CONNACK nor, without it, anything else.
        let what = format!("a Maximum Packet Size of {size}");
        verdicts.answers(&server, 5, &connect.bytes(), &["closed"], &what).await;
    }
    verdicts.close();
}
