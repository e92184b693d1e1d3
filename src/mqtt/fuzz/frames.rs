//! The wire without a network: a CONNECT, what follows it, and what the server says in between, byte by
//! byte and split anywhere.
//!
//! What must hold: nothing panics; no byte is read twice or skipped; what is acted upon is what stands
//! in the packet; what cannot be read ends the connection; what the server says is well formed, and
//! within the client's limits; where the borders between reads are makes no difference.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::packets::{self, Harm, Heard, Property, Said, Value};
use crate::domain::{BUILD_DATE, Timestamp};
use crate::mqtt::first_packet::{self, Primero};
use crate::mqtt::protocol::{
    Bienvenida, Connect, Entrante, Envio, Pedido, PorEnviar, Propiedades, Protocol, Pubrec, Razon, Recibido,
};
use crate::mqtt::publicacion::{Publicacion, Qos};
use crate::mqtt::strict;

const MAX_PACKET: u32 = 2_000;
const NOW: Timestamp = BUILD_DATE;

/// What a client said or was sent before this connection.
#[derive(Debug, Clone)]
enum Before {
    /// Its QoS 2 message, not released.
    Taken,
    /// Sent to it.
    Sent(bool),
    /// Sent to it, and it has it.
    Released,
}

#[derive(Debug, Clone)]
enum Step {
    Says(Said, Option<Harm>),
    /// Bytes that are no packet.
    Noise(Vec<u8>),
    /// The server delivers a message.
    Deliver {
        topic: u8,
        qos: u8,
        payload: u16,
        properties: bool,
    },
    /// The client does what it has to with the oldest delivery.
    Completes,
}

#[derive(Clone)]
struct Case {
    five: bool,
    connect: Said,
    harm: Option<Harm>,
    before: Vec<(u16, Before)>,
    steps: Vec<Step>,
    /// Where reads end.
    cuts: Vec<u8>,
    /// What the server makes of a message.
    refuses: Vec<bool>,
}

impl std::fmt::Debug for Case {
    /// In few lines, of which a report has to make do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { five, connect, harm, before, steps, cuts, refuses } = self;
        writeln!(f, "five: {five}, before: {}", super::lines(before))?;
        writeln!(f, "cuts: {}, refuses: {}", super::lines(cuts), super::lines(refuses))?;
        writeln!(f, "connect: {}", super::lines(&[(connect, harm)]))?;
        f.write_str(&super::lines(steps))
    }
}

fn case() -> BoxedStrategy<Case> {
    let before =
        prop_oneof![Just(Before::Taken), any::<bool>().prop_map(Before::Sent), Just(Before::Released),];
    let step = prop_oneof![
        10 => (packets::said(), option::weighted(0.15, packets::harm())).prop_map(|(s, h)| Step::Says(s, h)),
        1 => vec(any::<u8>(), 1..12).prop_map(Step::Noise),
        6 => (0_u8..4, 0_u8..3, prop_oneof![0_u16..30, 0_u16..1_500], any::<bool>())
            .prop_map(|(topic, qos, payload, properties)| Step::Deliver { topic, qos, payload, properties }),
        5 => Just(Step::Completes),
    ]
    .boxed();
    any::<bool>()
        .prop_flat_map(move |five| {
            (
                packets::connects(five),
                option::weighted(0.1, packets::harm()),
                vec((1_u16..6, before.clone()), 0..4),
                vec(step.clone(), 0..24),
                vec(any::<u8>(), 1..8),
                vec(any::<bool>(), 1..6),
            )
                .prop_map(move |(connect, harm, before, steps, cuts, refuses)| Case {
                    five,
                    connect,
                    harm,
                    before,
                    steps,
                    cuts,
                    refuses,
                })
        })
        .boxed()
}

/// A delivery that is not completed.
struct Open {
    pid: u16,
    two: bool,
    released: bool,
    /// In this connection.
    sent: bool,
}

