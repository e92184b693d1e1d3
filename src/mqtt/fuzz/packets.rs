//! Packets as fields, written and read by the book and by nothing of the product: what a client says,
//! and what the server may answer.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u32),
    Bytes(Vec<u8>),
    Pair(Vec<u8>, Vec<u8>),
}

pub(super) type Property = (u8, Value);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Two,
    Four,
    Var,
    Text,
    Binary,
    Pair,
}

/// What follows an identifier (MQTT 5.0, table 2-4).
fn form(id: u8) -> Option<Form> {
    Some(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => Form::One,
        0x13 | 0x21..=0x23 => Form::Two,
        0x02 | 0x11 | 0x18 | 0x27 => Form::Four,
        0x0b => Form::Var,
        0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Form::Text,
        0x09 | 0x16 => Form::Binary,
        0x26 => Form::Pair,
        _ => return None,
    })
}

/// A will: properties, topic, payload.
pub(super) type Will = (Vec<Property>, Vec<u8>, Vec<u8>);
/// A reason code, and properties after it.
pub(super) type Reason = Option<(u8, Option<Vec<Property>>)>;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Connect {
        five: bool,
        /// Those that the fields below do not say: clean, will QoS, will retain.
        flags: u8,
        keep_alive: u16,
        properties: Vec<Property>,
        id: Vec<u8>,
        will: Option<Will>,
        user: Option<Vec<u8>>,
        password: Option<Vec<u8>>,
    },
    Publish {
        flags: u8,
        topic: Vec<u8>,
        pid: u16,
        properties: Vec<Property>,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack {
        kind: u8,
        pid: u16,
        reason: Reason,
    },
    Subscribe {
        pid: u16,
        properties: Vec<Property>,
        filters: Vec<(Vec<u8>, u8)>,
    },
    Unsubscribe {
        pid: u16,
        properties: Vec<Property>,
        filters: Vec<Vec<u8>>,
    },
    Ping,
    Disconnect {
        reason: Reason,
    },
    Auth {
        reason: Reason,
    },
}

pub(super) fn varint(mut n: usize, out: &mut Vec<u8>) {
    loop {
        let byte = u8::try_from(n % 128).unwrap();
        n /= 128;
        out.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            return;
        }
    }
}

fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

/// Properties as they stand in a packet, without their length.
pub(super) fn properties(properties: &[Property]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in properties {
        out.push(*id);
        match value {
            Value::Number(n) => match form(*id) {
                Some(Form::One) => out.push(n.to_be_bytes()[3]),
                Some(Form::Two) => out.extend(&n.to_be_bytes()[2..]),
                Some(Form::Var) => varint(*n as usize, &mut out),
                _ => out.extend(n.to_be_bytes()),
            },
            Value::Bytes(bytes) => binary(bytes, &mut out),
            Value::Pair(name, value) => {
                binary(name, &mut out);
                binary(value, &mut out);
            }
        }
    }
    out
}

fn block(all: &[Property], out: &mut Vec<u8>) {
    let bytes = properties(all);
    varint(bytes.len(), out);
    out.extend(bytes);
}

fn reasoned(reason: &Reason, five: bool, out: &mut Vec<u8>) {
    if let (Some((code, all)), true) = (reason, five) {
        out.push(*code);
        if let Some(all) = all {
            block(all, out);
        }
    }
}

/// A packet with this first byte.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    varint(body.len(), &mut out);
    out.extend(body);
    out
}

