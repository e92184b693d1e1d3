//! Whole sessions against a broker: clients that do as they like, beside three that keep to the book.
//!
//! What must hold: the three are served as if they were alone (what was acknowledged to the publisher
//! reaches a subscriber that comes and goes, QoS 2 once; a watcher is answered); a message that was
//! taken is answered; nothing panics; what a session holds is bounded; when its clients are gone the
//! registry holds what is kept and no more.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::bench::{self, Bench, Client, PATIENCE, connect, expiry};
use super::packets::{self, Harm, Heard, Said, Value};
use crate::mqtt::publicacion::{Publicacion, Qos};

/// Hostile clients.
const HOSTILE: usize = 3;
/// Cases that one broker serves: the filters that it has met are never freed.
const CASES_A_BROKER: u32 = 200;

type Checked<T = ()> = Result<T, String>;

/// What one of the hostile clients does.
#[derive(Debug, Clone)]
enum Deed {
    /// Connects; `over` an earlier connection, which it does not end, or after it.
    Connect {
        connect: Said,
        over: bool,
        room: u16,
    },
    Say(Said, Option<Harm>),
    /// Many packets in one write.
    Flood(Vec<Said>),
    Noise(Vec<u8>),
    /// Reads what came, and does with it what it should, or does not.
    Read {
        answer: bool,
    },
    Drop,
}

/// Where the publisher loses its connection on the way of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    /// Behind its PUBLISH.
    Published,
    /// Behind the answer to it.
    Received,
    /// Behind its PUBREL.
    Released,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a case is a handful of them")]
enum Step {
    Hostile(usize, Deed),
    /// The publisher sends a message; `over`: a new connection takes over instead of following.
    Publish {
        qos: u8,
        cut: Cut,
        over: bool,
    },
    /// The subscriber deals with so many packets, and hangs up before or after its last answer.
    Leave {
        after: u8,
        answered: bool,
    },
    Come {
        five: bool,
        receive_maximum: u16,
    },
    Pause,
}

#[derive(Clone)]
struct Case {
    five: bool,
    /// The watcher hears everything.
    everything: bool,
    steps: Vec<Step>,
}

impl std::fmt::Debug for Case {
    /// In few lines, of which a report has to make do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { five, everything, steps } = self;
        writeln!(f, "five: {five}, everything: {everything}")?;
        f.write_str(&super::lines(steps))
    }
}

fn connects(id: usize) -> BoxedStrategy<Deed> {
    // What makes a session interesting, more often than not, in any version.
    let kept = prop_oneof![Just(None), Just(Some(0_u32)), Just(Some(30)), Just(Some(u32::MAX))];
    let limits =
        (option::weighted(0.4, 1_u32..4), option::weighted(0.3, 0_u32..3), option::weighted(0.2, 20_u32..80));
    (any::<bool>(), any::<bool>(), prop_oneof![Just(64_u16), Just(4_096)], kept, limits)
        .prop_flat_map(move |(five, over, room, kept, (window, aliases, size))| {
            packets::connects(five).prop_map(move |mut said| {
                if let Said::Connect { id: name, properties, keep_alive, user, password, .. } = &mut said {
                    *name = format!("x{id}").into_bytes();
                    *keep_alive = 0;
                    (*user, *password) = (None, None);
                    if five {
                        properties.retain(|(id, _)| !matches!(id, 0x11 | 0x15 | 0x16 | 0x21 | 0x22 | 0x27));
                        properties.extend(kept.map(expiry));
                        properties.extend(window.map(|n| (0x21, Value::Number(n))));
                        properties.extend(aliases.map(|n| (0x22, Value::Number(n))));
                        properties.extend(size.map(|n| (0x27, Value::Number(n))));
                    }
                }
                Deed::Connect { connect: said, over, room }
            })
        })
        .boxed()
}

