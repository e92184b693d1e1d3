//! The layers, flattened to `section.key` and merged, each value with the place it came from.
//!
//! The set of known keys is that of `default.toml`, so a key cannot exist without its default and its comment. A key that
//! is not in that set is reported here and goes no further.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ::config::{FileFormat, Map, Source, Value as Node, ValueKind};

use super::alias::{self, Variable};
use super::error::Problem;
use super::{DEFAULTS, Sources};

/// The prefix of variables that name a key.
const PREFIX: &str = "ALERTRACE__";

/// Where a value came from, as a person would look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `default.toml`, compiled in.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable of a `.env` file.
    Dotenv(PathBuf, String),
    /// A variable of the environment.
    Env(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Dotenv(path, name) => write!(f, "{name} in {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// `true` or `false` in a file.
    Bool(bool),
    /// An integer in a file.
    Integer(i64),
    /// A number with a fraction in a file.
    Decimal(f64),
    /// A string in a file, and any variable: variables are parsed when it is known what they should be.
    Text(String),
    /// An array of a file.
    List(Vec<Raw>),
    /// Anything that no key takes (a float, a table in an array), as text for the message.
    Other(String),
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub raw: Raw,
    pub place: Place,
}

/// `section.key` to value.
pub(super) type Flat = BTreeMap<String, Entry>;

/// Reads every layer and lays one on top of the other; problems are added to `problems`.
pub(super) fn merge(sources: &Sources, problems: &mut Vec<Problem>) -> Flat {
    let mut values = Flat::new();
    match parse(DEFAULTS) {
        Ok(flat) => {
            let entry = |raw| Entry { raw, place: Place::Default };
            values.extend(flat.into_iter().map(|(key, raw)| (key, entry(raw))));
        }
        Err(reason) => problems.push(Problem::Syntax { path: PathBuf::from("default.toml"), reason }),
    }
    let known: Vec<String> = values.keys().cloned().collect();

    if let Some(path) = sources.config_file.as_deref().or(sources.default_file.as_deref())
        && let Some(text) = read(path, sources.config_file.is_some(), problems)
    {
        file_layer(path, &text, &known, &mut values, problems);
    }

    let dotenv = sources.dotenv.as_deref().map(|path| dotenv_layer(path, problems)).unwrap_or_default();
    variable_layer(&dotenv, &BTreeMap::new(), &known, &mut values, problems);
    let env = sources
        .env
        .iter()
        .map(|(name, value)| (name.clone(), Variable::new(value, Place::Env(name.clone()))))
        .collect();
    variable_layer(&env, &dotenv, &known, &mut values, problems);
    values
}

/// A file's text; `None` when it does not exist and need not.
fn read(path: &Path, must_exist: bool, problems: &mut Vec<Problem>) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => None,
        Err(source) => {
            problems.push(Problem::Unreadable { path: path.to_path_buf(), source });
            None
        }
    }
}

fn file_layer(path: &Path, text: &str, known: &[String], values: &mut Flat, problems: &mut Vec<Problem>) {
    let flat = match parse(text) {
        Ok(flat) => flat,
        Err(reason) => return problems.push(Problem::Syntax { path: path.to_path_buf(), reason }),
    };
    for (key, raw) in flat {
        let place = Place::File(path.to_path_buf());
        if known.contains(&key) {
            values.insert(key, Entry { raw, place });
        } else if !is_empty_section(&key, &raw, known) {
            problems.push(Problem::UnknownKey { nearest: nearest(&key, known).to_owned(), key, place });
        }
    }
}

/// `[http]` with nothing under it is no mistake; `[htpp]` is.
fn is_empty_section(key: &str, raw: &Raw, known: &[String]) -> bool {
    let section = format!("{key}.");
    *raw == Raw::Other(String::from("a table")) && known.iter().any(|name| name.starts_with(&section))
}

