//! MQTT packets of both versions, byte by byte: what a client says (also what it must not), and what
//! the server answered, taken apart.
//!
//! Versions are named by their protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5.0. Properties are built as
//! bytes, so that a test can say a wrong one. What the server sends is held to the form that binds
//! every packet wherever it is read: flags, shortest lengths, no bytes left over.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::Server;
pub use crate::support::mqtt::{packet, text};

/// Both protocol levels, for what holds in both.
pub const BOTH: [u8; 2] = [4, 5];

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBACK: u8 = 9;
pub const UNSUBACK: u8 = 11;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;

pub const PAYLOAD_FORMAT: u8 = 0x01;
pub const MESSAGE_EXPIRY: u8 = 0x02;
pub const CONTENT_TYPE: u8 = 0x03;
pub const RESPONSE_TOPIC: u8 = 0x08;
pub const CORRELATION_DATA: u8 = 0x09;
pub const SUBSCRIPTION_ID: u8 = 0x0b;
pub const SESSION_EXPIRY: u8 = 0x11;
pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub const SERVER_KEEP_ALIVE: u8 = 0x13;
pub const AUTH_METHOD: u8 = 0x15;
pub const AUTH_DATA: u8 = 0x16;
pub const REQUEST_PROBLEM_INFO: u8 = 0x17;
pub const WILL_DELAY: u8 = 0x18;
pub const REQUEST_RESPONSE_INFO: u8 = 0x19;
pub const RESPONSE_INFO: u8 = 0x1a;
pub const SERVER_REFERENCE: u8 = 0x1c;
pub const REASON_STRING: u8 = 0x1f;
pub const RECEIVE_MAXIMUM: u8 = 0x21;
pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub const TOPIC_ALIAS: u8 = 0x23;
pub const MAXIMUM_QOS: u8 = 0x24;
pub const RETAIN_AVAILABLE: u8 = 0x25;
pub const USER_PROPERTY: u8 = 0x26;
pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub const SHARED_AVAILABLE: u8 = 0x2a;

/// Subscription options of 5.0 beside the QoS.
pub const NO_LOCAL: u8 = 0b0000_0100;
pub const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
pub const RETAIN_IF_NEW: u8 = 0b0001_0000;
pub const RETAIN_NEVER: u8 = 0b0010_0000;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// A property's value, as its identifier says it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    Text(String),
    Binary(Vec<u8>),
    Pair(String, String),
}

/// What follows an identifier on the wire (MQTT 5.0, table 2-4).
enum Form {
    Byte,
    Two,
    Four,
    Var,
    Text,
    Binary,
    Pair,
}

fn form(id: u8) -> Form {
    match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => Form::Byte,
        0x13 | 0x21..=0x23 => Form::Two,
        0x02 | 0x11 | 0x18 | 0x27 => Form::Four,
        0x0b => Form::Var,
        0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Form::Text,
        0x09 | 0x16 => Form::Binary,
        0x26 => Form::Pair,
        other => panic!("no property has the identifier {other:#x}"),
    }
}

/// A Variable Byte Integer.
pub fn varint(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(n % 128).expect("seven bits");
        n /= 128;
        bytes.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            return bytes;
        }
    }
}

/// A property whose value is a number of any width.
pub fn number(id: u8, value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let mut property = vec![id];
    match form(id) {
        Form::Byte => property.push(bytes[3]),
        Form::Two => property.extend(&bytes[2..]),
        Form::Four => property.extend(bytes),
        Form::Var => property.extend(varint(value as usize)),
        _ => panic!("{id:#x} is no number"),
    }
    property
}

/// A property whose value is a string.
pub fn string(id: u8, value: &str) -> Vec<u8> {
    [vec![id], text(value)].concat()
}

/// A property whose value is Binary Data; also a string that is none.
pub fn binary(id: u8, value: &[u8]) -> Vec<u8> {
    [vec![id], bytes(value)].concat()
}

/// A User Property.
pub fn user(name: &str, value: &str) -> Vec<u8> {
    [vec![USER_PROPERTY], text(name), text(value)].concat()
}

