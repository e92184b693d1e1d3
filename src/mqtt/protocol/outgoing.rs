//! Packets to the client, appended to a buffer.

use bytes::{BufMut as _, BytesMut};
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{self, Qos as WireQos};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Packet, Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
    PubcompReasonCode, PubrecReasonCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};

use super::types::{Bienvenida, Cierre, Envio, PorEnviar, Pubrec, Razon, Rechazo};
use super::{ALIAS_MAXIMO, Protocol};
use crate::mqtt::publicacion::Qos;

/// More bytes than a PUBLISH has besides topic, payload, the properties that are passed on and Subscription
/// Identifiers: header, packet id, expiry, alias.
const HOLGURA: usize = 40;
/// A Subscription Identifier at its longest.
const IDENTIFICADOR: usize = 5;

impl Protocol {
    /// Answers a CONNECT that is let in. `false` when the client does not take so large a packet.
    pub(in crate::mqtt) fn connack(&mut self, bienvenida: &Bienvenida, out: &mut BytesMut) -> bool {
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
    pub(in crate::mqtt) fn rechaza(&mut self, rechazo: Rechazo, out: &mut BytesMut) {
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
    pub(in crate::mqtt) fn puback(
        &mut self,
        pid: u16,
        razon: Razon,
        detalle: Option<&str>,
        out: &mut BytesMut,
    ) {
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
    pub(in crate::mqtt) fn pubrec(
        &mut self,
        pid: u16,
        razon: Razon,
        detalle: Option<&str>,
        out: &mut BytesMut,
    ) {
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
    pub(in crate::mqtt) fn pubcomp(&mut self, pid: u16, conocido: bool, out: &mut BytesMut) {
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
    pub(in crate::mqtt) fn pubrel(&mut self, pid: u16, out: &mut BytesMut) {
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
    pub(in crate::mqtt) fn suback(
        &mut self,
        pid: u16,
        resultados: &[Result<Qos, Razon>],
        out: &mut BytesMut,
    ) {
        let packet = if self.cinco {
            let code = |r: &Result<Qos, Razon>| match r {
                Ok(Qos::Cero) => SubackReasonCode::GrantedQos0,
                Ok(Qos::Uno) => SubackReasonCode::GrantedQos1,
                Ok(Qos::Dos) => SubackReasonCode::GrantedQos2,
                Err(Razon::TopicInvalido) => SubackReasonCode::TopicFilterInvalid,
                Err(Razon::Cuota) => SubackReasonCode::QuotaExceeded,
                Err(Razon::Interno) => SubackReasonCode::UnspecifiedError,
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
    pub(in crate::mqtt) fn unsuback(&mut self, pid: u16, habia: &[bool], out: &mut BytesMut) {
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
    pub(in crate::mqtt) fn disconnect(&mut self, cierre: Cierre, out: &mut BytesMut) {
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

    /// Sends a message. `pid` where `qos` is 1 or 2; released again when it was not sent.
    pub(in crate::mqtt) fn publish(&mut self, envio: &PorEnviar<'_>, out: &mut BytesMut) -> Envio {
        let p = envio.publicacion;
        // The library gives the alias of the topic used least recently, but looks at the size before:
        // where it would not fit, there is none.
        let cabe = || {
            let ids = envio.ids.len() * IDENTIFICADOR;
            let largo = p.topic.len() + p.payload.len() + p.propiedades.bytes().len();
            self.max_envio.saturating_sub(largo + ids) > HOLGURA
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

fn wire(qos: Qos) -> WireQos {
    match qos {
        Qos::Cero => WireQos::AtMostOnce,
        Qos::Uno => WireQos::AtLeastOnce,
        Qos::Dos => WireQos::ExactlyOnce,
    }
}
