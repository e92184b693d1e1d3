//! Whether the machine's clock can be right (contract section 1.1): a Pi without a clock of its own
//! wakes up in the past after a power cut, and what it then says of a reading's moment is worth nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::{BUILD_DATE, Clock, Timestamp};

/// The clock may be this far behind the newest stored reading.
const ATRASO: Duration = Duration::from_secs(86_400);

/// The clock, and what it is held against.
pub(super) struct Reloj {
    clock: Arc<dyn Clock>,
    /// The newest moment stored, in microseconds.
    mas_nueva: AtomicI64,
}

/// The machine's clock cannot be right: nothing is judged by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelojIncorrecto {
    /// Before this program was built.
    #[error("the clock says {0}, before this program was built ({BUILD_DATE})")]
    AntesDelPrograma(Timestamp),
    /// More than a day before the newest stored reading.
    #[error("the clock says {0}, more than a day before the newest stored reading ({1})")]
    AntesDeLoGuardado(Timestamp, Timestamp),
}

impl Reloj {
    pub(super) fn new(clock: Arc<dyn Clock>, mas_nueva: Option<Timestamp>) -> Self {
        let reloj = Self { clock, mas_nueva: AtomicI64::new(i64::MIN) };
        reloj.guardada(mas_nueva);
        reloj
    }

    /// The newest moment that is stored now.
    pub(super) fn guardada(&self, mas_nueva: Option<Timestamp>) {
        self.mas_nueva.store(mas_nueva.map_or(i64::MIN, Timestamp::micros), Ordering::Relaxed);
    }

    /// The time, right or not.
    pub(super) fn ahora(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time, if it can be right.
    pub(super) fn hora(&self) -> Result<Timestamp, RelojIncorrecto> {
        let ahora = self.clock.now();
        if ahora < BUILD_DATE {
            return Err(RelojIncorrecto::AntesDelPrograma(ahora));
        }
        let mas_nueva = Timestamp::clamped(self.mas_nueva.load(Ordering::Relaxed));
        if ahora.plus(ATRASO) < mas_nueva {
            return Err(RelojIncorrecto::AntesDeLoGuardado(ahora, mas_nueva));
        }
        Ok(ahora)
    }
}
