//! What the specification asks of a packet and the protocol library lets pass: reserved bits, U+0000,
//! packet id 0, properties that are not a packet's, or come twice, or have no such value.
//!
//! A packet is looked at whole, before the library sees it; what is right passes untouched.

/// A packet that must not be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defecto {
    /// It cannot be read (MQTT 5: 0x81).
    Malformado,
    /// It can be read, and says what it must not (MQTT 5: 0x82).
    Protocolo,
    /// A CONNECT of another protocol, or of a level that is not spoken here.
    Version(u8),
}

use Defecto::{Malformado, Protocolo};

type Hecho<T = ()> = Result<T, Defecto>;

/// What a CONNECT says that its reader needs besides what the library tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) cinco: bool,
    /// A password without a user name, which MQTT 5 allows and the library does not: where the password
    /// field is in the packet.
    pub(super) clave_sola: Option<(usize, usize)>,
    /// Where the flags are.
    pub(super) flags: usize,
}

/// The Topic Alias of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) numero: u16,
    /// It is given a topic here, and does not stand for one.
    pub(super) con_topic: bool,
}

/// Reads a packet from its first byte to its last, and nothing beyond.
struct Lector<'a> {
    bytes: &'a [u8],
    en: usize,
}

impl<'a> Lector<'a> {
    /// Of a whole packet; stands after the fixed header.
    fn cuerpo(packet: &'a [u8]) -> Hecho<Self> {
        let mut lector = Self { bytes: packet, en: 1 };
        lector.varint()?;
        Ok(lector)
    }

    fn quedan(&self) -> usize {
        self.bytes.len() - self.en
    }

    fn u8(&mut self) -> Hecho<u8> {
        let b = *self.bytes.get(self.en).ok_or(Malformado)?;
        self.en += 1;
        Ok(b)
    }

    fn u16(&mut self) -> Hecho<u16> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn u32(&mut self) -> Hecho<u32> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// Four bytes at most, and no more than it needs [MQTT-1.5.5-1].
    fn varint(&mut self) -> Hecho<u32> {
        let mut valor = 0;
        for i in 0..4 {
            let b = self.u8()?;
            valor |= u32::from(b & 0x7f) << (7 * i);
            if b & 0x80 == 0 {
                return if b == 0 && i > 0 { Err(Malformado) } else { Ok(valor) };
            }
        }
        Err(Malformado)
    }

