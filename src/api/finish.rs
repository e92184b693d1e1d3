//! Work that ends once it has begun.
//!
//! A handler is dropped where it stands when its client goes or its time is up; between a commit and
//! what memory must learn of it, that would leave a retired device connected until the next start.
//!
//! A commit of which nobody knows whether it was one leaves memory behind in the same way: it is read again
//! before the next change, and without one as soon as the store answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::Instrument as _;

use super::State;
use super::problem::{Outcome, Problem};
use crate::store;

/// Between two tries to read memory again.
const PAUSE: Duration = Duration::from_secs(1);

/// Whose turn it is to change what memory knows too.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<Behind>>);

/// Whether memory may be behind the store.
#[derive(Default)]
struct Behind(bool);

impl Behind {
    async fn catch_up(&mut self, state: &State) -> store::Result<()> {
        if self.0 {
            state.parts().directorio.relee(&state.parts().store).await?;
            self.0 = false;
        }
        Ok(())
    }
}

/// Runs `work` to its end, whatever becomes of the request, and in turn with all other work of this
/// kind: what memory learns comes in the order of the commits.
pub(super) async fn to_its_end<T: Send + 'static>(
    state: &State,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    // Waited for by the request, so that whoever hangs up meanwhile leaves nothing behind.
    let mut turn = state.0.changes.0.clone().lock_owned().await;
    let state = state.clone();
    let in_turn = async move {
        turn.catch_up(&state).await?;
        let done = work.await;
        if done.as_ref().is_err_and(|problem| problem.outcome() == Outcome::Undecided) {
            turn.0 = true;
            tokio::spawn(settle(state));
        }
        done
    };
    // A panic in it is the request's, and answered as one.
    tokio::spawn(in_turn.in_current_span()).await.unwrap_or_else(|e| Err(Problem::internal(&e)))
}

/// Reads memory again, as soon as that can be.
async fn settle(state: State) {
    loop {
        let caught_up = state.0.changes.0.lock().await.catch_up(&state).await;
        let Err(e) = caught_up else { return };
        tracing::warn!(error = %e, "who sees what cannot be read again yet");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = state.0.stop.cancelled() => return,
        }
    }
}
