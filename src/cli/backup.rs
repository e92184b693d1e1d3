//! `alertrace backup`: a consistent copy, made beside a server that runs or without one; and its check.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::config::Config;
use crate::store::PostgresOptions;
use crate::store::backup::{self, Contents, Source, Sum, Unnamed};
use crate::store::volcado::{self, Volcado};
use crate::{app, lifecycle, telemetry};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check a backup instead of making one: every page of it, and what is in it.
    #[arg(long)]
    verify: bool,
    /// Replace FILE if it is there.
    #[arg(long, conflicts_with = "verify")]
    force: bool,
}

/// Makes a backup, or checks one.
pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    if args.verify {
        return verify(&args.file).await;
    }
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    anyhow::ensure!(
        !same(&args.file, &config.sqlite_path()),
        "{} is the database itself; name another file",
        args.file.display()
    );
    let copy = match Unnamed::new(&args.file, args.force) {
        Ok(copy) => copy,
        Err(_) if args.file.exists() && !args.force => {
            anyhow::bail!("{} is there already; --force replaces it", args.file.display())
        }
        Err(e) => return Err(e).context("the backup cannot be written"),
    };
    let start = Instant::now();
    let stop = lifecycle::asked_to_stop().context("signals cannot be heard")?;
    let work = async {
        match app::postgres_options(config) {
            Some(options) => dump(&options, &args.file, &copy).await,
            None => copy_sqlite(&config.sqlite_path(), &copy).await,
        }
    };
    tokio::select! {
        done = work => done?,
        // What was written so far has no name, and goes.
        () = stop => anyhow::bail!("interrupted; no backup was made"),
    }
    let bytes = copy.name()?;
    let file = args.file.display();
    println!("{file}: {} in {:.1} s", HumanBytes(bytes), start.elapsed().as_secs_f64());
    println!("Check it:   alertrace backup --verify {file}");
    print!("{}", also_keep(config));
    Ok(())
}

/// What a backup of the database does not have.
pub(super) fn also_keep(config: &Config) -> String {
    let mut text = String::from("Also keep, since the database does not have them:\n");
    let mut line = |path: PathBuf, what: &str| {
        if path.exists() {
            let _ = writeln!(text, "  {}  {what}", path.display());
        }
    };
    line(config.data_dir.join("jwt.secret"), "(signs sessions: without it everybody signs in again)");
    line(config.tls.dir.clone(), "(the site's authority: without it devices trust the server no more)");
    line(PathBuf::from(crate::config::DEFAULT_FILE), "(settings)");
    text
}

async fn copy_sqlite(db: &Path, copy: &Unnamed) -> anyhow::Result<()> {
    let source = Source::open(db).await?;
    let bar = progress(source.bytes, &format!("copying {}", db.display()));
    let work = source.copy_into(copy);
    tokio::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done.context("the database cannot be copied");
            }
            _ = tick.tick() => bar.set_position(copy.path().metadata().map_or(0, |m| m.len())),
        }
    }
}

/// A bar on a terminal, else one line.
fn progress(bytes: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what}, {}", HumanBytes(bytes));
        return ProgressBar::hidden();
    }
    let style = "{msg} {bar:30} {bytes} of {total_bytes}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what.to_owned())
}

async fn dump(options: &PostgresOptions, file: &Path, copy: &Unnamed) -> anyhow::Result<()> {
    let volcado = Volcado::new(options)?;
    let by_hand = volcado.dump_line(file);
    eprintln!("This is PostgreSQL, whose own program makes the backup:\n  {by_hand}");
    let mut command = tokio::process::Command::from(volcado.dump(copy.path()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let status = match command.status().await {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => anyhow::bail!(
            "pg_dump is not in the PATH. Install it (Debian: apt install postgresql-client; the version of \
             the server, or a newer one), or run the line above where it is; it asks for the password"
        ),
        status => status.context("pg_dump does not start")?,
    };
    anyhow::ensure!(status.success(), "pg_dump did not make a backup ({status}); its reason is above");
    Ok(())
}

/// Checks all of a backup and says what is in it.
async fn verify(file: &Path) -> anyhow::Result<()> {
    let what = || format!("{} is not a backup to rely on", file.display());
    let mut begin = Vec::new();
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    opened.take(16).read_to_end(&mut begin).with_context(what)?;
    eprintln!("checking {}", file.display());
    let sum = backup::check_sum(file, file).with_context(what)?;
    let (contents, kind) = if volcado::is_dump(&begin) {
        (verify_dump(file).with_context(what)?, "PostgreSQL (pg_dump)")
    } else {
        (backup::inspect(file).await.with_context(what)?, "SQLite")
    };
    print!("{}: good\n  {kind}\n{}", file.display(), described(&contents));
    match sum {
        Sum::Same => println!("  every byte is as it was written (SHA-256)"),
        Sum::Missing => println!(
            "  no {}.sha256 beside it: its structure is sound; whether every byte is as it was written cannot be told",
            file.display()
        ),
    }
    Ok(())
}

/// What is in a backup, a line each.
pub(super) fn described(contents: &Contents) -> String {
    let Contents { schema, description, bytes, empresas, sensores, lecturas, newest } = contents;
    let mut text = format!("  {}, schema {schema}: {description}\n", HumanBytes(*bytes));
    let _ = write!(text, "  {empresas} empresas, {sensores} sensores");
    if let Some(lecturas) = lecturas {
        let _ = write!(text, ", {lecturas} lecturas");
    }
    let _ = match newest {
        Some(newest) => writeln!(text, "\n  newest reading {newest}"),
        None => writeln!(text, "\n  no readings"),
    };
    text
}

fn verify_dump(file: &Path) -> anyhow::Result<Contents> {
    let list = output(volcado::list(file))?;
    anyhow::ensure!(list.contains(" lecturas "), "the dump has no table of readings");
    output(volcado::read_all(file))?;
    let rows = output(volcado::rows(file))?;
    let bytes = std::fs::metadata(file)?.len();
    Ok(volcado::contents(&rows, bytes)?)
}

/// What a program prints, if it succeeds.
fn output(mut command: Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } = match command.stdin(Stdio::null()).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => anyhow::bail!(
            "this is a backup of PostgreSQL, and pg_restore, which reads it, is not in the PATH \
             (Debian: apt install postgresql-client)"
        ),
        output => output.context("pg_restore does not start")?,
    };
    anyhow::ensure!(status.success(), "{}", String::from_utf8_lossy(&stderr).trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
