//! The wire: the only file that names `mqtt-protocol-core`.
//!
//! Sans-I/O: bytes in, [`Entrante`] out, answers appended to a buffer. Both versions of the protocol
//! come out as one set of types; framing, packet ids, QoS handshakes, incoming topic aliases and the
//! client's limits are the library's. Acknowledgements are never automatic: the session sends them
//! when what they promise has been done.

use std::collections::HashSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event};
use mqtt_protocol_core::mqtt::packet::{self, Qos as WireQos, RetainHandling};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Packet, Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
    PubcompReasonCode, PubrecReasonCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};
use mqtt_protocol_core::mqtt::{Version, role};

use super::first_packet;
use super::publicacion::{Publicacion, Qos};
use super::strict::{self, Defecto};
use crate::domain::Timestamp;

/// Properties of MQTT 5 that are passed on unchanged.
#[derive(Debug, Clone, Default)]
pub(super) struct Propiedades {
    todas: Vec<Property>,
    peso: usize,
}

impl Propiedades {
    fn new(todas: Vec<Property>) -> Self {
        let peso = todas.iter().map(|p| p.size() + size_of::<Property>()).sum();
        Self { todas, peso }
    }

    /// Bytes that they hold in memory, roughly: a client may send a hundred thousand in a packet.
    pub(super) fn peso(&self) -> usize {
        self.peso
    }

    /// As they stand in a packet.
    pub(super) fn bytes(&self) -> Bytes {
        self.todas.iter().flat_map(Property::to_continuous_buffer).collect()
    }

    /// Read again from [`Self::bytes`].
    pub(super) fn leidas(mut bytes: &[u8]) -> Self {
        let mut propiedades = Vec::new();
        while !bytes.is_empty() {
            match Property::parse(bytes) {
                Ok((propiedad, usados)) if usados > 0 => {
                    propiedades.push(propiedad);
                    bytes = &bytes[usados..];
                }
                _ => {
                    tracing::error!("properties that were kept cannot be read");
                    break;
                }
            }
        }
        Self::new(propiedades)
    }
}

/// A packet of the client.
#[derive(Debug)]
pub(super) enum Entrante {
    Connect(Box<Connect>),
    Publish {
        publicacion: Publicacion,
        pid: Option<u16>,
        dup: bool,
    },
    Puback(u16),
    /// `falla`: the client refuses the message; its delivery is over.
    Pubrec {
        pid: u16,
        falla: bool,
    },
    Pubrel(u16),
    Pubcomp(u16),
    Subscribe {
        pid: u16,
        pedidos: Vec<Pedido>,
    },
    Unsubscribe {
        pid: u16,
        filtros: Vec<String>,
    },
    Pingreq,
    /// `testamento`: the client wants its will sent all the same (0x04).
    Disconnect {
        testamento: bool,
        expiry: Option<u32>,
    },
    Auth,
}

/// What a client says of itself.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) cinco: bool,
    pub(super) client_id: String,
    pub(super) clean: bool,
    /// Seconds; 0 = none.
    pub(super) keep_alive: u16,
    pub(super) usuario: Option<String>,
    pub(super) clave: Option<Vec<u8>>,
    /// The will and its delay in seconds.
    pub(super) testamento: Option<(Publicacion, u32)>,
    /// Seconds that the session outlives the connection; `u32::MAX` = for ever.
    pub(super) expiry: u32,
    /// Enhanced authentication was asked for.
    pub(super) metodo: bool,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone)]
pub(super) struct Pedido {
    pub(super) filtro: String,
    pub(super) qos: Qos,
    pub(super) no_local: bool,
    /// Retain As Published.
    pub(super) rap: bool,
    /// Retain Handling: 0 always, 1 on a new subscription, 2 never.
    pub(super) retain: u8,
    /// Subscription Identifier.
    pub(super) id: Option<u32>,
}

/// Why something was refused, with the code that MQTT 5 has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Razon {
    Exito,
    NoAutorizado,
    CargaInvalida,
    TopicInvalido,
    Cuota,
    /// It could not be kept.
    Interno,
}

/// Why a connection ends, with the code of MQTT 5's DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cierre {
    Protocolo,
    NoAutorizado,
    Apagado,
    KeepAlive,
    Relevada,
    TopicInvalido,
    Interno,
    /// A token that signed in has expired.
    Caducada,
    /// More unacknowledged messages than Receive Maximum allows.
    VentanaExcedida,
    /// A packet that cannot be read.
    Malformado,
    /// A packet larger than is taken.
    PaqueteGrande,
    /// It sends faster than it may, and does not slow down.
    DemasiadoRapido,
    /// An administrator ends it.
    Administrativo,
}