/// The connection, as `handshake` and `connection` have it.
struct Wire {
    protocol: Protocol,
    five: bool,
    input: BytesMut,
    open: Vec<Open>,
    /// QoS 2 messages received and not released.
    taken: HashSet<u16>,
    /// The client's aliases.
    aliases: HashMap<u16, Vec<u8>>,
    /// The server's.
    answers: HashMap<u16, Vec<u8>>,
    receive_maximum: usize,
    alias_maximum: u16,
    max_send: usize,
    heard: usize,
    refuses: Vec<bool>,
    /// All that happened.
    log: String,
    over: bool,
}

fn number(properties: &[Property], id: u8) -> Option<u32> {
    properties.iter().find_map(|(other, value)| match value {
        Value::Number(n) if *other == id => Some(*n),
        _ => None,
    })
}

/// What is passed on of a message, as it stands in the packet.
fn passed_on(all: &[Property]) -> Vec<u8> {
    let kept = all.iter().filter(|(id, _)| matches!(id, 0x01 | 0x03 | 0x08 | 0x09 | 0x26));
    packets::properties(&kept.cloned().collect::<Vec<_>>())
}

fn check_will(will: Option<&packets::Will>, flags: u8, got: &Connect) -> TestCaseResult {
    prop_assert_eq!(will.is_some(), got.testamento.is_some());
    let (Some((all, topic, payload)), Some((message, delay))) = (will, &got.testamento) else {
        return Ok(());
    };
    prop_assert_eq!(topic, message.topic.as_bytes());
    prop_assert_eq!(payload, &message.payload[..]);
    prop_assert_eq!(i64::from(flags >> 3 & 3), message.qos.codigo());
    prop_assert_eq!(flags & 0x20 != 0, message.retain);
    prop_assert_eq!(number(all, 0x18).unwrap_or(0), *delay);
    prop_assert_eq!(passed_on(all), message.propiedades.bytes());
    Ok(())
}

fn check_connect(said: &Said, got: &Connect, lone_password: Option<&Vec<u8>>) -> TestCaseResult {
    let Said::Connect { five, flags, keep_alive, properties, id, will, user, password } = said else {
        return Err(TestCaseError::fail("not a CONNECT"));
    };
    prop_assert_eq!(*five, got.cinco);
    prop_assert_eq!(flags & 2 != 0, got.clean);
    prop_assert_eq!(*keep_alive, got.keep_alive);
    prop_assert_eq!(id, got.client_id.as_bytes());
    prop_assert_eq!(user.as_deref(), got.usuario.as_deref().map(str::as_bytes));
    prop_assert_eq!(password.as_ref(), got.clave.as_ref().or(lone_password));
    prop_assert_eq!(properties.iter().any(|(id, _)| *id == 0x15), got.metodo);
    if *five {
        prop_assert_eq!(number(properties, 0x11).unwrap_or(0), got.expiry);
    }
    check_will(will.as_ref(), *flags, got)
}

