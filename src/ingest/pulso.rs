//! Whether the writer turns: asked by the watchdog, answered by the writer itself.
//!
//! A try that fails because the store is away is a turn as well: nothing that a restart would cure.

use std::time::Duration;

use tokio::sync::{Notify, watch};

#[derive(Debug, Default)]
pub(super) struct Pulso {
    pregunta: Notify,
    vueltas: watch::Sender<u64>,
}

impl Pulso {
    /// Returns once the writer has turned.
    pub(super) async fn espera(&self) {
        let mut vueltas = self.vueltas.subscribe();
        self.pregunta.notify_one();
        // The sender lives as long as `self`.
        let _ = vueltas.changed().await;
    }

    /// Somebody asks; for a writer that has nothing to do.
    pub(super) async fn preguntado(&self) {
        self.pregunta.notified().await;
    }

    /// Rests, and answers meanwhile.
    pub(super) async fn duerme(&self, cuanto: Duration) {
        let fin = tokio::time::sleep(cuanto);
        tokio::pin!(fin);
        loop {
            tokio::select! {
                () = &mut fin => return,
                () = self.preguntado() => self.late(),
            }
        }
    }

    /// The writer has turned.
    pub(super) fn late(&self) {
        self.vueltas.send_modify(|n| *n = n.wrapping_add(1));
    }
}
