//! Files that appear whole or not at all, for their owner alone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::domain::{Clock as _, SystemClock, Timestamp};

/// The directory that a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    // The parent of a relative name is empty.
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name with something behind it: `alertrace.db` and `-wal`.
pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A name that is free in `dir`, and the date in it: `{begin}-20261124T130952Z.db`, or `…Z-2` where that is
/// taken.
pub(super) fn dated(dir: &Path, begin: &str) -> (String, PathBuf) {
    let whole = Timestamp::clamped(SystemClock.now().secs() * 1_000_000);
    let now = whole.to_string().replace(['-', ':'], "");
    let (mut date, mut n) = (now.clone(), 1);
    loop {
        let path = dir.join(format!("{begin}-{date}.db"));
        if !path.exists() && !with(&path, "-wal").exists() {
            return (date, path);
        }
        n += 1;
        date = format!("{now}-{n}");
    }
}

/// Makes a directory for its owner alone, who is the owner of what it is in.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let of = fs::metadata(parent(dir))?;
    // As in `give`.
    let _ = std::os::unix::fs::chown(dir, Some(of.uid()), Some(of.gid()));
    sync_dir(parent(dir))
}

/// A file that will take the name of `path`, and until then is nothing that anybody would take for it.
pub(super) fn new_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    // tempfile creates with O_EXCL and mode 0600.
    tempfile::Builder::new().prefix(&partial(path)).tempfile_in(parent(path))
}

/// How the names of such files begin.
pub(super) const PARTIAL: &str = ".partial-";

fn partial(path: &Path) -> String {
    format!("{PARTIAL}{}-", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what processes that were cut off had made of `path`. Whoever calls this is alone with it.
pub(super) fn remove_partial_of(path: &Path) {
    remove_beginning(parent(path), &partial(path));
}

/// Removes the files of a directory whose names begin so.
pub(super) fn remove_beginning(dir: &Path, begin: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(begin) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Copies a file byte for byte, synced, under a name that is still free.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    name(copied(from, to)?, to)
}

/// A copy, synced, that is to be called `to` and has no name yet: gone when dropped.
pub(super) fn copied(from: &Path, to: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut file = new_beside(to)?;
    io::copy(&mut File::open(from)?, file.as_file_mut())?;
    give(file.as_file(), from);
    file.as_file().sync_all()?;
    Ok(file)
}

/// Gives a file its name, which must be free, and makes that last.
pub(super) fn name(file: tempfile::NamedTempFile, to: &Path) -> io::Result<()> {
    file.persist_noclobber(to).map_err(|e| e.error)?;
    sync_dir(parent(to))
}

/// A command that root runs must not lock out the server, which is somebody else. Whoever may not give
/// files away is the server's own user.
pub(super) fn give(file: &File, like: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    if let Ok(like) = fs::metadata(like) {
        let _ = std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()));
    }
}

/// Makes the names in a directory last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether two files hold the same; two that are not there do.
pub(super) fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    if size(a) != size(b) {
        return Ok(false);
    }
    Ok(size(a) == 0 || sha256(a)? == sha256(b)?)
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut block)? {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
