//! Work that ends once it has begun.
//!
//! A handler is dropped where it stands when its client goes or its time is up; between a commit and
//! what memory must learn of it, that would leave a retired device connected until the next start.

use tracing::Instrument as _;

use super::State;
use super::problem::Problem;

/// Runs `work` to its end, whatever becomes of the request, and in turn with all other work of this
/// kind: what memory learns comes in the order of the commits.
pub(super) async fn to_its_end<T: Send + 'static>(
    state: &State,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    // Waited for by the request, so that whoever hangs up meanwhile leaves nothing behind.
    let turn = state.0.changes.clone().lock_owned().await;
    let in_turn = async move {
        let _turn = turn;
        work.await
    };
    // A panic in it is the request's, and answered as one.
    tokio::spawn(in_turn.in_current_span()).await.unwrap_or_else(|e| Err(Problem::internal(&e)))
}