fn step() -> BoxedStrategy<Step> {
    let deed = (0..HOSTILE).prop_flat_map(|who| {
        let deed = prop_oneof![
            6 => connects(who),
            8 => (packets::said(), option::weighted(0.03, packets::harm())).prop_map(|(s, h)| Deed::Say(s, h)),
            4 => packets::subscribes().prop_map(|s| Deed::Say(s, None)),
            8 => packets::messages().prop_map(|s| Deed::Say(s, None)),
            2 => vec(packets::messages(), 1..40).prop_map(Deed::Flood),
            1 => vec(prop_oneof![packets::publishes(), packets::acks()], 1..30).prop_map(Deed::Flood),
            1 => vec(any::<u8>(), 1..20).prop_map(Deed::Noise),
            6 => any::<bool>().prop_map(|answer| Deed::Read { answer }),
            2 => Just(Deed::Drop),
        ];
        deed.prop_map(move |deed| Step::Hostile(who, deed))
    });
    let cut = prop_oneof![3 => Just(Cut::Never), 1 => Just(Cut::Published), 1 => Just(Cut::Received), 1 => Just(Cut::Released)];
    prop_oneof![
        30 => deed,
        8 => (1_u8..3, cut, any::<bool>()).prop_map(|(qos, cut, over)| Step::Publish { qos, cut, over }),
        3 => (0_u8..6, any::<bool>()).prop_map(|(after, answered)| Step::Leave { after, answered }),
        3 => (any::<bool>(), prop_oneof![Just(0_u16), 1_u16..4])
            .prop_map(|(five, receive_maximum)| Step::Come { five, receive_maximum }),
        1 => Just(Step::Pause),
    ]
    .boxed()
}

fn case() -> BoxedStrategy<Case> {
    (any::<bool>(), any::<bool>(), vec(step(), 1..60))
        .prop_map(|(five, everything, steps)| Case { five, everything, steps })
        .boxed()
}

/// Waits for the answer of this kind to this packet id.
async fn answer(client: &mut Client, kind: u8, pid: u16) -> Checked {
    loop {
        match client.hear().await? {
            Some(Heard::Ack { kind: k, pid: p, reason }) if (k, p) == (kind, pid) => {
                return if reason < 0x80 || reason == 0x92 {
                    Ok(())
                } else {
                    Err(format!("refused: {reason:#x}"))
                };
            }
            Some(Heard::Disconnect(code)) => return Err(format!("cut off: {code:#x}")),
            Some(_) => {}
            None => return Err(format!("cut off before {kind} for {pid}")),
        }
    }
}

async fn connected(bench: &Bench, said: &Said, room: usize) -> Checked<(Client, bool)> {
    let Said::Connect { five, .. } = said else { return Err("no CONNECT".into()) };
    let mut client = bench.client(*five, room);
    client.say(said).await;
    match client.hear().await? {
        Some(Heard::Connack { present, code: 0 }) => Ok((client, present)),
        other => Err(format!("a client that keeps to the book is not let in: {other:?}")),
    }
}

async fn subscribe(client: &mut Client, filters: &[(&str, u8)]) -> Checked {
    let filters = filters.iter().map(|(f, qos)| (f.as_bytes().to_vec(), *qos)).collect();
    client.say(&Said::Subscribe { pid: 9, properties: Vec::new(), filters }).await;
    answer(client, 9, 9).await
}

/// Publishes messages, and sees each through whatever happens to its connection.
struct Publisher {
    client: Client,
    connect: Said,
    next: u16,
    /// (QoS, payload) that was acknowledged.
    acknowledged: Vec<(u8, Vec<u8>)>,
}

impl Publisher {
    async fn again(&mut self, bench: &Bench, over: bool) -> Checked {
        let new = if over {
            let new = connected(bench, &self.connect, 4_096).await?;
            let old = std::mem::replace(&mut self.client, new.0);
            old.hang_up().await?;
            return if new.1 { Ok(()) } else { Err("the publisher's session is lost".into()) };
        } else {
            bench.client(self.connect_five(), 4_096)
        };
        let old = std::mem::replace(&mut self.client, new);
        // At once: the server may not have noticed.
        let old = old.vanish();
        self.client.say(&self.connect).await;
        match self.client.hear().await? {
            Some(Heard::Connack { present: true, code: 0 }) => {}
            other => return Err(format!("the publisher is not let in again: {other:?}")),
        }
        match old {
            Some(old) => ended(old).await,
            None => Ok(()),
        }
    }