/// The server's side until the CONNACK; `None` when the client is not let in.
fn enter(case: &Case, input: &mut BytesMut, split: bool) -> Result<Option<Wire>, TestCaseError> {
    let mut bytes = case.connect.bytes(case.five);
    if let Some(harm) = &case.harm {
        bytes = harm.harmed(&bytes, case.five);
    }
    let mut length = None;
    for chunk in chunks(&bytes, &case.cuts, split) {
        input.extend_from_slice(chunk);
        match (first_packet::mira(input, MAX_PACKET as usize), packets::total(input)) {
            (Primero::Incompleto, Ok(total)) => prop_assert!(total.is_none_or(|n| n > input.len())),
            (Primero::Connect(n), total) => {
                prop_assert!(total == Ok(Some(n)) && n <= input.len() && input[0] == 0x10);
                length = Some(n);
                break;
            }
            (Primero::Ajeno, total) => {
                prop_assert!(input[0] != 0x10 || total.is_err());
                return Ok(None);
            }
            (Primero::Grande, total) => {
                prop_assert!(total.is_ok_and(|n| n.is_some_and(|n| n > 2_000)));
                return Ok(None);
            }
            (mira, total) => prop_assert!(false, "{mira:?} {total:?}"),
        }
    }
    let Some(length) = length else { return Ok(None) };
    let mut first = input.split_to(length);
    let said = packets::read(&first, true);
    let Ok(read) = strict::examina_connect(&first) else {
        prop_assert!(said.is_none() || number_without_method(said.as_ref()), "refused: {said:?}");
        return Ok(None);
    };
    let Some(said) = said else { return Err(TestCaseError::fail(format!("not a CONNECT: {first:x?}"))) };
    let no_alias = first_packet::sin_alias_cero(&mut first);
    let lone_password = first_packet::saca_clave(&mut first, &read);
    let mut protocol = Protocol::new(MAX_PACKET, 8, !no_alias);
    let mut out = BytesMut::new();
    let got = protocol.recv(&first, |_| false, |_| Pubrec::Ajeno, NOW, &mut out);
    let connect = match got {
        Recibido { paquete: Some(Entrante::Connect(connect)), violacion: None, usados } => {
            prop_assert_eq!(usados, first.len());
            connect
        }
        Recibido { paquete, violacion, .. } => {
            prop_assert!(paquete.is_none() && violacion.is_some());
            return Ok(None);
        }
    };
    check_connect(&said, &connect, lone_password.as_ref())?;
    let Said::Connect { five, properties, .. } = said else { return Ok(None) };
    let hello = Bienvenida {
        sesion_presente: !case.before.is_empty(),
        client_id_asignado: None,
        expiry: None,
        keep_alive: None,
    };
    if !protocol.connack(&hello, &mut out) {
        return Ok(None);
    }
    let mut wire = Wire {
        protocol,
        five,
        input: std::mem::take(input),
        open: Vec::new(),
        taken: HashSet::new(),
        aliases: HashMap::new(),
        answers: HashMap::new(),
        receive_maximum: number(&properties, 0x21).map_or(usize::MAX, |n| n as usize),
        alias_maximum: number(&properties, 0x22).and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
        max_send: number(&properties, 0x27).map_or(usize::MAX, |n| n as usize),
        heard: 0,
        refuses: case.refuses.clone(),
        log: String::new(),
        over: false,
    };
    wire.says(&out)?;
    wire.takes_up(&case.before)?;
    Ok(Some(wire))
}

/// The one thing that the reference reading leaves out [MQTT 5.0 section 3.1.2.11.10].
fn number_without_method(said: Option<&Said>) -> bool {
    let Some(Said::Connect { properties, .. }) = said else { return false };
    let has = |id| properties.iter().any(|(other, _)| *other == id);
    has(0x16) && !has(0x15)
}

/// `bytes` as reads may bring them.
fn chunks<'a>(bytes: &'a [u8], cuts: &[u8], split: bool) -> Vec<&'a [u8]> {
    if !split {
        return vec![bytes];
    }
    let (mut rest, mut chunks) = (bytes, Vec::new());
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((usize::from(*cut) % 40 + 1).min(rest.len()));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

impl Wire {
    /// What `Conexion::new` and its first delivery do.
    fn takes_up(&mut self, before: &[(u16, Before)]) -> TestCaseResult {
        for (pid, what) in before {
            if matches!(what, Before::Taken) {
                self.taken.insert(*pid);
            } else if !self.open.iter().any(|o| o.pid == *pid) {
                let released = matches!(what, Before::Released);
                let two = released || matches!(what, Before::Sent(true));
                self.open.push(Open { pid: *pid, two, released, sent: false });
            }
        }
        self.protocol.retoma_recibidos(self.taken.iter().copied());
        for open in &self.open {
            if open.released {
                self.protocol.retoma_liberado(open.pid);
            } else {
                self.protocol.retoma_pid(open.pid);
            }
        }
        self.sends_again()
    }

    /// Deliveries of an earlier connection, as the window allows.
    fn sends_again(&mut self) -> TestCaseResult {
        while let Some(i) = self.open.iter().position(|o| !o.sent) {
            let (pid, two, released) = (self.open[i].pid, self.open[i].two, self.open[i].released);
            let mut out = BytesMut::new();
            if released {
                self.protocol.pubrel(pid, &mut out);
                prop_assert!(!out.is_empty(), "no PUBREL for {}", pid);
            } else if self.protocol.hay_ventana() {
                let qos = if two { Qos::Dos } else { Qos::Uno };
                let message = Publicacion::del_servidor("again".into(), "x", qos, false);
                if !self.publish(&message, qos, Some(pid), true, &mut out) {
                    self.open.remove(i);
                    continue;
                }
            } else {
                return Ok(());
            }
            self.open[i].sent = true;
            self.says(&out)?;
        }
        Ok(())
    }

