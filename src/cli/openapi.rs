//! `alertrace openapi`.

use std::io::Write as _;

/// Prints the OpenAPI document of this version.
pub(super) fn run() -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", crate::api::openapi().to_pretty_json()?)?;
    Ok(())
}
