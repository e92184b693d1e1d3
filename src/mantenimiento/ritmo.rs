//! The pace of background work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store;

/// The shortest rest, so that small steps do not follow each other closely.
const MINIMO: Duration = Duration::from_millis(5);
/// The rest after the store did not answer.
const SIN_ALMACEN: Duration = Duration::from_secs(5);

/// What a step took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paso {
    /// Of readers' time: a core, and nobody waits.
    pub(super) lee: Duration,
    /// Of the writer's time, from when it was ours: what a reading may have waited for.
    pub(super) escribe: Duration,
}

impl Paso {
    /// A step that only wrote.
    pub(super) fn escrito(escribe: Duration) -> Self {
        Self { escribe, ..Self::default() }
    }

    /// The rest after it: a tenth of the writer's time is ours at most, and half of a core's.
    fn reposo(self) -> Duration {
        (self.escribe * 9 + self.lee).max(MINIMO)
    }
}

/// Rests in proportion to a step; `false` = the server is stopping.
pub(super) async fn reposa(parar: &CancellationToken, paso: Paso) -> bool {
    espera(parar, paso.reposo()).await
}

/// As [`reposa`], when it has to be quick: half of the writer's time is ours.
pub(super) async fn respira(parar: &CancellationToken, paso: Paso) -> bool {
    espera(parar, paso.escribe).await
}

/// Waits; `false` = the server is stopping.
pub(super) async fn espera(parar: &CancellationToken, cuanto: Duration) -> bool {
    tokio::select! {
        () = parar.cancelled() => false,
        () = tokio::time::sleep(cuanto) => true,
    }
}

/// Says once that a step failed, and waits; `false` = the server is stopping.
pub(super) async fn falla(
    parar: &CancellationToken,
    que: &'static str,
    e: &store::Error,
    ya: &mut bool,
) -> bool {
    if !std::mem::replace(ya, true) {
        tracing::warn!(error = %e, que, "maintenance cannot go on now; it will be tried again");
    }
    espera(parar, SIN_ALMACEN).await
}
