//! Copying the write-ahead log back into the database beside the writer, on a connection of its own.
//!
//! SQLite lets the commit that crosses a threshold do all of it
//! (<https://www.sqlite.org/wal.html#performance_considerations>): whoever waits for that one waits for tens
//! of milliseconds. Here most of the log has been copied when a commit gets there, and it finds the rest.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::SqlitePool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Store;

/// Pages written, roughly, after which the log is copied.
const EACH: u64 = 2_000;
/// Frames in the log at which the commit itself copies what is left, and the log begins anew. 32 MiB.
pub(super) const AT_LEAST: &str = "8000";

/// What has been written since the last time.
#[derive(Debug)]
pub(super) struct Checkpoint {
    db: SqlitePool,
    pages: AtomicU64,
    due: Notify,
}

impl Checkpoint {
    /// `db` has one connection, and opens it when it is needed.
    pub(super) fn new(db: SqlitePool) -> Self {
        Self { db, pages: AtomicU64::new(0), due: Notify::new() }
    }

    pub(super) async fn close(&self) {
        self.db.close().await;
    }
}

impl Store {
    /// A commit wrote so many pages, roughly: what decides when [`Self::checkpoint`] works.
    pub fn wrote(&self, pages: u64) {
        if let Some(c) = &self.checkpoint
            && c.pages.fetch_add(pages, Ordering::Relaxed) + pages >= EACH
        {
            c.due.notify_one();
        }
    }

    /// Copies the log into the database whenever enough has been written, until `stop`.
    pub async fn checkpoint(self, stop: CancellationToken) {
        let Some(c) = &self.checkpoint else { return stop.cancelled().await };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = c.due.notified() => {}
            }
            c.pages.store(0, Ordering::Relaxed);
            // PASSIVE waits for nobody and keeps nobody waiting.
            if let Err(e) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&c.db).await {
                tracing::warn!(error = %e, "the log cannot be copied into the database now");
            }
        }
    }
}
