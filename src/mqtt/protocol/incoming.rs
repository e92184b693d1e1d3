//! Bytes of the client, taken packet by packet.

use bytes::{BufMut as _, Bytes, BytesMut};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{self, Qos as WireQos, RetainHandling};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Packet, Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, MqttError};

use super::Protocol;
use super::types::{Cierre, Connect, Entrante, Pedido, Propiedades, Pubrec, Recibido, Violacion};
use crate::domain::Timestamp;
use crate::mqtt::publicacion::{Publicacion, Qos};
use crate::mqtt::strict::Defecto;
use crate::mqtt::throttle::limita;
use crate::mqtt::{first_packet, strict};

impl Protocol {
    /// Takes one packet, once it is there whole. `sin_confirmar` says whether the QoS 2 message with an
    /// incoming packet id waits for its commit: then it is not answered when it is repeated. `pubrec` says how a
    /// PUBREC or PUBCOMP with this packet id stands.
    pub(in crate::mqtt) fn recv(
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
            if matches!(e, MqttError::ReceiveMaximumExceeded) {
                limita("receive_maximum");
            }
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
    pub(super) fn pubrel_suelto(&self, pid: u16, como: Pubrec, out: &mut BytesMut) {
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