    fn toma(&mut self, n: usize) -> Hecho<&'a [u8]> {
        let trozo = self.bytes.get(self.en..self.en + n).ok_or(Malformado)?;
        self.en += n;
        Ok(trozo)
    }

    fn binario(&mut self) -> Hecho<&'a [u8]> {
        let largo = self.u16()?;
        self.toma(usize::from(largo))
    }

    /// UTF-8 without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    fn texto(&mut self) -> Hecho<&'a str> {
        let texto = str::from_utf8(self.binario()?).map_err(|_| Malformado)?;
        if texto.contains('\0') { Err(Malformado) } else { Ok(texto) }
    }

    /// A packet id, which is not 0 [MQTT-2.2.1-3].
    fn pid(&mut self) -> Hecho {
        if self.u16()? == 0 { Err(Protocolo) } else { Ok(()) }
    }

    fn fin(&self) -> Hecho {
        if self.quedan() == 0 { Ok(()) } else { Err(Malformado) }
    }

    /// Properties, of which only `permitidas` may be there, each once but for user properties.
    fn propiedades(&mut self, permitidas: &[u8]) -> Hecho<Vec<u8>> {
        let mut alias = None;
        self.propiedades_con(permitidas, &mut alias)
    }

    /// As [`Self::propiedades`]; tells the Topic Alias too.
    fn propiedades_con(&mut self, permitidas: &[u8], alias: &mut Option<u16>) -> Hecho<Vec<u8>> {
        let largo = usize::try_from(self.varint()?).map_err(|_| Malformado)?;
        let mut dentro = Lector { bytes: self.toma(largo)?, en: 0 };
        let mut vistas = Vec::new();
        while dentro.quedan() > 0 {
            let id = dentro.u8()?;
            if !CONOCIDAS.contains(&id) {
                return Err(Malformado);
            }
            if !permitidas.contains(&id) || (id != USER_PROPERTY && vistas.contains(&id)) {
                return Err(Protocolo);
            }
            if id == TOPIC_ALIAS {
                *alias = dentro.bytes.get(dentro.en..dentro.en + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
            }
            dentro.valor(id)?;
            vistas.push(id);
        }
        Ok(vistas)
    }

    /// The value of a property (MQTT 5.0 section 2.2.2.2), which it must be able to have.
    fn valor(&mut self, id: u8) -> Hecho {
        let bien = match id {
            // Payload Format Indicator, Request Problem and Response Information.
            0x01 | 0x17 | 0x19 => self.u8()? <= 1,
            // Receive Maximum.
            // Alias 0 is told apart from other bad values by the library (0x94).
            0x21 => self.u16()? > 0,
            TOPIC_ALIAS => self.u16().map(|_| true)?,
            0x22 => self.u16().map(|_| true)?,
            // Message and Session Expiry, Will Delay.
            0x02 | 0x11 | 0x18 => self.u32().map(|_| true)?,
            MAXIMUM_PACKET_SIZE => self.u32()? > 0,
            SUBSCRIPTION_ID => self.varint()? > 0,
            RESPONSE_TOPIC => !self.texto()?.contains(['+', '#']),
            // Content Type, Authentication Method, Reason String.
            0x03 | AUTH_METHOD | 0x1f => self.texto().map(|_| true)?,
            // Correlation and Authentication Data.
            0x09 | AUTH_DATA => self.binario().map(|_| true)?,
            USER_PROPERTY => self.texto().and_then(|_| self.texto()).map(|_| true)?,
            _ => false,
        };
        if bien { Ok(()) } else { Err(Protocolo) }
    }
}

const RESPONSE_TOPIC: u8 = 0x08;
const SUBSCRIPTION_ID: u8 = 0x0b;
const AUTH_METHOD: u8 = 0x15;
const TOPIC_ALIAS: u8 = 0x23;
const AUTH_DATA: u8 = 0x16;
const USER_PROPERTY: u8 = 0x26;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;
/// All that a client may send somewhere, or a server (MQTT 5.0 section 2.2.2.2).
const CONOCIDAS: [u8; 27] = [
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1c, 0x1f,
    0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a,
];
const DE_CONNECT: [u8; 9] =
    [0x11, AUTH_METHOD, AUTH_DATA, 0x17, 0x19, 0x21, 0x22, USER_PROPERTY, MAXIMUM_PACKET_SIZE];
const DE_WILL: [u8; 7] = [0x01, 0x02, 0x03, RESPONSE_TOPIC, 0x09, 0x18, USER_PROPERTY];
const DE_PUBLISH: [u8; 7] = [0x01, 0x02, 0x03, RESPONSE_TOPIC, 0x09, 0x23, USER_PROPERTY];
const DE_ACUSE: [u8; 2] = [0x1f, USER_PROPERTY];
const DE_SUBSCRIBE: [u8; 2] = [SUBSCRIPTION_ID, USER_PROPERTY];
const DE_DISCONNECT: [u8; 3] = [0x11, 0x1f, USER_PROPERTY];
const DE_AUTH: [u8; 4] = [AUTH_METHOD, AUTH_DATA, 0x1f, USER_PROPERTY];

