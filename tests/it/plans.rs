//! No list is found by reading a whole table: what the server asks the database for each GET route is taken from
//! its log, and the database is asked how it would go about it.

use std::collections::BTreeSet;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::permissions::Site;
use crate::support::Server;
use crate::support::postgres::{Database, of_this_run, shared};

/// The tables that grow with a site.
const LARGE: [&str; 4] = ["lecturas", "lecturas_hora", "alertas", "sensores"];
/// Parts of statements that no route asks: maintenance looks at each sensor's oldest hour once a minute.
const OF_ALL: [&str; 1] =
    ["(SELECT MIN(h.hora) FROM horas h WHERE h.id_sensor = s.id_sensor) AS hora FROM sensores s"];
/// Queries that make lists narrower.
const QUERIES: [&str; 9] = [
    "",
    "?limit=5&skip=5",
    "?estado=activo&activo=true&ubicacion=Lote",
    "?estado=resuelta&severidad=alta&tipo=temperatura&sensor=1&desde=2026-01-01T00:00:00Z&hasta=2026-02-01T00:00:00Z",
    "?intervalo=1h",
    "?intervalo=1m&variable=ph_suelo&orden=desc",
    "?variable=ph_suelo&orden=asc&desde=2026-01-01T00:00:00Z",
    "?variable=ph_suelo&limit=5",
    "?puntos=50&variable=ph_suelo",
];

/// A server that logs what it asks of its database.
async fn talkative() -> Server {
    Server::start_with(|command| {
        let script = "exec \"$0\" \"$@\" 2> >(tee sql.log | grep --line-buffered -v sqlx::query >&2)";
        let mut command = Server::wrapped("bash", &["-c", script], &command);
        command.env("LOG_LEVEL", "info,sqlx::query=debug");
        command
    })
    .await
}

/// The statements that read one of the large tables, since it was ready: at its start it reads all there is, once.
fn statements(server: &Server) -> BTreeSet<String> {
    let log = std::fs::read_to_string(server.dir().join("sql.log")).expect("a log");
    let mut found = BTreeSet::new();
    for line in log
        .lines()
        .skip_while(|line| !line.contains("\"message\":\"ready\""))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        if line["target"] != "sqlx::query" {
            continue;
        }
        let text = |key: &str| line[key].as_str().map(str::trim).filter(|t| !t.is_empty());
        let Some(sql) = text("db.statement").or_else(|| text("summary")) else { continue };
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        if (sql.starts_with("SELECT") || sql.starts_with("WITH"))
            && !OF_ALL.iter().any(|part| sql.contains(part))
            && !aliases(&sql).is_empty()
        {
            found.insert(sql);
        }
    }
    found
}

/// What maintenance asks every ten minutes, of no list: it goes through an index that holds open alerts alone.
const OPEN: &str = "WHERE a.estado IN ('pendiente', 'en_proceso') AND a.tipo_alerta = $1";

/// The large tables of a statement, each under the name that a plan calls it by.
fn aliases(sql: &str) -> Vec<String> {
    let words: Vec<&str> = sql.split([' ', '(', ')', ',']).filter(|w| !w.is_empty()).collect();
    let mut found = Vec::new();
    for (n, word) in words.iter().enumerate() {
        let after = n.checked_sub(1).is_some_and(|p| matches!(words[p], "FROM" | "JOIN"));
        if !after || !LARGE.contains(word) {
            continue;
        }
        found.push((*word).to_owned());
        let next = words.get(n + 1).copied().unwrap_or_default();
        let alias = if next == "AS" { words.get(n + 2).copied().unwrap_or_default() } else { next };
        if !alias.is_empty() && alias.chars().all(|c| c.is_ascii_lowercase()) {
            found.push(alias.to_owned());
        }
    }
    found
}

/// What reads a whole large table of a plan of SQLite's.
fn scanned_by_sqlite(server: &Server, sql: &str) -> Vec<String> {
    // Python's SQLite is Debian's, and older than ours.
    let script = "import sqlite3, sys, re\n\
                  db = sqlite3.connect(sys.argv[1])\n\
                  nothing = type('A', (), {'step': lambda s, *a: None, 'finalize': lambda s: None})\n\
                  db.create_aggregate('string_agg', 2, nothing)\n\
                  args = {'p' + n: None for n in re.findall(r'\\$(\\d+)', sys.argv[2])}\n\
                  for row in db.execute('EXPLAIN QUERY PLAN ' + sys.argv[2].replace('$', ':p'), args): print(row[3])";
    let mut python = Command::new("python3");
    let output = python.args(["-c", script]).arg(server.data_dir().join("alertrace.db")).arg(sql).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    let names = aliases(sql);
    let scan = |line: &&str| {
        line.trim()
            .strip_prefix("SCAN ")
            .and_then(|rest| rest.split(' ').next())
            .is_some_and(|name| names.iter().any(|n| n == name))
    };
    String::from_utf8_lossy(&output.stdout).lines().filter(scan).map(str::to_owned).collect()
}

