//! `alertrace migrate`: brings the schema up to date without serving, or says how it stands.

use crate::config::Config;
use crate::store::{self, State, Step, backup, volcado};
use crate::{app, telemetry};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Say which versions of the schema are applied and which are pending, and change nothing. The server may
    /// be running.
    #[arg(long)]
    status: bool,
    /// Change the schema of PostgreSQL without having pg_dump copy it before: you have a copy, or want none.
    #[arg(long, conflicts_with = "status")]
    without_copy: bool,
}

/// Applies what is missing; or shows it.
pub(super) async fn run(args: &Args, mut config: Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    config.database.copy_before_migrating &= !args.without_copy;
    let before = steps(&config).await?;
    if args.status {
        return show(&before);
    }
    app::open_store(&config).await?.close().await;
    let applied: Vec<&Step> = before.iter().filter(|s| s.state == State::Pending).collect();
    for Step { version, description, .. } in &applied {
        println!("{version:>4}  applied  {description}");
    }
    if applied.is_empty() {
        println!("The schema is up to date.");
    }
    Ok(())
}

/// Every version of the schema and how it stands; changes nothing.
pub(super) async fn steps(config: &Config) -> store::Result<Vec<Step>> {
    match app::postgres_options(config) {
        Some(options) => volcado::schema(&options).await,
        None => backup::schema(&config.sqlite_path()).await,
    }
}

fn show(steps: &[Step]) -> anyhow::Result<()> {
    for Step { version, description, state } in steps {
        let state = match state {
            State::Applied => "applied",
            State::Pending => "pending",
            State::Unknown => "unknown",
        };
        println!("{version:>4}  {state}  {description}");
    }
    store::refuse_unknown(steps)?;
    Ok(())
}
