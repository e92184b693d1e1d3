//! What fuzzing, and the reading that it led to, has found: a test for each.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::bench::{Bench, Client, PATIENCE, connect, expiry, settings};
use super::packets::{Heard, Property, Said, Value, packet};
use crate::mqtt::Settings;
use crate::mqtt::publicacion::{Publicacion, Qos};

async fn enter(bench: &Bench, said: &Said) -> (Client, bool) {
    let mut client = bench.client(matches!(said, Said::Connect { five: true, .. }), 4 << 20);
    client.say(said).await;
    match client.hear().await {
        Ok(Some(Heard::Connack { present, code: 0 })) => (client, present),
        other => panic!("{other:?}"),
    }
}

async fn clean(bench: &Bench, id: &str) -> Client {
    enter(bench, &connect(true, id, true, Vec::new())).await.0
}

async fn next(client: &mut Client) -> Heard {
    client.hear().await.unwrap().expect("a packet")
}

/// Nothing is on its way.
async fn quiet(client: &mut Client) {
    client.say(&Said::Ping).await;
    assert_eq!(next(client).await, Heard::Pong);
}

async fn subscribe(client: &mut Client, filter: &str, qos: u8) {
    let filters = vec![(filter.as_bytes().to_vec(), qos)];
    client.say(&Said::Subscribe { pid: 1, properties: Vec::new(), filters }).await;
    assert_eq!(next(client).await, Heard::Ack { kind: 9, pid: 1, reason: qos });
}

fn message(topic: &str, payload: &str, qos: u8, pid: u16) -> Said {
    let (topic, payload) = (topic.as_bytes().to_vec(), payload.as_bytes().to_vec());
    Said::Publish { flags: qos << 1, topic, pid, properties: Vec::new(), payload }
}

async fn publish(client: &mut Client, topic: &str, payload: &str, qos: u8) {
    client.say(&message(topic, payload, qos, 1)).await;
    let kind = if qos == 1 { 4 } else { 5 };
    assert_eq!(next(client).await, Heard::Ack { kind, pid: 1, reason: 0 });
    if qos == 2 {
        client.say(&ack(6, 1)).await;
        assert_eq!(next(client).await, Heard::Ack { kind: 7, pid: 1, reason: 0 });
    }
}

fn ack(kind: u8, pid: u16) -> Said {
    Said::Ack { kind, pid, reason: None }
}

