//! DISCONNECT (section 3.14), from either side.

use super::broker;
use super::wire::{
    BOTH, Connect, DISCONNECT, Peer, Publish, REASON_STRING, SESSION_EXPIRY, Will, disconnect, number,
    string, user,
};

#[tokio::test]
async fn a_disconnect_discards_the_will_and_closes() {
    let server = broker().await;
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, "heir").await;
        assert_eq!(heir.subscribe("will/#", 0).await, 0);
        let with_will = |topic: &str| Connect::new(version, topic).will(Will::new(topic, "lost"));
        let mut peer = Peer::enter(&server, &with_will("will/polite")).await;
        peer.send(&[0xe0, 0]).await;
        assert_eq!(peer.recv().await, None, "the server closes, whoever should first");
        if version == 5 {
            let mut peer = Peer::enter(&server, &with_will("will/wordy")).await;
            let words = [string(REASON_STRING, "bye"), user("k", "v")].concat();
            peer.send(&disconnect(0, &words)).await;
            assert_eq!(peer.recv().await, None);
        }
        // [3.1.1 MQTT-3.14.4-3] [5.0 MQTT-3.14.4-3] [3.1.1 MQTT-3.1.2-10] [5.0 MQTT-3.1.2-10]: the first to
        // arrive is of the client that is lost.
        Peer::enter(&server, &with_will("will/lost")).await.lose().await;
        assert_eq!(heir.hear().await.topic, "will/lost");
    }
}

#[tokio::test]
async fn a_disconnect_with_any_other_reason_sends_the_will() {
    let server = broker().await;
    let mut heir = Peer::clean(&server, 5, "heir").await;
    assert_eq!(heir.subscribe("will/#", 0).await, 0);
    // [5.0 MQTT-3.1.2-8]: only 0x00 deletes it.
    for reason in [0x04, 0x80, 0x82, 0x93] {
        let topic = format!("will/{reason:x}");
        let mut peer = Peer::enter(&server, &Connect::new(5, "a").will(Will::new(&topic, "sent"))).await;
        peer.send(&disconnect(reason, &[])).await;
        assert_eq!(peer.recv().await, None);
        assert_eq!(heir.hear().await.topic, topic);
    }
}

#[tokio::test]
async fn a_disconnect_may_change_when_the_session_expires() {
    let server = broker().await;
    let present = async |connect: &Connect, expiry: Option<u32>| {
        let (mut peer, connack) = Peer::connect(&server, connect).await;
        let properties = expiry.map(|e| number(SESSION_EXPIRY, e)).unwrap_or_default();
        peer.send(&disconnect(0, &properties)).await;
        (connack.session_present, peer.ends("DISCONNECT").await)
    };
    let kept = Connect::new(5, "s").kept();
    assert_eq!(present(&kept, Some(120)).await, (false, None));
    assert_eq!(present(&kept, Some(0)).await, (true, None), "longer: it was there");
    assert_eq!(present(&kept, None).await, (false, None), "0: it had ended with its connection");
    assert_eq!(present(&kept, Some(0)).await, (true, None), "absent: as CONNECT said");
    // From nothing to something is a Protocol Error (section 3.14.2.2.2).
    let brief = Connect::new(5, "t").resumes();
    assert_eq!(present(&brief, Some(5)).await, (false, Some(0x82)));
    assert_eq!(present(&brief, Some(0)).await, (false, None), "and no session was made of it");
}

#[tokio::test]
async fn a_disconnect_of_the_server_has_a_reason_and_ends_everything() {
    let mut server = broker().await;
    let mut peers = Vec::new();
    for version in BOTH {
        peers.push(Peer::clean(&server, version, &format!("p{version}")).await);
    }
    server.terminate().await;
    for peer in &mut peers {
        // [5.0 MQTT-3.14.2-1] [5.0 MQTT-3.14.2-2] [5.0 MQTT-3.14.4-1] [5.0 MQTT-3.14.4-2] [5.0 MQTT-4.13.2-1]
        peer.ends_with(0x8b, "the server stops").await;
    }
}

#[tokio::test]
async fn nothing_after_a_disconnect_is_acted_upon() {
    let server = broker().await;
    for version in BOTH {
        let mut watcher = Peer::clean(&server, version, "watcher").await;
        assert_eq!(watcher.subscribe("after", 0).await, 0);
        let mut peer = Peer::clean(&server, version, "a").await;
        let late = Publish::new("after", "late").bytes(version);
        peer.send(&[vec![0xe0, 0], late].concat()).await;
        assert_ne!(peer.recv().await.map(|got| got.kind), Some(DISCONNECT));
        Peer::clean(&server, version, "b").await.publish("after", "in time", 0).await;
        assert_eq!(watcher.hear().await.body(), "in time");
    }
}