impl Said {
    /// As a client of this version writes it.
    pub(super) fn bytes(&self, five: bool) -> Vec<u8> {
        let mut body = Vec::new();
        let first = match self {
            Self::Connect { five, flags, keep_alive, properties, id, will, user, password } => {
                binary(b"MQTT", &mut body);
                let flags = flags & 0x3a
                    | u8::from(will.is_some()) << 2
                    | u8::from(password.is_some()) << 6
                    | u8::from(user.is_some()) << 7;
                body.extend([if *five { 5 } else { 4 }, flags]);
                body.extend(keep_alive.to_be_bytes());
                if *five {
                    block(properties, &mut body);
                }
                binary(id, &mut body);
                if let Some((properties, topic, payload)) = will {
                    if *five {
                        block(properties, &mut body);
                    }
                    binary(topic, &mut body);
                    binary(payload, &mut body);
                }
                for field in [user, password].into_iter().flatten() {
                    binary(field, &mut body);
                }
                0x10
            }
            Self::Publish { flags, topic, pid, properties, payload } => {
                binary(topic, &mut body);
                if flags & 6 != 0 {
                    body.extend(pid.to_be_bytes());
                }
                if five {
                    block(properties, &mut body);
                }
                body.extend(payload);
                0x30 | flags
            }
            Self::Ack { kind, pid, reason } => {
                body.extend(pid.to_be_bytes());
                reasoned(reason, five, &mut body);
                kind << 4 | u8::from(*kind == 6) << 1
            }
            Self::Subscribe { pid, properties, filters } => {
                body.extend(pid.to_be_bytes());
                if five {
                    block(properties, &mut body);
                }
                for (filter, options) in filters {
                    binary(filter, &mut body);
                    body.push(*options);
                }
                0x82
            }
            Self::Unsubscribe { pid, properties, filters } => {
                body.extend(pid.to_be_bytes());
                if five {
                    block(properties, &mut body);
                }
                for filter in filters {
                    binary(filter, &mut body);
                }
                0xa2
            }
            Self::Ping => 0xc0,
            Self::Disconnect { reason } => {
                reasoned(reason, five, &mut body);
                0xe0
            }
            Self::Auth { reason } => {
                reasoned(reason, five, &mut body);
                0xf0
            }
        };
        packet(first, &body)
    }
}

/// The length of the packet that `bytes` begin with: `None` until its length is there, an error where
/// that is none.
pub(super) fn total(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let (mut length, mut factor) = (0, 1);
    for (i, byte) in bytes.iter().skip(1).enumerate() {
        if i == 4 {
            return Err(());
        }
        length += usize::from(byte % 128) * factor;
        factor *= 128;
        if byte / 128 == 0 {
            return Ok(Some(2 + i + length));
        }
    }
    // The fourth byte says that there is a fifth.
    if bytes.len() > 4 { Err(()) } else { Ok(None) }
}

/// Reads from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self, n: usize) -> Option<u32> {
        Some(self.take(n)?.iter().fold(0, |sum, byte| sum * 256 + u32::from(*byte)))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(super) fn pid(&mut self) -> Option<u16> {
        self.number(2).and_then(|n| u16::try_from(n).ok())
    }

    pub(super) fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for i in 0..4 {
            let byte = self.byte()?;
            value += u32::from(byte % 128) << (7 * i);
            if byte < 128 {
                return (byte > 0 || i == 0).then_some(value);
            }
        }
        None
    }

    pub(super) fn binary(&mut self) -> Option<Vec<u8>> {
        let n = self.number(2)?;
        Some(self.take(n as usize)?.to_vec())
    }

    pub(super) fn text(&mut self) -> Option<Vec<u8>> {
        self.binary().filter(|b| std::str::from_utf8(b).is_ok_and(|t| !t.contains('\0')))
    }

    /// Properties, each among `allowed` and, but for user properties, once.
    pub(super) fn properties(&mut self, allowed: &[u8]) -> Option<Vec<Property>> {
        let length = self.varint()?;
        let mut inside = Reader(self.take(length as usize)?);
        let mut all: Vec<Property> = Vec::new();
        while !inside.0.is_empty() {
            let id = inside.byte()?;
            if !allowed.contains(&id) || (id != 0x26 && all.iter().any(|(other, _)| *other == id)) {
                return None;
            }
            let value = match form(id)? {
                Form::One => Value::Number(inside.number(1)?),
                Form::Two => Value::Number(inside.number(2)?),
                Form::Four => Value::Number(inside.number(4)?),
                Form::Var => Value::Number(inside.varint()?),
                Form::Text => Value::Bytes(inside.text()?),
                Form::Binary => Value::Bytes(inside.binary()?),
                Form::Pair => Value::Pair(inside.text()?, inside.text()?),
            };
            match (id, &value) {
                (0x01 | 0x17 | 0x19, Value::Number(n)) if *n > 1 => return None,
                (0x0b | 0x21 | 0x27, Value::Number(0)) => return None,
                (0x08, Value::Bytes(topic)) if topic.iter().any(|b| b"+#".contains(b)) => return None,
                _ => all.push((id, value)),
            }
        }
        Some(all)
    }

    fn reason(&mut self, five: bool, allowed: &[u8]) -> Option<Reason> {
        if self.0.is_empty() || !five {
            return Some(None);
        }
        let code = self.byte()?;
        let all = if self.0.is_empty() { None } else { Some(self.properties(allowed)?) };
        Some(Some((code, all)))
    }

    fn end<T>(&self, said: T) -> Option<T> {
        self.0.is_empty().then_some(said)
    }
}

