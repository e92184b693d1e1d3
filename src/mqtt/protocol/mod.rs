//! The wire: the only room that names `mqtt-protocol-core`.
//!
//! Sans-I/O: bytes in, [`Entrante`] out, answers appended to a buffer. Both versions of the protocol
//! come out as one set of types; framing, packet ids, QoS handshakes, incoming topic aliases and the
//! client's limits are the library's. Acknowledgements are never automatic: the session sends them
//! when what they promise has been done.

mod incoming;
mod outgoing;
mod types;

use std::collections::HashSet;

use mqtt_protocol_core::mqtt::connection::ConnectionOptions;
use mqtt_protocol_core::mqtt::{self, Version, role};

#[cfg(test)]
pub(super) use types::Recibido;
pub(super) use types::{
    Bienvenida, Cierre, Connect, Entrante, Envio, Pedido, PorEnviar, Propiedades, Pubrec, Razon, Rechazo,
    Violacion,
};

/// Topic aliases that a client may use towards us.
const ALIAS_MAXIMO: u16 = 16;
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
}
