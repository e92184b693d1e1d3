//! PINGREQ and keep-alive (sections 3.12 and 3.1.2.10).

use std::time::{Duration, Instant};

use super::wire::{BOTH, Connect, PINGRESP, Peer, Publish, SERVER_KEEP_ALIVE, Will};
use super::{broker, broker_with};

#[tokio::test]
async fn a_ping_is_answered() {
    let server = broker().await;
    for version in BOTH {
        let mut peer = Peer::clean(&server, version, "a").await;
        peer.send(&[0xc0, 0, 0xc0, 0]).await;
        // [3.1.1 MQTT-3.12.4-1] [5.0 MQTT-3.12.4-1]
        peer.expect(PINGRESP).await;
        peer.expect(PINGRESP).await;
    }
}

#[tokio::test]
async fn a_silent_client_is_dropped_after_one_and_a_half_keep_alives_as_if_the_network_had_failed() {
    let server = broker().await;
    let mut heirs = Vec::new();
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, &format!("heir{version}")).await;
        assert_eq!(heir.subscribe(&format!("will/{version}"), 0).await, 0);
        heirs.push(heir);
    }
    let start = Instant::now();
    let (mut silent, mut lively, mut patient) = (Vec::new(), Vec::new(), Vec::new());
    for version in BOTH {
        let connect = |id: &str| Connect::new(version, &format!("{id}{version}"));
        let will = Will::new(&format!("will/{version}"), "silent");
        silent.push(Peer::enter(&server, &connect("silent").keep_alive(1).will(will)).await);
        lively.push(Peer::enter(&server, &connect("lively").keep_alive(1)).await);
        patient.push(Peer::enter(&server, &connect("patient")).await);
    }
    // Any packet counts, not only a ping.
    tokio::time::sleep(Duration::from_millis(800)).await;
    for peer in &mut lively {
        peer.send(&Publish::new("alive", "x").bytes(peer.version)).await;
    }
    for (peer, heir) in silent.iter_mut().zip(&mut heirs) {
        // [3.1.1 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-22] [5.0 MQTT-3.2.2-22]
        peer.ends_with(0x8d, "a client that says nothing").await;
        let after = start.elapsed();
        assert!((1_400..3_000).contains(&after.as_millis()), "{after:?}");
        // [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-8]
        assert_eq!(heir.hear().await.body(), "silent");
    }
    for peer in lively.iter_mut().chain(&mut patient) {
        peer.quiet().await;
    }
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_packet_and_a_large_one_may_take_its_time() {
    let server = broker().await;
    for version in BOTH {
        let connect = |id: &str| Connect::new(version, id).keep_alive(1);
        let mut drips = Peer::enter(&server, &connect("drips")).await;
        let mut steady = Peer::enter(&server, &connect("steady")).await;
        let large = Publish::new("a", &"x".repeat(20_000)).bytes(version);
        let (start, mut sent) = (Instant::now(), 0);
        for n in 0..5 {
            drips.try_send(&large[n..=n]).await;
            let end = sent + 4_000;
            steady.send(&large[sent..end]).await;
            sent = end;
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        // [3.1.1 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-22]
        drips.ends_with(0x8d, "a byte now and then").await;
        assert!(start.elapsed() > Duration::from_millis(1_400));
        steady.send(&large[sent..]).await;
        steady.quiet().await;
    }
}

#[tokio::test]
async fn a_server_keep_alive_is_announced_and_used() {
    let server = broker_with(&[("MAX_KEEP_ALIVE_S", "1")]).await;
    let (mut slow, connack) = Peer::connect(&server, &Connect::new(5, "slow").keep_alive(60)).await;
    assert_eq!(connack.number(SERVER_KEEP_ALIVE), Some(1));
    let (mut never, connack) = Peer::connect(&server, &Connect::new(5, "never")).await;
    assert_eq!(connack.number(SERVER_KEEP_ALIVE), Some(1));
    let (_, connack) = Peer::connect(&server, &Connect::new(5, "quick").keep_alive(1)).await;
    // [5.0 MQTT-3.2.2-22]: the client's own, so nothing is said of it.
    assert_eq!(connack.number(SERVER_KEEP_ALIVE), None);
    // 3.1.1 has no way to be told, so the client's own holds.
    let mut old = Peer::enter(&server, &Connect::new(4, "old").keep_alive(60)).await;
    // [5.0 MQTT-3.1.2-22]
    slow.ends_with(0x8d, "past the server's keep-alive").await;
    never.ends_with(0x8d, "past the server's keep-alive").await;
    old.quiet().await;
}
