//! The PROXY protocol, version 2: what a proxy in front says about the client, before anything else.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, section 2.2. Exactly the header is
//! read and not a byte more, so that TLS or MQTT can follow. Version 1 is refused: nothing bounds
//! its line but a newline.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _};

const FIRMA: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes after the first sixteen: addresses take up to 216, the rest are extensions that are skipped.
const MAX_RESTO: usize = 2_048;

/// Reads the header; answers the client's address. `None` when the proxy speaks for itself (LOCAL: a
/// health check), or for a client that has no IP address: the connection's own then stands.
///
/// # Errors
/// When it is not such a header, or the connection ends before it does.
pub(super) async fn lee<R>(lee: &mut R) -> io::Result<Option<IpAddr>>
where
    R: AsyncRead + Unpin,
{
    let malo = |que: &'static str| io::Error::new(io::ErrorKind::InvalidData, que);
    let mut cabeza = [0; 16];
    lee.read_exact(&mut cabeza).await?;
    if cabeza[..12] != FIRMA {
        let uno = cabeza.starts_with(b"PROXY ");
        return Err(malo(if uno {
            "version 1 of the PROXY protocol: the proxy has to send version 2"
        } else {
            "no PROXY protocol header"
        }));
    }
    let local = match cabeza[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(malo("a version or command that the PROXY protocol does not have")),
    };
    let largo = usize::from(u16::from_be_bytes([cabeza[14], cabeza[15]]));
    if largo > MAX_RESTO {
        return Err(malo("a PROXY protocol header that is too long"));
    }
    let mut resto = [0; MAX_RESTO];
    let resto = &mut resto[..largo];
    lee.read_exact(resto).await?;
    // The source address comes first; TCP over IPv4, TCP over IPv6; unspecified, a Unix socket.
    match (local, cabeza[13]) {
        (true, _) | (false, 0x00 | 0x31) => Ok(None),
        (false, 0x11) if largo >= 12 => Ok(resto.first_chunk::<4>().map(|ip| IpAddr::from(*ip))),
        (false, 0x21) if largo >= 36 => {
            Ok(resto.first_chunk::<16>().map(|ip| IpAddr::from(*ip).to_canonical()))
        }
        _ => Err(malo("addresses that the PROXY protocol does not have for TCP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cabecera(orden: u8, familia: u8, resto: &[u8]) -> Vec<u8> {
        let mut bytes = FIRMA.to_vec();
        bytes.extend([orden, familia]);
        bytes.extend(u16::try_from(resto.len()).unwrap().to_be_bytes());
        bytes.extend(resto);
        bytes
    }

    async fn leido(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let mut r = bytes;
        let ip = lee(&mut r).await;
        (ip, r.to_vec())
    }

    #[tokio::test]
    async fn the_address_is_the_clients_and_what_follows_is_left() {
        let cuatro = [203, 0, 113, 7, 127, 0, 0, 1, 0xc0, 0, 0x1f, 0x90];
        let con_extension = [&cuatro[..], &[4, 0, 1, 9]].concat();
        let mut seis = [0; 36];
        seis[..2].copy_from_slice(&[0x20, 0x01]);
        seis[15] = 9;
        for (orden, familia, resto, esperado) in [
            (0x21, 0x11, &cuatro[..], Some("203.0.113.7")),
            (0x21, 0x11, &con_extension, Some("203.0.113.7")),
            (0x21, 0x21, &seis, Some("2001::9")),
            (0x20, 0x11, &cuatro, None),
            (0x20, 0x00, &[], None),
            (0x21, 0x00, &[], None),
            (0x21, 0x31, &[0; 216], None),
        ] {
            let mut bytes = cabecera(orden, familia, resto);
            bytes.extend(b"rest");
            let (ip, queda) = leido(&bytes).await;
            assert_eq!(ip.unwrap(), esperado.map(|ip| ip.parse().unwrap()), "{orden:x} {familia:x}");
            assert_eq!(queda, b"rest");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let cuatro = [203, 0, 113, 7, 127, 0, 0, 1, 0xc0, 0, 0x1f, 0x90];
        let uno = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n".to_vec();
        assert!(leido(&uno).await.0.unwrap_err().to_string().contains("version 1"));
        for malo in [
            vec![0x10; 40],
            cabecera(0x22, 0x11, &cuatro),
            cabecera(0x11, 0x11, &cuatro),
            cabecera(0x21, 0x12, &cuatro),
            cabecera(0x21, 0x11, &cuatro[..8]),
            cabecera(0x21, 0x21, &cuatro),
            cabecera(0x21, 0x00, &[0; 2_049]),
            cabecera(0x21, 0x11, &cuatro)[..20].to_vec(),
            FIRMA.to_vec(),
        ] {
            assert!(leido(&malo).await.0.is_err(), "{malo:?}");
        }
    }
}