impl Cierre {
    /// For whoever wonders why a client is gone.
    pub(super) const fn motivo(self) -> &'static str {
        match self {
            Self::Protocolo => "it said what it must not say then",
            Self::NoAutorizado => "its credential was replaced or revoked",
            Self::Apagado => "the server stopped",
            Self::KeepAlive => "it said nothing for one and a half of its keep-alives",
            Self::Relevada => "the same client connected again",
            Self::TopicInvalido => "it published to a topic with a wildcard",
            Self::Interno => "something failed inside the server, which its log has",
            Self::Caducada => "the token that it signed in with has expired",
            Self::VentanaExcedida => "it had more unacknowledged messages than Receive Maximum allows",
            Self::Malformado => "a packet that cannot be read",
            Self::PaqueteGrande => "a packet larger than mqtt.max_packet_bytes",
            Self::DemasiadoRapido => {
                "it went on sending faster than mqtt.max_messages_per_s or max_bytes_per_s"
            }
            Self::Administrativo => "an administrator disconnected it",
        }
    }
}

/// The answer to a CONNECT that is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rechazo {
    ClaveIncorrecta,
    NoAutorizado,
    IdentificadorInvalido,
    NoDisponible,
    /// Too many sign-ins have failed.
    Demasiadas,
    MetodoInvalido,
    TestamentoInvalido,
}

/// What CONNACK tells a client that is let in.
#[derive(Debug)]
pub(super) struct Bienvenida {
    pub(super) sesion_presente: bool,
    pub(super) client_id_asignado: Option<String>,
    /// Seconds, when not what the client asked for.
    pub(super) expiry: Option<u32>,
    pub(super) keep_alive: Option<u16>,
}

/// What came of sending a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Envio {
    Enviado,
    /// Larger than the client takes [MQTT-3.1.2-24]: as if delivered.
    NoCabe,
}

/// What one call of [`Protocol::recv`] came to.
#[derive(Debug, Default)]
pub(super) struct Recibido {
    /// Bytes that were used.
    pub(super) usados: usize,
    pub(super) paquete: Option<Entrante>,
    /// The client broke the protocol, or what it sent cannot be taken: the connection is over.
    pub(super) violacion: Option<Violacion>,
}

/// How a client broke the protocol.
#[derive(Debug)]
pub(super) struct Violacion {
    /// For the log.
    pub(super) que: String,
    /// What MQTT 5 says of it; `None` when that has been appended already.
    pub(super) cierre: Option<Cierre>,
}

impl Violacion {
    fn nuestra(que: impl Into<String>, cierre: Cierre) -> Self {
        Self { que: que.into(), cierre: Some(cierre) }
    }
}

/// How a PUBREC or PUBCOMP of the client stands to what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pubrec {
    /// It was waited for.
    Esperado,
    /// It came before.
    Repetido,
    /// Nothing with its packet id is in flight.
    Ajeno,
}

/// Topic aliases that a client may use towards us.
const ALIAS_MAXIMO: u16 = 16;
/// More bytes than a PUBLISH has besides topic, payload and the properties that are passed on: header,
/// packet id, expiry, alias, and a hundred subscription identifiers.
const HOLGURA: usize = 640;

/// The protocol state of one connection.
pub(super) struct Protocol {
    conn: mqtt::Connection<role::Server>,
    cinco: bool,
    /// Reason strings are wanted [MQTT-3.1.2-29].
    razones: bool,
    receive_maximum: u16,
    /// The client takes topic aliases.
    alias: bool,
    /// Bytes of a packet that the client takes.
    max_envio: usize,
    /// Bytes of a packet that we take.
    max_packet: u32,
    /// Topic aliases that the client has given a topic.
    alias_dados: [bool; ALIAS_MAXIMO as usize + 1],
    /// Deliveries that were released before this connection. The library takes a PUBCOMP for the end of
    /// a PUBLISH that it sent, and its count of those falls below zero: it does not hear of these.
    liberados: HashSet<u16>,
}

impl Protocol {
    /// A connection that takes packets up to `max_packet` bytes and, of MQTT 5 clients, up to
    /// `receive_maximum` unacknowledged messages. Without `alias` it is sent no topic aliases.
    pub(super) fn new(max_packet: u32, receive_maximum: u16, alias: bool) -> Self {
        // No `receive_maximum` in the options: the library would end a 3.1.1 client that exceeds
        // it, of which 3.1.1 knows nothing; the session stops reading instead.
        let options = ConnectionOptions::new().maximum_packet_size_recv(max_packet);
        let mut conn = mqtt::Connection::with_options(Version::Undetermined, options);
        conn.set_auto_pub_response(false);
        conn.set_auto_ping_response(true);
        Self {
            conn,
            cinco: false,
            razones: true,
            receive_maximum,
            alias,
            max_envio: usize::MAX,
            max_packet,
            alias_dados: [false; ALIAS_MAXIMO as usize + 1],
            liberados: HashSet::new(),
        }
    }

