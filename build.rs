//! Hands the build date to `domain::clock`: the newest moment of the sources (or
//! `SOURCE_DATE_EPOCH`, for a reproducible build), so that two builds of one tree agree and an
//! incremental build is not stale for having been built an hour ago.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

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
    modified.min(SystemTime::now()).duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
