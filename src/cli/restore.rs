//! `alertrace restore`: puts a backup in the place of the database, and keeps what was there.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::backup::{also_keep, described};
use crate::config::Config;
use crate::domain::{Clock as _, SystemClock};
use crate::store::backup::{self, Sum};
use crate::store::volcado::{self, Volcado};
use crate::{app, telemetry};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The backup. The server must not be running.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Restores, or says what restores where PostgreSQL has the data.
pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    let file = &args.file;
    let dump = is_dump(file).with_context(|| format!("cannot read {}", file.display()))?;
    if let Some(options) = app::postgres_options(config) {
        anyhow::ensure!(dump, "{} is a backup of SQLite, and the data is in PostgreSQL", file.display());
        let date = SystemClock.now().to_string();
        let date: String = date.chars().filter(char::is_ascii_digit).take(14).collect();
        let [aside, restore] = Volcado::new(&options)?.restore_lines(file, &date);
        println!(
            "This is PostgreSQL, whose own program restores; nothing was changed. Check the backup \
             (alertrace backup --verify), stop the server, then:\n\n  {aside}\n  {restore}\n\n\
             The first keeps what is there now under another name; leave it out where there is nothing. Then \
             start the server."
        );
        return Ok(());
    }
    anyhow::ensure!(
        !dump,
        "{} is a backup of PostgreSQL, and the data is in SQLite; set DATABASE_URL to restore it there",
        file.display()
    );
    let db = config.sqlite_path();
    let restored = backup::restore(file, &db)
        .await
        .with_context(|| format!("{} was not restored, and nothing was changed", file.display()))?;
    println!("{} has what {} had:\n{}", db.display(), file.display(), described(&restored.contents));
    if restored.sum == Sum::Missing {
        println!("(no {}.sha256 beside it: only its structure could be checked)", file.display());
    }
    if let Some(aside) = restored.aside {
        println!("What was there is kept: {0}\nBack to it:   alertrace restore {0}", aside.display());
    }
    println!("Next:         alertrace serve");
    print!("{}", also_keep(config));
    Ok(())
}

fn is_dump(file: &Path) -> std::io::Result<bool> {
    let mut begin = Vec::new();
    std::fs::File::open(file)?.take(16).read_to_end(&mut begin)?;
    Ok(volcado::is_dump(&begin))
}