    fn connect_five(&self) -> bool {
        matches!(self.connect, Said::Connect { five: true, .. })
    }

    async fn publish(&mut self, bench: &Bench, topic: &str, qos: u8, cut: Cut, over: bool) -> Checked {
        self.next = self.next % 60_000 + 1;
        // As nobody else comes upon it: "p6" was found by one that does as it likes.
        let (pid, payload) = (self.next, format!("the publisher's {}", self.next).into_bytes());
        let said = |dup: u8| Said::Publish {
            flags: qos << 1 | dup << 3,
            topic: topic.as_bytes().to_vec(),
            pid,
            properties: Vec::new(),
            payload: payload.clone(),
        };
        self.client.say(&said(0)).await;
        if cut == Cut::Published {
            self.again(bench, over).await?;
            self.client.say(&said(1)).await;
        }
        answer(&mut self.client, if qos == 1 { 4 } else { 5 }, pid).await?;
        if qos == 2 {
            if cut == Cut::Received {
                self.again(bench, over).await?;
            }
            let pubrel = Said::Ack { kind: 6, pid, reason: None };
            self.client.say(&pubrel).await;
            if cut == Cut::Released {
                self.again(bench, over).await?;
                self.client.say(&pubrel).await;
            }
            answer(&mut self.client, 7, pid).await?;
        }
        self.acknowledged.push((qos, payload));
        Ok(())
    }
}

async fn ended(served: JoinHandle<()>) -> Checked {
    let served = timeout(PATIENCE, served).await.map_err(|_| "a connection's task does not end")?;
    served.map_err(|e| format!("a connection's task died: {e}"))
}

/// Comes and goes, and takes QoS 2 once.
#[derive(Default)]
struct Subscriber {
    client: Option<Client>,
    /// QoS 2 messages that are not released.
    taken: HashSet<u16>,
    got: HashMap<Vec<u8>, usize>,
}

impl Subscriber {
    async fn come(&mut self, bench: &Bench, five: bool, receive_maximum: u16) -> Checked {
        if self.client.is_some() {
            return Ok(());
        }
        let mut properties = vec![expiry(600), (0x22, Value::Number(4))];
        if receive_maximum > 0 {
            properties.push((0x21, Value::Number(receive_maximum.into())));
        }
        let (client, present) =
            connected(bench, &connect(five, "subscriber", false, properties), 1 << 20).await?;
        if !present {
            return Err("the subscriber's session is lost".into());
        }
        self.client = Some(client);
        Ok(())
    }

    /// Takes a packet; the answer to it.
    fn take(&mut self, heard: Heard) -> Checked<Option<Said>> {
        let ack = |kind, pid| Ok(Some(Said::Ack { kind, pid, reason: None }));
        match heard {
            Heard::Publish { flags, pid, payload, .. } if flags & 6 == 4 => {
                if self.taken.insert(pid) {
                    *self.got.entry(payload).or_default() += 1;
                } else if flags & 8 == 0 {
                    return Err(format!("{pid} is used again before its release"));
                }
                ack(5, pid)
            }
            Heard::Publish { flags, pid, payload, .. } => {
                *self.got.entry(payload).or_default() += 1;
                if flags & 6 > 0 { ack(4, pid) } else { Ok(None) }
            }
            Heard::Ack { kind: 6, pid, .. } => {
                self.taken.remove(&pid);
                ack(7, pid)
            }
            Heard::Disconnect(code) => Err(format!("the subscriber is cut off: {code:#x}")),
            _ => Ok(None),
        }
    }

    async fn leave(&mut self, after: u8, answered: bool) -> Checked {
        let Some(mut client) = self.client.take() else { return Ok(()) };
        let (heard, over) = client.hear_now().await?;
        if over {
            return Err("the subscriber is cut off".into());
        }
        let heard: Vec<_> = heard.into_iter().take(usize::from(after)).collect();
        let last = heard.len().saturating_sub(1);
        for (i, heard) in heard.into_iter().enumerate() {
            if let Some(said) = self.take(heard)?
                && (i < last || answered)
            {
                client.say(&said).await;
            }
        }
        client.hang_up().await
    }

