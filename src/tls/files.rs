//! The files of `tls.dir`: their names, and how they are written.
//!
//! A file appears complete or not at all, and a private key is its owner's alone from the first byte.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Error, Result};

/// The site's authority.
pub(super) const CA: &str = "ca.pem";
/// Its private key.
pub(super) const CA_KEY: &str = "ca.key";
/// The server's certificate and what is between it and its authority.
pub(super) const SERVER: &str = "server.pem";
/// Its private key.
pub(super) const SERVER_KEY: &str = "server.key";
/// Copies of the certificates of devices, one file each.
pub(super) const DEVICES: &str = "devices";
/// Certificates of devices that are refused.
pub(super) const REVOKED: &str = "revoked.json";

/// No file here is longer; what is, is a mistake.
const MAX_BYTES: u64 = 1 << 20;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    /// Its owner alone.
    Owner,
    /// Anybody.
    Anybody,
}

/// Whether a file may take another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// What is there stays, and that is an error.
    Keep,
    /// What is there goes, in one step.
    Replace,
}

/// A file's text; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    let text = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(Error::malformed(path, "larger than 1 MiB"));
        }
        Ok(_) => fs::read_to_string(path),
        Err(e) => Err(e),
    };
    match text {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// Makes a directory for its owner alone, if it is not there.
pub(super) fn private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create", dir))?;
    if let Some((uid, gid)) = owner(parent(dir)) {
        // As below.
        let _ = std::os::unix::fs::chown(dir, Some(uid), Some(gid));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    // The parent of a relative name is empty.
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn owner(path: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|m| (m.uid(), m.gid()))
}

/// Writes a file whole.
pub(super) fn write(path: &Path, text: &str, readable: Readable, existing: Existing) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = parent(path);
    // tempfile creates with O_EXCL and mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".new.")
        .tempfile_in(dir)
        .map_err(Error::io("create a file in", dir))?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", path))?;
    if readable == Readable::Anybody {
        let mode = fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(Error::io("write", path))?;
    }
    if let Some((uid, gid)) = owner(path).or_else(|| owner(dir)) {
        // A command that root runs must not lock out the server, which is somebody else. Whoever may
        // not give files away is the server's own user.
        let _ = std::os::unix::fs::fchown(file.as_file(), Some(uid), Some(gid));
    }
    file.as_file().sync_all().map_err(Error::io("sync", path))?;
    let persisted = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    persisted.map_err(|e| Error::io("write", path)(e.error))?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

/// What tells one version of a file from another; `None` when it is not there.
pub(super) type Version = Option<(SystemTime, u64, u64)>;

/// The versions of everything that is served from `dir`.
pub(super) fn versions(dir: &Path) -> [Version; 4] {
    use std::os::unix::fs::MetadataExt as _;
    [CA, SERVER, SERVER_KEY, REVOKED].map(|name| {
        let metadata = fs::metadata(dir.join(name)).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    })
}

/// The private keys in `dir` that others than owner and group can read.
pub(super) fn exposed_keys(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let exposed = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o007 != 0);
    [CA_KEY, SERVER_KEY].map(|name| dir.join(name)).into_iter().filter(exposed).collect()
}