const OF_PUBLISH: [u8; 7] = [0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];

/// Reads a whole packet of a client of this version; `None` where the specification has no such packet.
pub(super) fn read(bytes: &[u8], five: bool) -> Option<Said> {
    let (kind, flags) = (bytes[0] >> 4, bytes[0] & 15);
    let mut r = Reader(&bytes[1..]);
    if r.varint()? as usize != r.0.len() {
        return None;
    }
    let expected = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
    if kind != 3 && flags != expected {
        return None;
    }
    match kind {
        1 => connect(&mut r),
        3 => {
            let qos = flags >> 1 & 3;
            if qos == 3 || (qos == 0 && flags & 8 > 0) {
                return None;
            }
            let topic = r.text()?;
            let pid = if qos > 0 { r.pid().filter(|pid| *pid > 0)? } else { 0 };
            let properties = if five { r.properties(&OF_PUBLISH)? } else { Vec::new() };
            let alias = properties.iter().any(|(id, _)| *id == 0x23);
            let payload = r.0.to_vec();
            (!topic.is_empty() || alias).then_some(Said::Publish { flags, topic, pid, properties, payload })
        }
        4..=7 => {
            let pid = r.pid().filter(|pid| *pid > 0)?;
            let reason = r.reason(five, &[0x1f, 0x26])?;
            r.end(Said::Ack { kind, pid, reason })
        }
        8 => {
            let pid = r.pid().filter(|pid| *pid > 0)?;
            let properties = if five { r.properties(&[0x0b, 0x26])? } else { Vec::new() };
            let mut filters = Vec::new();
            while !r.0.is_empty() {
                let (filter, options) = (r.text()?, r.byte()?);
                let bad = if five { options >> 6 != 0 || options >> 4 & 3 == 3 } else { options > 3 };
                if bad || options & 3 == 3 {
                    return None;
                }
                filters.push((filter, options));
            }
            (!filters.is_empty()).then_some(Said::Subscribe { pid, properties, filters })
        }
        10 => {
            let pid = r.pid().filter(|pid| *pid > 0)?;
            let properties = if five { r.properties(&[0x26])? } else { Vec::new() };
            let mut filters = Vec::new();
            while !r.0.is_empty() {
                filters.push(r.text()?);
            }
            (!filters.is_empty()).then_some(Said::Unsubscribe { pid, properties, filters })
        }
        12 => r.end(Said::Ping),
        14 => {
            let reason = r.reason(five, &[0x11, 0x1f, 0x26])?;
            r.end(Said::Disconnect { reason })
        }
        15 if five => {
            let reason = r.reason(five, &[0x15, 0x16, 0x1f, 0x26])?;
            r.end(Said::Auth { reason })
        }
        _ => None,
    }
}

fn connect(r: &mut Reader<'_>) -> Option<Said> {
    if r.binary()? != b"MQTT" {
        return None;
    }
    let level = r.byte()?;
    let five = level == 5;
    let flags = r.byte()?;
    let has = |bit: u8| flags >> bit & 1 == 1;
    let bad = !matches!(level, 4 | 5)
        || has(0)
        || flags >> 3 & 3 == 3
        || (!has(2) && flags & 0x38 != 0)
        || (!five && has(6) && !has(7));
    if bad {
        return None;
    }
    let keep_alive = r.pid()?;
    let allowed = [0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27];
    let properties = if five { r.properties(&allowed)? } else { Vec::new() };
    let id = r.text()?;
    let mut will = None;
    if has(2) {
        let allowed = [0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];
        let properties = if five { r.properties(&allowed)? } else { Vec::new() };
        will = Some((properties, r.text()?, r.binary()?));
    }
    let user = if has(7) { Some(r.text()?) } else { None };
    let password = if has(6) { Some(r.binary()?) } else { None };
    r.end(Said::Connect { five, flags: flags & 0x3a, keep_alive, properties, id, will, user, password })
}