    /// Deals with what has come.
    async fn works(&mut self) -> Checked {
        let Some(mut client) = self.client.take() else { return Ok(()) };
        let (heard, over) = client.hear_now().await?;
        if over {
            return Err(format!("the subscriber is cut off: {heard:?}"));
        }
        for heard in heard {
            if let Some(said) = self.take(heard)? {
                client.say(&said).await;
            }
        }
        self.client = Some(client);
        Ok(())
    }

    /// Whether everything that was acknowledged has arrived, as often as it may.
    fn has(&self, acknowledged: &[(u8, Vec<u8>)]) -> Checked<bool> {
        let mut all = true;
        for (qos, payload) in acknowledged {
            match self.got.get(payload) {
                None => all = false,
                Some(n) if *qos == 2 && *n > 1 => {
                    return Err(format!("{} arrived {n} times", String::from_utf8_lossy(payload)));
                }
                Some(_) => {}
            }
        }
        Ok(all)
    }
}

/// One that does as it likes.
#[derive(Default)]
struct Hostile {
    client: Option<Client>,
    gone: Vec<JoinHandle<()>>,
    /// Answers that are due on this connection: PUBACK as often, PUBREC at least once.
    due: HashMap<(u8, u16), usize>,
    /// Something that it said was no packet: nothing is due any more.
    garbled: bool,
}

impl Hostile {
    fn vanish(&mut self) {
        self.gone.extend(self.client.take().and_then(Client::vanish));
    }

    async fn does(&mut self, bench: &Bench, deed: &Deed) -> Checked {
        match deed {
            Deed::Connect { connect, over, room } => {
                let Said::Connect { five, .. } = connect else { return Ok(()) };
                let new = bench.client(*five, usize::from(*room));
                if *over {
                    // The earlier one stays until the server ends it.
                    let old = self.client.replace(new);
                    self.say(connect).await;
                    sleep(Duration::from_millis(1)).await;
                    self.gone.extend(old.and_then(Client::vanish));
                } else {
                    self.vanish();
                    self.client = Some(new);
                    self.say(connect).await;
                }
                (self.due, self.garbled) = (HashMap::new(), false);
            }
            Deed::Say(said, None) => self.say(said).await,
            Deed::Say(said, Some(harm)) => {
                self.garbled = true;
                if let Some(client) = &mut self.client {
                    let bytes = harm.harmed(&said.bytes(client.five), client.five);
                    client.write(&bytes).await;
                }
            }
            Deed::Flood(all) => {
                if let Some(client) = &mut self.client {
                    let five = client.five;
                    let bytes: Vec<u8> = all.iter().flat_map(|said| said.bytes(five)).collect();
                    if client.write(&bytes).await {
                        for said in all {
                            self.owed(said);
                        }
                    } else {
                        self.garbled = true;
                    }
                }
            }
            Deed::Noise(bytes) => {
                self.garbled = true;
                if let Some(client) = &mut self.client {
                    client.write(bytes).await;
                }
            }
            Deed::Read { answer } => self.reads(*answer).await?,
            Deed::Drop => self.vanish(),
        }
        Ok(())
    }

    async fn say(&mut self, said: &Said) {
        if let Some(client) = &mut self.client {
            if client.say(said).await {
                self.owed(said);
            } else {
                self.garbled = true;
            }
        }
    }

    fn owed(&mut self, said: &Said) {
        if let Said::Publish { flags, pid, .. } = said {
            match flags & 6 {
                2 => *self.due.entry((4, *pid)).or_default() += 1,
                4 => {
                    self.due.insert((5, *pid), 1);
                }
                _ => {}
            }
        }
    }

    fn paid(&mut self, heard: &Heard) {
        if let Heard::Ack { kind: kind @ (4 | 5), pid, .. } = heard
            && let Some(n) = self.due.get_mut(&(*kind, *pid))
        {
            *n = n.saturating_sub(1);
        }
    }