    fn publish(
        &mut self,
        message: &Publicacion,
        qos: Qos,
        pid: Option<u16>,
        dup: bool,
        out: &mut BytesMut,
    ) -> bool {
        let ids = [7, 200];
        let send = PorEnviar { publicacion: message, qos, retain: false, dup, pid, ids: &ids, ahora: NOW };
        self.protocol.publish(&send, out) == Envio::Enviado
    }

    fn deliver(&mut self, topic: u8, qos: u8, payload: u16, properties: bool) -> TestCaseResult {
        let qos = Qos::de(i64::from(qos));
        if qos > Qos::Cero && !self.protocol.hay_ventana() {
            return Ok(());
        }
        let topic = ["a", "b/c", "d/e/f", "a/rather/long/topic/of/many/levels"][usize::from(topic)];
        let mut message =
            Publicacion::del_servidor(topic.into(), vec![b'x'; usize::from(payload)], qos, false);
        if properties {
            let kept: Vec<Property> = vec![
                (0x03, Value::Bytes(b"text/plain".to_vec())),
                (0x26, Value::Pair(b"k".to_vec(), b"v".to_vec())),
            ];
            message.propiedades = Propiedades::leidas(&packets::properties(&kept));
            message.expira = Some(NOW.plus(std::time::Duration::from_secs(9)));
        }
        let pid = if qos > Qos::Cero { self.protocol.pid() } else { None };
        let mut out = BytesMut::new();
        let sent = self.publish(&message, qos, pid, false, &mut out);
        prop_assert_eq!(sent, !out.is_empty());
        if let (true, Some(pid)) = (sent, pid) {
            prop_assert!(self.open.iter().all(|o| o.pid != pid));
            self.open.push(Open { pid, two: qos == Qos::Dos, released: false, sent: true });
        }
        self.says(&out)
    }

    /// The client completes its oldest delivery, a packet at a time.
    fn completes(&mut self) -> TestCaseResult {
        let Some(open) = self.open.iter().find(|o| o.sent) else { return Ok(()) };
        let kind = match (open.two, open.released) {
            (false, _) => 4,
            (true, false) => 5,
            (true, true) => 7,
        };
        // A packet that is not whole is still in front.
        if !self.input.is_empty() {
            return Ok(());
        }
        let (pid, before) = (open.pid, self.open.len());
        self.input.extend_from_slice(&Said::Ack { kind, pid, reason: None }.bytes(self.five));
        self.drain()?;
        prop_assert!(!self.over, "a client that does what it must was cut off: {}", self.log);
        if kind == 5 {
            prop_assert!(self.open.iter().any(|o| o.pid == pid && o.released));
        } else {
            prop_assert_eq!(self.open.len() + 1, before, "{} is still open", pid);
        }
        self.sends_again()
    }

    /// Looks at what the server wrote.
    fn says(&mut self, mut out: &[u8]) -> TestCaseResult {
        while !out.is_empty() {
            let total = packets::total(out).ok().flatten().filter(|n| *n <= out.len());
            let Some(total) = total else {
                return Err(TestCaseError::fail(format!("half a packet: {out:x?}")));
            };
            let (packet, rest) = out.split_at(total);
            out = rest;
            let heard = packets::hear(packet, self.five);
            let Some(heard) = heard else {
                return Err(TestCaseError::fail(format!("unreadable: {packet:x?}")));
            };
            prop_assert!(total <= self.max_send, "{} bytes for a client that takes {}", total, self.max_send);
            self.heard += 1;
            if let Heard::Publish { topic, alias, .. } = &heard {
                if let Some(alias) = alias {
                    prop_assert!(*alias <= self.alias_maximum);
                    if topic.is_empty() {
                        prop_assert!(self.answers.contains_key(alias), "alias {} has no topic", alias);
                    } else {
                        self.answers.insert(*alias, topic.clone());
                    }
                } else {
                    prop_assert!(!topic.is_empty());
                }
                let window = self.open.iter().filter(|o| o.sent && !o.released).count();
                prop_assert!(window <= self.receive_maximum);
            }
            let _ = write!(self.log, "<{heard:?}");
        }
        Ok(())
    }

