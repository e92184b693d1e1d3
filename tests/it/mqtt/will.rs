//! The will (sections 3.1.2.5 and 3.1.3.2): when it is sent, when not, and what of it arrives.

use std::time::{Duration, Instant};

use super::wire::{
    BOTH, CONNACK, CONTENT_TYPE, CORRELATION_DATA, Connect, MESSAGE_EXPIRY, PAYLOAD_FORMAT, Peer, Publish,
    RESPONSE_TOPIC, RETAIN_AS_PUBLISHED, SESSION_EXPIRY, Value, WILL_DELAY, Will, binary, disconnect, number,
    string, user,
};
use super::{broker, broker_on_sqlite, holds, lets_go};

#[tokio::test]
async fn a_will_is_sent_when_its_owner_is_lost_with_its_qos_and_retain() {
    let server = broker().await;
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, "heir").await;
        assert_eq!(heir.subscribe("w/#", 2).await, 2);
        let mut cleaner = Peer::clean(&server, version, "cleaner").await;
        for qos in 0..=2 {
            for retain in [false, true] {
                let topic = format!("w/{qos}/{retain}");
                let will = Will::new(&topic, "lost").qos(qos);
                let will = if retain { will.retained() } else { will };
                Peer::enter(&server, &Connect::new(version, "owner").will(will)).await.lose().await;
                // [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-7] [5.0 MQTT-3.1.2-8] [3.1.1 MQTT-3.1.2-9]
                // [3.1.1 MQTT-3.1.2-14] [5.0 MQTT-3.1.2-12]
                let got = heir.take().await;
                assert_eq!((got.said(), got.qos(), got.retain()), ((topic.as_str(), "lost"), qos, false));
                let mut late = Peer::clean(&server, version, "late").await;
                assert_eq!(late.subscribe(&topic, 2).await, 2);
                if retain {
                    // [3.1.1 MQTT-3.1.2-17] [5.0 MQTT-3.1.2-15]
                    assert!(late.take().await.retain());
                    cleaner.say(&Publish::new(&topic, "").retained()).await;
                    heir.take().await;
                } else {
                    // [3.1.1 MQTT-3.1.2-16] [5.0 MQTT-3.1.2-14]
                    late.quiet().await;
                }
            }
        }
        // A will may be empty.
        Peer::enter(&server, &Connect::new(version, "owner").will(Will::new("w", ""))).await.lose().await;
        assert_eq!(heir.take().await.said(), ("w", ""));
    }
}

#[tokio::test]
async fn a_will_is_sent_when_the_server_ends_the_connection() {
    let server = broker().await;
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, "heir").await;
        assert_eq!(heir.subscribe("w", 0).await, 0);
        let mut owner = Peer::enter(&server, &Connect::new(version, "o").will(Will::new("w", "x"))).await;
        owner.send(&Publish::new("a/#", "wrong").bytes(version)).await;
        // [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-8]
        assert_eq!(heir.take().await.body(), "x");
    }
}

#[tokio::test]
async fn a_will_is_sent_after_the_next_start_when_the_server_itself_ends() {
    let mut server = broker().await;
    for killed in [true, false] {
        let heir = Connect::new(5, "heir").kept();
        let mut hears = Peer::enter(&server, &heir).await;
        assert_eq!(hears.subscribe("w/#", 1).await, 1);
        hears.lose().await;
        let will = |topic: &str| Will::new(topic, "lost").qos(1);
        let delayed = |topic: &str, s| will(topic).with(number(WILL_DELAY, s));
        let enter = |id: &str, will: Will| Connect::new(5, id).kept().will(will);
        let _old = Peer::enter(&server, &Connect::new(4, "old").will(will("w/old"))).await;
        let _new = Peer::enter(&server, &enter("new", will("w/new").with(user("a", "b")))).await;
        // These are not to be sent: its owner took leave, or comes back in time.
        Peer::enter(&server, &enter("leaves", will("w/leaves"))).await.leave().await;
        let back = enter("back", delayed("w/back", 30));
        let _back = Peer::enter(&server, &back).await;
        // The last one's own connection is the one that counts.
        let _replaced = Peer::enter(&server, &enter("again", will("w/replaced"))).await;
        let mut hears = Peer::enter(&server, &heir).await;
        let _again = Peer::enter(&server, &enter("again", will("w/again"))).await;
        assert_eq!(hears.take().await.said(), ("w/replaced", "lost"));
        hears.lose().await;
        let mut expected = vec!["w/again", "w/new", "w/old"];
        if killed {
            // Lost before, and its delay is not over.
            expected.push("w/waits");
            Peer::enter(&server, &enter("waits", delayed("w/waits", 2))).await.lose().await;
        } else {
            assert_eq!(server.terminate().await.0, Some(0));
        }
        server.kill_and_restart();
        let mut again = Peer::enter(&server, &back).await;
        let mut hears = Peer::enter(&server, &heir).await;
        let mut topics = Vec::new();
        for _ in &expected {
            let got = hears.take().await;
            assert_eq!(got.users().len(), usize::from(got.topic == "w/new"));
            topics.push(got.topic);
        }
        topics.sort();
        // [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-8]
        assert_eq!(topics, expected, "killed: {killed}");
        hears.quiet().await;
        again.quiet().await;
        again.leave().await;
        // Once: what was acknowledged is committed before its session is opened again.
        hears.lose().await;
        let mut hears = Peer::enter(&server, &heir).await;
        hears.quiet().await;
        hears.lose().await;
        server.kill_and_restart();
        let mut hears = Peer::enter(&server, &heir).await;
        hears.quiet().await;
        hears.leave().await;
    }
}

