//! One process on one database file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;

use super::{Error, Result, files};

/// An advisory lock (`flock`) that the kernel releases when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FileLock(#[expect(dead_code, reason = "held for its lock")] File);

impl FileLock {
    /// Takes the lock at `path`, or says who cannot have it. The file holds our process id, for the
    /// person who looks.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let unavailable = |e| Error::Unavailable(sqlx::Error::Io(e));
        // For its owner alone: everything that the site said is in it.
        files::private_dir(files::parent(path)).map_err(unavailable)?;
        let new = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(unavailable)?;
        if new {
            files::give(&file, files::parent(path));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(e)) => return Err(unavailable(e)),
        }
        file.set_len(0).map_err(unavailable)?;
        writeln!(file, "{}", std::process::id()).map_err(unavailable)?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_at_a_time_in_a_directory_of_the_owners_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data").join("alertrace.lock");
        let first = FileLock::take(&path).unwrap();
        assert!(matches!(FileLock::take(&path), Err(Error::Locked(p)) if p == path));
        drop(first);
        FileLock::take(&path).unwrap();
        let mode = path.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