    /// What `Conexion::lee_paquetes` does.
    fn drain(&mut self) -> TestCaseResult {
        while !self.input.is_empty() && !self.over {
            let open = &self.open;
            let stands = |pid| match open.iter().find(|o| o.pid == pid) {
                Some(o) if o.released => Pubrec::Repetido,
                Some(_) => Pubrec::Esperado,
                None => Pubrec::Ajeno,
            };
            let mut out = BytesMut::new();
            let got = self.protocol.recv(&self.input, |_| false, stands, NOW, &mut out);
            prop_assert!(got.usados <= self.input.len());
            let total = packets::total(&self.input);
            let whole = total.ok().flatten().filter(|n| *n <= self.input.len());
            match (total, whole) {
                (Err(()), _) => prop_assert!(got.violacion.is_some()),
                (Ok(Some(n)), _) if n > MAX_PACKET as usize => prop_assert!(got.violacion.is_some()),
                (Ok(_), None) => {
                    prop_assert!(got.usados == 0 && got.paquete.is_none() && got.violacion.is_none());
                    return Ok(());
                }
                (_, Some(n)) => prop_assert!(got.usados == n || got.violacion.is_some()),
            }
            let packet = self.input.split_to(whole.unwrap_or(0));
            let _ = write!(self.log, ">{got:?}");
            if let Some(broken) = got.violacion {
                if let Some(why) = broken.cierre {
                    self.protocol.disconnect(why, &mut out);
                }
                self.over = true;
                self.says(&out)?;
                return self.may_be_refused(&packet);
            }
            self.says(&out)?;
            self.accepted(&packet, got.paquete)?;
        }
        Ok(())
    }

    /// What is right in itself, whatever came before, is not a violation.
    fn may_be_refused(&self, packet: &[u8]) -> TestCaseResult {
        let Some(said) = (!packet.is_empty()).then(|| packets::read(packet, self.five)).flatten() else {
            return Ok(());
        };
        let plain = |text: &[u8]| !text.is_empty() && !text.iter().any(|b| b"+#$".contains(b));
        let right = match &said {
            Said::Ping => true,
            Said::Publish { topic, properties, .. } => plain(topic) && number(properties, 0x23).is_none(),
            Said::Subscribe { filters, .. } => {
                filters.iter().all(|(f, options)| plain(f) && options & 4 == 0)
            }
            Said::Unsubscribe { filters, .. } => filters.iter().all(|f| plain(f)),
            _ => false,
        };
        prop_assert!(!right, "refused: {:?}; {}", said, self.log);
        Ok(())
    }