/// What the server says, as far as a client acts upon it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Connack {
        present: bool,
        code: u8,
    },
    Publish {
        flags: u8,
        topic: Vec<u8>,
        pid: u16,
        alias: Option<u16>,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP; SUBACK and UNSUBACK with the worst of their codes.
    Ack {
        kind: u8,
        pid: u16,
        reason: u8,
    },
    Pong,
    Disconnect(u8),
}

/// Reads a whole packet of the server; `None` where the specification has no such packet.
pub(super) fn hear(bytes: &[u8], five: bool) -> Option<Heard> {
    let (kind, flags) = (bytes[0] >> 4, bytes[0] & 15);
    let mut r = Reader(&bytes[1..]);
    if r.varint()? as usize != r.0.len() || (kind != 3 && flags != u8::from(kind == 6) * 2) {
        return None;
    }
    match kind {
        2 => {
            let (present, code) = (r.byte()?, r.byte()?);
            if five {
                r.properties(&[
                    0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28,
                    0x29, 0x2a,
                ])?;
            }
            (present < 2).then_some(())?;
            r.end(Heard::Connack { present: present == 1, code })
        }
        3 => {
            let topic = r.text()?;
            let pid = if flags & 6 > 0 { r.pid().filter(|pid| *pid > 0)? } else { 0 };
            let mut alias = None;
            if five {
                // A message may carry more than one Subscription Identifier [MQTT-3.3.4-4].
                let length = r.varint()?;
                let mut inside = Reader(r.take(length as usize)?);
                while !inside.0.is_empty() {
                    let id = inside.byte()?;
                    let value = match form(id)? {
                        Form::One => Value::Number(inside.number(1)?),
                        Form::Two => Value::Number(inside.number(2)?),
                        Form::Four => Value::Number(inside.number(4)?),
                        Form::Var => Value::Number(inside.varint()?),
                        Form::Text => Value::Bytes(inside.text()?),
                        Form::Binary => Value::Bytes(inside.binary()?),
                        Form::Pair => Value::Pair(inside.text()?, inside.text()?),
                    };
                    match (id, value) {
                        (0x23, Value::Number(n)) => alias = u16::try_from(n).ok().filter(|n| *n > 0),
                        (0x0b, _) => {}
                        (id, _) => OF_PUBLISH.contains(&id).then_some(())?,
                    }
                }
            }
            Some(Heard::Publish { flags, topic, pid, alias, payload: r.0.to_vec() })
        }
        4..=7 => {
            let pid = r.pid().filter(|pid| *pid > 0)?;
            let reason = r.reason(five, &[0x1f, 0x26])?;
            r.end(Heard::Ack { kind, pid, reason: reason.map_or(0, |(code, _)| code) })
        }
        9 | 11 => {
            let pid = r.pid().filter(|pid| *pid > 0)?;
            if five {
                r.properties(&[0x1f, 0x26])?;
            }
            let reason = r.0.iter().copied().max().unwrap_or_default();
            Some(Heard::Ack { kind, pid, reason })
        }
        13 => r.end(Heard::Pong),
        14 if five => {
            let reason = r.reason(five, &[0x11, 0x1c, 0x1f, 0x26])?;
            r.end(Heard::Disconnect(reason.map_or(0, |(code, _)| code)))
        }
        _ => None,
    }
}

fn short_text() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => select(vec!["", "a", "t/plain", "json"]).prop_map(|t| t.as_bytes().to_vec()),
        2 => "\\PC{0,12}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..8),
        1 => (120_usize..140).prop_map(|n| vec![b'x'; n]),
    ]
    .boxed()
}

/// Topics that few packets share, so that they meet.
pub(super) fn topic() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        12 => select(vec!["a", "a/b", "b/c", "/", "a//b"]).prop_map(|t| t.as_bytes().to_vec()),
        1 => select(vec!["", "a/#", "+", "$SYS/x", "sensores/s1/data", "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q"])
            .prop_map(|t| t.as_bytes().to_vec()),
        1 => short_text(),
    ]
    .boxed()
}