    async fn reads(&mut self, answer: bool) -> Checked {
        let Some(client) = &mut self.client else { return Ok(()) };
        let (heard, over) = client.hear_now().await?;
        for heard in &heard {
            self.paid(heard);
            let said = match heard {
                Heard::Publish { flags, pid, .. } if flags & 6 == 2 => Some((4, *pid)),
                Heard::Publish { flags, pid, .. } if flags & 6 == 4 => Some((5, *pid)),
                Heard::Ack { kind: 5, pid, .. } => Some((6, *pid)),
                Heard::Ack { kind: 6, pid, .. } => Some((7, *pid)),
                _ => None,
            };
            if let Some((kind, pid)) = said.filter(|_| answer) {
                self.say(&Said::Ack { kind, pid, reason: None }).await;
            }
        }
        if over {
            self.vanish();
        }
        Ok(())
    }

    /// What was taken is answered, unless the connection ends.
    async fn settles(&mut self) -> Checked {
        let until = Instant::now() + PATIENCE;
        while self.client.is_some() && !self.garbled && self.due.values().any(|n| *n > 0) {
            self.reads(true).await?;
            if Instant::now() > until {
                let due: Vec<_> = self.due.iter().filter(|(_, n)| **n > 0).collect();
                return Err(format!("not answered: {due:?}"));
            }
        }
        self.vanish();
        for served in self.gone.drain(..) {
            ended(served).await?;
        }
        Ok(())
    }
}

/// Ends the session of an identifier.
async fn forget(bench: &Bench, id: &str) -> Checked {
    let (mut client, _) = connected(bench, &connect(true, id, true, Vec::new()), 4_096).await?;
    client.say(&Said::Disconnect { reason: None }).await;
    client.hang_up().await
}

/// What sessions hold, against the settings.
fn bounded(bench: &Bench) -> Checked {
    let s = &bench.broker.0.parts.settings;
    for session in bench.broker.0.sessions.todas() {
        let (waiting, bytes) = session.esperan();
        if waiting > s.max_queued || bytes > 8 << 20 {
            return Err(format!("{waiting} messages of {bytes} bytes wait for one session"));
        }
        let Ok(state) = session.estado.try_lock() else { continue };
        let window = usize::from(s.receive_maximum);
        if state.en_vuelo.len() > window || state.recibidos.len() > 65_535 {
            return Err(format!("{} in flight, {} received", state.en_vuelo.len(), state.recibidos.len()));
        }
    }
    let retained = bench.broker.0.retained.busca(|_| true).len();
    if retained > s.max_retained {
        return Err(format!("{retained} retained messages"));
    }
    Ok(())
}

async fn watch(watcher: &mut Client, publisher: &mut Publisher, bench: &Bench) -> Checked {
    publisher.publish(bench, "watched", 1, Cut::Never, false).await?;
    let Some((_, payload)) = publisher.acknowledged.pop() else { return Ok(()) };
    loop {
        match watcher.hear().await? {
            Some(Heard::Publish { flags, pid, topic, payload: got, .. }) => {
                if flags & 6 > 0 {
                    watcher.say(&Said::Ack { kind: 4, pid, reason: None }).await;
                }
                if topic == b"watched" && got == payload {
                    break;
                }
            }
            Some(Heard::Disconnect(code)) => return Err(format!("the watcher is cut off: {code:#x}")),
            Some(_) => {}
            None => return Err("the watcher is cut off".into()),
        }
    }
    watcher.say(&Said::Ping).await;
    loop {
        match watcher.hear().await? {
            Some(Heard::Pong) => return Ok(()),
            Some(Heard::Publish { topic, .. }) if topic == b"watched" => return Err("watched twice".into()),
            Some(Heard::Publish { flags, pid, .. }) if flags & 6 > 0 => {
                watcher.say(&Said::Ack { kind: 4, pid, reason: None }).await;
            }
            Some(_) => {}
            None => return Err("the watcher is cut off".into()),
        }
    }
}