#[tokio::test]
async fn a_will_is_sent_once_and_none_without_one() {
    let server = broker().await;
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, "heir").await;
        assert_eq!(heir.subscribe("w/#", 0).await, 0);
        let owner = Connect::new(version, "owner").kept();
        Peer::enter(&server, &owner.clone().will(Will::new("w/a", "once"))).await.lose().await;
        assert_eq!(heir.take().await.body(), "once");
        // [3.1.1 MQTT-3.1.2-10] [5.0 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-12] [3.1.1 MQTT-3.1.2-11]: the session is the
        // same, the will is over.
        Peer::enter(&server, &owner).await.lose().await;
        // Another connection's takes its place.
        Peer::enter(&server, &owner.clone().will(Will::new("w/b", "another"))).await.lose().await;
        assert_eq!(heir.take().await.said(), ("w/b", "another"));
        heir.quiet().await;
        Peer::clean(&server, version, "owner").await.leave().await;
    }
}

#[tokio::test]
async fn a_take_over_sends_the_will_of_the_connection_that_goes() {
    let server = broker().await;
    for version in BOTH {
        let mut heir = Peer::clean(&server, version, "heir").await;
        assert_eq!(heir.subscribe("w/#", 0).await, 0);
        // [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-8]: its connection closes without a DISCONNECT of its own.
        for clean in [true, false] {
            let base = Connect::new(version, "owner");
            let base = if clean { base } else { base.kept() };
            let topic = format!("w/{clean}");
            let _first = Peer::enter(&server, &base.clone().will(Will::new(&topic, "gone"))).await;
            let second = Peer::enter(&server, &base).await;
            assert_eq!(heir.take().await.said(), (topic.as_str(), "gone"));
            second.leave().await;
        }
        Peer::clean(&server, version, "owner").await.leave().await;
    }
}

#[tokio::test]
async fn a_will_with_a_delay_waits_for_it_unless_its_owner_comes_back() {
    let server = broker().await;
    let mut heir = Peer::clean(&server, 5, "heir").await;
    assert_eq!(heir.subscribe("w/#", 0).await, 0);
    let owner = |id: &str, delay| {
        let will = Will::new(&format!("w/{id}"), "x").with(number(WILL_DELAY, delay));
        Connect::new(5, id).kept().will(will)
    };
    Peer::enter(&server, &owner("returns", 1)).await.lose().await;
    // [5.0 MQTT-3.1.3-9]: this connection is before the delay has passed, and leaves properly.
    Peer::enter(&server, &Connect::new(5, "returns").kept()).await.leave().await;
    // So does who takes over without waiting for the loss.
    let mut first = Peer::enter(&server, &owner("taken", 1)).await;
    let second = Peer::enter(&server, &Connect::new(5, "taken").kept()).await;
    first.ends_with(0x8e, "taken over").await;
    second.leave().await;
    let start = Instant::now();
    Peer::enter(&server, &owner("late", 1)).await.lose().await;
    // [5.0 MQTT-3.1.2-8]
    assert_eq!(heir.take().await.topic, "w/late");
    assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
    heir.quiet().await;
}