/// Filters, shared and overlapping ones among them.
pub(super) fn filter() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        12 => select(vec!["a", "#", "a/+", "a/#", "+/b", "b/c", "$share/g/a/#", "$share/g/b/c", "$share/h/#"])
            .prop_map(|t| t.as_bytes().to_vec()),
        1 => select(vec!["", "a#", "$share/g", "$share//a", "$share/+/a", "#/a", "sensores/#", "$SYS/#"])
            .prop_map(|t| t.as_bytes().to_vec()),
        1 => short_text(),
    ]
    .boxed()
}

/// Packet ids, few of them.
pub(super) fn pid() -> BoxedStrategy<u16> {
    prop_oneof![12 => 1_u16..6, 1 => Just(0), 1 => any::<u16>()].boxed()
}

fn property(allowed: &'static [u8]) -> BoxedStrategy<Property> {
    let id = prop_oneof![40 => select(allowed), 1 => any::<u8>()];
    (id, prop_oneof![4 => 0_u32..4, 1 => any::<u32>()], short_text(), short_text())
        .prop_map(|(id, n, one, two)| {
            let value = match form(id) {
                Some(Form::Text | Form::Binary) => Value::Bytes(one),
                Some(Form::Pair) => Value::Pair(one, two),
                Some(Form::Var) => Value::Number(n & 0x0fff_ffff),
                Some(Form::One) => Value::Number(n & 0xff),
                Some(Form::Two) => Value::Number(n & 0xffff),
                _ => Value::Number(n),
            };
            (id, value)
        })
        .boxed()
}

fn some(allowed: &'static [u8]) -> BoxedStrategy<Vec<Property>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(property(allowed), 0..5)].boxed()
}

fn reason(allowed: &'static [u8]) -> BoxedStrategy<Reason> {
    let code = prop_oneof![4 => Just(0), 2 => select(vec![0x04, 0x10, 0x80, 0x92, 0x97]), 1 => any::<u8>()];
    option::weighted(0.4, (code, option::weighted(0.5, some(allowed)))).boxed()
}

pub(super) fn connects(five: bool) -> BoxedStrategy<Said> {
    const ALLOWED: &[u8] = &[0x11, 0x11, 0x17, 0x19, 0x21, 0x21, 0x22, 0x22, 0x26, 0x27, 0x15, 0x16];
    const OF_WILL: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];
    let will = (some(OF_WILL), topic(), vec(any::<u8>(), 0..20));
    (
        prop_oneof![6 => Just(0_u8), 6 => Just(2), 1 => any::<u8>()],
        any::<u16>(),
        some(ALLOWED),
        short_text(),
        option::weighted(0.3, will),
        option::weighted(0.1, short_text()),
        option::weighted(0.1, short_text()),
    )
        .prop_map(move |(flags, keep_alive, properties, id, will, user, password)| Said::Connect {
            five,
            flags: if will.is_some() { flags } else { flags & 2 },
            keep_alive,
            properties: if five { properties } else { Vec::new() },
            id,
            will,
            user,
            password,
        })
        .boxed()
}

pub(super) fn publishes() -> BoxedStrategy<Said> {
    const ALLOWED: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x23, 0x26];
    let flags = prop_oneof![8 => select(vec![0_u8, 1, 2, 2, 4, 4, 10, 12, 3, 5]), 1 => 0_u8..16];
    let payload = prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => (0_usize..400).prop_map(|n| vec![7; n])];
    (flags, topic(), pid(), some(ALLOWED), payload)
        .prop_map(|(flags, topic, pid, properties, payload)| Said::Publish {
            flags,
            topic,
            pid,
            properties,
            payload,
        })
        .boxed()
}

/// Messages that nothing is wrong with, and that meet.
pub(super) fn messages() -> BoxedStrategy<Said> {
    let properties = prop_oneof![
        4 => Just(Vec::new()),
        1 => select(vec![0_u32, 1, 100]).prop_map(|n| vec![(0x02, Value::Number(n))]),
        1 => (1_u32..4).prop_map(|n| vec![(0x23, Value::Number(n))]),
    ];
    let topic = select(vec!["a", "a/b", "b/c", "kept/x"]).prop_map(|t| t.as_bytes().to_vec());
    let payload = prop_oneof![3 => vec(any::<u8>(), 0..8), 1 => (0_usize..2_000).prop_map(|n| vec![7; n])];
    (select(vec![0_u8, 1, 2, 2, 2, 3, 4, 4, 4, 5]), topic, 1_u16..9, properties, payload)
        .prop_map(|(flags, topic, pid, properties, payload)| Said::Publish {
            flags,
            topic,
            pid,
            properties,
            payload,
        })
        .boxed()
}

