//! A batch whose commit nobody heard the end of.
//!
//! It is kept as it was made until the turn to write is ours again: by then that commit is over. Was it one, the batch
//! is closed as any other: whoever sent it hears that it was taken, subscribers hear of its alerts.

use super::lote::Hecho;
use crate::store::lecturas::{self, Fila};
use crate::store::{self, Tx};

/// What a batch comes to if it is stored.
pub(super) struct Duda {
    pub(super) hecho: Hecho,
    pub(super) testigo: Testigo,
}

/// A reading of the batch, which was not stored like that before.
pub(super) struct Testigo(Fila);

impl Duda {
    /// `filas`: the readings that the batch writes. `None` = it writes none: then it tells nobody of anything, and
    /// another try comes to the same.
    pub(super) fn new(hecho: Hecho, mut filas: Vec<Fila>) -> Option<Self> {
        filas.truncate(1);
        filas.pop().map(|fila| Self { hecho, testigo: Testigo(fila) })
    }
}

impl Testigo {
    /// Whether it is stored, in a transaction that writes: nobody else writes readings.
    pub(super) async fn consta(&self, tx: &mut Tx) -> store::Result<bool> {
        let existentes = lecturas::existing(tx, &[(self.0.id_sensor, self.0.ts)]).await?;
        Ok(existentes.contains(&self.0))
    }
}
