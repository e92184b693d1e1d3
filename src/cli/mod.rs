//! The command line: one file a command.
//!
//! Exit codes: 0 = clean stop, 2 = bad configuration or usage, 1 = anything else.

mod backup;
mod cert;
mod demo;
mod devices;
mod doctor;
mod load;
mod migrate;
mod openapi;
mod restore;
mod serve;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Sources};

/// Knows, and can prove, what a site's sensors said.
#[derive(Debug, Parser)]
#[command(name = "alertrace", version, about, long_about = None)]
struct Args {
    /// Configuration file (default: config/alertrace.toml, if it exists).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server on the data directory.
    Serve,
    /// Run everything in a temporary directory, with an empresa and simulated sensors.
    Demo(demo::Args),
    /// Send load to a broker and report what it acknowledged.
    Simulate(load::Args),
    /// Accounts without HTTP.
    User(user::Args),
    /// The site's certificates: the server's, and those of devices.
    Cert(cert::Args),
    /// Copy the database while the server runs, or check a copy.
    Backup(backup::Args),
    /// Put a backup in the place of the database, and keep what was there.
    Restore(restore::Args),
    /// Bring the database's schema up to date, as a start does by itself.
    Migrate(migrate::Args),
    /// Look at everything that readings depend on, and say what to do about what is wrong.
    Doctor(doctor::Args),
    /// Print the OpenAPI document.
    Openapi,
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn run() -> ExitCode {
    let args = Args::parse();
    small_pages();
    crate::tls::install_provider();
    let sources = Sources::from_process(args.config.clone());
    let config = match config::load(&sources) {
        Ok(config) => config,
        Err(e) => {
            if let Command::Doctor(doctor) = &args.command {
                return code(doctor::bad_config(doctor, &e));
            }
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    let result = match args.command {
        Command::Openapi => openapi::run(),
        Command::Cert(args) => cert::run(&args, &config),
        command => match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(dispatch(command, config, sources)),
            Err(e) => Err(e.into()),
        },
    };
    let code = code(result);
    crate::telemetry::finish();
    code
}

fn code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("alertrace: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where the system gives every program pages of 2 MiB: an idle server touches a little of each, and held 56 MB where
/// 26 MB are used (docs/benchmarks.md). A small machine needs the difference more than the TLB does. The allocator's
/// feature `no_thp` is for systems that give them to whoever asks, as it would before this.
fn small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::thread::disable_transparent_huge_pages(true) {
        // Before the log is there, and of no consequence but for memory.
        eprintln!("alertrace: transparent huge pages stay on: {e}");
    }
}

async fn dispatch(command: Command, config: Config, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::Serve => serve::run(&config, sources).await,
        Command::Demo(args) => demo::run(&args, config).await,
        Command::Simulate(args) => load::run(&args).await,
        Command::User(args) => user::run(&args, &config).await,
        Command::Cert(args) => cert::run(&args, &config),
        Command::Backup(args) => backup::run(&args, &config).await,
        Command::Restore(args) => restore::run(&args, &config).await,
        Command::Migrate(args) => migrate::run(&args, config).await,
        Command::Doctor(args) => doctor::run(&args, config).await,
        Command::Openapi => openapi::run(),
    }
}
