//! The layers and the messages, through `load`, without touching the process's environment.

use std::path::Path;

use secrecy::ExposeSecret as _;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Sources {
    let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { env, ..Sources::default() }
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let config_file = Some(write(dir.path(), "a.toml", text));
    (dir, Sources { config_file, ..Sources::default() })
}

/// The message, which must be there, and must have exactly `count` problems.
fn refused(sources: &Sources, count: usize) -> String {
    let error = load(sources).unwrap_err();
    assert_eq!(error.problems.len(), count, "{error}");
    error.to_string()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load(&Sources::default()).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.mqtt.listen.unwrap().to_string(), "127.0.0.1:1883");
    assert_eq!(config.mqtt.tls_listen.unwrap().to_string(), "0.0.0.0:8883");
    assert_eq!((config.mqtt.client_certs, &config.mqtt.proxy_from), (ClientCerts::Optional, &None));
    assert_eq!(config.sqlite_path(), Path::new("data/alertrace.db"));
    assert_eq!(config.store_dir(), Path::new("data"));
    let elsewhere = load(&env(&[("DATABASE_URL", "sqlite:///mnt/disk/a.db")])).unwrap();
    assert_eq!(elsewhere.store_dir(), Path::new("/mnt/disk"), "where room is needed");
    assert_eq!(config.tls.dir, Path::new("certs"));
    assert_eq!(config.identity.registration, Registration::First);
    assert_eq!(config.log.format, LogFormat::Auto);
    assert!(!config.http.tls && !config.mqtt.open && !config.mqtt.legacy && config.tls.names.is_empty());
    assert!(config.warnings().is_empty());
}

#[test]
fn a_queue_without_a_place_is_refused_since_nobody_would_hear_anything() {
    let text = refused(&env(&[("ALERTRACE__MQTT__MAX_QUEUED_MESSAGES", "0")]), 1);
    assert!(text.contains("mqtt.max_queued_messages"), "{text}");
}

#[test]
fn each_layer_beats_the_one_below() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = Sources {
        default_file: Some(write(
            dir.path(),
            "alertrace.toml",
            "data_dir = \"file\"\n[store]\nreaders = 5\nbusy_timeout_ms = 55\n",
        )),
        dotenv: Some(write(
            dir.path(),
            ".env",
            "ALERTRACE__DATA_DIR=dotenv\nexport ALERTRACE__STORE__READERS='6'\nOTHER=x\n",
        )),
        env: BTreeMap::from([(String::from("ALERTRACE__DATA_DIR"), String::from("env"))]),
        config_file: None,
    };
    let config = load(&sources).unwrap();
    assert_eq!(config.data_dir, Path::new("env"));
    assert_eq!(
        (config.store.readers, config.store.busy_timeout_ms, config.store.retention_days),
        (6, 55, 730)
    );

    sources.config_file = Some(write(dir.path(), "other.toml", "[store]\nretention_days = 30\n"));
    let config = load(&sources).unwrap();
    assert_eq!(
        (config.store.busy_timeout_ms, config.store.retention_days),
        (5000, 30),
        "--config replaces the default file"
    );
}

#[test]
fn only_a_file_that_was_asked_for_must_exist() {
    let absent = Some(PathBuf::from("/nonexistent/alertrace.toml"));
    let sources = Sources { default_file: absent.clone(), dotenv: absent.clone(), ..Sources::default() };
    assert!(load(&sources).is_ok());
    let message = refused(&Sources { config_file: absent, ..Sources::default() }, 1);
    assert!(message.contains("cannot read /nonexistent/alertrace.toml"), "{message}");
}

#[test]
fn an_unknown_key_of_a_file_names_the_nearest() {
    let (_dir, sources) = file("[http]\nlisten_ = \"127.0.0.1:1\"\n[mqqt]\n[log]\n");
    let message = refused(&sources, 2);
    assert!(message.contains("unknown key `http.listen_`"), "{message}");
    assert!(message.contains("a.toml); the nearest known is `http.listen`"), "{message}");
    assert!(message.contains("unknown key `mqqt`"), "an empty section is a mistake too: {message}");
}