/// Looks at a whole packet that follows the CONNECT; answers the Topic Alias of a PUBLISH.
pub(super) fn examina(packet: &[u8], cinco: bool) -> Hecho<Option<Alias>> {
    let mut l = Lector::cuerpo(packet)?;
    let (tipo, flags) = (packet[0] >> 4, packet[0] & 0x0f);
    // [MQTT-2.1.3-1]; PUBREL, SUBSCRIBE and UNSUBSCRIBE have 0010.
    let esperados = match tipo {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != esperados {
        return Err(Malformado);
    }
    if tipo == 3 {
        return publish(&mut l, flags, cinco);
    }
    otro(&mut l, tipo, cinco)?;
    Ok(None)
}

fn otro(l: &mut Lector<'_>, tipo: u8, cinco: bool) -> Hecho {
    match tipo {
        4..=7 => {
            l.pid()?;
            con_razon(l, cinco, &DE_ACUSE)
        }
        8 => subscribe(l, cinco),
        10 => {
            l.pid()?;
            if cinco {
                l.propiedades(&[USER_PROPERTY])?;
            }
            // [MQTT-3.10.3-2]
            if l.quedan() == 0 {
                return Err(Protocolo);
            }
            while l.quedan() > 0 {
                l.texto()?;
            }
            Ok(())
        }
        12 => l.fin(),
        14 => con_razon(l, cinco, &DE_DISCONNECT),
        15 if cinco => con_razon(l, cinco, &DE_AUTH),
        // A second CONNECT is the connection's to refuse; the rest is a server's, or nobody's.
        1 => Ok(()),
        _ => Err(Protocolo),
    }
}

/// A reason code and properties, which MQTT 5 may leave out from the end, and 3.1.1 does not have.
fn con_razon(l: &mut Lector<'_>, cinco: bool, permitidas: &[u8]) -> Hecho {
    if cinco && l.quedan() > 0 {
        l.u8()?;
        if l.quedan() > 0 {
            l.propiedades(permitidas)?;
        }
    }
    l.fin()
}

fn publish(l: &mut Lector<'_>, flags: u8, cinco: bool) -> Hecho<Option<Alias>> {
    let qos = flags >> 1 & 3;
    // [MQTT-3.3.1-4] [MQTT-3.3.1-2]
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err(Malformado);
    }
    let topic = l.texto()?;
    if qos > 0 {
        l.pid()?;
    }
    if !cinco {
        return if topic.is_empty() { Err(Malformado) } else { Ok(None) };
    }
    let mut alias = None;
    l.propiedades_con(&DE_PUBLISH, &mut alias)?;
    let con_topic = !topic.is_empty();
    // Section 3.3.2.1: without a topic and without an alias there is nothing that it was published to.
    if !con_topic && alias.is_none() {
        return Err(Protocolo);
    }
    Ok(alias.map(|numero| Alias { numero, con_topic }))
}

fn subscribe(l: &mut Lector<'_>, cinco: bool) -> Hecho {
    l.pid()?;
    if cinco {
        l.propiedades(&DE_SUBSCRIBE)?;
    }
    // [MQTT-3.8.3-2]
    if l.quedan() == 0 {
        return Err(Protocolo);
    }
    loop {
        l.texto()?;
        let opciones = l.u8()?;
        // [MQTT-3.8.3-5]; the upper six bits are reserved in 3.1.1, the upper two in 5.0.
        let reservados = if cinco { 0xc0 } else { 0xfc };
        if opciones & reservados != 0 || opciones & 3 == 3 {
            return Err(Malformado);
        }
        // Retain Handling 3.
        if opciones & 0x30 == 0x30 {
            return Err(Protocolo);
        }
        if l.quedan() == 0 {
            return Ok(());
        }
    }
}

/// Looks at a whole CONNECT.
pub(super) fn examina_connect(packet: &[u8]) -> Hecho<Connect> {
    let mut l = Lector::cuerpo(packet)?;
    let nombre = l.binario()?;
    let nivel = l.u8()?;
    if nombre != b"MQTT" || !matches!(nivel, 4 | 5) {
        // MQTT 3.1 had another name; it is told that its level is not spoken [MQTT-3.1.2-2].
        return Err(Defecto::Version(if nombre == b"MQTT" || nombre == b"MQIsdp" { nivel } else { 0 }));
    }
    let cinco = nivel == 5;
    let en_flags = l.en;
    let flags = l.u8()?;
    let (testamento, clave, usuario) = (flags & 4 != 0, flags & 0x40 != 0, flags & 0x80 != 0);
    let qos = flags >> 3 & 3;
    // [MQTT-3.1.2-3] [MQTT-3.1.2-12]
    if flags & 1 != 0 || qos == 3 {
        return Err(Malformado);
    }
    // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if !testamento && flags & 0x38 != 0 {
        return Err(Malformado);
    }
    // [3.1.1 MQTT-3.1.2-22]
    if !cinco && clave && !usuario {
        return Err(Malformado);
    }
    l.u16()?;
    if cinco {
        let vistas = l.propiedades(&DE_CONNECT)?;
        if vistas.contains(&AUTH_DATA) && !vistas.contains(&AUTH_METHOD) {
            return Err(Protocolo);
        }
    }
    l.texto()?;
    if testamento {
        if cinco {
            l.propiedades(&DE_WILL)?;
        }
        l.texto()?;
        l.binario()?;
    }
    if usuario {
        l.texto()?;
    }
    let mut clave_sola = None;
    if clave {
        let desde = l.en;
        l.binario()?;
        clave_sola = (!usuario).then_some((desde, l.en));
    }
    l.fin()?;
    Ok(Connect { cinco, clave_sola, flags: en_flags })
}