    fn accepted(&mut self, packet: &BytesMut, got: Option<Entrante>) -> TestCaseResult {
        let Some(said) = packets::read(packet, self.five) else {
            return Err(TestCaseError::fail(format!("accepted: {:x?} as {got:?}", &packet[..])));
        };
        let mut out = BytesMut::new();
        match (got, said) {
            (
                Some(Entrante::Publish { publicacion, pid, dup }),
                Said::Publish { flags, topic, pid: said, properties, payload },
            ) => {
                let topic = match number(&properties, 0x23).and_then(|n| u16::try_from(n).ok()) {
                    Some(alias) if topic.is_empty() => self.aliases.get(&alias).cloned().unwrap_or_default(),
                    Some(alias) => {
                        self.aliases.insert(alias, topic.clone());
                        topic
                    }
                    None => topic,
                };
                prop_assert_eq!(topic, publicacion.topic.as_bytes());
                prop_assert_eq!(payload, &publicacion.payload[..]);
                prop_assert_eq!(i64::from(flags >> 1 & 3), publicacion.qos.codigo());
                prop_assert_eq!((flags & 1 != 0, flags & 8 != 0), (publicacion.retain, dup));
                prop_assert_eq!((flags & 6 != 0).then_some(said), pid);
                let expires =
                    number(&properties, 0x02).map(|n| NOW.plus(std::time::Duration::from_secs(u64::from(n))));
                prop_assert_eq!(expires, publicacion.expira);
                let kept = publicacion.propiedades.bytes();
                prop_assert_eq!(passed_on(&properties), &kept[..]);
                prop_assert_eq!(Propiedades::leidas(&kept).bytes(), kept);
                self.acknowledge(publicacion.qos, pid, &mut out)?;
            }
            // One that is here already.
            (None, Said::Publish { flags, pid, .. }) => {
                prop_assert!(flags >> 1 & 3 == 2 && self.taken.contains(&pid));
            }
            (Some(Entrante::Puback(pid)), Said::Ack { kind: 4, pid: said, .. }) => {
                prop_assert_eq!(pid, said);
                self.closes(pid, false, false)?;
            }
            (Some(Entrante::Pubcomp(pid)), Said::Ack { kind: 7, pid: said, .. }) => {
                prop_assert_eq!(pid, said);
                self.closes(pid, true, true)?;
            }
            (Some(Entrante::Pubrec { pid, falla }), Said::Ack { kind: 5, pid: said, reason }) => {
                prop_assert_eq!(pid, said);
                prop_assert_eq!(falla, reason.is_some_and(|(code, _)| code >= 0x80));
                if falla {
                    self.closes(pid, true, false)?;
                } else if let Some(open) = self.open.iter_mut().find(|o| o.pid == pid) {
                    open.released = true;
                    self.protocol.pubrel(pid, &mut out);
                    prop_assert!(!out.is_empty());
                }
            }
            // Nobody waited for it.
            (None, Said::Ack { kind: 5 | 7, pid, .. }) => {
                prop_assert!(self.open.iter().all(|o| o.pid != pid || o.released));
            }
            (Some(Entrante::Pubrel(pid)), Said::Ack { kind: 6, pid: said, .. }) => {
                prop_assert_eq!(pid, said);
                let known = self.taken.remove(&pid);
                self.protocol.pubcomp(pid, known, &mut out);
                prop_assert!(!out.is_empty());
            }
            (
                Some(Entrante::Subscribe { pid, pedidos }),
                Said::Subscribe { pid: said, properties, filters },
            ) => {
                prop_assert_eq!(pid, said);
                let id = number(&properties, 0x0b);
                prop_assert_eq!(pedidos.len(), filters.len());
                for (got, (filter, options)) in pedidos.iter().zip(&filters) {
                    let Pedido { filtro, qos, no_local, rap, retain, id: got_id } = got;
                    prop_assert_eq!(filter, filtro.as_bytes());
                    let bits = u8::try_from(qos.codigo()).unwrap()
                        | u8::from(*no_local) << 2
                        | u8::from(*rap) << 3
                        | retain << 4;
                    prop_assert_eq!((*options, id), (bits, *got_id));
                }
                let codes: Vec<_> = pedidos.iter().map(|p| Ok(p.qos)).collect();
                self.protocol.suback(pid, &codes, &mut out);
            }
            (Some(Entrante::Unsubscribe { pid, filtros }), Said::Unsubscribe { pid: said, filters, .. }) => {
                prop_assert_eq!(pid, said);
                let got: Vec<_> = filtros.iter().map(String::as_bytes).collect();
                prop_assert_eq!(&filters, &got);
                self.protocol.unsuback(pid, &vec![false; got.len()], &mut out);
            }
            (Some(Entrante::Pingreq), Said::Ping) => {}
            (Some(Entrante::Disconnect { testamento, expiry }), Said::Disconnect { reason }) => {
                let (code, all) = reason.unwrap_or_default();
                prop_assert_eq!(testamento, code != 0);
                prop_assert_eq!(expiry, number(&all.unwrap_or_default(), 0x11));
                self.over = true;
            }
            // The connection refuses it.
            (Some(Entrante::Auth), Said::Auth { .. }) => self.over = true,
            (got, said) => prop_assert!(false, "{got:?} for {said:?}"),
        }
        self.says(&out)
    }