    /// Takes one packet, once it is there whole. `sin_confirmar` says whether the QoS 2 message with an
    /// incoming packet id waits for its commit: then it is not answered when it is repeated. `pubrec` says how a
    /// PUBREC or PUBCOMP with this packet id stands.
    pub(super) fn recv(
        &mut self,
        bytes: &[u8],
        sin_confirmar: impl Fn(u16) -> bool,
        pubrec: impl Fn(u16) -> Pubrec,
        ahora: Timestamp,
        out: &mut BytesMut,
    ) -> Recibido {
        let packet = match self.entero(bytes) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Recibido::default(),
            Err(violacion) => return Recibido { violacion: Some(violacion), ..Recibido::default() },
        };
        let mut recibido = Recibido { usados: packet.len(), ..Recibido::default() };
        if let Err(violacion) = self.examina(packet) {
            recibido.violacion = Some(violacion);
            return recibido;
        }
        match (packet[0] >> 4, pid_de_acuse(packet)) {
            // The library takes it for a violation; it may be left over from another connection.
            (5, Some(pid)) if pubrec(pid) != Pubrec::Esperado => {
                self.pubrel_suelto(pid, pubrec(pid), out);
                return recibido;
            }
            (7, Some(pid)) if self.liberados.remove(&pid) => {
                let _ = self.conn.release_packet_id(pid);
                recibido.paquete = Some(Entrante::Pubcomp(pid));
                return recibido;
            }
            // The answer to such a PUBREL.
            (7, Some(pid)) if pubrec(pid) == Pubrec::Ajeno => return recibido,
            _ => {}
        }
        let exito = pid_de_acuse(packet).filter(|_| self.cinco && sin_suscriptores(packet));
        let exito = exito.map(|pid| [0x50, 2, pid.to_be_bytes()[0], pid.to_be_bytes()[1]]);
        let packet = exito.as_ref().map_or(packet, |bytes| &bytes[..]);
        let escrito = out.len();
        let mut error = None;
        for evento in self.conn.recv(&mut Cursor::new(packet)) {
            match evento {
                Event::NotifyPacketReceived(packet) => match self.entrante(packet, ahora) {
                    Ok(entrante) => recibido.paquete = Some(entrante),
                    Err(que) => recibido.violacion = Some(Violacion::nuestra(que, Cierre::Protocolo)),
                },
                Event::RequestSendPacket { packet, .. } => {
                    let callado = match &packet {
                        Packet::V3_1_1Pubrec(p) => sin_confirmar(p.packet_id()),
                        Packet::V5_0Pubrec(p) => sin_confirmar(p.packet_id()),
                        _ => false,
                    };
                    if !callado {
                        out.put_slice(&packet.to_continuous_buffer());
                    }
                }
                // Some violations come without this: every error ends the connection.
                Event::RequestClose => drop(error.get_or_insert(MqttError::ProtocolError)),
                Event::NotifyError(e) => error = Some(e),
                _ => {}
            }
        }
        if let Some(e) = error {
            let cierre = match e {
                MqttError::MalformedPacket => Cierre::Malformado,
                _ => Cierre::Protocolo,
            };
            let cierre = (out.len() == escrito).then_some(cierre);
            recibido.violacion = Some(Violacion { que: format!("{e:?}"), cierre });
        }
        recibido
    }

    /// The packet that `bytes` begin with, if it is there to its end.
    fn entero<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Violacion> {
        let Some((_, resto)) = bytes.split_first() else { return Ok(None) };
        let malformado = || Violacion::nuestra("a length of more than four bytes", Cierre::Malformado);
        let Some((longitud, usados)) = first_packet::varint(resto).map_err(|()| malformado())? else {
            return Ok(None);
        };
        let total = 1 + usados + longitud;
        if total > self.max_packet as usize {
            let que = format!("a packet of {total} bytes");
            return Err(Violacion::nuestra(que, Cierre::PaqueteGrande));
        }
        Ok(bytes.get(..total))
    }

    /// What the library would let pass.
    fn examina(&mut self, packet: &[u8]) -> Result<(), Violacion> {
        let visto = strict::examina(packet, self.cinco).map_err(|defecto| {
            let cierre = if defecto == Defecto::Malformado { Cierre::Malformado } else { Cierre::Protocolo };
            Violacion::nuestra(format!("{defecto:?}: packet type {}", packet[0] >> 4), cierre)
        })?;
        let Some(alias) = visto else { return Ok(()) };
        match self.alias_dados.get_mut(usize::from(alias.numero)) {
            Some(dado) if alias.con_topic => *dado = true,
            // Section 3.3.2.3.4: an alias that was given no topic is a protocol error.
            Some(false) => return Err(Violacion::nuestra("an alias without a topic", Cierre::Protocolo)),
            // Beyond the maximum: the library's to refuse.
            _ => {}
        }
        Ok(())
    }

    /// PUBREL for a PUBREC that is not in the library's books.
    fn pubrel_suelto(&self, pid: u16, como: Pubrec, out: &mut BytesMut) {
        let [alto, bajo] = pid.to_be_bytes();
        match como {
            // Packet Identifier not found.
            Pubrec::Ajeno if self.cinco => out.put_slice(&[0x62, 3, alto, bajo, 0x92]),
            _ => out.put_slice(&[0x62, 2, alto, bajo]),
        }
    }

    fn entrante(&mut self, packet: Packet, ahora: Timestamp) -> Result<Entrante, &'static str> {
        Ok(match packet {
            Packet::V3_1_1Connect(p) => Entrante::Connect(Box::new(connect_3(&p))),
            Packet::V5_0Connect(p) => {
                self.cinco = true;
                self.razones = !p
                    .props()
                    .iter()
                    .any(|p| matches!(p, Property::RequestProblemInformation(v) if v.val() == 0));
                let maximo = p.props().iter().find_map(|p| match p {
                    Property::MaximumPacketSize(v) => usize::try_from(v.val()).ok(),
                    _ => None,
                });
                self.max_envio = maximo.unwrap_or(usize::MAX);
                Entrante::Connect(Box::new(connect_5(&p)))
            }
            Packet::V3_1_1Publish(p) => Entrante::Publish {
                pid: p.packet_id(),
                dup: p.dup(),
                publicacion: publicacion(
                    p.topic_name(),
                    p.payload().as_slice(),
                    qos(p.qos()),
                    p.retain(),
                    &[],
                    ahora,
                ),
            },
            Packet::V5_0Publish(p) => {
                // [MQTT-3.3.4-6]
                if p.props().iter().any(|p| matches!(p, Property::SubscriptionIdentifier(_))) {
                    return Err("a client's PUBLISH carries a Subscription Identifier");
                }
                Entrante::Publish {
                    pid: p.packet_id(),
                    dup: p.dup(),
                    publicacion: publicacion(
                        p.topic_name(),
                        p.payload().as_slice(),
                        qos(p.qos()),
                        p.retain(),
                        p.props(),
                        ahora,
                    ),
                }
            }
            Packet::V3_1_1Puback(p) => Entrante::Puback(p.packet_id()),
            Packet::V5_0Puback(p) => Entrante::Puback(p.packet_id()),
            Packet::V3_1_1Pubrec(p) => Entrante::Pubrec { pid: p.packet_id(), falla: false },
            Packet::V5_0Pubrec(p) => Entrante::Pubrec {
                pid: p.packet_id(),
                falla: p.reason_code().is_some_and(|r| r.is_failure()),
            },
            Packet::V3_1_1Pubrel(p) => Entrante::Pubrel(p.packet_id()),
            Packet::V5_0Pubrel(p) => Entrante::Pubrel(p.packet_id()),
            Packet::V3_1_1Pubcomp(p) => Entrante::Pubcomp(p.packet_id()),
            Packet::V5_0Pubcomp(p) => Entrante::Pubcomp(p.packet_id()),
            Packet::V3_1_1Subscribe(p) => {
                Entrante::Subscribe { pid: p.packet_id(), pedidos: pedidos(p.entries(), &[]) }
            }
            Packet::V5_0Subscribe(p) => {
                Entrante::Subscribe { pid: p.packet_id(), pedidos: pedidos(p.entries(), p.props()) }
            }
            Packet::V3_1_1Unsubscribe(p) => Entrante::Unsubscribe {
                pid: p.packet_id(),
                filtros: p.entries().iter().map(|e| e.as_str().to_owned()).collect(),
            },
            Packet::V5_0Unsubscribe(p) => Entrante::Unsubscribe {
                pid: p.packet_id(),
                filtros: p.entries().iter().map(|e| e.as_str().to_owned()).collect(),
            },
            Packet::V3_1_1Pingreq(_) | Packet::V5_0Pingreq(_) => Entrante::Pingreq,
            Packet::V3_1_1Disconnect(_) => Entrante::Disconnect { testamento: false, expiry: None },
            Packet::V5_0Disconnect(p) => Entrante::Disconnect {
                // Anything but a normal end sends the will [MQTT-3.1.2-8].
                testamento: p.reason_code().is_some_and(|r| r != DisconnectReasonCode::NormalDisconnection),
                expiry: p.props().as_ref().and_then(|ps| {
                    ps.iter().find_map(|p| match p {
                        Property::SessionExpiryInterval(v) => Some(v.val()),
                        _ => None,
                    })
                }),
            },
            Packet::V5_0Auth(_) => Entrante::Auth,
            _ => return Err("a packet that only a server sends"),
        })
    }

    /// Answers a CONNECT that is let in. `false` when the client does not take so large a packet.
    pub(super) fn connack(&mut self, bienvenida: &Bienvenida, out: &mut BytesMut) -> bool {
        if !self.cinco {
            let packet = v3_1_1::Connack::builder()
                .session_present(bienvenida.sesion_presente)
                .return_code(ConnectReturnCode::Accepted)
                .build();
            return self.send(packet.map(Into::into), out);
        }
        let mut props: Vec<Property> = Vec::new();
        let mut add = |p: Result<Property, MqttError>| props.extend(p);
        add(packet::TopicAliasMaximum::new(ALIAS_MAXIMO).map(Into::into));
        add(packet::ReceiveMaximum::new(self.receive_maximum).map(Into::into));
        add(packet::MaximumPacketSize::new(self.max_packet).map(Into::into));
        if let Some(id) = &bienvenida.client_id_asignado {
            add(packet::AssignedClientIdentifier::new(id.as_str()).map(Into::into));
        }
        if let Some(secs) = bienvenida.expiry {
            add(packet::SessionExpiryInterval::new(secs).map(Into::into));
        }
        if let Some(secs) = bienvenida.keep_alive {
            add(packet::ServerKeepAlive::new(secs).map(Into::into));
        }
        let packet = v5_0::Connack::builder()
            .session_present(bienvenida.sesion_presente)
            .reason_code(ConnectReasonCode::Success)
            .props(props)
            .build();
        self.send(packet.map(Into::into), out)
    }

    /// Answers a CONNECT that is not let in; the connection is to be closed.
    pub(super) fn rechaza(&mut self, rechazo: Rechazo, out: &mut BytesMut) {
        if self.cinco {
            let code = match rechazo {
                Rechazo::ClaveIncorrecta => ConnectReasonCode::BadUserNameOrPassword,
                Rechazo::NoAutorizado => ConnectReasonCode::NotAuthorized,
                Rechazo::IdentificadorInvalido => ConnectReasonCode::ClientIdentifierNotValid,
                Rechazo::NoDisponible => ConnectReasonCode::ServerUnavailable,
                Rechazo::Demasiadas => ConnectReasonCode::ConnectionRateExceeded,
                Rechazo::MetodoInvalido => ConnectReasonCode::BadAuthenticationMethod,
                Rechazo::TestamentoInvalido => ConnectReasonCode::TopicNameInvalid,
            };
            let packet = v5_0::Connack::builder().session_present(false).reason_code(code).build();
            self.send(packet.map(Into::into), out);
        } else {
            let code = match rechazo {
                Rechazo::ClaveIncorrecta => ConnectReturnCode::BadUserNameOrPassword,
                Rechazo::IdentificadorInvalido => ConnectReturnCode::IdentifierRejected,
                Rechazo::NoDisponible | Rechazo::Demasiadas => ConnectReturnCode::ServerUnavailable,
                _ => ConnectReturnCode::NotAuthorized,
            };
            let packet = v3_1_1::Connack::builder().session_present(false).return_code(code).build();
            self.send(packet.map(Into::into), out);
        }
    }

    /// Acknowledges a QoS 1 message.
    pub(super) fn puback(&mut self, pid: u16, razon: Razon, detalle: Option<&str>, out: &mut BytesMut) {
        if !self.cinco {
            let packet = v3_1_1::Puback::builder().packet_id(pid).build();
            self.send(packet.map(Into::into), out);
            return;
        }
        let code = match razon {
            Razon::Exito => PubackReasonCode::Success,
            Razon::NoAutorizado => PubackReasonCode::NotAuthorized,
            Razon::Interno => PubackReasonCode::UnspecifiedError,
            Razon::CargaInvalida => PubackReasonCode::PayloadFormatInvalid,
            Razon::TopicInvalido => PubackReasonCode::TopicNameInvalid,
            Razon::Cuota => PubackReasonCode::QuotaExceeded,
        };
        let builder = || {
            let builder = v5_0::Puback::builder().packet_id(pid);
            if razon == Razon::Exito { builder } else { builder.reason_code(code) }
        };
        if let Some(props) = self.detalle(detalle)
            && self.send(builder().reason_code(code).props(props).build().map(Into::into), out)
        {
            return;
        }
        // Without the words, where they make it larger than the client takes [MQTT-3.4.2-2] [MQTT-3.5.2-2].
        self.send(builder().build().map(Into::into), out);
    }

    /// Answers a QoS 2 message that is dealt with.
    pub(super) fn pubrec(&mut self, pid: u16, razon: Razon, detalle: Option<&str>, out: &mut BytesMut) {
        if !self.cinco {
            let packet = v3_1_1::Pubrec::builder().packet_id(pid).build();
            self.send(packet.map(Into::into), out);
            return;
        }
        let code = match razon {
            Razon::Exito => PubrecReasonCode::Success,
            Razon::NoAutorizado => PubrecReasonCode::NotAuthorized,
            Razon::Interno => PubrecReasonCode::UnspecifiedError,
            Razon::CargaInvalida => PubrecReasonCode::PayloadFormatInvalid,
            Razon::TopicInvalido => PubrecReasonCode::TopicNameInvalid,
            Razon::Cuota => PubrecReasonCode::QuotaExceeded,
        };
        let builder = || {
            let builder = v5_0::Pubrec::builder().packet_id(pid);
            if razon == Razon::Exito { builder } else { builder.reason_code(code) }
        };
        if let Some(props) = self.detalle(detalle)
            && self.send(builder().reason_code(code).props(props).build().map(Into::into), out)
        {
            return;
        }
        // Without the words, where they make it larger than the client takes [MQTT-3.4.2-2] [MQTT-3.5.2-2].
        self.send(builder().build().map(Into::into), out);
    }

    /// Completes a QoS 2 message. `conocido`: its PUBLISH was received.
    pub(super) fn pubcomp(&mut self, pid: u16, conocido: bool, out: &mut BytesMut) {
        if !self.cinco {
            let packet = v3_1_1::Pubcomp::builder().packet_id(pid).build();
            self.send(packet.map(Into::into), out);
            return;
        }
        let mut builder = v5_0::Pubcomp::builder().packet_id(pid);
        if !conocido {
            builder = builder.reason_code(PubcompReasonCode::PacketIdentifierNotFound);
        }
        self.send(builder.build().map(Into::into), out);
    }

    /// Releases a QoS 2 message that the client has.
    pub(super) fn pubrel(&mut self, pid: u16, out: &mut BytesMut) {
        if self.liberados.contains(&pid) {
            return self.pubrel_suelto(pid, Pubrec::Repetido, out);
        }
        let packet = if self.cinco {
            v5_0::Pubrel::builder().packet_id(pid).build().map(Into::into)
        } else {
            v3_1_1::Pubrel::builder().packet_id(pid).build().map(Into::into)
        };
        self.send(packet, out);
    }

    /// Answers a SUBSCRIBE, a result for each filter in order [MQTT-3.8.4-6].
    pub(super) fn suback(&mut self, pid: u16, resultados: &[Result<Qos, Razon>], out: &mut BytesMut) {
        let packet = if self.cinco {
            let code = |r: &Result<Qos, Razon>| match r {
                Ok(Qos::Cero) => SubackReasonCode::GrantedQos0,
                Ok(Qos::Uno) => SubackReasonCode::GrantedQos1,
                Ok(Qos::Dos) => SubackReasonCode::GrantedQos2,
                Err(Razon::TopicInvalido) => SubackReasonCode::TopicFilterInvalid,
                Err(Razon::Cuota) => SubackReasonCode::QuotaExceeded,
                Err(_) => SubackReasonCode::NotAuthorized,
            };
            let codes = resultados.iter().map(code).collect();
            v5_0::Suback::builder().packet_id(pid).reason_codes(codes).build().map(Into::into)
        } else {
            let code = |r: &Result<Qos, Razon>| match r {
                Ok(Qos::Cero) => SubackReturnCode::SuccessMaximumQos0,
                Ok(Qos::Uno) => SubackReturnCode::SuccessMaximumQos1,
                Ok(Qos::Dos) => SubackReturnCode::SuccessMaximumQos2,
                Err(_) => SubackReturnCode::Failure,
            };
            let codes = resultados.iter().map(code).collect();
            v3_1_1::Suback::builder().packet_id(pid).return_codes(codes).build().map(Into::into)
        };
        self.send(packet, out);
    }

    /// Answers an UNSUBSCRIBE: for each filter, whether there was such a subscription.
    pub(super) fn unsuback(&mut self, pid: u16, habia: &[bool], out: &mut BytesMut) {
        let packet = if self.cinco {
            let code = |h: &bool| match h {
                true => UnsubackReasonCode::Success,
                false => UnsubackReasonCode::NoSubscriptionExisted,
            };
            let codes = habia.iter().map(code).collect();
            v5_0::Unsuback::builder().packet_id(pid).reason_codes(codes).build().map(Into::into)
        } else {
            v3_1_1::Unsuback::builder().packet_id(pid).build().map(Into::into)
        };
        self.send(packet, out);
    }

    /// Says why the connection ends, where the version has a way to.
    pub(super) fn disconnect(&mut self, cierre: Cierre, out: &mut BytesMut) {
        if !self.cinco {
            return;
        }
        let code = match cierre {
            Cierre::Protocolo => DisconnectReasonCode::ProtocolError,
            Cierre::NoAutorizado => DisconnectReasonCode::NotAuthorized,
            Cierre::Apagado => DisconnectReasonCode::ServerShuttingDown,
            Cierre::KeepAlive => DisconnectReasonCode::KeepAliveTimeout,
            Cierre::Relevada => DisconnectReasonCode::SessionTakenOver,
            Cierre::TopicInvalido => DisconnectReasonCode::TopicNameInvalid,
            Cierre::Interno => DisconnectReasonCode::UnspecifiedError,
            Cierre::Malformado => DisconnectReasonCode::MalformedPacket,
            Cierre::PaqueteGrande => DisconnectReasonCode::PacketTooLarge,
            Cierre::DemasiadoRapido => DisconnectReasonCode::MessageRateTooHigh,
            Cierre::Administrativo => DisconnectReasonCode::AdministrativeAction,
            Cierre::VentanaExcedida => DisconnectReasonCode::ReceiveMaximumExceeded,
            Cierre::Caducada => DisconnectReasonCode::MaximumConnectTime,
        };
        let packet = v5_0::Disconnect::builder().reason_code(code).build();
        self.send(packet.map(Into::into), out);
    }

    /// Whether the client speaks MQTT 5.
    pub(super) const fn cinco(&self) -> bool {
        self.cinco
    }

    /// Whether the client's Receive Maximum leaves room for another QoS 1 or 2 message.
    pub(super) fn hay_ventana(&self) -> bool {
        self.conn.get_receive_maximum_vacancy_for_send().is_none_or(|n| n > 0)
    }

    /// A free packet id.
    pub(super) fn pid(&mut self) -> Option<u16> {
        self.conn.acquire_packet_id().ok()
    }

    /// Takes back the packet id of a delivery that an earlier connection began.
    pub(super) fn retoma_pid(&mut self, pid: u16) -> bool {
        self.conn.register_packet_id(pid).is_ok()
    }

    /// As [`Self::retoma_pid`], of a delivery that the client has and that only its release is open of.
    pub(super) fn retoma_liberado(&mut self, pid: u16) {
        if self.retoma_pid(pid) {
            self.liberados.insert(pid);
        }
    }

    /// The packet ids of QoS 2 messages that an earlier connection received and did not complete.
    pub(super) fn retoma_recibidos(&mut self, pids: impl IntoIterator<Item = u16>) {
        self.conn.restore_qos2_publish_handled(pids.into_iter().collect());
    }

    /// Sends a message. `pid` where `qos` is 1 or 2; released again when it was not sent.
    pub(super) fn publish(&mut self, envio: &PorEnviar<'_>, out: &mut BytesMut) -> Envio {
        let p = envio.publicacion;
        // The library gives the alias of the topic used least recently, but looks at the size before:
        // where it would not fit, there is none.
        let cabe = || {
            let largo = p.topic.len() + p.payload.len() + p.propiedades.bytes().len();
            self.max_envio.saturating_sub(largo) > HOLGURA
        };
        let alias = self.alias && (self.max_envio == usize::MAX || cabe());
        self.conn.set_auto_map_topic_alias_send(alias);
        let packet: Result<Packet, MqttError> = if self.cinco {
            let mut props = p.propiedades.todas.clone();
            props.extend(
                envio
                    .ids
                    .iter()
                    .filter_map(|id| packet::SubscriptionIdentifier::new(*id).ok().map(Into::into)),
            );
            if let Some(expira) = p.expira {
                let quedan = u32::try_from(expira.since(envio.ahora).as_secs()).unwrap_or(u32::MAX);
                props.extend(packet::MessageExpiryInterval::new(quedan).ok().map(Property::from));
            }
            let builder = v5_0::Publish::builder().topic_name(p.topic.as_str());
            builder.and_then(|b| {
                let b = b.qos(wire(envio.qos)).dup(envio.dup).retain(envio.retain);
                let b = match envio.pid {
                    Some(pid) => b.packet_id(pid),
                    None => b,
                };
                b.props(props).payload(&p.payload[..]).build().map(Into::into)
            })
        } else {
            let builder = v3_1_1::Publish::builder().topic_name(p.topic.as_str());
            builder.and_then(|b| {
                let b = b.qos(wire(envio.qos)).dup(envio.dup).retain(envio.retain);
                let b = match envio.pid {
                    Some(pid) => b.packet_id(pid),
                    None => b,
                };
                b.payload(&p.payload[..]).build().map(Into::into)
            })
        };
        if self.send(packet, out) {
            return Envio::Enviado;
        }
        if let Some(pid) = envio.pid {
            let _ = self.conn.release_packet_id(pid);
        }
        Envio::NoCabe
    }

    fn detalle(&self, detalle: Option<&str>) -> Option<Vec<Property>> {
        let texto = detalle.filter(|_| self.razones)?;
        packet::ReasonString::new(texto).ok().map(|r| vec![r.into()])
    }

    /// Appends a packet; `false` when the library would not have it sent.
    fn send(&mut self, packet: Result<Packet, MqttError>, out: &mut BytesMut) -> bool {
        let packet = match packet {
            Ok(packet) => packet,
            Err(e) => {
                tracing::warn!(error = ?e, "a packet cannot be built");
                return false;
            }
        };
        let mut enviado = false;
        for evento in self.conn.send(packet) {
            match evento {
                Event::RequestSendPacket { packet, .. } => {
                    out.put_slice(&packet.to_continuous_buffer());
                    enviado = true;
                }
                Event::NotifyError(e) => tracing::debug!(error = ?e, "a packet was not sent"),
                _ => {}
            }
        }
        enviado
    }
}

