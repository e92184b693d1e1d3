//! What `/metrics` exposes, and that the dashboard and the rules in `packaging/` ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

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

/// The series that an expression names.
fn asked_for(expression: &str) -> BTreeSet<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    expression.split(word).filter(|w| w.starts_with("alertrace_")).collect()
}

/// The series that there are.
fn exposed(text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (name, kind) in types(text) {
        if kind == "histogram" {
            all.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        } else {
            all.insert(name.to_owned());
        }
    }
    all
}

#[tokio::test]
async fn the_dashboard_and_the_rules_ask_for_what_there_is() {
    let (server, _client) = used().await;
    let exposed = exposed(&scrape(&server).await);
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let dashboard = std::fs::read_to_string(packaging.join("grafana/alertrace.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of_panels = panels.iter().flat_map(|p| p["targets"].as_array().expect("targets"));
    let mut expressions: Vec<String> =
        of_panels.map(|t| t["expr"].as_str().expect("an expression").to_owned()).collect();
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        expressions.push(variable["definition"].as_str().unwrap_or_default().to_owned());
    }
    let rules = packaging.join("prometheus/alertrace.rules.yml");
    let in_rules = rules_of(&rules);
    assert!(in_rules.len() >= 10 && panels.len() >= 20);
    expressions.extend(in_rules);
    for expression in &expressions {
        for name in asked_for(expression) {
            assert!(exposed.contains(name), "{name} is not exposed, but asked for: {expression}");
        }
        for (open, close) in [('(', ')'), ('[', ']'), ('{', '}')] {
            assert_eq!(expression.matches(open).count(), expression.matches(close).count(), "{expression}");
        }
    }
    // Where Prometheus is installed, its own word on the rules.
    if let Ok(checked) = Command::new("promtool").args(["check", "rules"]).arg(&rules).output() {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// The expressions of a file of rules; each rule has what Alertmanager shows of it.
fn rules_of(file: &Path) -> Vec<String> {
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
    rules.iter().map(|r| r["expr"].as_str().expect("an expression").to_owned()).collect()
}
