//! What `/metrics` exposes, and that the dashboard and the rules in `packaging/` ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use alertrace::domain::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::Value;

use crate::support::postgres::{Database, of_this_run};
use crate::support::server::place;
use crate::support::{Client, Server, client_dir};

/// Labels whose values come from fixed sets.
const LABELS: [&str; 12] = [
    "result",
    "reason",
    "limit",
    "action",
    "of",
    "transport",
    "version",
    "method",
    "route",
    "status",
    "le",
    "quantile",
];

async fn scrape(server: &Server) -> String {
    server.request(Method::GET, "/metrics", "", None).await.text().await.expect("text")
}

/// Waits until a line of the exposition is `line`.
async fn says(server: &Server, line: &str) {
    let start = Instant::now();
    loop {
        let text = scrape(server).await;
        if text.lines().any(|l| l == line) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(15), "no {line:?} in {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A server to which everything has happened once.
async fn used() -> (Server, Client) {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let sent = [
        r#"{"temperatura":20.0}"#,
        r#"{"temperatura":-127.0}"#,
        r#"{"temperatura":20.0,"humedad_aire":300}"#,
    ];
    for (pid, payload) in (1..).zip(sent) {
        client.publish("sensores/s1/data", pid, payload).await;
    }
    says(&server, "alertrace_mqtt_connections{transport=\"tcp\",version=\"5.0\"} 1").await;
    (server, client)
}

#[tokio::test]
async fn what_happens_is_counted_and_every_name_is_explained() {
    let (server, _client) = used().await;
    for line in [
        "alertrace_ingest_messages_total{result=\"stored\"} 1",
        "alertrace_ingest_messages_total{result=\"refused\"} 1",
        "alertrace_ingest_messages_total{result=\"partial\"} 1",
        "alertrace_ingest_messages_total{result=\"duplicate\"} 0",
        "alertrace_mqtt_connections_total{transport=\"tcp\"} 1",
        "alertrace_mqtt_connections_total{transport=\"websocket\"} 0",
        "alertrace_mqtt_ack_seconds_count 1",
        "alertrace_ready 1",
        "alertrace_alerts_open 0",
        "alertrace_ingest_queue_readings 0",
        "alertrace_http_request_seconds_count{method=\"POST\",route=\"/api/v1/sensores\",status=\"201\"} 1",
    ] {
        says(&server, line).await;
    }
    let text = scrape(&server).await;
    let named = |what: &str| -> BTreeSet<String> {
        let prefix = format!("# {what} ");
        let names =
            text.lines().filter_map(|l| l.strip_prefix(&prefix)?.split(' ').next().map(str::to_owned));
        names.collect()
    };
    assert_eq!(named("HELP"), named("TYPE"), "each has a line in src/telemetry/catalogue.rs");
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let (labels, _) = labels.rsplit_once('}').expect("a series");
        for label in labels.split("\",").filter_map(|l| l.split('=').next()) {
            assert!(LABELS.contains(&label), "{name} has the label {label}");
        }
    }
    for (name, kind) in types(&text) {
        let total = name.ends_with("_total");
        assert_eq!(kind == "counter", total, "{name} is a {kind}");
        assert!(kind != "summary", "{name} has no buckets");
    }
}

/// Each metric and its kind.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// What labels a series has, with the values that were seen.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// The series that there are.
fn exposed(text: &str) -> BTreeMap<String, Labels> {
    let mut all: BTreeMap<String, Labels> = BTreeMap::new();
    for (name, kind) in types(text) {
        let ends = if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        all.extend(ends.iter().map(|end| (format!("{name}{end}"), Labels::new())));
    }
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let (labels, _) = rest.rsplit_once('}').expect("a series");
        let of = all.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
        for pair in labels.split("\",").filter(|p| !p.is_empty()) {
            let (label, value) = pair.split_once("=\"").expect("a label");
            of.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    all
}

/// Label, operator, value.
type Matcher<'a> = (&'a str, &'a str, &'a str);

/// The series that an expression names, each with its matchers.
fn asked_for(expression: &str) -> Vec<(&str, Vec<Matcher<'_>>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("alertrace_") {
        if expression[..at].ends_with(word) {
            continue;
        }
        let name = &expression[at..];
        let (name, rest) = name.split_at(name.find(|c| !word(c)).unwrap_or(name.len()));
        let matchers = rest.strip_prefix('{').and_then(|r| r.split_once('}')).map_or("", |(m, _)| m);
        let matcher = |m| -> Option<Matcher<'_>> {
            let m: &str = m;
            let (label, rest) = m.split_at(m.find(|c| !word(c))?);
            let (operator, value) = rest.split_at(rest.find('"')?);
            Some((label, operator, value.trim_matches('"')))
        };
        found.push((name, matchers.split(',').filter_map(matcher).collect()));
    }
    found
}