/// Bytes with their length in front.
pub fn bytes(value: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(value.len()).expect("short").to_be_bytes().to_vec();
    out.extend(value);
    out
}

/// Properties with their length in front, where the version has them.
fn block(version: u8, properties: &[u8]) -> Vec<u8> {
    if version == 5 {
        return [varint(properties.len()), properties.to_vec()].concat();
    }
    assert!(properties.is_empty(), "3.1.1 has no properties");
    Vec::new()
}

/// A will, as CONNECT carries it.
#[derive(Debug, Clone)]
pub struct Will {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Vec<u8>,
}

impl Will {
    pub fn new(topic: &str, payload: &str) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.as_bytes().to_vec());
        Self { topic, payload, qos: 0, retain: false, properties: Vec::new() }
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }
}

/// A CONNECT. New ones start clean, without keep-alive.
#[derive(Debug, Clone)]
pub struct Connect {
    version: u8,
    id: Vec<u8>,
    clean: bool,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<Will>,
    user: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

impl Connect {
    pub fn new(version: u8, id: &str) -> Self {
        Self {
            version,
            id: id.as_bytes().to_vec(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            user: None,
            password: None,
        }
    }

    /// With what is there of the session, if anything; it ends with the connection in 5.0.
    pub fn resumes(mut self) -> Self {
        self.clean = false;
        self
    }

    /// With what is there of the session, which outlives the connection (a minute in 5.0).
    pub fn kept(self) -> Self {
        let kept = self.resumes();
        if kept.version == 5 { kept.with(number(SESSION_EXPIRY, 60)) } else { kept }
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }

    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub fn user(mut self, name: &[u8]) -> Self {
        self.user = Some(name.to_vec());
        self
    }

    pub fn password(mut self, password: &[u8]) -> Self {
        self.password = Some(password.to_vec());
        self
    }

    /// The identifier as bytes that need not be UTF-8.
    pub fn raw_id(mut self, id: &[u8]) -> Self {
        self.id = id.to_vec();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5);
        }
        flags |= u8::from(self.password.is_some()) << 6 | u8::from(self.user.is_some()) << 7;
        self.with_flags(flags)
    }

    /// As [`Self::bytes`], with flags that need not agree with the payload.
    pub fn with_flags(&self, flags: u8) -> Vec<u8> {
        let mut body = text("MQTT");
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(block(self.version, &self.properties));
        body.extend(bytes(&self.id));
        if let Some(will) = &self.will {
            body.extend(block(self.version, &will.properties));
            body.extend(text(&will.topic));
            body.extend(bytes(&will.payload));
        }
        for field in [&self.user, &self.password].into_iter().flatten() {
            body.extend(bytes(field));
        }
        packet(0x10, &body)
    }
}

/// A PUBLISH. New ones have QoS 0.
#[derive(Debug, Clone)]
pub struct Publish {
    topic: Vec<u8>,
    payload: Vec<u8>,
    qos: u8,
    pid: u16,
    retain: bool,
    dup: bool,
    properties: Vec<u8>,
}

impl Publish {
    pub fn new(topic: &str, payload: &str) -> Self {
        Self::raw(topic.as_bytes(), payload.as_bytes())
    }

    /// With a topic that need not be UTF-8.
    pub fn raw(topic: &[u8], payload: &[u8]) -> Self {
        Self {
            topic: topic.to_vec(),
            payload: payload.to_vec(),
            qos: 0,
            pid: 0,
            retain: false,
            dup: false,
            properties: Vec::new(),
        }
    }

    pub fn qos(mut self, qos: u8, pid: u16) -> Self {
        (self.qos, self.pid) = (qos, pid);
        self
    }

    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }

    pub fn bytes(&self, version: u8) -> Vec<u8> {
        let mut body = bytes(&self.topic);
        if self.qos > 0 {
            body.extend(self.pid.to_be_bytes());
        }
        body.extend(block(version, &self.properties));
        body.extend(&self.payload);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        packet(0x30 | flags, &body)
    }
}