#[test]
fn an_unknown_variable_names_the_nearest() {
    let message = refused(&env(&[("ALERTRACE__MQTT__MAX_CONECTIONS", "5"), ("UNRELATED__X", "1")]), 1);
    assert_eq!(
        message,
        "configuration: unknown key `mqtt.max_conections` (environment variable ALERTRACE__MQTT__MAX_CONECTIONS); \
         the nearest known is `ALERTRACE__MQTT__MAX_CONNECTIONS`"
    );
}

#[test]
fn a_type_error_names_key_value_place_and_what_is_allowed() {
    let message = refused(&env(&[("ALERTRACE__STORE__READERS", "four")]), 1);
    assert_eq!(
        message,
        "configuration: `store.readers` is \"four\" (environment variable ALERTRACE__STORE__READERS); \
         allowed: an integer from 1 to 64"
    );
    let (_dir, sources) = file("[store]\nreaders = \"4\"\n[http]\nlisten = \"localhost:8000\"\n");
    let message = refused(&sources, 2);
    assert!(message.contains("`store.readers` is \"4\""), "a number in a file has no quotes: {message}");
    assert!(message.contains("`http.listen` is \"localhost:8000\""), "{message}");
}

#[test]
fn problems_of_all_layers_are_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let sources = Sources {
        config_file: Some(write(dir.path(), "a.toml", "[http]\nlisten = 8000\nnope = 1\n")),
        dotenv: Some(write(dir.path(), ".env", "ALERTRACE__LOG__FORMAT=xml\nLOG_LEVEL=loud\n")),
        ..env(&[("ALERTRACE__MQTT__OPEN", "maybe"), ("SENTRY_DSN", "sentry.example")])
    };
    let message = refused(&sources, 6);
    for part in [
        "configuration: 6 problems\n  - ",
        "`http.listen` is 8000",
        "`http.nope`",
        "`log.format` is \"xml\" (ALERTRACE__LOG__FORMAT in ",
        "`log.level` is \"loud\" (LOG_LEVEL in ",
        "`mqtt.open` is \"maybe\"",
        "`log.sentry_dsn` is a text that is not shown here (environment variable SENTRY_DSN)",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn secrets_are_in_no_debug_and_in_no_message() {
    let secret = "correct-horse-battery-staple-0123456789";
    let config = load(&env(&[("JWT_SECRET_KEY", secret)])).unwrap();
    assert_eq!(config.identity.jwt_secret.as_ref().unwrap().expose_secret(), secret);
    assert_eq!(secrets::jwt_secret(&config).unwrap().expose(), secret.as_bytes());
    assert!(!format!("{config:?}").contains("horse"));

    let message = refused(&env(&[("JWT_SECRET_KEY", "horse"), ("DATABASE_URL", "mysql://u:horse@h/d")]), 2);
    assert!(!message.contains("horse"), "{message}");
    let (dir, mut sources) = file("[identity]\njwt_secret = \"horse\n");
    sources.dotenv = Some(write(dir.path(), ".env", "# comment\nJWT_SECRET_KEY=battery horse staple\n"));
    let message = refused(&sources, 2);
    assert!(!message.contains("horse"), "{message}");
    assert!(message.contains("line 2") && message.contains("a.toml: "), "{message}");
}

#[test]
fn every_key_is_documented_and_known() {
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    let mut keys = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with(['#', '['])) {
        if let Some((key, _)) = line.split_once(" = ") {
            keys += 1;
            assert!(at > 0 && lines[at - 1].starts_with("# "), "{key} has no comment above it");
        }
    }
    // As the layers see it: nothing is lost between the text and the set of known keys, and each is taken by a section.
    let values = layers::merge(&Sources::default(), &mut Vec::new());
    assert_eq!(values.len(), keys);
    let mut reader = Reader::new(values, Vec::new());
    Config::read(&mut reader);
    assert_eq!(reader.unread(), Vec::<&str>::new());
    reader.finish().unwrap();
}

#[test]
fn what_is_not_built_is_an_error_that_says_so() {
    for (name, value, reason) in [
        (
            "DIRECT_URL",
            "postgres://h/d",
            "`database.direct_url` (environment variable DIRECT_URL): this is for",
        ),
        ("DATABASE_CA", "ca.pem", "`database.ca` (environment variable DATABASE_CA): this is for PostgreSQL"),
        ("MQTT_BROKER", "h", "reading from an external broker does not exist yet"),
    ] {
        let message = refused(&env(&[(name, value)]), 1);
        assert!(message.contains(reason), "{name}: {message}");
    }
}

