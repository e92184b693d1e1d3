//! The pace of background work.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::store;

/// How long the work rests after a step, as a multiple of the step: it has a tenth of the writer's time
/// at most, and the readings have the rest.
const REPOSO: u32 = 9;
/// The shortest rest, so that small steps do not follow each other closely.
const MINIMO: Duration = Duration::from_millis(5);
/// The rest after the store did not answer.
const SIN_ALMACEN: Duration = Duration::from_secs(5);

/// Rests in proportion to the step that began at `desde`; `false` = the server is stopping.
pub(super) async fn reposa(parar: &CancellationToken, desde: Instant) -> bool {
    espera(parar, (desde.elapsed() * REPOSO).max(MINIMO)).await
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
