//! The variable names that deployments of the earlier stack already use, mapped onto keys.
//!
//! An alias that is empty counts as not set: compose files pass `DATABASE_URL=` through when nobody filled it in. What an
//! alias asks for and this version cannot give is a problem, never silence.

use std::collections::BTreeMap;

use super::error::Problem;
use super::layers::Place;

/// A variable's value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub value: String,
    pub place: Place,
}

impl Variable {
    pub(super) fn new(value: &str, place: Place) -> Self {
        Self { value: value.to_owned(), place }
    }
}

/// Names that are another spelling of a key.
const KEYS: [(&str, &str); 14] = [
    ("DATABASE_URL", "database.url"),
    ("DIRECT_URL", "database.direct_url"),
    ("DATABASE_CA", "database.ca"),
    ("SUPABASE_URL", "identity.supabase_url"),
    ("SUPABASE_KEY", "identity.supabase_key"),
    ("SUPABASE_SERVICE_ROLE_KEY", "identity.supabase_service_role_key"),
    ("SUPABASE_JWT_SECRET", "identity.supabase_jwt_secret"),
    ("JWT_SECRET_KEY", "identity.jwt_secret"),
    ("JWT_ACCESS_TOKEN_EXPIRE_MINUTES", "identity.access_token_minutes"),
    ("ALLOWED_ORIGINS", "http.allowed_origins"),
    ("ENVIRONMENT", "environment"),
    ("LOG_LEVEL", "log.level"),
    ("SENTRY_DSN", "log.sentry_dsn"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "log.otlp_endpoint"),
];

const BROKER: &str = "reading from an external broker does not exist yet; unset the MQTT_ variables, let the devices connect to \
                      this server and set its address with mqtt.listen (ALERTRACE__MQTT__LISTEN)";

/// Names that ask for what is not built, and have no key.
const NOT_AVAILABLE: [(&str, &str); 4] =
    [("MQTT_BROKER", BROKER), ("MQTT_PORT", BROKER), ("MQTT_USERNAME", BROKER), ("MQTT_PASSWORD", BROKER)];

/// The parts of a PostgreSQL address, for deployments that give no `DATABASE_URL`.
const POSTGRES: [&str; 5] =
    ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"];

/// The keys that the well-known names in `variables` set. Parts of one value may be spread over two layers (`POSTGRES_HOST`
/// in the environment, the rest in `.env`): those missing here are looked for in `below`.
pub(super) fn resolve(
    variables: &BTreeMap<String, Variable>,
    below: &BTreeMap<String, Variable>,
    problems: &mut Vec<Problem>,
) -> Vec<(&'static str, Variable)> {
    let set = |name: &str| variables.get(name).filter(|variable| !variable.value.trim().is_empty());

    let mut reasons = Vec::new();
    for (name, reason) in NOT_AVAILABLE {
        // One line for the four MQTT_ names, not four.
        if let Some(variable) = set(name).filter(|_| !reasons.contains(&reason)) {
            reasons.push(reason);
            problems.push(Problem::NotAvailable { place: variable.place.clone(), reason: reason.to_owned() });
        }
    }

    let mut found = Vec::new();
    for (name, key) in KEYS {
        if let Some(variable) = set(name) {
            let value = if key == "log.level" { level(&variable.value) } else { &variable.value };
            found.push((key, Variable::new(value, variable.place.clone())));
        }
    }
    if set("DATABASE_URL").is_none() {
        found.extend(postgres_url(variables, below).map(|variable| ("database.url", variable)));
    }
    found
}

/// Python's names of levels, which this name held before. Taken literally they would be read as names of modules.
fn level(value: &str) -> &str {
    match value.trim().to_ascii_uppercase().as_str() {
        "WARNING" => "warn",
        "CRITICAL" | "FATAL" => "error",
        "NOTSET" => "trace",
        _ => value,
    }
}

fn postgres_url(
    variables: &BTreeMap<String, Variable>,
    below: &BTreeMap<String, Variable>,
) -> Option<Variable> {
    let set = |map: &BTreeMap<String, Variable>, name: &str| {
        map.get(name).filter(|variable| !variable.value.trim().is_empty()).cloned()
    };
    let place = POSTGRES.iter().find_map(|name| set(variables, name))?.place;
    let [host, port, user, password, db] = POSTGRES.map(|name| {
        set(variables, name).or_else(|| set(below, name)).map(|variable| encode(variable.value.trim()))
    });
    let user = user.unwrap_or_else(|| String::from("postgres"));
    let sign_in = password.map_or_else(|| user.clone(), |password| format!("{user}:{password}"));
    let host = host.unwrap_or_else(|| String::from("localhost"));
    let port = port.unwrap_or_else(|| String::from("5432"));
    let db = db.unwrap_or_else(|| user.clone());
    Some(Variable { value: format!("postgres://{sign_in}@{host}:{port}/{db}"), place })
}

/// Percent-encodes what a part of a URL may not hold as it is.
fn encode(part: &str) -> String {
    use std::fmt::Write as _;
    part.bytes().fold(String::with_capacity(part.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, Variable> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Variable::new(value, Place::Env((*name).to_owned()))))
            .collect()
    }

    fn resolved(pairs: &[(&str, &str)], below: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        resolve(&variables(pairs), &variables(below), &mut Vec::new())
            .into_iter()
            .map(|(key, variable)| (key, variable.value))
            .collect()
    }

    #[test]
    fn an_empty_alias_is_not_set() {
        assert!(resolved(&[("DATABASE_URL", ""), ("LOG_LEVEL", " ")], &[]).is_empty());
    }

    #[test]
    fn postgres_parts_make_a_url_over_two_layers() {
        let url = resolved(
            &[("POSTGRES_HOST", "db.finca.example"), ("POSTGRES_PASSWORD", "a@b/c")],
            &[("POSTGRES_USER", "app"), ("POSTGRES_PASSWORD", "older"), ("POSTGRES_DB", "alertrace")],
        );
        assert_eq!(
            url,
            [("database.url", String::from("postgres://app:a%40b%2Fc@db.finca.example:5432/alertrace"))]
        );
    }

    #[test]
    fn database_url_beats_the_parts() {
        let url = resolved(&[("POSTGRES_HOST", "db"), ("DATABASE_URL", "sqlite://a.db")], &[]);
        assert_eq!(url, [("database.url", String::from("sqlite://a.db"))]);
    }

    #[test]
    fn python_level_names_are_translated() {
        assert_eq!(resolved(&[("LOG_LEVEL", "WARNING")], &[]), [("log.level", String::from("warn"))]);
        assert_eq!(resolved(&[("LOG_LEVEL", "INFO")], &[]), [("log.level", String::from("INFO"))]);
    }

    #[test]
    fn the_external_broker_is_one_problem() {
        let mut problems = Vec::new();
        let pairs = [("MQTT_BROKER", "broker.example"), ("MQTT_PORT", "1883"), ("MQTT_PASSWORD", "p")];
        resolve(&variables(&pairs), &BTreeMap::new(), &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0]
                .to_string()
                .starts_with("environment variable MQTT_BROKER: reading from an external broker")
        );
    }
}
