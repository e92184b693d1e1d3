//! What the session and the wire say to each other.

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::Property;

use crate::domain::Timestamp;
use crate::mqtt::publicacion::{Publicacion, Qos};

/// Properties of MQTT 5 that are passed on unchanged.
#[derive(Debug, Clone, Default)]
pub(in crate::mqtt) struct Propiedades {
    pub(super) todas: Vec<Property>,
    peso: usize,
}

impl Propiedades {
    pub(super) fn new(todas: Vec<Property>) -> Self {
        let peso = todas.iter().map(|p| p.size() + size_of::<Property>()).sum();
        Self { todas, peso }
    }

    /// Bytes that they hold in memory, roughly: a client may send a hundred thousand in a packet.
    pub(in crate::mqtt) fn peso(&self) -> usize {
        self.peso
    }

    /// As they stand in a packet.
    pub(in crate::mqtt) fn bytes(&self) -> Bytes {
        self.todas.iter().flat_map(Property::to_continuous_buffer).collect()
    }

    /// Read again from [`Self::bytes`].
    pub(in crate::mqtt) fn leidas(mut bytes: &[u8]) -> Self {
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
pub(in crate::mqtt) enum Entrante {
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
pub(in crate::mqtt) struct Connect {
    pub(in crate::mqtt) cinco: bool,
    pub(in crate::mqtt) client_id: String,
    pub(in crate::mqtt) clean: bool,
    /// Seconds; 0 = none.
    pub(in crate::mqtt) keep_alive: u16,
    pub(in crate::mqtt) usuario: Option<String>,
    pub(in crate::mqtt) clave: Option<Vec<u8>>,
    /// The will and its delay in seconds.
    pub(in crate::mqtt) testamento: Option<(Publicacion, u32)>,
    /// Seconds that the session outlives the connection; `u32::MAX` = for ever.
    pub(in crate::mqtt) expiry: u32,
    /// Enhanced authentication was asked for.
    pub(in crate::mqtt) metodo: bool,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone)]
pub(in crate::mqtt) struct Pedido {
    pub(in crate::mqtt) filtro: String,
    pub(in crate::mqtt) qos: Qos,
    pub(in crate::mqtt) no_local: bool,
    /// Retain As Published.
    pub(in crate::mqtt) rap: bool,
    /// Retain Handling: 0 always, 1 on a new subscription, 2 never.
    pub(in crate::mqtt) retain: u8,
    /// Subscription Identifier.
    pub(in crate::mqtt) id: Option<u32>,
}

/// Why something was refused, with the code that MQTT 5 has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Razon {
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
pub(in crate::mqtt) enum Cierre {
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
    pub(in crate::mqtt) const fn motivo(self) -> &'static str {
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
pub(in crate::mqtt) enum Rechazo {
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
pub(in crate::mqtt) struct Bienvenida {
    pub(in crate::mqtt) sesion_presente: bool,
    pub(in crate::mqtt) client_id_asignado: Option<String>,
    /// Seconds, when not what the client asked for.
    pub(in crate::mqtt) expiry: Option<u32>,
    pub(in crate::mqtt) keep_alive: Option<u16>,
}

/// What came of sending a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Envio {
    Enviado,
    /// Larger than the client takes [MQTT-3.1.2-24]: as if delivered.
    NoCabe,
}

/// What one call of [`Protocol::recv`] came to.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Recibido {
    /// Bytes that were used.
    pub(in crate::mqtt) usados: usize,
    pub(in crate::mqtt) paquete: Option<Entrante>,
    /// The client broke the protocol, or what it sent cannot be taken: the connection is over.
    pub(in crate::mqtt) violacion: Option<Violacion>,
}

/// How a client broke the protocol.
#[derive(Debug)]
pub(in crate::mqtt) struct Violacion {
    /// For the log.
    pub(in crate::mqtt) que: String,
    /// What MQTT 5 says of it; `None` when that has been appended already.
    pub(in crate::mqtt) cierre: Option<Cierre>,
}

impl Violacion {
    pub(super) fn nuestra(que: impl Into<String>, cierre: Cierre) -> Self {
        Self { que: que.into(), cierre: Some(cierre) }
    }
}

/// How a PUBREC or PUBCOMP of the client stands to what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Pubrec {
    /// It was waited for.
    Esperado,
    /// It came before.
    Repetido,
    /// Nothing with its packet id is in flight.
    Ajeno,
}

/// A message to send, and how.
pub(in crate::mqtt) struct PorEnviar<'a> {
    pub(in crate::mqtt) publicacion: &'a Publicacion,
    pub(in crate::mqtt) qos: Qos,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) dup: bool,
    pub(in crate::mqtt) pid: Option<u16>,
    /// Subscription Identifiers that it matched.
    pub(in crate::mqtt) ids: &'a [u32],
    pub(in crate::mqtt) ahora: Timestamp,
}