#[tokio::test]
async fn a_will_with_a_delay_is_sent_when_the_session_ends_first() {
    let server = broker().await;
    let mut heir = Peer::clean(&server, 5, "heir").await;
    assert_eq!(heir.subscribe("w/#", 0).await, 0);
    let owner = |id: &str, expiry| {
        let will = Will::new(&format!("w/{id}"), "x").with(number(WILL_DELAY, 600));
        Connect::new(5, id).with(number(SESSION_EXPIRY, expiry)).will(will)
    };
    // [5.0 MQTT-3.1.2-8]: with the connection,
    Peer::enter(&server, &owner("at once", 0)).await.lose().await;
    assert_eq!(heir.take().await.topic, "w/at once");
    // by a DISCONNECT that says so and asks for the will,
    let mut peer = Peer::enter(&server, &owner("asked", 600)).await;
    peer.send(&disconnect(4, &number(SESSION_EXPIRY, 0))).await;
    assert_eq!(heir.take().await.topic, "w/asked");
    // by a clean start in its place, over an open connection or not,
    let open = Peer::enter(&server, &owner("open", 600)).await;
    let mut next = Peer::clean(&server, 5, "open").await;
    assert_eq!(heir.take().await.topic, "w/open");
    drop(open);
    next.quiet().await;
    Peer::enter(&server, &owner("closed", 600)).await.lose().await;
    Peer::clean(&server, 5, "closed").await.quiet().await;
    assert_eq!(heir.take().await.topic, "w/closed");
    // and when its time is over.
    Peer::enter(&server, &owner("expired", 1)).await.lose().await;
    assert_eq!(heir.take().await.topic, "w/expired");
}

#[tokio::test]
async fn the_properties_of_a_will_arrive() {
    let server = broker().await;
    let mut heir = Peer::clean(&server, 5, "heir").await;
    assert_eq!(heir.subscribe("w", RETAIN_AS_PUBLISHED | 1).await, 1);
    let users = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")];
    let mut will = Will::new("w", "{}").qos(1).retained();
    for property in [
        number(PAYLOAD_FORMAT, 1),
        number(MESSAGE_EXPIRY, 30),
        string(CONTENT_TYPE, "application/json"),
        string(RESPONSE_TOPIC, "answers/here"),
        binary(CORRELATION_DATA, &[0, 255, 7]),
    ] {
        will = will.with(property);
    }
    for (name, value) in users {
        will = will.with(user(name, value));
    }
    Peer::enter(&server, &Connect::new(5, "owner").will(will)).await.lose().await;
    let got = heir.take().await;
    assert_eq!((got.said(), got.qos(), got.retain()), (("w", "{}"), 1, true));
    assert_eq!(got.number(PAYLOAD_FORMAT), Some(1));
    // Counted from when it is sent.
    assert!(got.number(MESSAGE_EXPIRY).is_some_and(|left| (29..=30).contains(&left)));
    assert_eq!(got.string(CONTENT_TYPE), Some("application/json"));
    assert_eq!(got.string(RESPONSE_TOPIC), Some("answers/here"));
    assert_eq!(got.value(CORRELATION_DATA), Some(&Value::Binary(vec![0, 255, 7])));
    // [5.0 MQTT-3.1.3-10]
    assert_eq!(got.users(), users);
    assert_eq!(got.value(WILL_DELAY), None);
}

#[tokio::test]
async fn a_will_that_may_not_be_published_is_refused() {
    let server = broker().await;
    for version in BOTH {
        for topic in ["a/+", "#", "", "sensores/x/data"] {
            let connect = Connect::new(version, "owner").will(Will::new(topic, "x"));
            let mut peer = Peer::dial(&server, version).await;
            peer.send(&connect.bytes()).await;
            // [3.1.1 MQTT-3.3.2-2] [5.0 MQTT-3.3.2-2]: a will is a message to be; refused with or without a word.
            if let Some(connack) = peer.recv().await {
                assert_ne!(connack.reason, 0, "{topic}");
                assert_eq!(peer.recv().await, None, "{topic}");
            }
        }
    }
}

