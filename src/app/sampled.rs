//! The figures that nobody counts as they happen.

use std::path::PathBuf;
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::until_dead;
use crate::config::Config;
use crate::ingest::{self, Ingest};
use crate::lifecycle::Tokens;

/// What nobody counts as it happens: looked at now and then.
pub(super) struct Sampled {
    ingest: Ingest,
    broker_ready: watch::Receiver<bool>,
    /// Where the database grows.
    disk: PathBuf,
    queue: usize,
}

impl Sampled {
    pub(super) fn new(config: &Config, ingest: &Ingest, tokens: &Tokens) -> Self {
        Self {
            ingest: ingest.clone(),
            broker_ready: until_dead(tokens),
            disk: config.store_dir(),
            queue: config.ingest.queue,
        }
    }

    fn take(&self) {
        let gauges = [
            ("alertrace_ingest_queue_readings", self.ingest.waiting()),
            ("alertrace_ingest_queue_limit_readings", self.queue),
            (
                "alertrace_ready",
                usize::from(self.ingest.salud() == ingest::Salud::Listo && *self.broker_ready.borrow()),
            ),
        ];
        for (name, n) in gauges {
            gauge!(name).set(u32::try_from(n).unwrap_or(u32::MAX));
        }
        if let Ok(disk) = rustix::fs::statvfs(&self.disk) {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            gauge!("alertrace_disk_free_bytes").set(disk.f_bavail.saturating_mul(disk.f_frsize) as f64);
        }
    }
}

/// Folds samples together now and then, so that they do not pile up between two scrapes.
pub(super) async fn upkeep(
    metrics: PrometheusHandle,
    sampled: Sampled,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {
                sampled.take();
                metrics.run_upkeep();
            }
        }
    }
}