/// A SUBSCRIBE: filters with their options.
pub fn subscribe(version: u8, pid: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    body.extend(block(version, properties));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: u8, pid: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    body.extend(block(version, &[]));
    for filter in filters {
        body.extend(text(filter));
    }
    packet(0xa2, &body)
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP that reports success.
pub fn ack(kind: u8, pid: u16) -> Vec<u8> {
    let flags = if kind == PUBREL { 0x02 } else { 0 };
    packet(kind << 4 | flags, &pid.to_be_bytes())
}

/// One of 5.0 that reports something else.
pub fn ack_with(kind: u8, pid: u16, reason: u8) -> Vec<u8> {
    let flags = if kind == PUBREL { 0x02 } else { 0 };
    let [high, low] = pid.to_be_bytes();
    packet(kind << 4 | flags, &[high, low, reason])
}

/// A DISCONNECT of 5.0.
pub fn disconnect(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xe0, &[vec![reason], block(5, properties)].concat())
}

/// A packet of the server, taken apart; what it does not have is empty or 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Got {
    pub kind: u8,
    pub flags: u8,
    pub pid: u16,
    /// Of CONNACK, the four acknowledgements and DISCONNECT; absent in 5.0 means 0.
    pub reason: u8,
    /// Of SUBACK and UNSUBACK.
    pub codes: Vec<u8>,
    pub session_present: bool,
    pub properties: Vec<(u8, Value)>,
    pub topic: String,
    pub payload: Vec<u8>,
    /// Of the whole packet.
    pub size: usize,
}

impl Got {
    pub fn qos(&self) -> u8 {
        self.flags >> 1 & 3
    }

    pub fn dup(&self) -> bool {
        self.flags & 8 != 0
    }

    pub fn retain(&self) -> bool {
        self.flags & 1 != 0
    }

    pub fn body(&self) -> &str {
        str::from_utf8(&self.payload).expect("text")
    }

    /// Topic and payload of a PUBLISH.
    pub fn said(&self) -> (&str, &str) {
        (&self.topic, self.body())
    }

    pub fn value(&self, id: u8) -> Option<&Value> {
        self.properties.iter().find(|(i, _)| *i == id).map(|(_, value)| value)
    }

    pub fn number(&self, id: u8) -> Option<u32> {
        self.numbers(id).first().copied()
    }

    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let number = |(i, value): &(u8, Value)| match value {
            Value::Number(n) if *i == id => Some(*n),
            _ => None,
        };
        self.properties.iter().filter_map(number).collect()
    }

    pub fn string(&self, id: u8) -> Option<&str> {
        match self.value(id) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn users(&self) -> Vec<(&str, &str)> {
        let mut users = Vec::new();
        for (_, value) in &self.properties {
            if let Value::Pair(name, value) = value {
                users.push((name.as_str(), value.as_str()));
            }
        }
        users
    }
}

/// Reads a body from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        assert!(n <= self.0.len(), "{n} bytes are announced, {} are there", self.0.len());
        let (front, rest) = self.0.split_at(n);
        self.0 = rest;
        front
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn var(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                assert!(byte != 0 || shift == 7, "a length in more bytes than it needs");
                return value;
            }
            assert!(shift < 28, "a length of more than four bytes");
        }
    }

    fn binary(&mut self) -> &'a [u8] {
        let length = usize::from(self.two());
        self.take(length)
    }

    fn text(&mut self) -> String {
        let text = str::from_utf8(self.binary()).expect("UTF-8");
        assert!(!text.contains('\0'), "a null character");
        text.to_owned()
    }

    fn properties(&mut self) -> Vec<(u8, Value)> {
        let length = self.var();
        let mut block = Reader(self.take(length));
        let mut properties = Vec::new();
        while !block.0.is_empty() {
            let id = block.byte();
            let value = match form(id) {
                Form::Byte => Value::Number(u32::from(block.byte())),
                Form::Two => Value::Number(u32::from(block.two())),
                Form::Four => Value::Number(block.four()),
                Form::Var => Value::Number(u32::try_from(block.var()).expect("28 bits")),
                Form::Text => Value::Text(block.text()),
                Form::Binary => Value::Binary(block.binary().to_vec()),
                Form::Pair => Value::Pair(block.text(), block.text()),
            };
            properties.push((id, value));
        }
        properties
    }
}