/// A message to send, and how.
pub(super) struct PorEnviar<'a> {
    pub(super) publicacion: &'a Publicacion,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) pid: Option<u16>,
    /// Subscription Identifiers that it matched.
    pub(super) ids: &'a [u32],
    pub(super) ahora: Timestamp,
}

/// What a whole PUBACK, PUBREC, PUBREL or PUBCOMP is about: it stands after a length of one byte or more.
fn pid_de_acuse(packet: &[u8]) -> Option<u16> {
    let (_, usados) = first_packet::varint(packet.get(1..)?).ok()??;
    packet.get(1 + usados..)?.first_chunk().map(|pid| u16::from_be_bytes(*pid))
}

/// A PUBREC with No matching subscribers (0x10): a success, which the library takes for the end of the
/// delivery; to it, it is said without.
fn sin_suscriptores(packet: &[u8]) -> bool {
    let razon = |usados: usize| packet.get(1 + usados + 2) == Some(&0x10);
    packet[0] == 0x50 && first_packet::varint(&packet[1..]).is_ok_and(|v| v.is_some_and(|(_, n)| razon(n)))
}

fn qos(qos: WireQos) -> Qos {
    match qos {
        WireQos::AtMostOnce => Qos::Cero,
        WireQos::AtLeastOnce => Qos::Uno,
        WireQos::ExactlyOnce => Qos::Dos,
    }
}

