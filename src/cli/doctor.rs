//! `alertrace doctor`: looks at everything that readings depend on, and says what to do about what is wrong.
//!
//! Beside a running server, which is then tried itself (`running`), or without one, when a server of its own is started
//! in a directory of its own (`selftest`). Nothing of either stays.

mod checks;
mod database;
mod mqtt;
mod running;
mod selftest;
mod server;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

use crate::config::{self, Config};
use crate::{lifecycle, telemetry};

/// For one answer on this machine.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Only ask /ready of the configured port; the exit code is the answer. For a container's HEALTHCHECK.
    #[arg(long)]
    quick: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The language of the table (default: English where LC_ALL or LANG says so, else Spanish).
    #[arg(long, value_enum)]
    lang: Option<Lang>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Lang {
    Es,
    En,
}

impl Args {
    fn lang(&self) -> Lang {
        self.lang.unwrap_or_else(|| {
            let set = ["LC_ALL", "LC_MESSAGES", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
            let first = set.iter().find(|value| !value.is_empty());
            if first.is_some_and(|value| value.starts_with("en")) { Lang::En } else { Lang::Es }
        })
    }
}

/// A text in both languages.
struct Text {
    es: String,
    en: String,
}

impl Text {
    fn new(es: impl Into<String>, en: impl Into<String>) -> Self {
        Self { es: es.into(), en: en.into() }
    }

    fn in_language(self, lang: Lang) -> String {
        if lang == Lang::En { self.en } else { self.es }
    }
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Somebody should look at it; readings are stored.
    Warn,
    /// Readings are not stored, or soon will not be.
    Fail,
}

/// One line of the table.
struct Check {
    /// Stable, for programs.
    name: &'static str,
    title: Text,
    status: Status,
    detail: Text,
    remedy: Option<Text>,
}

impl Check {
    fn ok(name: &'static str, title: Text, detail: Text) -> Self {
        Self { name, title, status: Status::Ok, detail, remedy: None }
    }

    fn warn(name: &'static str, title: Text, detail: Text, remedy: Text) -> Self {
        Self { name, title, status: Status::Warn, detail, remedy: Some(remedy) }
    }

    fn fail(name: &'static str, title: Text, detail: Text, remedy: Text) -> Self {
        Self { name, title, status: Status::Fail, detail, remedy: Some(remedy) }
    }
}

/// A line as it is shown.
#[derive(Serialize)]
struct Line {
    check: &'static str,
    #[serde(skip)]
    title: String,
    status: Status,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    version: &'static str,
    checks: &'a [Line],
}

/// Looks, and tells. An error when something fails: exit code 1.
pub(super) async fn run(args: &Args, mut config: Config) -> anyhow::Result<()> {
    if args.quick {
        return server::ready(&config).await.map_err(anyhow::Error::msg);
    }
    // The table is the answer; what the parts log while they are tried out would drown it, and is no incident of the
    // installation.
    config.log.level = String::from("off");
    (config.log.sentry_dsn, config.log.otlp_endpoint) = (None, None);
    let metrics = telemetry::init(&config.log)?;
    // Half-way through, it has something to remove.
    let stop = lifecycle::asked_to_stop().context("signals cannot be heard")?;
    tokio::select! {
        all = look(&config, metrics) => show(args, all),
        () = stop => {
            selftest::abandon(&config).await;
            anyhow::bail!("stopped")
        }
    }
}

async fn look(config: &Config, metrics: PrometheusHandle) -> Vec<Check> {
    selftest::sweep(config);
    let ready = server::ready(config).await;
    let mut all = checks::all(config, &ready).await;
    all.push(match ready {
        Ok(()) => running::check(config).await,
        Err(server::No::NotReady(_)) => running::not_ready(),
        Err(server::No::Away(_) | server::No::Foreign(_)) => selftest::check(config, metrics).await,
    });
    all
}

/// The same, when the configuration cannot be read: nothing else can be looked at.
pub(super) fn bad_config(args: &Args, error: &config::Error) -> anyhow::Result<()> {
    anyhow::ensure!(!args.quick, "{error}");
    let text = error.to_string();
    show(args, vec![checks::configuration_failed(&text)])
}

fn show(args: &Args, all: Vec<Check>) -> anyhow::Result<()> {
    let lang = args.lang();
    let line = |c: Check| Line {
        check: c.name,
        title: c.title.in_language(lang),
        status: c.status,
        detail: c.detail.in_language(lang),
        remedy: c.remedy.map(|r| r.in_language(lang)),
    };
    let lines: Vec<Line> = all.into_iter().map(line).collect();
    let failed = lines.iter().filter(|l| l.status == Status::Fail).count();
    if args.json {
        let report = Report { ok: failed == 0, version: env!("CARGO_PKG_VERSION"), checks: &lines };
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table(&lines, lang));
    }
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", lines.len());
    Ok(())
}

fn table(lines: &[Line], lang: Lang) -> String {
    let wide = lines.iter().map(|l| l.title.chars().count()).max().unwrap_or_default();
    let mut table = String::new();
    for line in lines {
        let status = match (line.status, lang) {
            (Status::Ok, Lang::Es) => "bien ",
            (Status::Warn, Lang::Es) => "ojo  ",
            (Status::Fail, Lang::Es) => "FALLA",
            (Status::Ok, Lang::En) => "ok   ",
            (Status::Warn, Lang::En) => "warn ",
            (Status::Fail, Lang::En) => "FAIL ",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{status}  {:<wide$}  {}", line.title, line.detail);
        if let Some(remedy) = &line.remedy {
            let _ = writeln!(table, "{:5}  {:wide$}  → {remedy}", "", "");
        }
    }
    table
}