/// Takes a packet of the server apart.
fn parse(version: u8, first: u8, body: &[u8], size: usize) -> Got {
    let five = version == 5;
    let mut got = Got { kind: first >> 4, flags: first & 0x0f, size, ..Got::default() };
    let mut r = Reader(body);
    let flags = match got.kind {
        PUBLISH => got.flags,
        PUBREL => 2,
        _ => 0,
    };
    assert_eq!(got.flags, flags, "reserved flags of a packet of type {}", got.kind);
    match got.kind {
        CONNACK => {
            let acknowledge = r.byte();
            assert_eq!(acknowledge & 0xfe, 0, "reserved bits of CONNACK");
            got.session_present = acknowledge == 1;
            got.reason = r.byte();
            if five {
                got.properties = r.properties();
            }
        }
        PUBLISH => {
            got.topic = r.text();
            if got.qos() > 0 {
                got.pid = r.two();
            }
            if five {
                got.properties = r.properties();
            }
            got.payload = r.take(r.0.len()).to_vec();
        }
        PUBACK | PUBREC | PUBREL | PUBCOMP => {
            got.pid = r.two();
            if five && !r.0.is_empty() {
                got.reason = r.byte();
                if !r.0.is_empty() {
                    got.properties = r.properties();
                }
            }
        }
        SUBACK | UNSUBACK => {
            got.pid = r.two();
            if five {
                got.properties = r.properties();
            }
            got.codes = r.take(r.0.len()).to_vec();
        }
        PINGRESP => {}
        DISCONNECT => {
            assert!(five, "a server of 3.1.1 sends no DISCONNECT");
            if !r.0.is_empty() {
                got.reason = r.byte();
                if !r.0.is_empty() {
                    got.properties = r.properties();
                }
            }
        }
        other => panic!("a server sends no packet of type {other}"),
    }
    assert!(r.0.is_empty(), "bytes after the end of a packet of type {}", got.kind);
    got
}

/// One end of a connection to the broker.
pub struct Peer {
    stream: TcpStream,
    pub version: u8,
    pid: u16,
    /// Read while something else was waited for.
    inbox: VecDeque<Got>,
}

