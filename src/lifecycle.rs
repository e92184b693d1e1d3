//! Long-lived tasks and the order in which they end.
//!
//! Every long task is tracked; one that ends before it was asked to ends the process with an error.
//! On the way down: stop accepting, finish what was received, commit, acknowledge, close.

pub mod systemd;

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The three moments of a server's end.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Nothing new is taken: listeners close, sessions and requests finish what they have.
    pub parar: CancellationToken,
    /// Everything that was taken has been handed over: the writer commits it and ends.
    pub drenar: CancellationToken,
    /// Something that nothing survives has died.
    pub muerto: CancellationToken,
}

/// Why a server ended that nobody asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A long-lived task ended.
    #[error("{0} has ended, which nothing survives")]
    Died(String),
    /// The work was not finished in time.
    #[error("the server did not stop within {0:?}; what was not acknowledged will be sent again")]
    Deadline(Duration),
}

/// Tasks that live as long as the server.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl Tasks {
    /// Runs `work` under a name for the log.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        #[cfg(debug_assertions)]
        let work = failpoint::through(name, work);
        self.names.insert(self.running.spawn(work).id(), name);
    }

    /// Waits until one ends, which one that still has work never does.
    pub async fn first_end(&mut self) -> Error {
        match self.running.join_next_with_id().await {
            Some(ended) => Error::Died(self.said(&ended)),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended. A panic is an error even now.
    ///
    /// # Errors
    /// [`Error::Died`] for the first that panicked.
    pub async fn all_end(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            if ended.is_err() && result.is_ok() {
                result = Err(Error::Died(self.said(&ended)));
            }
        }
        result
    }

    /// Which one it was, and with a panic what it said.
    fn said(&self, ended: &Result<(task::Id, ()), JoinError>) -> String {
        let name = |id| self.names.get(&id).copied().unwrap_or("a task");
        match ended {
            Ok((id, ())) => name(*id).to_owned(),
            Err(e) => format!("{} ({e})", name(e.id())),
        }
    }
}

/// Death on demand, for the test that shows what the death of each task does. Not in a release.
#[cfg(debug_assertions)]
mod failpoint {
    /// `ends:NAME` or `panics:NAME`, where NAME is a task's.
    const VARIABLE: &str = "ALERTRACE_FAILPOINT";

    pub(super) async fn through(name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        match std::env::var(VARIABLE).ok().as_deref().and_then(|v| v.split_once(':')) {
            Some(("ends", its)) if its == name => {}
            Some(("panics", its)) if its == name => panic!("on purpose"),
            _ => work.await,
        }
    }
}

/// Hears SIGTERM and Ctrl-C from now on; what is answered returns when one has come. Called before
/// anything starts, so that no signal finds the process without an ear.
///
/// # Errors
/// When the signals cannot be heard.
pub fn asked_to_stop() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Hears SIGHUP from now on: `then` runs each time, for as long as what is answered is awaited.
///
/// # Errors
/// When the signal cannot be heard.
pub fn on_hangup(then: impl Fn() + Send) -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            then();
        }
        std::future::pending::<()>().await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("the one that stays", std::future::pending());
        tasks.spawn("the writer", async {});
        assert!(tasks.first_end().await.to_string().contains("the writer"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_on_the_way_down_too() {
        let mut tasks = Tasks::default();
        tasks.spawn("fine", async {});
        tasks.spawn("broken", async { panic!("on purpose") });
        let said = tasks.all_end().await.unwrap_err().to_string();
        assert!(said.contains("broken") && said.contains("on purpose"), "{said}");
    }
}
