//! Takes typed values out of the merged layers, and keeps what is wrong with them.
//!
//! Every method answers with some value, so that one mistake does not hide the next; [`Reader::finish`] is what decides.
//! What a method answers after it has noted a problem is never used. A secret's value is never repeated in a message.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use secrecy::SecretString;

use super::error::{Error, Problem};
use super::layers::{Flat, Place, Raw};

/// Keys whose values stay out of messages.
const SECRETS: [&str; 8] = [
    "log.sentry_dsn",
    "mail.smtp_url",
    "database.url",
    "database.direct_url",
    "identity.jwt_secret",
    "identity.supabase_key",
    "identity.supabase_service_role_key",
    "identity.supabase_jwt_secret",
];

/// The merged values, and the problems found so far.
pub(super) struct Reader {
    values: Flat,
    problems: Vec<Problem>,
    #[cfg(test)]
    asked: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

impl Reader {
    pub(super) fn new(values: Flat, problems: Vec<Problem>) -> Self {
        Self {
            values,
            problems,
            #[cfg(test)]
            asked: std::cell::RefCell::default(),
        }
    }

    /// Keys that no section has taken: a key in `default.toml` that would do nothing.
    #[cfg(test)]
    pub(super) fn unread(&self) -> Vec<&str> {
        let asked = self.asked.borrow();
        self.values.keys().map(String::as_str).filter(|key| !asked.contains(*key)).collect()
    }

    /// All problems, if there are any.
    pub(super) fn finish(self) -> Result<(), Error> {
        if self.problems.is_empty() { Ok(()) } else { Err(Error { problems: self.problems }) }
    }

    /// How many problems there are, to tell whether a step added one.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// An integer in `range`.
    pub(super) fn integer<T: TryFrom<i64> + Default>(&mut self, key: &str, range: RangeInclusive<i64>) -> T {
        let number = match self.raw(key) {
            Some(Raw::Integer(number)) => Some(*number),
            Some(Raw::Text(text)) if self.is_variable(key) => text.trim().parse().ok(),
            _ => None,
        };
        let value =
            number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        value.unwrap_or_else(|| {
            self.invalid(key, &format!("an integer from {} to {}", range.start(), range.end()));
            T::default()
        })
    }

    /// A number in `range`, with a fraction or without.
    pub(super) fn decimal(&mut self, key: &str, range: RangeInclusive<f64>) -> f64 {
        let number = match self.raw(key) {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 where it is in range")]
            Some(Raw::Integer(number)) => Some(*number as f64),
            Some(Raw::Decimal(number)) => Some(*number),
            Some(Raw::Text(text)) if self.is_variable(key) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.invalid(key, &format!("a number from {} to {}", range.start(), range.end()));
            0.0
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &str) -> bool {
        let value = match self.raw(key) {
            Some(Raw::Bool(value)) => Some(*value),
            Some(Raw::Text(text)) if self.is_variable(key) => text.trim().to_ascii_lowercase().parse().ok(),
            _ => None,
        };
        value.unwrap_or_else(|| {
            self.invalid(key, "true or false");
            false
        })
    }

    /// A text without the spaces around it, perhaps empty.
    pub(super) fn text(&mut self, key: &str) -> String {
        if let Some(Raw::Text(text)) = self.raw(key) {
            return text.trim().to_owned();
        }
        self.invalid(key, "a text");
        String::new()
    }

    /// A text that is not empty.
    pub(super) fn required_text(&mut self, key: &str) -> String {
        let text = self.text(key);
        if text.is_empty() && matches!(self.raw(key), Some(Raw::Text(_))) {
            self.invalid(key, "a text that is not empty");
        }
        text
    }

    /// A path that is not empty.
    pub(super) fn path(&mut self, key: &str) -> PathBuf {
        PathBuf::from(self.required_text(key))
    }

    /// A secret, exactly as written; `None` when empty.
    pub(super) fn secret(&mut self, key: &str) -> Option<SecretString> {
        if let Some(Raw::Text(text)) = self.raw(key) {
            return (!text.is_empty()).then(|| SecretString::from(text.as_str()));
        }
        self.invalid(key, "a text");
        None
    }

    /// A list of texts: an array in a file; in a variable separated by commas, or a JSON array, as the earlier stack took it.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        let items = match self.raw(key) {
            Some(Raw::List(items)) => items
                .iter()
                .map(|item| if let Raw::Text(text) = item { Some(text.trim().to_owned()) } else { None })
                .collect(),
            Some(Raw::Text(text)) if self.is_variable(key) && text.trim_start().starts_with('[') => {
                serde_json::from_str(text).ok()
            }
            Some(Raw::Text(text)) if self.is_variable(key) => Some(
                text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect(),
            ),
            _ => None,
        };
        items.unwrap_or_else(|| {
            self.invalid(key, "a list of texts");
            Vec::new()
        })
    }

    /// An address and port; `None` when empty.
    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let text = match self.raw(key) {
            Some(Raw::Text(text)) if text.trim().is_empty() => return None,
            Some(Raw::Text(text)) => text.trim().parse().ok(),
            _ => None,
        };
        if text.is_none() {
            self.invalid(
                key,
                "an IP address and port (a number, not a name), such as 127.0.0.1:8000 or [::1]:8000",
            );
        }
        text
    }

    /// One of `choices`, named as in the configuration; `None` after noting that it is none of them.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = if let Some(Raw::Text(text)) = self.raw(key) { text.trim() } else { "" };
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.invalid(key, &names.join(" or "));
        }
        found
    }

    /// Notes that the value of `key` is not one of those `allowed`.
    pub(super) fn invalid(&mut self, key: &str, allowed: &str) {
        let found = match self.raw(key) {
            Some(Raw::Text(text)) if text.is_empty() => String::from("empty"),
            Some(Raw::Text(_)) if SECRETS.contains(&key) => String::from("a text that is not shown here"),
            Some(raw) => shown(raw),
            None => String::from("missing"),
        };
        let place = self.place(key);
        self.problems.push(Problem::Value { key: key.to_owned(), place, found, allowed: allowed.to_owned() });
    }

    /// Notes that the value of `key`, well formed as it is, cannot be had.
    pub(super) fn refuse(&mut self, key: &str, reason: &str) {
        let place = self.place(key);
        self.problems.push(Problem::Refused { key: key.to_owned(), place, reason: reason.to_owned() });
    }

    fn raw(&self, key: &str) -> Option<&Raw> {
        #[cfg(test)]
        self.asked.borrow_mut().insert(key.to_owned());
        self.values.get(key).map(|entry| &entry.raw)
    }

    fn place(&self, key: &str) -> Place {
        self.values.get(key).map_or(Place::Default, |entry| entry.place.clone())
    }

    /// A variable is always text; in a file, a number or a boolean is written without quotes.
    fn is_variable(&self, key: &str) -> bool {
        matches!(self.place(key), Place::Dotenv(..) | Place::Env(_))
    }
}

fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Bool(value) => value.to_string(),
        Raw::Integer(value) => value.to_string(),
        Raw::Decimal(value) => value.to_string(),
        Raw::Text(text) => format!("{text:?}"),
        Raw::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Raw::Other(text) => text.clone(),
    }
}
