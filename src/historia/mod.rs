//! What a sensor said, over any range: in buckets, as a curve of so many points, as figures.
//!
//! Whole hours come from their sums, and what has been written since they were summed from the readings
//! themselves ([`tramos`]), so that an answer is exact at every moment; see
//! `docs/decisions/0008-hours-are-recomputed.md`. Ranges are half open: `desde <= ts < antes_de`.

mod consulta;
mod curva;
mod intervalo;
pub mod lttb;
#[cfg(test)]
mod tests;
mod tramos;

pub use consulta::{Estadisticas, Figura, MAX_VARIABLES, buckets, statistics};
pub use curva::{Curva, MAX_PUNTOS, curve};
pub use intervalo::Intervalo;
pub use tramos::Fuente;

use crate::domain::Timestamp;

/// From a moment on to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rango {
    /// The first moment.
    pub desde: Timestamp,
    /// The first moment that is not part of it.
    pub antes_de: Timestamp,
}

impl Rango {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn vacio(self) -> bool {
        self.desde >= self.antes_de
    }

    /// How long it is, in microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.antes_de.micros().saturating_sub(self.desde.micros())
    }
}

/// The hour after `hora`.
fn siguiente(hora: Timestamp) -> Timestamp {
    Timestamp::clamped(hora.micros() + Timestamp::HORA)
}