/// What stands between two texts, each time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
}

/// An expression asks for series, labels and values that there are; `shown` names labels of its answer.
fn checked(exposed: &BTreeMap<String, Labels>, expression: &str, shown: &[&str]) {
    let mut labels = BTreeSet::from(["instance", "job"]);
    for (name, matchers) in asked_for(expression) {
        let of = exposed.get(name).unwrap_or_else(|| panic!("{name} is not exposed: {expression}"));
        labels.extend(of.keys().map(String::as_str));
        for (label, operator, value) in matchers.into_iter().filter(|(label, ..)| *label != "instance") {
            let values = of.get(label).unwrap_or_else(|| panic!("{name} has no label {label}: {expression}"));
            assert!(operator != "=" || values.contains(value), "{name} has no {label}={value}: {expression}");
        }
    }
    let grouped = between(expression, "by (", ")").into_iter().flat_map(|g| g.split(", "));
    for label in grouped.clone().chain(shown.iter().copied()) {
        assert!(labels.contains(label), "nothing in it has the label {label}: {expression}");
    }
    // What is summed up has the labels that it is summed by and no others.
    if expression.contains("sum") {
        let left: BTreeSet<&str> = grouped.collect();
        assert!(shown.iter().all(|label| left.contains(label)), "{shown:?} are summed away: {expression}");
    }
}

#[tokio::test]
async fn the_dashboard_and_the_rules_ask_for_what_there_is() {
    let (server, _client) = used().await;
    let exposed = exposed(&scrape(&server).await);
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let dashboard = std::fs::read_to_string(packaging.join("grafana/alertrace.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut expressions = Vec::new();
    for target in panels.iter().flat_map(|p| p["targets"].as_array().expect("targets")) {
        let expression = target["expr"].as_str().expect("an expression");
        let legend = target["legendFormat"].as_str().expect("a legend");
        checked(&exposed, expression, &between(legend, "{{", "}}"));
        expressions.push(expression.replace("$__rate_interval", "5m").replace("$instance", ".*"));
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        checked(&exposed, variable["definition"].as_str().unwrap_or_default(), &[]);
    }
    let file = packaging.join("prometheus/alertrace.rules.yml");
    let rules = rules_of(&file);
    assert!(rules.len() >= 10 && panels.len() >= 20);
    for rule in &rules {
        let annotations = rule["annotations"].to_string();
        let shown: Vec<&str> =
            between(&annotations, "$labels.", "}}").into_iter().map(str::trim_end).collect();
        checked(&exposed, rule["expr"].as_str().expect("an expression"), &shown);
    }
    // Prometheus's own word on the language of both.
    promtool(&file);
    let named = expressions.iter().enumerate();
    let named: Vec<Value> =
        named.map(|(n, e)| serde_json::json!({ "record": format!("panel:{n}"), "expr": e })).collect();
    let of_panels = serde_json::json!({ "groups": [{ "name": "panels", "rules": named }] });
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), of_panels.to_string()).expect("a file");
    promtool(file.path());
}

