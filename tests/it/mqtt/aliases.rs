//! Topic aliases (section 3.3.2.3.4), in both directions.

use std::collections::HashMap;

use super::broker;
use super::wire::{Connect, Got, Peer, Publish, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM, Verdicts, number};

fn aliased(topic: &str, payload: &str, alias: u32) -> Publish {
    Publish::new(topic, payload).with(number(TOPIC_ALIAS, alias))
}

#[tokio::test]
async fn a_client_may_use_every_alias_that_was_announced() {
    let server = broker().await;
    let mut reader = Peer::clean(&server, 5, "reader").await;
    assert_eq!(reader.subscribe("alias/#", 0).await, 0);
    let (mut publisher, connack) = Peer::connect(&server, &Connect::new(5, "publisher")).await;
    let max = connack.number(TOPIC_ALIAS_MAXIMUM).expect("aliases are offered");
    // [5.0 MQTT-3.3.2-12]
    for alias in 1..=max {
        publisher.say(&aliased(&format!("alias/{alias}"), "set", alias)).await;
    }
    for alias in 1..=max {
        publisher.say(&aliased("", "used", alias).qos(1, 1)).await;
    }
    for body in ["set", "used"] {
        for alias in 1..=max {
            let got = reader.take().await;
            assert_eq!(got.said(), (format!("alias/{alias}").as_str(), body));
        }
    }
    // An alias may be given to another topic.
    publisher.say(&aliased("alias/other", "moved", 1)).await;
    publisher.say(&aliased("", "there", 1)).await;
    for body in ["moved", "there"] {
        assert_eq!(reader.take().await.said(), ("alias/other", body));
    }
}

#[tokio::test]
async fn an_alias_out_of_range_or_without_a_topic_ends_the_connection() {
    let server = broker().await;
    let (_, connack) = Peer::connect(&server, &Connect::new(5, "a")).await;
    let max = connack.number(TOPIC_ALIAS_MAXIMUM).expect("aliases are offered");
    let mut verdicts = Verdicts::default();
    for (message, reasons, what) in [
        // [5.0 MQTT-3.3.2-8]: the specification gives no code for it.
        (aliased("a", "x", 0), &[0x81, 0x82, 0x94][..], "alias 0"),
        // [5.0 MQTT-4.13.1-1]
        (aliased("a", "x", max + 1), &[0x94], "an alias above the maximum"),
        (aliased("", "x", 1), &[0x82], "an alias that was not set"),
        (aliased("a", "x", 1).with(number(TOPIC_ALIAS, 1)), &[0x82], "an alias twice"),
    ] {
        verdicts.ends(&server, 5, &message.bytes(5), reasons, what).await;
    }
    verdicts.close();
}

#[tokio::test]
async fn aliases_end_with_their_connection() {
    let server = broker().await;
    let connect = Connect::new(5, "publisher").kept();
    let mut publisher = Peer::enter(&server, &connect).await;
    publisher.say(&aliased("alias/a", "x", 1)).await;
    publisher.lose().await;
    let mut publisher = Peer::enter(&server, &connect).await;
    publisher.send(&aliased("", "x", 1).bytes(5)).await;
    // [5.0 MQTT-3.3.2-7]
    publisher.ends_with(0x82, "an alias of another connection").await;
}

/// What a message is about, by the aliases that were set on this connection.
fn topic(got: &Got, known: &mut HashMap<u32, String>, max: u32) -> String {
    let Some(alias) = got.number(TOPIC_ALIAS) else {
        assert!(!got.topic.is_empty(), "neither a topic nor an alias");
        return got.topic.clone();
    };
    assert!((1..=max).contains(&alias), "alias {alias}, where {max} is the highest");
    if !got.topic.is_empty() {
        known.insert(alias, got.topic.clone());
    }
    known.get(&alias).expect("an alias that was set before").clone()
}

#[tokio::test]
async fn the_server_uses_aliases_up_to_the_clients_maximum() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").kept().with(number(TOPIC_ALIAS_MAXIMUM, 2));
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let mut reader = Peer::enter(&server, &connect).await;
    assert_eq!(reader.subscribe("alias/#", 1).await, 1);
    for round in 0..2 {
        let (mut known, mut shortened) = (HashMap::new(), 0);
        for n in 0..12 {
            // More topics than aliases, and some more often than others.
            let expected = format!("alias/{}", [0, 1, 0, 2, 0, 3][n % 6]);
            publisher.publish(&expected, &n.to_string(), 1).await;
            let got = reader.take().await;
            // [5.0 MQTT-3.1.2-26] [5.0 MQTT-3.3.2-11] [5.0 MQTT-3.3.2-8]
            assert_eq!((topic(&got, &mut known, 2), got.body()), (expected, n.to_string().as_str()));
            shortened += usize::from(got.topic.is_empty());
        }
        assert!(shortened > 0, "a topic that repeats is sent as its alias, connection {round}");
        // [5.0 MQTT-3.3.2-7]: the next connection knows none of these, as `known` will not.
        reader.lose().await;
        reader = Peer::enter(&server, &connect).await;
    }
}

#[tokio::test]
async fn what_is_sent_again_carries_its_topic() {
    let server = broker().await;
    let connect = Connect::new(5, "reader").kept().with(number(TOPIC_ALIAS_MAXIMUM, 5));
    let mut reader = Peer::enter(&server, &connect).await;
    assert_eq!(reader.subscribe("alias/#", 1).await, 1);
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    for n in 0..3 {
        publisher.publish("alias/same", &n.to_string(), 1).await;
        reader.hear().await;
    }
    reader.lose().await;
    let mut reader = Peer::enter(&server, &connect).await;
    let mut known = HashMap::new();
    for n in 0..3 {
        let got = reader.take().await;
        // [5.0 MQTT-3.3.2-7] [5.0 MQTT-4.4.0-1]
        assert!(got.dup());
        assert_eq!((topic(&got, &mut known, 5), got.body()), ("alias/same".into(), n.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_client_that_takes_no_aliases_gets_none() {
    let server = broker().await;
    let mut publisher = Peer::clean(&server, 5, "publisher").await;
    let zero = Connect::new(5, "zero").with(number(TOPIC_ALIAS_MAXIMUM, 0));
    for connect in [Connect::new(5, "absent"), zero] {
        let mut reader = Peer::enter(&server, &connect).await;
        assert_eq!(reader.subscribe("alias/#", 0).await, 0);
        for _ in 0..5 {
            publisher.publish("alias/a", "x", 0).await;
            let got = reader.take().await;
            // [5.0 MQTT-3.1.2-27]
            assert_eq!((got.topic.as_str(), got.number(TOPIC_ALIAS)), ("alias/a", None));
        }
    }
}