pub(super) fn acks() -> BoxedStrategy<Said> {
    (4_u8..8, pid(), reason(&[0x1f, 0x26]))
        .prop_map(|(kind, pid, reason)| Said::Ack { kind, pid, reason })
        .boxed()
}

pub(super) fn subscribes() -> BoxedStrategy<Said> {
    let options = prop_oneof![8 => select(vec![0_u8, 1, 2, 2, 6, 0x0a, 0x12, 0x22]), 1 => any::<u8>()];
    (pid(), some(&[0x0b, 0x26]), vec((filter(), options), 0..5))
        .prop_map(|(pid, properties, filters)| Said::Subscribe { pid, properties, filters })
        .boxed()
}

pub(super) fn unsubscribes() -> BoxedStrategy<Said> {
    (pid(), some(&[0x26]), vec(filter(), 0..5))
        .prop_map(|(pid, properties, filters)| Said::Unsubscribe { pid, properties, filters })
        .boxed()
}

/// What a client may say after its CONNECT, and CONNECT again.
pub(super) fn said() -> BoxedStrategy<Said> {
    prop_oneof![
        10 => publishes(),
        12 => acks(),
        4 => subscribes(),
        2 => unsubscribes(),
        1 => Just(Said::Ping),
        1 => reason(&[0x11, 0x1f, 0x26]).prop_map(|reason| Said::Disconnect { reason }),
        1 => reason(&[0x15, 0x16, 0x1f, 0x26]).prop_map(|reason| Said::Auth { reason }),
        1 => any::<bool>().prop_flat_map(connects),
    ]
    .boxed()
}

/// What happens to a packet on its way.
#[derive(Debug, Clone)]
pub(super) enum Harm {
    Flip(u16, u8),
    Byte(u16, u8),
    Cut(u16),
    Insert(u16, Vec<u8>),
    /// Another length, which may be written longer than it need be.
    Length(i8, bool),
    /// The end of another packet.
    Splice(u16, Box<Said>),
}

pub(super) fn harm() -> BoxedStrategy<Harm> {
    prop_oneof![
        4 => (any::<u16>(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Harm::Byte(at, byte)),
        2 => any::<u16>().prop_map(Harm::Cut),
        2 => (any::<u16>(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        2 => (any::<i8>(), any::<bool>()).prop_map(|(by, long)| Harm::Length(by, long)),
        1 => (any::<u16>(), said()).prop_map(|(at, said)| Harm::Splice(at, Box::new(said))),
    ]
    .boxed()
}

impl Harm {
    pub(super) fn harmed(&self, bytes: &[u8], five: bool) -> Vec<u8> {
        let place = |at: u16| usize::from(at) % bytes.len();
        // Where its length is whole, the rest is made to fit it: so harm gets past the frame.
        let fitted = |bytes: &[u8]| {
            let mut r = Reader(&bytes[1..]);
            let _ = r.varint();
            packet(bytes[0], r.0)
        };
        let mut out = bytes.to_vec();
        match self {
            Self::Flip(at, bit) => out[place(*at)] ^= 1 << bit,
            Self::Byte(at, byte) => out[place(*at)] = *byte,
            Self::Cut(at) => {
                out.truncate(place(*at).max(1));
                return fitted(&out);
            }
            Self::Insert(at, more) => {
                let at = place(*at).max(2).min(bytes.len());
                out.splice(at..at, more.iter().copied());
                return fitted(&out);
            }
            Self::Length(by, long) => {
                let mut r = Reader(&bytes[1..]);
                let _ = r.varint();
                let length = r.0.len().saturating_add_signed(isize::from(*by) * isize::from(!long));
                out = vec![bytes[0]];
                varint(length, &mut out);
                if *long {
                    *out.last_mut().unwrap() |= 0x80;
                    out.push(0);
                }
                out.extend(r.0);
            }
            Self::Splice(at, other) => {
                let other = other.bytes(five);
                out.truncate(place(*at).max(1));
                out.extend(&other[usize::from(*at) % other.len()..]);
                return fitted(&out);
            }
        }
        out
    }
}