fn promtool(rules: &Path) {
    let promtool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/promtool");
    let checked = Command::new(promtool).args(["check", "rules"]).arg(rules).output();
    let checked = checked.expect("scripts/test puts promtool there");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// The value of a series; `None` while there is none.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a series has a value that `fits`.
async fn comes_to(server: &Server, series: &str, fits: impl Fn(f64) -> bool) {
    let start = Instant::now();
    loop {
        let text = scrape(server).await;
        if value(&text, series).is_some_and(&fits) {
            return;
        }
        let is = value(&text, series);
        assert!(start.elapsed() < Duration::from_secs(20), "{series} is {is:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn every_part_counts_what_it_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = place(dir.path(), of_this_run());
    let server = Server::start_in(dir, place, |mut serve| {
        serve.env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "250");
        serve
    })
    .await;
    let device = server.device("s1").await;
    let mut socket = crate::live::signed_in(&server, "").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    // Far outside what is good for anything: an alert.
    client.publish("sensores/s1/data", 1, r#"{"temperatura":149.5}"#).await;
    assert_eq!(client.publish("sensores/s2/data", 2, r#"{"temperatura":20}"#).await, 0x87);
    assert_eq!(client.subscribe("alertas/1").await, 0x87);
    let (mut listener, _) = Client::connect(&server.mqtt, 5, "listener", "s1", &device.token).await;
    assert_eq!(listener.subscribe("sensores/s1/errores").await, 1);
    client.publish("sensores/s1/data", 3, r#"{"temperatura":-127}"#).await;
    let (_, refused) = Client::connect(&server.mqtt, 5, "x", "s1", "no").await;
    assert_eq!(refused, 0x86);
    // An hour that is over.
    let past = SystemClock.now().minus(Duration::from_secs(3 * 3_600));
    client.publish("sensores/s1/data", 4, &format!(r#"{{"temperatura":20,"timestamp":"{past}"}}"#)).await;
    for (series, least) in [
        ("alertrace_commit_seconds_count", 3.0),
        ("alertrace_commit_messages_sum", 3.0),
        ("alertrace_mqtt_sockets", 1.0),
        ("alertrace_mqtt_sessions", 1.0),
        ("alertrace_mqtt_retained_messages", 1.0),
        ("alertrace_mqtt_publish_received_total", 4.0),
        ("alertrace_mqtt_publish_sent_total", 1.0),
        ("alertrace_mqtt_publish_refused_total{reason=\"not_authorized\"}", 1.0),
        ("alertrace_mqtt_subscribe_refused_total", 1.0),
        ("alertrace_mqtt_connections_refused_total", 1.0),
        ("alertrace_alerts_total{action=\"created\"}", 1.0),
        ("alertrace_alerts_open", 1.0),
        ("alertrace_websockets", 1.0),
        ("alertrace_websocket_lag_seconds_count", 1.0),
        ("alertrace_disk_free_bytes", 1.0),
        ("alertrace_ingest_queue_limit_readings", 1.0),
        // After 2020, in seconds.
        ("alertrace_tls_certificate_not_after_seconds", 1.6e9),
        ("alertrace_hours_summed_total", 1.0),
        ("alertrace_hours_write_seconds_count", 1.0),
    ] {
        comes_to(&server, series, |v| v >= least).await;
    }
    if of_this_run() == Database::Sqlite {
        comes_to(&server, "alertrace_disk_used_bytes", |v| v > 4_096.0).await;
        comes_to(&server, "alertrace_disk_file_bytes", |v| v > 4_096.0).await;
        let mut holder = crate::store::python(&server, "db.execute('BEGIN IMMEDIATE')");
        let publish = client.publish_packet("sensores/s1/data", 1, 5, b"{\"temperatura\":20}");
        client.send(&publish).await;
        comes_to(&server, "alertrace_store_errors_total{of=\"writer\"}", |v| v >= 1.0).await;
        let body = serde_json::json!({ "device_id": "s3", "nombre": "s3", "tipo": "x" });
        let answer = server.request(Method::POST, "/api/v1/sensores", &server.token, Some(body)).await;
        assert_eq!(answer.status(), 503);
        comes_to(&server, "alertrace_store_errors_total{of=\"request\"}", |v| v >= 1.0).await;
        drop(holder.stdin.take());
        holder.wait().expect("it ends");
    }
    socket.close(None).await.expect("it closes");
    comes_to(&server, "alertrace_websockets", |v| v == 0.0).await;
}

/// The rules of a file; each has what Alertmanager shows of it.
fn rules_of(file: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml\n\
                  json.dump([r for g in yaml.safe_load(open(sys.argv[1]))['groups'] for r in g['rules']], sys.stdout)";
    // PyYAML comes with schemathesis.
    let path = client_dir().join("schemathesis");
    let output = Command::new("python3").args(["-c", script]).arg(file).env("PYTHONPATH", path).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rules: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    for rule in &rules {
        let complete = rule["alert"].is_string()
            && ["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default())
            && ["summary", "description"].iter().all(|key| rule["annotations"][key].is_string());
        assert!(complete, "{rule}");
    }
    rules
}