/// Whether a CONNECT that could not be read was meant as MQTT 5, and so can be told why.
pub(super) fn parece_cinco(packet: &[u8]) -> bool {
    let Ok(mut l) = Lector::cuerpo(packet) else { return false };
    l.binario().is_ok_and(|nombre| nombre == b"MQTT") && l.u8() == Ok(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_packets_pass_in_both_versions() {
        for (packet, cinco) in [
            (&[0xc0, 0][..], false),
            (&[0xe0, 0], true),
            (&[0x30, 4, 0, 1, b'a', b'x'], false),
            (&[0x32, 6, 0, 1, b'a', 0, 1, 0], true),
            (&[0x40, 2, 0, 1], true),
            (&[0x40, 4, 0, 1, 0x10, 0], true),
            (&[0x62, 2, 0, 1], false),
            (&[0x82, 6, 0, 1, 0, 1, b'a', 2], false),
            (&[0x82, 9, 0, 1, 2, 0x0b, 5, 0, 1, b'a', 0x2e], true),
            (&[0xa2, 5, 0, 1, 0, 1, b'a'], false),
        ] {
            assert_eq!(examina(packet, cinco), Ok(None), "{packet:x?}");
        }
    }

    #[test]
    fn what_the_library_lets_pass_does_not() {
        for (packet, cinco, defecto) in [
            (&[0xc1, 0][..], false, Malformado),
            (&[0x60, 2, 0, 1], false, Malformado),
            (&[0x82, 6, 0, 0, 0, 1, b'a', 2], false, Protocolo),
            (&[0x82, 6, 0, 1, 0, 1, 0, 2], false, Malformado),
            (&[0x82, 6, 0, 1, 0, 1, b'a', 4], false, Malformado),
            (&[0x82, 11, 0, 1, 4, 0x0b, 5, 0x0b, 6, 0, 1, b'a', 0], true, Protocolo),
            (&[0x36, 6, 0, 1, b'a', 0, 1, 0], true, Malformado),
            (&[0x30, 3, 0, 0, 0], true, Protocolo),
            (&[0x20, 2, 0, 0], false, Protocolo),
            (&[0x00, 0], true, Protocolo),
        ] {
            assert_eq!(examina(packet, cinco), Err(defecto), "{packet:x?}");
        }
    }

    #[test]
    fn a_connect_is_read_to_its_end() {
        let connect = |flags: u8, rest: &[u8]| {
            let mut cuerpo = vec![0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60, 0, 0, 1, b'a'];
            cuerpo.extend(rest);
            let mut packet = vec![0x10, u8::try_from(cuerpo.len()).unwrap()];
            packet.extend(cuerpo);
            packet
        };
        let bien = Connect { cinco: true, clave_sola: None, flags: 9 };
        assert_eq!(examina_connect(&connect(2, &[])), Ok(bien));
        assert_eq!(examina_connect(&connect(3, &[])), Err(Malformado));
        assert_eq!(examina_connect(&connect(2, &[0])), Err(Malformado));
        assert_eq!(
            examina_connect(&connect(0x42, &[0, 1, b'p'])),
            Ok(Connect { clave_sola: Some((16, 19)), ..bien })
        );
    }
}
