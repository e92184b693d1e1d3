//! Hands the build date to `domain::clock`: `SOURCE_DATE_EPOCH` for a reproducible build, else when
//! `Cargo.lock` was last written, which no later clock can be before.

use std::path::Path;
use std::time::UNIX_EPOCH;

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|v| v.parse::<u64>().ok());
    let epoch = epoch.unwrap_or_else(|| newest(Path::new("Cargo.lock")));
    println!("cargo::rustc-env=ALERTRACE_BUILD_EPOCH={epoch}");
}

/// Seconds since the epoch when `file` was last written; 0 when that cannot be known.
fn newest(file: &Path) -> u64 {
    let modified = file.metadata().and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
    modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
