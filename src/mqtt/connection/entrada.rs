//! What a client sent and nobody has looked at yet: a buffer as large as the client's way of talking needs.

use std::ops::Deref;

use bytes::{Buf as _, BytesMut};

/// Bytes that are read at a time, at first and at most.
const LECTURA: (usize, usize) = (512, 16 << 10);

/// See the module.
pub(super) struct Entrada {
    bytes: BytesMut,
    /// Bytes to be read at a time.
    lectura: usize,
}

impl Entrada {
    /// Begins with what came after the CONNECT.
    pub(super) fn new(bytes: BytesMut) -> Self {
        Self { bytes, lectura: LECTURA.0 }
    }

    /// Where the next bytes go: there is room for some.
    pub(super) fn sitio(&mut self) -> &mut BytesMut {
        let libre = self.bytes.capacity() - self.bytes.len();
        // Emptied, it begins anew at its start, which costs nothing. Otherwise what is left would be filled,
        // however little it is, and look like a client that has more to say.
        if libre == 0 || (self.bytes.is_empty() && libre < self.lectura) {
            self.bytes.reserve(self.lectura);
        }
        &mut self.bytes
    }

    /// `n` bytes came. A client that fills what it is given is given more.
    pub(super) fn leidos(&mut self, n: usize) {
        if n >= self.lectura {
            self.lectura = (self.lectura * 2).min(LECTURA.1);
        }
    }

    /// The first `n` bytes have been dealt with.
    pub(super) fn avanza(&mut self, n: usize) {
        self.bytes.advance(n);
    }

    /// Gives its memory back: nothing has come for a while.
    pub(super) fn suelta(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::new(BytesMut::new());
        }
    }
}

impl Deref for Entrada {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;

    /// Reads what of `mensaje` fits, once.
    fn lee(entrada: &mut Entrada, mensaje: &[u8]) -> usize {
        let sitio = entrada.sitio();
        let n = mensaje.len().min(sitio.capacity() - sitio.len());
        assert!(n > 0);
        sitio.put_slice(&mensaje[..n]);
        entrada.leidos(n);
        n
    }

    #[test]
    fn a_client_that_says_little_for_long_costs_little() {
        let mut entrada = Entrada::new(BytesMut::new());
        for n in 0..100_000 {
            let mut mensaje = &[7; 200][..=n % 150];
            while !mensaje.is_empty() {
                let leidos = lee(&mut entrada, mensaje);
                mensaje = &mensaje[leidos..];
            }
            let largo = entrada.len();
            entrada.avanza(largo);
        }
        assert!(entrada.bytes.capacity() <= 1_024, "{}", entrada.bytes.capacity());
    }

    #[test]
    fn a_client_that_says_much_is_read_in_larger_pieces_and_a_quiet_one_gives_them_back() {
        let mut entrada = Entrada::new(BytesMut::new());
        let mensaje = vec![7; 64 << 10];
        let (mut dicho, mut lecturas) = (0, 0);
        while dicho < mensaje.len() {
            dicho += lee(&mut entrada, &mensaje[dicho..]);
            lecturas += 1;
        }
        assert!(entrada[..] == mensaje[..]);
        assert!(lecturas < 12, "{lecturas}");
        entrada.suelta();
        assert_eq!(entrada.len(), mensaje.len());
        entrada.avanza(mensaje.len());
        entrada.suelta();
        assert_eq!(entrada.bytes.capacity(), 0);
    }
}
