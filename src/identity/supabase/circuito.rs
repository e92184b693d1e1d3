//! Stops asking a server that does not answer, so that nobody waits for what will not come: after a few
//! failures in a row everybody is told at once, and now and then one request is let through to see.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which nobody is let through.
const FALLOS: u32 = 5;
/// For how long.
const ESPERA: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Circuito(Mutex<Estado>);

#[derive(Debug, Default)]
struct Estado {
    fallos: u32,
    abierto: Option<Instant>,
}

impl Circuito {
    /// Whether a request may go out.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn pasa(&self) -> Result<(), Duration> {
        let mut estado = self.estado();
        let Some(hasta) = estado.abierto else { return Ok(()) };
        let ahora = Instant::now();
        if ahora < hasta {
            return Err(hasta - ahora);
        }
        // One goes to see; the others wait for what it finds.
        estado.abierto = Some(ahora + ESPERA);
        Ok(())
    }

    /// Whether somebody would be told to wait; nobody goes to see by asking this.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn cerrado(&self) -> Result<(), Duration> {
        let queda = self.estado().abierto.map(|hasta| hasta.saturating_duration_since(Instant::now()));
        queda.filter(|queda| !queda.is_zero()).map_or(Ok(()), Err)
    }

    /// What became of a request that went out.
    pub(super) fn anota(&self, bien: bool) {
        let mut estado = self.estado();
        if bien {
            if estado.abierto.is_some() {
                tracing::info!("Supabase answers again");
            }
            *estado = Estado::default();
            return;
        }
        estado.fallos = estado.fallos.saturating_add(1);
        if estado.fallos >= FALLOS {
            if estado.abierto.is_none() {
                tracing::error!("Supabase does not answer; it is asked again every 10 seconds");
            }
            estado.abierto = Some(Instant::now() + ESPERA);
        }
    }

    // Each change is one assignment: a panic leaves nothing half done.
    fn estado(&self) -> MutexGuard<'_, Estado> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_through_to_see() {
        let circuito = Circuito::default();
        for _ in 0..FALLOS - 1 {
            circuito.anota(false);
        }
        circuito.anota(true);
        for _ in 0..FALLOS {
            assert!(circuito.pasa().is_ok(), "a success in between begins the count anew");
            circuito.anota(false);
        }
        assert!(circuito.pasa().unwrap_err() <= ESPERA);
        tokio::time::advance(ESPERA).await;
        assert!(circuito.pasa().is_ok());
        assert!(circuito.pasa().is_err(), "one alone");
        circuito.anota(true);
        assert!(circuito.pasa().is_ok() && circuito.pasa().is_ok());
    }
}