impl Peer {
    /// A connection on which nothing has been said.
    pub async fn dial(server: &Server, version: u8) -> Self {
        let stream = TcpStream::connect(&server.mqtt).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, version, pid: 0, inbox: VecDeque::new() }
    }

    /// Connects; answers the CONNACK too, whatever it says.
    pub async fn connect(server: &Server, connect: &Connect) -> (Self, Got) {
        let mut peer = Self::dial(server, connect.version).await;
        peer.send(&connect.bytes()).await;
        let connack = peer.expect(CONNACK).await;
        (peer, connack)
    }

    /// Connects and is let in.
    pub async fn enter(server: &Server, connect: &Connect) -> Self {
        let (peer, connack) = Self::connect(server, connect).await;
        assert_eq!(connack.reason, 0, "{connack:?}");
        peer
    }

    /// Connects with a session that ends with the connection.
    pub async fn clean(server: &Server, version: u8, id: &str) -> Self {
        Self::enter(server, &Connect::new(version, id)).await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker reads");
    }

    /// As [`Self::send`], of what the broker may refuse before it has all of it.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next packet; `None` when the broker closed.
    pub async fn recv(&mut self) -> Option<Got> {
        match self.inbox.pop_front() {
            Some(got) => Some(got),
            None => timeout(PATIENCE, self.read()).await.expect("an answer in time"),
        }
    }

    /// What the broker says after these bytes, up to the end of the connection or the answer to a ping.
    async fn fate(mut self, bytes: &[u8]) -> String {
        self.try_send(&[bytes, &[0xc0, 0]].concat()).await;
        let mut said = Vec::new();
        loop {
            let Ok(got) = timeout(PATIENCE, self.read()).await else {
                said.push("silence".to_owned());
                break;
            };
            let Some(got) = got else {
                said.push("closed".to_owned());
                break;
            };
            said.push(match got.kind {
                CONNACK => format!("CONNACK {:#04x}", got.reason),
                DISCONNECT => format!("DISCONNECT {:#04x}", got.reason),
                SUBACK => format!("SUBACK {:x?}", got.codes),
                PINGRESP => "all is well".to_owned(),
                other => format!("a packet of type {other}"),
            });
            if got.kind == PINGRESP {
                break;
            }
        }
        said.join(", ")
    }

    async fn read(&mut self) -> Option<Got> {
        let first = self.stream.read_u8().await.ok()?;
        let mut header = Vec::new();
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            header.push(byte);
            if byte & 0x80 == 0 || header.len() == 4 {
                break;
            }
        }
        let length = Reader(&header).var();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(parse(self.version, first, &body, 1 + header.len() + length))
    }

    /// The next packet, which must be of this type.
    pub async fn expect(&mut self, kind: u8) -> Got {
        let got = self.recv().await.unwrap_or_else(|| panic!("closed instead of a packet of type {kind}"));
        assert_eq!(got.kind, kind, "{got:?}");
        got
    }

    /// The next message, not acknowledged.
    pub async fn hear(&mut self) -> Got {
        self.expect(PUBLISH).await
    }

    /// The next message, acknowledged to the end.
    pub async fn take(&mut self) -> Got {
        let message = self.hear().await;
        self.acknowledge(&message).await;
        message
    }

    /// Completes a delivery.
    pub async fn acknowledge(&mut self, message: &Got) {
        match message.qos() {
            1 => self.send(&ack(PUBACK, message.pid)).await,
            2 => {
                self.send(&ack(PUBREC, message.pid)).await;
                let mut before = VecDeque::new();
                loop {
                    let got = self.recv().await.expect("a PUBREL");
                    if (got.kind, got.pid) == (PUBREL, message.pid) {
                        break;
                    }
                    before.push_back(got);
                }
                before.append(&mut self.inbox);
                self.inbox = before;
                self.send(&ack(PUBCOMP, message.pid)).await;
            }
            _ => {}
        }
    }

    /// Nothing is on its way to this client: the next packet answers a PINGREQ.
    pub async fn quiet(&mut self) {
        self.send(&[0xc0, 0]).await;
        let next = self.recv().await.expect("the broker answers");
        assert_eq!(next.kind, PINGRESP, "nothing but the answer to the ping: {next:?}");
    }

    /// The next message; `None` when a ping is answered before there is one.
    pub async fn next_before_pong(&mut self) -> Option<Got> {
        self.send(&[0xc0, 0]).await;
        let mut messages = VecDeque::new();
        loop {
            let got = self.recv().await.expect("the broker answers");
            if got.kind == PINGRESP {
                break;
            }
            messages.push_back(got);
        }
        let first = messages.pop_front();
        self.inbox = messages;
        first
    }

    /// The broker ends the connection with nothing more than a DISCONNECT, whose reason this answers.
    pub async fn ends(&mut self, what: &str) -> Option<u8> {
        let last = timeout(PATIENCE, self.read()).await;
        let last =
            last.unwrap_or_else(|_| panic!("{what}: the connection stays, version {}", self.version))?;
        assert_eq!(last.kind, DISCONNECT, "{what}, version {}: {last:?}", self.version);
        assert_eq!(last.value(SESSION_EXPIRY), None);
        assert!(self.recv().await.is_none(), "nothing after a DISCONNECT");
        Some(last.reason)
    }

    /// The broker ends the connection, and says why where the version can.
    pub async fn ends_with(&mut self, reason: u8, what: &str) {
        let said = self.ends(what).await;
        assert_eq!(said, (self.version == 5).then_some(reason), "{what}, version {}", self.version);
    }

    /// A packet identifier that this connection has not used.
    pub fn next_pid(&mut self) -> u16 {
        self.pid += 1;
        self.pid
    }

    /// Subscribes to one filter; answers the code.
    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(&[], filter, options).await
    }

    /// As [`Self::subscribe`], with properties.
    pub async fn subscribe_with(&mut self, properties: &[u8], filter: &str, options: u8) -> u8 {
        let pid = self.next_pid();
        self.send(&subscribe(self.version, pid, properties, &[(filter, options)])).await;
        let suback = self.expect(SUBACK).await;
        assert_eq!((suback.pid, suback.codes.len()), (pid, 1));
        suback.codes[0]
    }

    /// Unsubscribes from one filter; answers the code, 0 in 3.1.1.
    pub async fn unsubscribe(&mut self, filter: &str) -> u8 {
        let pid = self.next_pid();
        self.send(&unsubscribe(self.version, pid, &[filter])).await;
        let unsuback = self.expect(UNSUBACK).await;
        assert_eq!((unsuback.pid, unsuback.codes.len()), (pid, usize::from(self.version == 5)));
        unsuback.codes.first().copied().unwrap_or(0)
    }

    /// Publishes and waits until the broker has it: for the end of the handshake, or for the answer to
    /// a ping after a QoS 0 message.
    pub async fn publish(&mut self, topic: &str, payload: &str, qos: u8) {
        let pid = if qos > 0 { self.next_pid() } else { 0 };
        self.say(&Publish::new(topic, payload).qos(qos, pid)).await;
    }

    /// As [`Self::publish`], of a message with all its trimmings.
    pub async fn say(&mut self, message: &Publish) {
        self.send(&message.bytes(self.version)).await;
        match message.qos {
            // It is there for others once it is kept: what follows is answered after that.
            0 if message.retain => drop(self.unsubscribe("none").await),
            0 => self.quiet().await,
            1 => {
                let puback = self.expect(PUBACK).await;
                assert!(puback.reason < 0x80, "{puback:?}");
                assert_eq!(puback.pid, message.pid);
            }
            _ => {
                let pubrec = self.expect(PUBREC).await;
                assert!(pubrec.reason < 0x80, "{pubrec:?}");
                assert_eq!(pubrec.pid, message.pid);
                self.send(&ack(PUBREL, message.pid)).await;
                assert_eq!(self.expect(PUBCOMP).await.pid, message.pid);
            }
        }
    }

    /// Takes leave, and returns when the broker has taken note.
    pub async fn leave(mut self) {
        self.send(&[0xe0, 0]).await;
        self.rest().await;
    }

    /// Is lost without a DISCONNECT, and returns when the broker has taken note.
    pub async fn lose(mut self) {
        self.stream.shutdown().await.expect("our side closes");
        self.rest().await;
    }

    /// Everything up to the end of the connection, as it came.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the broker closes");
        rest
    }
}