#[tokio::test]
async fn a_will_is_sent_once_wherever_the_server_is_killed_in_between() {
    let mut server = broker_on_sqlite("5").await;
    let device = server.device("s1").await;
    let heir = Connect::new(5, "heir").kept();
    let mut hears = Peer::enter(&server, &heir).await;
    assert_eq!(hears.subscribe("w/#", 1).await, 1);
    // Until the server is killed it can forget none: so it has sent none either.
    server.sql("CREATE TRIGGER no BEFORE DELETE ON mqtt_testamentos BEGIN SELECT RAISE(ABORT, 'no'); END");
    let enter = |id: &str, topic: &str| Connect::new(5, id).kept().will(Will::new(topic, "x").qos(1));
    Peer::enter(&server, &enter("lost", "w/lost")).await.lose().await;
    let reads = Connect::new(5, "s1").user(b"s1").password(device.token.as_bytes());
    let reads = reads.will(Will::new("sensores/s1/data", "{\"temperatura\":21.5}").qos(1));
    Peer::enter(&server, &reads).await.lose().await;
    // That of a connection which is taken over is beside that of the next one.
    let _first = Peer::enter(&server, &enter("again", "w/first")).await;
    let _second = Peer::enter(&server, &enter("again", "w/second")).await;
    hears.say(&Publish::new("z", "x").qos(1, 9).retained()).await;
    hears.quiet().await;
    server.kill();
    server.sql("DROP TRIGGER no");
    server.kill_and_restart();

    let mut hears = Peer::enter(&server, &heir).await;
    let mut topics = Vec::new();
    for _ in 0..3 {
        topics.push(hears.take().await.topic);
    }
    topics.sort();
    assert_eq!(topics, ["w/first", "w/lost", "w/second"]);
    let start = Instant::now();
    while server.rows("mqtt_testamentos").trim() != "[]" {
        assert!(start.elapsed() < Duration::from_secs(10), "they are forgotten");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    hears.quiet().await;
    assert_eq!(server.readings(&device).await.len(), 1);
}

#[tokio::test]
async fn who_is_not_let_in_leaves_nothing_that_waits_and_no_will() {
    let mut server = broker_on_sqlite("1").await;
    let heir = Connect::new(5, "heir").kept();
    let mut hears = Peer::enter(&server, &heir).await;
    assert_eq!(hears.subscribe("w/#", 1).await, 1);
    hears.lose().await;
    let holder = holds(&server);
    let mut refused = Vec::new();
    for n in 0..20 {
        let mut peer = Peer::dial(&server, 5).await;
        let id = format!("{n}");
        peer.send(&Connect::new(5, &id).will(Will::new(&format!("w/{n}"), "x").qos(1)).bytes()).await;
        refused.push(peer);
    }
    for peer in &mut refused {
        assert_eq!(peer.expect(CONNACK).await.reason, 0x88);
    }
    drop(refused);
    // Nothing is committed yet; of them nothing is left but what the writer has.
    let mut other = Peer::clean(&server, 5, "other").await;
    let start = Instant::now();
    loop {
        let metrics = server.request(reqwest::Method::GET, "/metrics", "", None).await;
        let metrics = metrics.text().await.expect("text");
        if metrics.lines().any(|line| line == "alertrace_mqtt_sockets 1") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lets_go(holder);
    other.say(&Publish::new("z", "x").qos(1, 9).retained()).await;
    server.kill_and_restart();
    Peer::enter(&server, &heir).await.quiet().await;
}

#[tokio::test]
async fn who_is_not_let_in_keeps_no_will_from_being_sent_though_the_server_is_killed() {
    let mut server = broker_on_sqlite("1").await;
    let heir = Connect::new(5, "heir").kept();
    let mut hears = Peer::enter(&server, &heir).await;
    assert_eq!(hears.subscribe("w/#", 1).await, 1);
    hears.lose().await;
    let owner = |topic: &str| {
        Connect::new(5, "owner").kept().will(Will::new(topic, "x").qos(1).with(number(WILL_DELAY, 4)))
    };
    Peer::enter(&server, &owner("w/waits")).await.lose().await;
    let mut other = Peer::clean(&server, 5, "other").await;
    // Committed after that of the loss.
    other.say(&Publish::new("z", "x").qos(1, 8).retained()).await;
    let holder = holds(&server);
    let mut refused = Peer::dial(&server, 5).await;
    refused.send(&owner("w/never").bytes()).await;
    assert_eq!(refused.expect(CONNACK).await.reason, 0x88);
    lets_go(holder);
    // What the refused one had in the writer's hands is committed, and undone.
    other.say(&Publish::new("z", "x").qos(1, 9).retained()).await;
    server.kill_and_restart();
    let mut hears = Peer::enter(&server, &heir).await;
    assert_eq!(hears.take().await.topic, "w/waits");
    hears.quiet().await;
    // The session is there for whoever is let in.
    assert!(Peer::connect(&server, &Connect::new(5, "owner").kept()).await.1.session_present);
}