fn wire(qos: Qos) -> WireQos {
    match qos {
        Qos::Cero => WireQos::AtMostOnce,
        Qos::Uno => WireQos::AtLeastOnce,
        Qos::Dos => WireQos::ExactlyOnce,
    }
}

fn publicacion(
    topic: &str,
    payload: &[u8],
    qos: Qos,
    retain: bool,
    props: &[Property],
    ahora: Timestamp,
) -> Publicacion {
    let pasa = |p: &&Property| {
        matches!(
            p,
            Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_)
        )
    };
    let expira = props.iter().find_map(|p| match p {
        Property::MessageExpiryInterval(v) => {
            Some(ahora.plus(std::time::Duration::from_secs(u64::from(v.val()))))
        }
        _ => None,
    });
    Publicacion {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        qos,
        retain,
        publicador: 0,
        expira,
        propiedades: Propiedades::new(props.iter().filter(pasa).cloned().collect()),
        sensor: None,
        comando: None,
    }
}

fn pedidos(entries: &[packet::SubEntry], props: &[Property]) -> Vec<Pedido> {
    let id = props.iter().find_map(|p| match p {
        Property::SubscriptionIdentifier(v) => Some(v.val()),
        _ => None,
    });
    let pedido = |e: &packet::SubEntry| {
        let o = e.sub_opts();
        Pedido {
            filtro: e.topic_filter().to_owned(),
            qos: qos(o.qos()),
            no_local: o.nl(),
            rap: o.rap(),
            retain: match o.rh() {
                RetainHandling::SendRetained => 0,
                RetainHandling::SendRetainedIfNotExists => 1,
                RetainHandling::DoNotSendRetained => 2,
            },
            id,
        }
    };
    entries.iter().map(pedido).collect()
}