/// The packet id and payload of the next message.
async fn hear(client: &mut Client) -> (u16, String) {
    match next(client).await {
        Heard::Publish { pid, payload, .. } => (pid, String::from_utf8(payload).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_on_its_way_to_a_member_that_is_gone_by_its_commit_reaches_another() {
    for kept in [false, true] {
        let bench = Bench::new().await;
        let mut first = if kept {
            enter(&bench, &connect(true, "first", true, vec![expiry(1)])).await.0
        } else {
            clean(&bench, "first").await
        };
        subscribe(&mut first, "$share/g/a", 1).await;
        let mut second = clean(&bench, "second").await;
        subscribe(&mut second, "$share/g/a", 1).await;
        // It is the first one's turn, and before the commit has returned its session is over.
        let b = bench.broker.0.clone();
        let message = Publicacion::del_servidor("a".into(), "x", Qos::Uno, false);
        let (reparto, _) = b.reparto(message);
        assert!(b.guarda(reparto.cambios()).await);
        if kept {
            first.say(&Said::Disconnect { reason: Some((0, Some(vec![expiry(0)]))) }).await;
        }
        first.hang_up().await.unwrap();
        b.entrega_suelto(reparto).await.unwrap_or_else(|_| panic!("the router is there"));
        assert_eq!(hear(&mut second).await.1, "x", "kept: {kept}");
        bench.end().await;
    }
}

#[tokio::test]
async fn a_pubrec_of_any_length_releases_its_own_message() {
    let bench = Bench::new().await;
    let mut reader = clean(&bench, "reader").await;
    subscribe(&mut reader, "a", 2).await;
    let mut publisher = clean(&bench, "publisher").await;
    for length in [1, 100, 200, 5_000] {
        publish(&mut publisher, "a", "x", 2).await;
        let (pid, _) = hear(&mut reader).await;
        let why: Property = (0x1f, Value::Bytes(vec![b'x'; length]));
        reader.say(&Said::Ack { kind: 5, pid, reason: Some((0, Some(vec![why]))) }).await;
        assert_eq!(next(&mut reader).await, Heard::Ack { kind: 6, pid, reason: 0 });
        reader.say(&ack(7, pid)).await;
        quiet(&mut reader).await;
    }
}

#[tokio::test]
async fn a_pubrec_that_says_that_nobody_subscribes_is_a_success() {
    let bench = Bench::new().await;
    let window = vec![(0x21, Value::Number(1))];
    let mut reader = enter(&bench, &connect(true, "reader", true, window)).await.0;
    subscribe(&mut reader, "a", 2).await;
    let mut publisher = clean(&bench, "publisher").await;
    publish(&mut publisher, "a", "one", 2).await;
    publish(&mut publisher, "a", "two", 2).await;
    let (pid, _) = hear(&mut reader).await;
    reader.say(&Said::Ack { kind: 5, pid, reason: Some((0x10, None)) }).await;
    assert_eq!(next(&mut reader).await, Heard::Ack { kind: 6, pid, reason: 0 });
    // It is not over before the client says so.
    quiet(&mut reader).await;
    reader.say(&ack(7, pid)).await;
    assert_eq!(hear(&mut reader).await.1, "two");
}

#[tokio::test]
async fn a_release_that_an_earlier_connection_began_leaves_the_window_as_it_is() {
    let bench = Bench::new().await;
    let said = connect(true, "reader", false, vec![expiry(600), (0x21, Value::Number(1))]);
    let mut reader = enter(&bench, &said).await.0;
    subscribe(&mut reader, "a", 2).await;
    let mut publisher = clean(&bench, "publisher").await;
    publish(&mut publisher, "a", "one", 2).await;
    let (pid, _) = hear(&mut reader).await;
    reader.say(&ack(5, pid)).await;
    let release = Heard::Ack { kind: 6, pid, reason: 0 };
    assert_eq!(next(&mut reader).await, release);
    reader.hang_up().await.unwrap();
    let (mut reader, present) = enter(&bench, &said).await;
    assert!(present);
    assert_eq!(next(&mut reader).await, release);
    reader.say(&ack(7, pid)).await;
    for _ in 0..3 {
        publish(&mut publisher, "a", "more", 1).await;
    }
    // One at a time, as before.
    for _ in 0..3 {
        let (pid, _) = hear(&mut reader).await;
        quiet(&mut reader).await;
        reader.say(&ack(4, pid)).await;
    }
    quiet(&mut reader).await;
}

#[tokio::test]
async fn the_answer_to_a_pubrel_that_was_sent_out_of_turn_harms_nobody() {
    let bench = Bench::new().await;
    for five in [false, true] {
        let mut reader = enter(&bench, &connect(five, "reader", true, Vec::new())).await.0;
        subscribe(&mut reader, "a", 2).await;
        // Of an earlier session.
        reader.say(&ack(5, 77)).await;
        let unknown = if five { 0x92 } else { 0 };
        assert_eq!(next(&mut reader).await, Heard::Ack { kind: 6, pid: 77, reason: unknown });
        reader.say(&ack(7, 77)).await;
        quiet(&mut reader).await;
        // Said twice.
        let mut publisher = clean(&bench, "publisher").await;
        publish(&mut publisher, "a", "x", 2).await;
        let (pid, _) = hear(&mut reader).await;
        for _ in 0..2 {
            reader.say(&ack(5, pid)).await;
            assert_eq!(next(&mut reader).await, Heard::Ack { kind: 6, pid, reason: 0 });
        }
        for _ in 0..2 {
            reader.say(&ack(7, pid)).await;
            quiet(&mut reader).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qos_2_message_is_taken_once_though_its_publisher_is_lost_before_the_answer() {
    let bench = Bench::new().await;
    let mut reader = clean(&bench, "reader").await;
    subscribe(&mut reader, "a", 2).await;
    for five in [false, true] {
        let said = connect(five, "publisher", false, vec![expiry(600)]);
        for round in 1_u16..20 {
            let (mut publisher, _) = enter(&bench, &said).await;
            publisher.say(&message("a", &round.to_string(), 2, round)).await;
            publisher.hang_up().await.unwrap();
            let (mut publisher, _) = enter(&bench, &said).await;
            let Said::Publish { flags, topic, pid, properties, payload } =
                message("a", &round.to_string(), 2, round)
            else {
                return;
            };
            publisher.say(&Said::Publish { flags: flags | 8, topic, pid, properties, payload }).await;
            assert_eq!(next(&mut publisher).await, Heard::Ack { kind: 5, pid, reason: 0 });
            publisher.say(&ack(6, pid)).await;
            assert_eq!(next(&mut publisher).await, Heard::Ack { kind: 7, pid, reason: 0 });
            publisher.hang_up().await.unwrap();
            let (pid, payload) = hear(&mut reader).await;
            assert_eq!(payload, round.to_string());
            reader.say(&ack(5, pid)).await;
            assert_eq!(next(&mut reader).await, Heard::Ack { kind: 6, pid, reason: 0 });
            reader.say(&ack(7, pid)).await;
            quiet(&mut reader).await;
        }
        let over = connect(five, "publisher", true, Vec::new());
        enter(&bench, &over).await.0.hang_up().await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_qos_2_message_is_answered_though_its_id_waits_for_another() {
    let bench = Bench::new().await;
    // What is kept for somebody has to be committed first.
    let mut keeper = enter(&bench, &connect(true, "keeper", true, vec![expiry(600)])).await.0;
    subscribe(&mut keeper, "k", 1).await;
    let mut publisher = clean(&bench, "publisher").await;
    publisher.say(&message("a", "x", 2, 7)).await;
    assert_eq!(next(&mut publisher).await, Heard::Ack { kind: 5, pid: 7, reason: 0 });
    let mut both = message("k", "y", 1, 7).bytes(true);
    let mut again = message("a", "x", 2, 7).bytes(true);
    again[0] |= 8;
    both.extend(again);
    publisher.write(&both).await;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        if let Heard::Ack { kind, pid: 7, reason: 0 } = next(&mut publisher).await {
            kinds.push(kind);
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [4, 5]);
}

/// As large as they come.
fn large() -> Settings {
    Settings { max_packet: 1 << 20, max_retained: 100, ..settings() }
}

/// A SUBSCRIBE or UNSUBSCRIBE with so many times this filter.
fn many(filter: &str, times: usize, subscribe: bool) -> Vec<u8> {
    let mut body = vec![0, 2, 0];
    for _ in 0..times {
        body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        body.extend(filter.as_bytes());
        body.extend(subscribe.then_some(0));
    }
    packet(if subscribe { 0x82 } else { 0xa2 }, &body)
}

#[tokio::test]
async fn a_subscribe_of_a_hundred_thousand_filters_finds_what_is_retained_a_few_times() {
    let bench = Bench::with(large()).await;
    let mut publisher = clean(&bench, "publisher").await;
    for n in 0..100 {
        let (topic, payload) = (format!("r/{n}").into_bytes(), b"x".to_vec());
        let said = Said::Publish { flags: 1, topic, pid: 0, properties: Vec::new(), payload };
        publisher.say(&said).await;
    }
    quiet(&mut publisher).await;
    let mut hostile = clean(&bench, "hostile").await;
    hostile.write(&many("r/#", 150_000, true)).await;
    // Too many.
    assert_eq!(next(&mut hostile).await, Heard::Ack { kind: 9, pid: 2, reason: 0x97 });
    let mut arrived: HashMap<Vec<u8>, usize> = HashMap::new();
    hostile.say(&Said::Ping).await;
    while let Some(heard) =
        timeout(Duration::from_secs(1), hostile.hear()).await.ok().and_then(Result::unwrap)
    {
        if let Heard::Publish { topic, .. } = heard {
            *arrived.entry(topic).or_default() += 1;
        }
    }
    assert_eq!(arrived.len(), 100);
    assert!(arrived.values().all(|n| *n <= 2), "{:?}", arrived.values().max());
}

#[tokio::test]
async fn an_unsubscribe_of_a_hundred_thousand_filters_keeps_no_writer_busy() {
    let bench = Bench::with(large()).await;
    let mut watcher = clean(&bench, "watcher").await;
    subscribe(&mut watcher, "w", 1).await;
    let mut hostile = enter(&bench, &connect(true, "hostile", true, vec![expiry(600)])).await.0;
    subscribe(&mut hostile, "a", 0).await;
    let mut publisher = clean(&bench, "publisher").await;
    hostile.write(&many("a", 300_000, false)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(next(&mut hostile).await, Heard::Ack { kind: 11, pid: 2, reason: 0x11 });
    let before = Instant::now();
    publish(&mut publisher, "w", "x", 1).await;
    assert_eq!(hear(&mut watcher).await.1, "x");
    assert!(before.elapsed() < PATIENCE);
}

#[tokio::test]
async fn what_came_while_the_window_was_full_is_read_when_it_is_not() {
    let bench = Bench::new().await;
    // 3.1.1 knows no window: all of it is sent at once, and then the client waits.
    let mut publisher = enter(&bench, &connect(false, "publisher", true, Vec::new())).await.0;
    for _ in 0..5 {
        let all: Vec<u8> = (1..=100).flat_map(|pid| message("a", "x", 1, pid).bytes(false)).collect();
        publisher.write(&all).await;
        for pid in 1..=100 {
            assert_eq!(next(&mut publisher).await, Heard::Ack { kind: 4, pid, reason: 0 });
        }
    }
}