fn dotenv_layer(path: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, Variable> {
    let Some(text) = read(path, false, problems) else { return BTreeMap::new() };
    let mut variables = BTreeMap::new();
    for item in dotenvy::from_read_iter(text.as_bytes()) {
        match item {
            Ok((name, value)) => {
                let place = Place::Dotenv(path.to_path_buf(), name.clone());
                variables.insert(name, Variable::new(&value, place));
            }
            // The parser's message quotes the line, which may hold a secret: only its number is passed on.
            Err(dotenvy::Error::LineParse(quoted, _)) => {
                let number =
                    text.lines().position(|line| line.trim() == quoted.trim()).map_or(1, |at| at + 1);
                let reason =
                    format!("line {number} is not NAME=value; a value with spaces, `$` or `#` needs quotes");
                problems.push(Problem::Syntax { path: path.to_path_buf(), reason });
            }
            Err(error) => {
                problems.push(Problem::Syntax { path: path.to_path_buf(), reason: error.to_string() });
            }
        }
    }
    variables
}

/// Lays the aliases of one set of variables over `values`, then the `ALERTRACE__` names of the same set over those.
fn variable_layer(
    variables: &BTreeMap<String, Variable>,
    below: &BTreeMap<String, Variable>,
    known: &[String],
    values: &mut Flat,
    problems: &mut Vec<Problem>,
) {
    let explicit: BTreeMap<String, &Variable> = variables
        .iter()
        .filter_map(|(name, variable)| {
            Some((name.strip_prefix(PREFIX)?.to_lowercase().replace("__", "."), variable))
        })
        .collect();
    for (key, variable) in alias::resolve(variables, below, problems) {
        if !explicit.contains_key(key) {
            insert(key, &variable, values, problems);
        }
    }
    for (key, variable) in explicit {
        if known.contains(&key) {
            insert(&key, variable, values, problems);
        } else {
            let nearest = variable_name(nearest(&key, known));
            problems.push(Problem::UnknownKey { key, place: variable.place.clone(), nearest });
        }
    }
}

fn insert(key: &str, variable: &Variable, values: &mut Flat, problems: &mut Vec<Problem>) {
    if variable.value.contains('\u{FFFD}') {
        let reason = String::from("the value is not valid UTF-8");
        problems.push(Problem::Refused { key: key.to_owned(), place: variable.place.clone(), reason });
        return;
    }
    let raw = Raw::Text(variable.value.clone());
    values.insert(key.to_owned(), Entry { raw, place: variable.place.clone() });
}

/// `http.listen` as a variable.
fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// The known key most like `key`: by edit distance, and among equals the one with the same last part.
fn nearest<'a>(key: &str, known: &'a [String]) -> &'a str {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .iter()
        .min_by_key(|name| (strsim::damerau_levenshtein(key, name), last(name) != last(key)))
        .map_or("", String::as_str)
}

/// Parses TOML and flattens its tables.
fn parse(text: &str) -> Result<BTreeMap<String, Raw>, String> {
    let table = ::config::File::from_str(text, FileFormat::Toml).collect().map_err(|error| {
        // First line: where. Last line: what. Between them the parser draws the line itself, which may hold a secret.
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match lines.as_slice() {
            [first, .., last] => format!("{first}: {last}"),
            _ => text,
        }
    })?;
    let mut flat = BTreeMap::new();
    flatten("", table, &mut flat);
    Ok(flat)
}

fn flatten(prefix: &str, table: Map<String, Node>, flat: &mut BTreeMap<String, Raw>) {
    for (name, node) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match node.kind {
            ValueKind::Table(inner) if !inner.is_empty() => flatten(&key, inner, flat),
            kind => {
                flat.insert(key, raw(kind));
            }
        }
    }
}

fn raw(kind: ValueKind) -> Raw {
    match kind {
        ValueKind::Boolean(value) => Raw::Bool(value),
        ValueKind::I64(value) => Raw::Integer(value),
        ValueKind::Float(value) => Raw::Decimal(value),
        ValueKind::String(value) => Raw::Text(value),
        ValueKind::Array(items) => Raw::List(items.into_iter().map(|item| raw(item.kind)).collect()),
        ValueKind::Table(_) => Raw::Other(String::from("a table")),
        other => Raw::Other(other.to_string()),
    }
}