fn connect_3(p: &v3_1_1::Connect) -> Connect {
    let testamento = p.will_topic().map(|topic| {
        let payload = p.will_payload().unwrap_or_default();
        (publicacion(topic, payload, qos(p.will_qos()), p.will_retain(), &[], Timestamp::MIN), 0)
    });
    Connect {
        cinco: false,
        client_id: p.client_id().to_owned(),
        clean: p.clean_session(),
        keep_alive: p.keep_alive(),
        usuario: p.user_name().map(str::to_owned),
        clave: p.password().map(<[u8]>::to_vec),
        testamento,
        // A 3.1.1 session that is not clean has no end of its own.
        expiry: if p.clean_session() { 0 } else { u32::MAX },
        metodo: false,
    }
}

fn connect_5(p: &v5_0::Connect) -> Connect {
    let numero = |f: fn(&Property) -> Option<u32>, props: &[Property]| props.iter().find_map(f).unwrap_or(0);
    let espera = |p: &Property| match p {
        Property::WillDelayInterval(v) => Some(v.val()),
        _ => None,
    };
    let expiry = |p: &Property| match p {
        Property::SessionExpiryInterval(v) => Some(v.val()),
        _ => None,
    };
    let testamento = p.will_topic().map(|topic| {
        let payload = p.will_payload().unwrap_or_default();
        // Its expiry counts from when it is sent, so it is settled then.
        let will =
            publicacion(topic, payload, qos(p.will_qos()), p.will_retain(), p.will_props(), Timestamp::MIN);
        (will, numero(espera, p.will_props()))
    });
    Connect {
        cinco: true,
        client_id: p.client_id().to_owned(),
        clean: p.clean_start(),
        keep_alive: p.keep_alive(),
        usuario: p.user_name().map(str::to_owned),
        clave: p.password().map(<[u8]>::to_vec),
        testamento,
        expiry: numero(expiry, p.props()),
        metodo: p.props().iter().any(|p| matches!(p, Property::AuthenticationMethod(_))),
    }
}
