//! `alertrace serve`.

use std::sync::Arc;

use anyhow::Context as _;

use crate::config::Config;
use crate::domain::SystemClock;
use crate::{app, lifecycle, telemetry};

/// Runs the server until it is asked to stop.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let metrics = telemetry::init(&config.log)?;
    let running = app::start(config, Arc::new(SystemClock), metrics).await?;
    let stop = async {
        if let Err(e) = lifecycle::asked_to_stop().await {
            tracing::error!(error = %e, "signals cannot be heard");
        }
    };
    running.run(stop).await.context("the server ended")
}
