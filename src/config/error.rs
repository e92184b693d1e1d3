//! What can be wrong with a configuration, in words that tell where to change it.
//!
//! A [`Problem`] names the key, the place its value came from and what is allowed; [`Error`] is all of them together, so
//! that a person fixes the file once instead of once a start.

use std::fmt;
use std::path::PathBuf;

use super::layers::Place;

/// Every problem found in one reading of the configuration. Never empty.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// In the order found: files, unknown keys, then values in the order of the sections.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "configuration: {one}"),
            many => {
                write!(f, "configuration: {} problems", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file that could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not TOML, or not `NAME=value` lines. `reason` never quotes the file: the line may hold a secret.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line's number.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` ({place}); the nearest known is `{nearest}`")]
    UnknownKey {
        /// As it was written in a file; dotted and in lower case when it comes from a variable.
        key: String,
        /// Where it stands.
        place: Place,
        /// The known key most like it, written as that place writes keys.
        nearest: String,
    },
    /// A value of the wrong type, or out of range.
    #[error("`{key}` is {found} ({place}); allowed: {allowed}")]
    Value {
        /// The key.
        key: String,
        /// Where the value came from.
        place: Place,
        /// The value, or a description of it when the key holds a secret.
        found: String,
        /// What may stand there instead.
        allowed: String,
    },
    /// A value that is well formed but cannot be had: not built yet, or not together with another key.
    #[error("`{key}` ({place}): {reason}")]
    Refused {
        /// The key.
        key: String,
        /// Where the value came from.
        place: Place,
        /// Why, and what to do instead.
        reason: String,
    },
    /// A well-known variable that stands for something not built yet and has no key.
    #[error("{place}: {reason}")]
    NotAvailable {
        /// The variable.
        place: Place,
        /// Why, and what to do instead.
        reason: String,
    },
}