/// What reads a whole large table of a plan of PostgreSQL's, where it is told to do anything rather than that.
fn scanned_by_postgres(server: &Server, sql: &str) -> Vec<String> {
    let schema = server.place.iter().find(|(key, _)| *key == "ALERTRACE__DATABASE__SCHEMA");
    let schema = &schema.expect("a schema").1;
    // Those that a filter leaves out have no type: the others close up.
    let (mut compact, mut parameters) = (sql.to_owned(), 0);
    for n in 1..100 {
        if compact.contains(&format!("${n}")) {
            parameters += 1;
            compact = compact.replace(&format!("${n}"), &format!("${parameters}"));
        }
    }
    let nulls = vec!["NULL"; parameters].join(", ");
    // The driver names the types of parameters, which `$2 IS NULL` says nothing of: something else in its place that
    // is not known before the statement runs.
    let mut sql = compact;
    for n in 1..=parameters {
        for is in ["IS NULL", "IS NOT NULL"] {
            sql = sql.replace(&format!("${n} {is}"), "random() < 0.5");
        }
    }
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    let plan = shared().sql(&format!(
        "SET search_path TO {schema}; SET enable_seqscan TO off; SET plan_cache_mode TO force_generic_plan; \
         PREPARE q AS {sql}; EXPLAIN (FORMAT JSON) EXECUTE q{arguments}"
    ));
    let plan: Value = serde_json::from_str(&plan).expect("a plan");
    let mut found = Vec::new();
    visit(&plan[0]["Plan"], &mut found);
    found
}

fn visit(node: &Value, found: &mut Vec<String>) {
    let table = node["Relation Name"].as_str().unwrap_or_default();
    // Partitions of a table are called after it.
    let large = LARGE
        .iter()
        .any(|l| table == *l || table.strip_prefix("lecturas_").is_some_and(|m| m != "rechazadas"));
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let whole = kind == "Seq Scan" || (kind.starts_with("Index") && node.get("Index Cond").is_none());
    if large && whole {
        found.push(format!("{kind} on {table}"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        visit(child, found);
    }
}

#[tokio::test]
async fn no_list_reads_the_whole_of_a_large_table() {
    let mut site = Site::on(talkative().await).await;
    let paths = site.get_paths().await;
    assert!(paths.len() > 15, "{paths:?}");
    for name in ["admin", "assigned"] {
        let token = site.token(name).to_owned();
        for path in &paths {
            for query in QUERIES {
                let url = format!("{path}{query}");
                let answer = site.server.request(Method::GET, &url, &token, None).await;
                assert!(answer.status().as_u16() < 500, "{url}");
            }
        }
    }
    // The sign-in of a device is a question too.
    let body = json!({ "temperatura": 20 });
    site.server.request(Method::POST, "/api/v1/sensores/data", "x", Some(body)).await;
    let statements = statements(&site.server);
    assert!(statements.len() > 10, "{statements:#?}");
    let scanned = |sql: &str| match of_this_run() {
        Database::Sqlite => scanned_by_sqlite(&site.server, sql),
        Database::Postgres | Database::Pgbouncer => scanned_by_postgres(&site.server, sql),
    };
    assert_eq!(scanned("SELECT s.id_sensor FROM sensores s WHERE s.nombre = $1").len(), 1, "it is noticed");
    let mut wrong = Vec::new();
    for sql in statements.into_iter().filter(|sql| !sql.contains(OPEN)) {
        let scanned = scanned(&sql);
        if !scanned.is_empty() {
            wrong.push(format!("{sql}: {scanned:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How many statements about sensors the server has asked until now. The log is in the order of what was asked: it
/// has come this far when it tells of a question that is asked here.
async fn asked(server: &Server) -> usize {
    let count = |what: &str| {
        let log = std::fs::read_to_string(server.dir().join("sql.log")).expect("a log");
        log.lines().filter(|line| line.contains("sqlx::query") && line.contains(what)).count()
    };
    let before = count("AS total FROM api_keys");
    server.get("/api/v1/api-keys").await;
    while count("AS total FROM api_keys") == before {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    count("FROM sensores s")
}

#[tokio::test]
async fn a_list_of_many_sensors_asks_as_often_as_a_list_of_one() {
    let server = talkative().await;
    let mut times = Vec::new();
    for (n, sensors) in [(0, 1), (1, 40)] {
        for n in n..sensors {
            server.device(&format!("s{n}")).await;
        }
        let before = asked(&server).await;
        let found = server.get("/api/v1/sensores/with-readings").await;
        assert_eq!(found.as_array().expect("a list").len(), sensors);
        times.push(asked(&server).await - before);
    }
    assert!(times[0] > 0 && times[0] == times[1], "{times:?}");
}
