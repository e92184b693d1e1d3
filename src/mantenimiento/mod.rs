//! What the server does when nobody asks: sums hours, forgets what is past its days, keeps to its disk.
//!
//! | file | what it does |
//! |---|---|
//! | `horas` | sums the hours that something was written to |
//!
//! Each is a task that lives as long as the server, works in small steps (`ritmo`), and tries again when
//! the store is away. None of them is ever in the way of a reading for longer than a step.

mod horas;
mod ritmo;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::Clock;
use crate::store::Store;

/// What the tasks work with; cheap to clone.
#[derive(Clone)]
pub struct Mantenimiento {
    store: Store,
    clock: Arc<dyn Clock>,
    parar: CancellationToken,
}

impl Mantenimiento {
    /// From its parts; works until `parar` is cancelled.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, parar: CancellationToken) -> Self {
        Self { store, clock, parar }
    }

    /// Sums hours as they close, and the past of what was stored before there were sums.
    pub async fn sum_hours(self) {
        horas::run(self).await;
    }
}
