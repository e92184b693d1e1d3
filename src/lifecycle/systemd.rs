//! What a service manager is told: that the server is ready, that it stops, and, as long as it is true, that it works.
//!
//! Nothing happens where nobody asked for it (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Everything is bound and open; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// How often the manager wants to hear that the server works; `None` = it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|within| !within.is_zero())
}

/// Says so for as long as `works` answers in time, until `stop`. What does not answer is asked again, and the manager
/// ends the process when it has heard nothing `within` the time.
pub async fn feed<W: Future<Output = ()> + Send>(
    within: Duration,
    works: impl Fn() -> W + Send,
    stop: CancellationToken,
) {
    let third = within / 3;
    loop {
        let asked = tokio::time::timeout(third, works());
        let answered = tokio::select! {
            () = stop.cancelled() => return,
            answered = asked => answered.is_ok(),
        };
        if !answered {
            tracing::error!(?within, "the writer does not answer; the watchdog is not told that it does");
            continue;
        }
        // The manager may be slow to read its socket.
        if let Err(e) = tokio::task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await {
            tracing::warn!(error = %e, "the watchdog could not be told");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(third) => {}
        }
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(what) {
        tracing::warn!(error = %e, "the service manager (NOTIFY_SOCKET) cannot be told");
    }
}