/// What became of many connections, so that one run of a test tells of all that is wrong.
#[derive(Default)]
pub struct Verdicts(Vec<String>);

impl Verdicts {
    /// A CONNECT that does not conform is not let in: 3.1.1 closes without a word (section 3.1.4), 5.0
    /// says why first.
    pub async fn refuses(&mut self, server: &Server, version: u8, connect: &[u8], reason: u8, what: &str) {
        let expected = if version == 5 { format!("CONNACK {reason:#04x}, closed") } else { "closed".into() };
        self.answers(server, version, connect, &[&expected], what).await;
    }

    /// The first bytes of a connection are answered in one of these ways.
    pub async fn answers(&mut self, server: &Server, version: u8, first: &[u8], ways: &[&str], what: &str) {
        let fate = Peer::dial(server, version).await.fate(first).await;
        self.judge(what, version, &fate, ways);
    }

    /// After these bytes of a client that is let in the connection ends; 5.0 says why first, with one
    /// of these reasons.
    pub async fn ends(&mut self, server: &Server, version: u8, bytes: &[u8], reasons: &[u8], what: &str) {
        let fate = Peer::clean(server, version, "verdict").await.fate(bytes).await;
        let ways: Vec<String> = reasons.iter().map(|r| format!("DISCONNECT {r:#04x}, closed")).collect();
        let ways: Vec<&str> =
            if version == 5 { ways.iter().map(String::as_str).collect() } else { vec!["closed"] };
        self.judge(what, version, &fate, &ways);
    }

    fn judge(&mut self, what: &str, version: u8, fate: &str, ways: &[&str]) {
        if !ways.contains(&fate) {
            self.0.push(format!("{what}, version {version}: {fate}; not {}", ways.join(" or ")));
        }
    }

    /// Fails the test when anything was wrong.
    pub fn close(self) {
        assert!(self.0.is_empty(), "{} of them:\n{}", self.0.len(), self.0.join("\n"));
    }
}