async fn run(bench: &Bench, case: &Case) -> Checked {
    let (mut watcher, _) =
        connected(bench, &connect(case.five, "watcher", true, Vec::new()), 1 << 20).await?;
    let all = [("watched", 1), ("#", 0)];
    subscribe(&mut watcher, if case.everything { &all } else { &all[..1] }).await?;
    let mut subscriber = Subscriber::default();
    let kept = |id| connect(case.five, id, false, vec![expiry(600)]);
    let (mut client, _) = connected(bench, &kept("subscriber"), 1 << 20).await?;
    subscribe(&mut client, &[("kept/#", 2), ("kept/+", 1)]).await?;
    subscriber.client = Some(client);
    let connect = kept("publisher");
    let (client, _) = connected(bench, &connect, 4_096).await?;
    let mut publisher = Publisher { client, connect, next: 0, acknowledged: Vec::new() };
    let mut hostile: [Hostile; HOSTILE] = Default::default();

    for step in &case.steps {
        match step {
            Step::Hostile(who, deed) => hostile[*who].does(bench, deed).await?,
            Step::Publish { qos, cut, over } => {
                publisher.publish(bench, "kept/a", *qos, *cut, *over).await?;
            }
            Step::Leave { after, answered } => subscriber.leave(*after, *answered).await?,
            Step::Come { five, receive_maximum } => subscriber.come(bench, *five, *receive_maximum).await?,
            Step::Pause => {
                sleep(Duration::from_millis(2)).await;
                subscriber.works().await?;
            }
        }
    }

    for one in &mut hostile {
        one.settles().await?;
    }
    bounded(bench)?;
    watch(&mut watcher, &mut publisher, bench).await?;
    let until = Instant::now() + PATIENCE;
    subscriber.come(bench, true, 2).await?;
    while !subscriber.has(&publisher.acknowledged)? || !subscriber.taken.is_empty() {
        if Instant::now() > until {
            return Err(format!("not arrived: {:?} of {:?}", subscriber.got, publisher.acknowledged));
        }
        subscriber.works().await?;
    }
    subscriber.leave(0, true).await?;
    // What would come a second time comes now.
    subscriber.come(bench, case.five, 0).await?;
    sleep(Duration::from_millis(2)).await;
    subscriber.works().await?;
    subscriber.has(&publisher.acknowledged)?;

    for id in ["x0", "x1", "x2", "subscriber", "publisher"] {
        forget(bench, id).await?;
    }
    publisher.client.hang_up().await?;
    if let Some(client) = subscriber.client.take() {
        client.hang_up().await?;
    }
    watcher.hang_up().await?;
    let b = &bench.broker.0;
    let left = b.sessions.todas();
    if !left.is_empty() {
        return Err(format!("left in the registry: {:?}", left.iter().map(|s| &s.clave).collect::<Vec<_>>()));
    }
    for message in b.retained.busca(|_| true) {
        b.difunde(Publicacion::del_servidor(message.topic.clone(), "", Qos::Cero, true)).await;
    }
    if bench.dead.is_cancelled() {
        return Err("the router is dead".into());
    }
    Ok(())
}

/// A broker and how many cases it has served.
type Served = Option<(Bench, u32)>;

fn tested(runtime: &Runtime, served: &RefCell<Served>, case: &Case) -> Checked {
    let panicked = bench::panics();
    let mut slot = served.borrow_mut();
    runtime.block_on(async {
        let (bench, cases) = match slot.take() {
            Some(fresh) if fresh.1 < CASES_A_BROKER => fresh,
            old => {
                if let Some((old, _)) = old {
                    old.end().await;
                }
                (Bench::new().await, 0)
            }
        };
        let done = timeout(PATIENCE * 6, run(&bench, case)).await;
        done.unwrap_or_else(|_| Err("the case does not end".into()))?;
        if bench::panics() > panicked {
            return Err("a task panicked".into());
        }
        *slot = Some((bench, cases + 1));
        Ok(())
    })
}

#[test]
fn arbitrary_sessions() {
    let (runtime, served) = (bench::runtime(), RefCell::new(None));
    super::fuzz("sessions", file!(), 40, &case(), |case| {
        tested(&runtime, &served, &case).map_err(TestCaseError::fail)
    });
    if let Some((bench, _)) = served.take() {
        runtime.block_on(bench.end());
    }
}