    /// What `Conexion::manda` does.
    fn acknowledge(&mut self, qos: Qos, pid: Option<u16>, out: &mut BytesMut) -> TestCaseResult {
        let Some(pid) = pid else { return Ok(()) };
        self.refuses.rotate_left(1);
        let reason = if self.refuses[0] { Razon::NoAutorizado } else { Razon::Exito };
        if qos == Qos::Uno {
            self.protocol.puback(pid, reason, Some("a reason"), out);
        } else {
            self.protocol.pubrec(pid, reason, Some("a reason"), out);
            if reason == Razon::Exito || !self.five {
                self.taken.insert(pid);
            }
        }
        prop_assert!(!out.is_empty());
        Ok(())
    }

    /// A delivery is over, which was one of these.
    fn closes(&mut self, pid: u16, two: bool, released: bool) -> TestCaseResult {
        let i = self.open.iter().position(|o| o.pid == pid && o.two == two && o.released == released);
        prop_assert!(i.is_some(), "nothing of {} was open", pid);
        self.open.remove(i.unwrap());
        Ok(())
    }
}

fn run(case: &Case, split: bool) -> Result<String, TestCaseError> {
    let mut input = BytesMut::new();
    let Some(mut wire) = enter(case, &mut input, split)? else { return Ok("refused".to_owned()) };
    for step in &case.steps {
        if wire.over {
            break;
        }
        match step {
            Step::Says(said, harm) => {
                let bytes = said.bytes(wire.five);
                let bytes = harm.as_ref().map_or(bytes.clone(), |h| h.harmed(&bytes, wire.five));
                for chunk in chunks(&bytes, &case.cuts, split) {
                    wire.input.extend_from_slice(chunk);
                    wire.drain()?;
                }
            }
            Step::Noise(bytes) => {
                wire.input.extend_from_slice(bytes);
                wire.drain()?;
            }
            Step::Deliver { topic, qos, payload, properties } => {
                wire.deliver(*topic, *qos, *payload, *properties)?;
            }
            Step::Completes => wire.completes()?,
        }
        if !wire.over {
            wire.sends_again()?;
        }
    }
    Ok(wire.log)
}

#[test]
fn arbitrary_packets() {
    super::fuzz("frames", file!(), 600, &case(), |case| {
        let whole = run(&case, false)?;
        prop_assert_eq!(whole, run(&case, true)?);
        Ok(())
    });
}

#[test]
fn arbitrary_bytes() {
    let strategy = (any::<bool>(), vec(any::<u8>(), 1..200));
    super::fuzz("bytes", file!(), 600, &strategy, |(five, bytes)| {
        let _ = first_packet::mira(&bytes, MAX_PACKET as usize);
        let mut copy = bytes.clone();
        first_packet::sin_alias_cero(&mut copy);
        if packets::total(&bytes).is_ok_and(|n| n == Some(bytes.len())) {
            let _ = (strict::examina(&bytes, five), strict::examina_connect(&bytes));
        }
        let _ = Propiedades::leidas(&bytes);
        let case = Case {
            five,
            connect: Said::Connect {
                five,
                flags: 2,
                keep_alive: 0,
                properties: Vec::new(),
                id: b"a".to_vec(),
                will: None,
                user: None,
                password: None,
            },
            harm: None,
            before: Vec::new(),
            steps: vec![Step::Noise(bytes)],
            cuts: vec![1],
            refuses: vec![false],
        };
        run(&case, false).map(|_| ())
    });
}

#[test]
fn the_reference_reads_what_it_writes() {
    super::fuzz("reference", file!(), 200, &(any::<bool>(), packets::said()), |(five, said)| {
        let bytes = said.bytes(five);
        prop_assert_eq!(packets::total(&bytes), Ok(Some(bytes.len())));
        if let Some(read) = packets::read(&bytes, five) {
            prop_assert_eq!(read.bytes(five), bytes);
        }
        Ok(())
    });
}