#[test]
fn a_supabase_project_needs_its_key_and_an_encrypted_address() {
    for (names, reason) in [
        (&[("SUPABASE_URL", "https://x.supabase.co")][..], "`identity.supabase_key`"),
        (
            &[("SUPABASE_KEY", "k-1")],
            "`identity.supabase_key` (environment variable SUPABASE_KEY): it belongs to",
        ),
        (&[("SUPABASE_SERVICE_ROLE_KEY", "k-2")], "identity.supabase_url (SUPABASE_URL) names none"),
        (&[("SUPABASE_URL", "http://x.supabase.co"), ("SUPABASE_KEY", "k-1")], "an https:// address"),
        (&[("SUPABASE_URL", "x.supabase.co"), ("SUPABASE_KEY", "k-1")], "an https:// address"),
    ] {
        let message = refused(&env(names), 1);
        assert!(message.contains(reason) && !message.contains("k-1"), "{message}");
    }
    let names =
        [("SUPABASE_URL", "http://127.0.0.1:9999"), ("SUPABASE_KEY", "k-1"), ("SUPABASE_JWT_SECRET", "s-1")];
    let config = load(&env(&names)).unwrap();
    assert_eq!(config.identity.supabase.as_ref().unwrap().url.as_str(), "http://127.0.0.1:9999/");
    assert!(config.warnings()[0].contains("supabase_service_role_key"), "{:?}", config.warnings());
    let shown = format!("{config:?}");
    assert!(!shown.contains("k-1") && !shown.contains("s-1"), "{shown}");
}

#[test]
fn a_budget_for_the_disk_of_another_server_is_refused() {
    let budget = ("ALERTRACE__STORE__MAX_GB", "5");
    assert!(load(&env(&[budget])).is_ok());
    let message = refused(&env(&[budget, ("DATABASE_URL", "postgres://h/d")]), 1);
    assert!(message.contains("`store.max_gb`") && message.contains("SQLite"), "{message}");
}

#[test]
fn aliases_set_their_keys_and_explicit_names_beat_them() {
    let config = load(&env(&[
        ("DATABASE_URL", "sqlite:///srv/alertrace.db"),
        ("JWT_ACCESS_TOKEN_EXPIRE_MINUTES", "15"),
        ("ENVIRONMENT", "staging"),
        ("LOG_LEVEL", "WARNING"),
        ("ALERTRACE__LOG__LEVEL", "debug"),
        ("SENTRY_DSN", ""),
        ("SUPABASE_URL", ""),
    ]))
    .unwrap();
    assert_eq!(config.sqlite_path(), Path::new("/srv/alertrace.db"));
    assert_eq!(config.identity.access_token_minutes, 15);
    assert_eq!(config.environment, "staging");
    assert_eq!(config.log.level, "debug");

    // An explicit empty value is how a person says "not that one" where the alias cannot be taken away.
    let config = load(&env(&[("POSTGRES_USER", "app"), ("ALERTRACE__DATABASE__URL", "")])).unwrap();
    assert_eq!(config.sqlite_path(), Path::new("data/alertrace.db"));
}

#[test]
fn postgresql_is_named_in_the_ways_that_deployments_do() {
    let url = |pairs: &[(&str, &str)]| match load(&env(pairs)).unwrap().database.address {
        Address::Postgres(url) => url.expose_secret().to_owned(),
        Address::Sqlite(path) => panic!("{path:?}"),
    };
    assert_eq!(url(&[("DATABASE_URL", "postgresql+asyncpg://u:p@h/d")]), "postgres://u:p@h/d");
    let parts = [("POSTGRES_HOST", "db"), ("POSTGRES_PASSWORD", "a/b"), ("DIRECT_URL", "postgres://h/d")];
    assert_eq!(url(&parts), "postgres://postgres:a%2Fb@db:5432/postgres");
    let config = load(&env(&[("DATABASE_URL", "postgres://u:horse@h/d")])).unwrap();
    assert!(!format!("{config:?}").contains("horse"));
    let message = refused(&env(&[("DATABASE_URL", "postgres://h/d"), ("DIRECT_URL", "horse://h")]), 1);
    assert!(message.contains("database.direct_url") && !message.contains("horse"), "{message}");
}

