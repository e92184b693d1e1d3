//! The secret that access tokens are signed with, when none is configured: generated once, kept in `data_dir`.
//!
//! Never a constant, never world-readable, never half written: the file appears complete, with mode 0600, or not at all;
//! when two processes start at once, both end with the one that came first. A file that group or others can read is
//! refused, because whoever has read it can sign tokens.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::Config;

/// Shortest secret, in bytes: HMAC-SHA-256 is no stronger than its key (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// The file's name in `data_dir`.
pub const JWT_FILE: &str = "jwt.secret";

/// No secret is longer; what is, is not a secret but a mistake.
const MAX_FILE_BYTES: u64 = 4096;

/// The secret that access tokens are signed with. `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct JwtSecret(SecretString);

impl JwtSecret {
    /// The key's bytes, for signing and checking alone.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its directory could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Group or others may read or write the file.
    #[error(
        "{} has mode {mode:04o}: others than its owner can read or change it, and whoever has read it can sign in as \
         anybody. Delete it to have a new one made (everybody signs in again), or `chmod 600` it if nobody else was on this machine",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a secret: too short, too long, or not text.
    #[error("{} does not hold a secret of at least {MIN_SECRET_BYTES} bytes; delete it to have a new one made", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(getrandom::Error),
}

/// The configured secret, or else the one in `data_dir`, generated now if it is not there.
///
/// # Errors
/// As [`load_or_generate`].
pub fn jwt_secret(config: &Config) -> Result<JwtSecret, Error> {
    match &config.identity.jwt_secret {
        Some(secret) => Ok(JwtSecret(secret.clone())),
        None => load_or_generate(&config.data_dir),
    }
}

/// The secret in `data_dir`/jwt.secret; made now, and the directory too, if it is not there. Blocks on the disk.
///
/// # Errors
/// The file cannot be read or written, is open to others, or holds no secret; or the system gives no random bytes.
pub fn load_or_generate(data_dir: &Path) -> Result<JwtSecret, Error> {
    let path = data_dir.join(JWT_FILE);
    match File::open(&path) {
        Ok(file) => load(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            generate(data_dir, &path)?;
            // Read back, so that the one that another process made in the meantime is the one.
            load(File::open(&path).map_err(io_error("read", &path))?, &path)
        }
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// The configured secret, or else the one in `data_dir`, for whoever only looks: none is made.
///
/// # Errors
/// As [`load_or_generate`]; one that is not there cannot be read.
pub fn existing(config: &Config) -> Result<JwtSecret, Error> {
    if let Some(secret) = &config.identity.jwt_secret {
        return Ok(JwtSecret(secret.clone()));
    }
    let path = config.data_dir.join(JWT_FILE);
    load(File::open(&path).map_err(io_error("read", &path))?, &path)
}

fn load(file: File, path: &Path) -> Result<JwtSecret, Error> {
    let metadata = file.metadata().map_err(io_error("inspect", path))?;
    // On the open file, not on the name: nothing can be put in its place in between.
    if let Some(mode) = exposed_mode(&metadata) {
        return Err(Error::Exposed { path: path.to_path_buf(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    let malformed = || Error::Malformed { path: path.to_path_buf() };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(malformed());
    }
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let secret = text.trim();
    if secret.len() < MIN_SECRET_BYTES {
        return Err(malformed());
    }
    Ok(JwtSecret(SecretString::from(secret)))
}

/// The directory, made for its owner alone: everything that the site said is in it.
#[cfg(unix)]
fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

#[cfg(unix)]
fn exposed_mode(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Elsewhere the directory's access list decides, and there is no mode to look at.
#[cfg(not(unix))]
fn exposed_mode(_metadata: &fs::Metadata) -> Option<u32> {
    None
}

fn generate(data_dir: &Path, path: &Path) -> Result<(), Error> {
    private_dir(data_dir).map_err(io_error("create", data_dir))?;
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(Error::Random)?;

    // tempfile creates with O_EXCL and mode 0600; the name is taken only if it is still free.
    let mut file = tempfile::Builder::new()
        .prefix(".jwt.secret.")
        .tempfile_in(data_dir)
        .map_err(io_error("create a file in", data_dir))?;
    writeln!(file, "{}", hex(&random)).map_err(io_error("write", path))?;
    file.as_file().sync_all().map_err(io_error("sync", path))?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(io_error("write", path)(error.error)),
    }
    // Tokens signed from now on must still be good after a power cut, so the name has to be on disk as well.
    #[cfg(unix)]
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", data_dir))?;
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0x0F])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_start_finds_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = load_or_generate(&data).unwrap();
        assert_eq!(first.expose().len(), 64);
        assert!(first.expose().iter().all(u8::is_ascii_hexdigit));
        assert_eq!(load_or_generate(&data).unwrap().expose(), first.expose());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing temporary is left");
        assert_eq!(format!("{first:?}").matches(std::str::from_utf8(first.expose()).unwrap()).count(), 0);
    }

    #[test]
    fn two_servers_do_not_share_a_secret() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(
            load_or_generate(a.path()).unwrap().expose(),
            load_or_generate(b.path()).unwrap().expose()
        );
    }

    #[test]
    fn the_one_that_came_first_stands() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_generate(dir.path()).unwrap();
        generate(dir.path(), &dir.path().join(JWT_FILE)).unwrap();
        assert_eq!(load_or_generate(dir.path()).unwrap().expose(), first.expose());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        load_or_generate(dir.path()).unwrap();
        let path = dir.path().join(JWT_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_generate(dir.path()).unwrap_err();
        assert!(error.to_string().contains("mode 0640"), "{error}");
    }

    #[test]
    fn a_short_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_generate(dir.path()).unwrap();
        fs::write(dir.path().join(JWT_FILE), "change-me\n").unwrap();
        assert!(matches!(load_or_generate(dir.path()), Err(Error::Malformed { .. })));
    }
}
