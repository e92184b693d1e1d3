//! The first packet of a connection, before the protocol library sees it.
//!
//! mqtt-protocol-core 0.7.9 panics on a CONNECT whose Topic Alias Maximum is 0 (which is legal and
//! means "none", MQTT 5.0 section 3.1.2.11.5): a 0 becomes a 1 before the library reads it, and the
//! caller is told that there are to be no aliases all the same.

use bytes::{BufMut as _, BytesMut};

use super::strict::Connect;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Primero {
    /// Not a whole packet yet.
    Incompleto,
    /// A whole CONNECT of this many bytes.
    Connect(usize),
    /// A CONNECT of more than `max` bytes.
    Grande,
    /// Anything else [MQTT-3.1.0-1].
    Ajeno,
}

/// Looks at what has arrived.
pub(super) fn mira(bytes: &[u8], max: usize) -> Primero {
    let Some((tipo, resto)) = bytes.split_first() else { return Primero::Incompleto };
    if *tipo != 0x10 {
        return Primero::Ajeno;
    }
    match varint(resto) {
        Ok(Some((longitud, usados))) => {
            let total = 1 + usados + longitud;
            match total {
                _ if total > max => Primero::Grande,
                _ if bytes.len() < total => Primero::Incompleto,
                _ => Primero::Connect(total),
            }
        }
        Ok(None) => Primero::Incompleto,
        Err(()) => Primero::Ajeno,
    }
}

/// Makes a Topic Alias Maximum of 0 a 1 in a whole CONNECT; anything malformed is left for the
/// library to refuse. Answers whether there was one.
pub(super) fn sin_alias_cero(connect: &mut [u8]) -> bool {
    let donde = alias_cero(connect);
    if let Some(donde) = donde {
        connect[donde] = 1;
    }
    donde.is_some()
}

/// Where the low byte of a Topic Alias Maximum of 0 is.
fn alias_cero(connect: &[u8]) -> Option<usize> {
    let (_, usados) = varint(connect.get(1..)?).ok()??;
    let mut en = 1 + usados;
    en += 2 + usize::from(u16::from_be_bytes([*connect.get(en)?, *connect.get(en + 1)?]));
    if *connect.get(en)? != 5 {
        return None;
    }
    en += 1 + 1 + 2;
    let (longitud, usados) = varint(connect.get(en..)?).ok()??;
    en += usados;
    let fin = en + longitud;
    while en < fin {
        let id = *connect.get(en)?;
        en += 1;
        let largo =
            |en: usize| Some(2 + usize::from(u16::from_be_bytes([*connect.get(en)?, *connect.get(en + 1)?])));
        en += match id {
            0x22 => {
                if connect.get(en..en + 2)? == [0, 0] {
                    return Some(en + 1);
                }
                2
            }
            // Receive Maximum; Session Expiry Interval, Maximum Packet Size; two flags.
            0x21 => 2,
            0x11 | 0x27 => 4,
            0x17 | 0x19 => 1,
            // Authentication Method and Data.
            0x15 | 0x16 => largo(en)?,
            // User Property.
            0x26 => {
                let clave = largo(en)?;
                clave + largo(en + clave)?
            }
            _ => return None,
        };
    }
    None
}

/// A Variable Byte Integer and its length; `None` when there is more to come, an error when it is
/// longer than four bytes [MQTT-1.5.5-1].
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, ()> {
    let mut valor = 0;
    for i in 0..4 {
        let Some(b) = bytes.get(i) else { return Ok(None) };
        valor |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Ok(Some((valor, i + 1)));
        }
    }
    Err(())
}

/// Takes a password without a user name out of a whole CONNECT, which the library does not take with
/// it (MQTT 5.0 section 3.1.2.9 does); answers the password.
pub(super) fn saca_clave(connect: &mut BytesMut, leido: &Connect) -> Option<Vec<u8>> {
    let (desde, hasta) = leido.clave_sola?;
    let clave = connect.get(desde + 2..hasta)?.to_vec();
    let (_, usados) = varint(connect.get(1..)?).ok()??;
    let mut cuerpo = connect.split_off(1 + usados);
    cuerpo[leido.flags - 1 - usados] &= !0x40;
    cuerpo.truncate(desde - 1 - usados);
    let mut longitud = cuerpo.len();
    connect.truncate(1);
    loop {
        let b = u8::try_from(longitud % 128).unwrap_or_default();
        longitud /= 128;
        connect.put_u8(if longitud > 0 { b | 0x80 } else { b });
        if longitud == 0 {
            break;
        }
    }
    connect.unsplit(cuerpo);
    Some(clave)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CONNECT, version 5, keep alive 60, client id "a", with these properties.
    fn connect(props: &[u8]) -> Vec<u8> {
        let mut cuerpo = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, u8::try_from(props.len()).unwrap()];
        cuerpo.extend(props);
        cuerpo.extend([0, 1, b'a']);
        let mut packet = vec![0x10, u8::try_from(cuerpo.len()).unwrap()];
        packet.extend(cuerpo);
        packet
    }

    #[test]
    fn only_a_zero_alias_maximum_is_changed() {
        let mut con_cero = connect(&[0x26, 0, 1, b'k', 0, 1, b'v', 0x22, 0, 0, 0x21, 0, 5]);
        let mut esperado = con_cero.clone();
        let donde = esperado.windows(3).position(|w| w == [0x22, 0, 0]).unwrap() + 2;
        esperado[donde] = 1;
        assert!(sin_alias_cero(&mut con_cero));
        assert_eq!(con_cero, esperado);
        for igual in
            [connect(&[0x22, 0, 9]), connect(&[]), connect(&[0x26, 0, 200]), vec![0x10, 2, 0, 9], vec![0x10]]
        {
            let mut copia = igual.clone();
            assert!(!sin_alias_cero(&mut copia));
            assert_eq!(copia, igual);
        }
    }

    #[test]
    fn a_password_alone_is_taken_out_and_what_is_left_is_a_connect() {
        let mut con_clave = BytesMut::from(&connect(&[0x21, 0, 5])[..]);
        con_clave[9] |= 0x40;
        con_clave.extend([0, 2, b'p', b'w']);
        con_clave[1] += 4;
        let leido = super::super::strict::examina_connect(&con_clave).unwrap();
        assert_eq!(saca_clave(&mut con_clave, &leido).unwrap(), b"pw");
        assert_eq!(con_clave, connect(&[0x21, 0, 5]));
    }

    #[test]
    fn the_first_packet_is_a_whole_connect() {
        let packet = connect(&[]);
        assert_eq!(mira(&packet, 1000), Primero::Connect(packet.len()));
        assert_eq!(mira(&packet[..5], 1000), Primero::Incompleto);
        assert_eq!(mira(&packet, 10), Primero::Grande);
        assert_eq!(mira(b"GET / HTTP/1.1", 1000), Primero::Ajeno);
        assert_eq!(mira(&[0x10, 0xff, 0xff, 0xff, 0xff], 1000), Primero::Ajeno);
    }
}