#[test]
fn origins_are_added_to_those_built_in() {
    let config = load(&env(&[(
        "ALLOWED_ORIGINS",
        "https://finca.example, https://*.finca.example,http://localhost:3000",
    )]))
    .unwrap();
    let origins: Vec<&str> = config.http.allowed_origins.iter().map(OriginPattern::as_str).collect();
    assert_eq!(origins[..3], http::BUILT_IN_ORIGINS);
    assert_eq!(origins[3..], ["https://finca.example", "https://*.finca.example"]);
    assert!(config.http.allows_origin("https://a.finca.example"));
    assert!(!config.http.allows_origin("https://evil.vercel.app"));

    let config = load(&env(&[("ALLOWED_ORIGINS", r#"["https://finca.example"]"#)])).unwrap();
    assert!(config.http.allows_origin("https://finca.example"), "a JSON list, as pydantic took it");
    let message = refused(&env(&[("ALLOWED_ORIGINS", "*")]), 1);
    assert!(
        message.contains("environment variable ALLOWED_ORIGINS") && message.contains("never alone"),
        "{message}"
    );
}

#[test]
fn an_open_broker_stays_on_loopback() {
    let open = ("ALERTRACE__MQTT__OPEN", "true");
    assert!(load(&env(&[open])).unwrap().mqtt.open);
    assert!(load(&env(&[open, ("ALERTRACE__MQTT__LISTEN", "[::1]:0")])).is_ok());
    assert_eq!(load(&env(&[open, ("ALERTRACE__MQTT__LISTEN", "")])).unwrap().mqtt.listen, None);
    let message = refused(&env(&[open, ("ALERTRACE__MQTT__LISTEN", "0.0.0.0:1883")]), 1);
    assert!(message.contains("`mqtt.open` (environment variable ALERTRACE__MQTT__OPEN)"), "{message}");
}

#[test]
fn http_in_clear_off_loopback_is_a_warning() {
    let listen = ("ALERTRACE__HTTP__LISTEN", "0.0.0.0:8000");
    assert_eq!(load(&env(&[listen])).unwrap().warnings().len(), 1);
    for name in ["ALERTRACE__HTTP__BEHIND_PROXY", "ALERTRACE__HTTP__TLS"] {
        assert!(load(&env(&[listen, (name, "true")])).unwrap().warnings().is_empty());
    }
    refused(&env(&[("ALERTRACE__HTTP__LISTEN", "")]), 1);
}

#[test]
fn certificates_are_needed_where_something_speaks_tls() {
    assert!(load(&Sources::default()).unwrap().needs_certificates(), "mqtt.tls_listen");
    let off = ("ALERTRACE__MQTT__TLS_LISTEN", "");
    assert!(!load(&env(&[off])).unwrap().needs_certificates());
    assert!(load(&env(&[off, ("ALERTRACE__HTTP__TLS", "true")])).unwrap().needs_certificates());
    let config = load(&env(&[("ALERTRACE__TLS__NAMES", "A.example,10.0.0.7, a.example")])).unwrap();
    assert_eq!(config.tls.names, ["a.example", "10.0.0.7"]);
    let message = refused(&env(&[("ALERTRACE__TLS__NAMES", "https://a.example")]), 1);
    assert!(message.contains("ALERTRACE__TLS__NAMES") && message.contains("without https://"), "{message}");
    refused(&env(&[("ALERTRACE__MQTT__CLIENT_CERTS", "yes")]), 1);
}

#[test]
fn a_proxy_is_believed_from_its_networks_and_opens_nothing() {
    let on = ("ALERTRACE__MQTT__PROXY_PROTOCOL", "true");
    let networks = |pairs: &[(&str, &str)]| {
        let networks = load(&env(pairs)).unwrap().mqtt.proxy_from.unwrap();
        networks.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(networks(&[on]), ["127.0.0.0/8", "::1/128"]);
    let from = "ALERTRACE__MQTT__PROXY_FROM";
    assert_eq!(networks(&[on, (from, "10.0.0.7,fd00::/8")]), ["10.0.0.7/32", "fd00::/8"]);
    assert!(refused(&env(&[on, (from, "proxy.example")]), 1).contains("10.0.0.0/8"));
    assert!(refused(&env(&[on, ("ALERTRACE__MQTT__OPEN", "true")]), 1).contains("mqtt.proxy_protocol"));
}
