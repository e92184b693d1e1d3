//! `alertrace serve`.

use std::sync::Arc;

use anyhow::Context as _;

use crate::config::Config;
use crate::domain::SystemClock;
use crate::{app, lifecycle, telemetry};

/// Runs the server until it is asked to stop.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let metrics = telemetry::init(&config.log)?;
    let stop = lifecycle::asked_to_stop().context("signals cannot be heard")?;
    tokio::pin!(stop);
    let running = tokio::select! {
        started = app::start(config, Arc::new(SystemClock), metrics) => started?,
        () = &mut stop => return Ok(()),
    };
    let certs = running.certs.clone();
    let reload = move || {
        if let Some(certs) = &certs {
            certs.reload();
        }
    };
    let reloading = lifecycle::on_hangup(reload).context("signals cannot be heard")?;
    tokio::select! {
        ended = running.run(stop) => ended.context("the server ended"),
        () = reloading => Ok(()),
    }
}
