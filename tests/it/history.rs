//! What people get to see of the past, however long ago and however it came in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alertrace::domain::Timestamp;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::store::python;
use crate::support::{Device, Server};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;

/// A midnight well within the retention.
pub fn midnight(days_ago: i64) -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the server judges moments by the machine's clock")]
    let now = chrono::Utc::now().timestamp_micros();
    now - now % DAY - days_ago * DAY
}

pub fn moment(micros: i64) -> String {
    Timestamp::clamped(micros).to_string()
}

/// Sends readings as the device, 1,000 at a time; each must be dealt with.
pub async fn send(server: &Server, device: &Device, readings: &[Value]) {
    for some in readings.chunks(1_000) {
        let answer = reqwest::Client::new()
            .post(format!("http://{}/api/v1/sensores/data", server.http))
            .header("authorization", format!("Device {}:{}", device.id, device.token))
            .json(some)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 201, "{}", answer.text().await.expect("text"));
    }
}

/// Asks the database until `sql` answers `expected`.
pub fn eventually(server: &Server, sql: &str, expected: &str) {
    let code = format!(
        "import time\nfor _ in range(600):\n  got = str(db.execute(\"{sql}\").fetchone()[0])\n  if got == '{expected}': break\n  time.sleep(0.1)\n\
         else: raise SystemExit(f'still {{got}}')"
    );
    python(server, &code).wait().expect("in time");
}

/// Until no hour that is over is left to be summed.
fn all_summed(server: &Server) {
    let over = "SELECT COUNT(*) FROM horas_pendientes WHERE hora < (unixepoch() - 3700) * 1000000";
    eventually(server, over, "0");
}

async fn ask(server: &Server, device: &Device, query: &str, accept: &str) -> Response {
    reqwest::Client::new()
        .get(format!("http://{}/api/v1/sensores/{}/lecturas?{query}", server.http, device.id_sensor))
        .bearer_auth(&server.token)
        .header("accept", accept)
        .send()
        .await
        .expect("an answer")
}

async fn buckets(server: &Server, device: &Device, query: &str) -> Vec<Value> {
    let path = format!("/api/v1/sensores/{}/lecturas?{query}", device.id_sensor);
    server.get(&path).await.as_array().expect("an array").clone()
}

/// (bucket, variable) → (n, min, max, mean), as plain arithmetic has it.
type Figures = BTreeMap<(String, String), (i64, f64, f64, f64)>;

fn expected(stored: &BTreeMap<i64, BTreeMap<&'static str, f64>>, width: i64) -> Figures {
    let mut figures = Figures::new();
    for (ts, values) in stored {
        for (variable, value) in values {
            let key = (moment(ts - ts % width), (*variable).to_owned());
            let f = figures.entry(key).or_insert((0, f64::INFINITY, f64::NEG_INFINITY, 0.0));
            *f = (f.0 + 1, f.1.min(*value), f.2.max(*value), f.3 + value);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of readings")]
    for f in figures.values_mut() {
        f.3 /= f.0 as f64;
    }
    figures
}

fn figures(buckets: &[Value]) -> Figures {
    let figure = |b: &Value| {
        let text = |key: &str| b[key].as_str().expect("a text").to_owned();
        let number = |key: &str| b[key].as_f64().expect("a number");
        let key = (text("timestamp"), text("variable"));
        (key, (b["n"].as_i64().expect("a count"), number("min"), number("max"), number("avg")))
    };
    let figures: Figures = buckets.iter().map(figure).collect();
    assert_eq!(figures.len(), buckets.len(), "no bucket twice");
    figures
}

/// Values are quarters, so that counts, extremes and sums are exact; a mean as exact as a client reads it.
fn same(got: &Figures, expected: &Figures, what: &str) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (key, (n, min, max, avg)) in expected {
        let g = got[key];
        assert_eq!((g.0, g.1, g.2), (*n, *min, *max), "{what}: {key:?}");
        assert!((g.3 - avg).abs() < 1e-9, "{what}: {key:?}: {} instead of {avg}", g.3);
    }
}

async fn check(server: &Server, device: &Device, stored: &BTreeMap<i64, BTreeMap<&'static str, f64>>) {
    let range = format!("desde={}&hasta={}", moment(midnight(9)), moment(midnight(4)));
    for (width, name) in [(5 * MINUTE, "5m"), (60 * MINUTE, "1h"), (360 * MINUTE, "6h"), (DAY, "1d")] {
        let got = buckets(server, device, &format!("intervalo={name}&{range}")).await;
        same(&figures(&got), &expected(stored, width), name);
    }
    let path = format!("/api/v1/sensores/{}/estadisticas?{range}", device.id_sensor);
    let statistics = server.get(&path).await;
    assert_eq!(statistics["lecturas"], stored.len());
    let one = |(variable, of): (&String, &Value)| {
        let number = |key: &str| of[key].as_f64().expect("a number");
        let of = (of["n"].as_i64().expect("a count"), number("min"), number("max"), number("avg"));
        ((moment(0), variable.clone()), of)
    };
    let variables = statistics["variables"].as_object().expect("an object").iter().map(one).collect();
    same(&variables, &expected(stored, 1 << 62), "statistics");
}

#[tokio::test]
async fn every_answer_is_exact_before_and_after_hours_are_summed_and_across_a_crash() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    let start = midnight(8);
    let mut stored: BTreeMap<i64, BTreeMap<&'static str, f64>> = BTreeMap::new();
    let mut readings = Vec::new();
    for n in 0..1_500_i32 {
        let (ts, t) = (start + i64::from(n) * 2 * MINUTE, f64::from(n % 97) / 4.0);
        readings.push(json!({ "timestamp": moment(ts), "temperatura": t }));
        stored.entry(ts).or_default().insert("temperatura", t);
    }
    send(&server, &device, &readings).await;
    check(&server, &device, &stored).await;
    all_summed(&server);
    check(&server, &device, &stored).await;

    // Sent again; merged with another variable; contradicted; and late, into hours that were summed.
    send(&server, &device, &readings[..700]).await;
    let mut more = Vec::new();
    for n in (0..900_i32).step_by(3) {
        let ts = start + i64::from(n) * 2 * MINUTE;
        more.push(json!({ "timestamp": moment(ts), "humedad_suelo": 40.25, "temperatura": 149.0 }));
        stored.entry(ts).or_default().insert("humedad_suelo", 40.25);
        let ts = ts + MINUTE;
        more.push(json!({ "timestamp": moment(ts), "ph_suelo": 6.5 }));
        stored.entry(ts).or_default().insert("ph_suelo", 6.5);
    }
    send(&server, &device, &more).await;
    check(&server, &device, &stored).await;
    // Whatever was under way: the marks are in the store, beside the readings.
    server.kill_and_restart();
    check(&server, &device, &stored).await;
    all_summed(&server);
    check(&server, &device, &stored).await;
    // The answers come from the sums now: they stand where the readings are gone.
    drop(
        python(
            &server,
            "db.execute('CREATE TABLE aparte AS SELECT * FROM lecturas')\ndb.execute('DELETE FROM lecturas')",
        )
        .stdin
        .take(),
    );
    let query = format!("intervalo=1d&desde={}&hasta={}", moment(midnight(9)), moment(midnight(4)));
    let got = buckets(&server, &device, &query).await;
    same(&figures(&got), &expected(&stored, DAY), "from the hours alone");
}

#[tokio::test]
async fn pages_follow_each_other_while_readings_come_in() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let start = midnight(3);
    let reading =
        |n: i64| json!({ "timestamp": moment(start + n * MINUTE), "temperatura": n % 50, "bateria": 50 });
    send(&server, &device, &(0..600).map(reading).collect::<Vec<_>>()).await;
    for (order, extra) in [("desc", 600..700_i64), ("asc", -100..0)] {
        let mut path = format!(
            "/api/v1/sensores/{}/lecturas?variable=temperatura&limit=70&orden={order}",
            device.id_sensor
        );
        let (mut seen, mut extra) = (Vec::new(), extra.map(reading).collect::<Vec<_>>().into_iter());
        loop {
            let answer = server.request(Method::GET, &path, &server.token, None).await;
            assert_eq!(answer.status(), 200);
            let next = answer.headers().get("link").map(|l| l.to_str().expect("text").to_owned());
            let page: Vec<Value> = answer.json().await.expect("JSON");
            assert!(page.iter().all(|l| l["bateria"].is_null()), "one variable was asked for");
            seen.extend(page.iter().map(|l| l["timestamp"].as_str().expect("a moment").to_owned()));
            // Behind where the pages have been: nothing moves.
            send(&server, &device, &extra.by_ref().take(7).collect::<Vec<_>>()).await;
            let Some(next) = next else { break };
            let (url, rel) = next.split_once('>').expect("a link");
            assert_eq!(rel, "; rel=\"next\"");
            url.trim_start_matches('<').clone_into(&mut path);
        }
        let mut expected: Vec<String> = (0..600).map(|n| moment(start + n * MINUTE)).collect();
        if order == "desc" {
            expected.reverse();
        } else {
            // What came in meanwhile for the first round is there in the second.
            expected.extend((600..663).map(|n| moment(start + n * MINUTE)));
        }
        assert_eq!(seen, expected, "{order}");
    }
    let path = format!("/api/v1/sensores/{}/lecturas?cursor=nada", device.id_sensor);
    assert_eq!(server.request(Method::GET, &path, &server.token, None).await.status(), 422);
}

#[tokio::test]
async fn a_large_range_comes_as_csv_without_being_held() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (start, n) = (midnight(300), 400_000_i64);
    let insert = format!(
        "db.execute('BEGIN')\ndb.executemany('INSERT INTO lecturas VALUES (?,?,?)', (({}, {start} + i * {MINUTE}, \
         '{{\"humedad_aire\":' + str(i % 100) + '.5' + (',\"temperatura\":20.25' if i % 2 else '') + '}}') for i in range({n})))\n\
         db.execute('INSERT INTO historia (id_sensor, relleno_hasta) VALUES ({}, {})')\ndb.execute('COMMIT')",
        device.id_sensor,
        device.id_sensor,
        start + (n + 60) * MINUTE
    );
    drop(python(&server, &insert).stdin.take());
    let last = moment(start + n * MINUTE);
    // Before, on every connection that reads, so that what the database caches of it is not counted.
    let all = format!("orden=asc&hasta={last}");
    let once = async || ask(&server, &device, &all, "text/csv").await.text().await;
    let _ = tokio::join!(once(), once(), once(), once());
    eventually(&server, "SELECT COUNT(*) FROM historia WHERE relleno_hasta IS NOT NULL", "0");
    let before = resident(&server);
    let answer = ask(&server, &device, &format!("orden=asc&hasta={last}"), "text/csv").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename=\"lecturas-s1.csv\"");
    // A client that takes its time: the server waits, and is asked other things meanwhile.
    let mut answer = answer;
    let mut text = Vec::new();
    let mut peak = 0;
    while let Some(some) = answer.chunk().await.expect("bytes") {
        text.extend_from_slice(&some);
        peak = peak.max(resident(&server));
    }
    let text = String::from_utf8(text).expect("text");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines[0], "timestamp,humedad_aire,temperatura");
    assert_eq!(lines[1], format!("{},0.5,", moment(start)));
    assert_eq!(lines[2], format!("{},1.5,20.25", moment(start + MINUTE)));
    assert_eq!(lines.len(), usize::try_from(n).expect("a count") + 2, "a line each, the names, and the end");
    assert!(peak < before + (8 << 20), "{before} bytes before, {peak} while it was sent");

    // The same filters as for JSON.
    let query = format!("variable=temperatura&limit=3&desde={}", moment(start));
    let few = ask(&server, &device, &query, "text/csv").await.text().await.expect("text");
    let newest = |n: i64| format!("{},20.25\r\n", moment(start + n * MINUTE));
    assert_eq!(few, format!("timestamp,temperatura\r\n{}{}{}", newest(n - 1), newest(n - 3), newest(n - 5)));
    let query = format!("intervalo=1d&variable=temperatura&hasta={}", moment(start));
    let days = ask(&server, &device, &query, "text/csv").await.text().await.expect("text");
    assert_eq!(
        days,
        format!(
            "timestamp,variable,n,min,max,avg\r\n{},temperatura,720,20.25,20.25,20.25\r\n",
            moment(start)
        )
    );
}

/// What the server's process has in memory, in bytes.
fn resident(server: &Server) -> u64 {
    let lock = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    let status = std::fs::read_to_string(format!("/proc/{}/status", lock.trim())).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn a_curve_has_no_more_points_than_asked_and_keeps_the_peak_for_a_year() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (start, n, peak) = (midnight(366), 525_600_i64, 123_456_i64);
    // A year at one a minute, as an older version stored it, without sums.
    let insert = format!(
        "db.execute('BEGIN')\ndb.executemany('INSERT INTO lecturas VALUES (?,?,?)', (({0}, {start} + i * {MINUTE}, \
         '{{\"temperatura\":' + ('99.5' if i == {peak} else str(15 + i % 1440 / 144.0)) + '}}') for i in range({n})))\n\
         db.execute('INSERT INTO historia (id_sensor, relleno_hasta) VALUES ({0}, {1})')\ndb.execute('COMMIT')",
        device.id_sensor,
        start + n * MINUTE
    );
    drop(python(&server, &insert).stdin.take());
    for summed in [false, true] {
        for (query, source) in [
            (String::new(), "horas"),
            (
                format!(
                    "&desde={}&hasta={}",
                    moment(start + (peak - 20_000) * MINUTE),
                    moment(start + (peak + 20_000) * MINUTE)
                ),
                "lecturas",
            ),
        ] {
            let answer =
                ask(&server, &device, &format!("puntos=500&variable=temperatura{query}"), "*/*").await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["x-alertrace-fuente"], source, "summed: {summed}");
            let points: Vec<Value> = answer.json().await.expect("JSON");
            assert!(points.len() <= 500 && points.len() > 450, "{}", points.len());
            let expected = json!({ "id_sensor": device.id_sensor, "timestamp": moment(start + peak * MINUTE), "temperatura": 99.5 });
            assert!(points.contains(&expected), "the peak is lost ({source}, summed: {summed})");
        }
        if !summed {
            let begun = Instant::now();
            eventually(&server, "SELECT COUNT(*) FROM historia WHERE relleno_hasta IS NOT NULL", "0");
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_its_field() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let start = midnight(3);
    send(&server, &device, &[json!({ "timestamp": moment(start), "temperatura": 1 })]).await;
    for (query, field) in [
        ("intervalo=7m", "intervalo"),
        ("intervalo=1h&puntos=50", "puntos"),
        ("puntos=2", "puntos"),
        ("puntos=5001", "puntos"),
        ("intervalo=1m&desde=2020-01-01&hasta=2026-01-01", "intervalo"),
        ("intervalo=1h&desde=ayer", "desde"),
        ("limit=1001", "limit"),
        ("limit=0", "limit"),
        ("variable=Temp", "variable"),
    ] {
        let answer = ask(&server, &device, query, "*/*").await;
        assert_eq!(answer.status(), 422, "{query}");
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["errors"][0]["campo"], field, "{query}");
    }
    // An empty range and a sensor that never said anything are no errors.
    let silent = server.device("s2").await;
    for query in ["intervalo=1h", "puntos=100", "limit=5", "intervalo=1d&desde=2026-01-02&hasta=2026-01-01"] {
        let answer: Value = ask(&server, &silent, query, "*/*").await.json().await.expect("JSON");
        assert_eq!(answer, json!([]), "{query}");
    }
    let statistics = server.get(&format!("/api/v1/sensores/{}/estadisticas", silent.id_sensor)).await;
    assert_eq!((&statistics["lecturas"], &statistics["variables"]), (&json!(0), &json!({})));
}

#[tokio::test]
async fn another_empresas_history_does_not_exist() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let body = json!({ "email": "otra@fundo.pe", "password": crate::support::server::PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999", "telefono": "999999999" });
    let answer = server.request(Method::POST, "/api/v1/auth/register", "", Some(body)).await;
    assert_eq!(answer.status(), 201);
    let other = server.sign_in("otra@fundo.pe").await;
    for rest in ["lecturas", "lecturas?intervalo=1h", "lecturas?puntos=10", "estadisticas"] {
        let path = format!("/api/v1/sensores/{}/{rest}", device.id_sensor);
        assert_eq!(server.request(Method::GET, &path, &other, None).await.status(), 404, "{rest}");
        assert_eq!(server.request(Method::GET, &path, "", None).await.status(), 401, "{rest}");
    }
}

#[tokio::test]
async fn names_that_a_device_invented_make_no_answer_grow_without_end() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let (start, n) = (midnight(3), 4_000);
    // As an older version stored them: 1,200 names, a few at a time.
    let insert = format!(
        "db.execute('BEGIN')\ndb.executemany('INSERT INTO lecturas VALUES (?,?,?)', (({0}, {start} + i * 1000000, \
         '{{\"temperatura\":20.5,\"v' + str(i % 1200) + '\":1.5}}') for i in range({n})))\n\
         db.execute('INSERT INTO historia (id_sensor, relleno_hasta) VALUES ({0}, {1})')\ndb.execute('COMMIT')",
        device.id_sensor,
        start + 120 * MINUTE
    );
    drop(python(&server, &insert).stdin.take());
    let until = format!("desde={}&hasta={}", moment(start), moment(start + 119 * MINUTE));
    let refused = |answer: Response, query: String| async move {
        assert_eq!(answer.status(), 422, "{query}");
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["errors"][0]["campo"], "variable", "{query}");
    };
    for (query, accept) in [(String::new(), "text/csv"), ("&puntos=5000".to_owned(), "text/csv")] {
        let query = format!("{until}{query}");
        refused(ask(&server, &device, &query, accept).await, query).await;
    }
    let path = format!("/api/v1/sensores/{}/estadisticas?{until}", device.id_sensor);
    refused(server.request(Method::GET, &path, &server.token, None).await, path).await;
    // One of them alone is no trouble, nor is a part of the range.
    for query in ["variable=v7", "variable=v7&puntos=500", "variable=v7&intervalo=1h"] {
        let answer = ask(&server, &device, &format!("{query}&{until}"), "text/csv").await;
        assert_eq!(answer.status(), 200, "{query}");
        let text = answer.text().await.expect("text");
        assert!(text.contains("v7") && text.contains(",1.5"), "{query}: {text}");
    }
    let few = format!("desde={}&hasta={}", moment(start), moment(start + 99_000_000));
    let answer = ask(&server, &device, &few, "text/csv").await;
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.expect("text");
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!((lines.len(), lines[0].len()), (101, 102), "a line each, and a column each");
    for line in &lines[1..] {
        assert_eq!(line.len(), 102);
        assert_eq!(line.iter().filter(|f| **f == "1.5").count(), 1);
        assert_eq!(line[1], "20.5", "in the column of its name");
    }
}

#[tokio::test]
async fn a_device_that_is_registered_anew_begins_anew() {
    let server = Server::start().await;
    let start = midnight(2);
    let reading = |minute: i64| json!({ "timestamp": moment(start + minute * MINUTE), "temperatura": 20 });
    let first = server.device("s1").await;
    send(&server, &first, &[reading(1), reading(2)]).await;
    let path = format!("/api/v1/sensores/{}?purgar=true", first.id_sensor);
    assert_eq!(server.request(Method::DELETE, &path, &server.token, None).await.status(), 204);
    // The same name, into the same hour.
    let again = server.device("s1").await;
    send(&server, &again, &[reading(3)]).await;
    let range = format!("intervalo=1h&desde={}&hasta={}", moment(start), moment(start + 59 * MINUTE));
    for summed in [false, true] {
        let hours = buckets(&server, &again, &range).await;
        assert_eq!(hours.len(), 1, "summed: {summed}");
        assert_eq!(hours[0]["n"], 1, "summed: {summed}");
        all_summed(&server);
    }
    eventually(&server, "SELECT COUNT(*) FROM horas", "1");
}

/// Sums that no double holds, which one database refuses and the other calls infinite; JSON has neither.
#[tokio::test]
async fn the_largest_numbers_are_answered_with_numbers() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let start = midnight(3);
    let reading = |n: i64| {
        let value =
            if n < 60 { f64::MAX } else { [f64::MIN, f64::MAX][usize::try_from(n % 2).expect("0 or 1")] };
        json!({ "timestamp": moment(start + n * 3 * MINUTE), "muy_grande": value, "temperatura": 20 })
    };
    send(&server, &device, &(0..200).map(reading).collect::<Vec<_>>()).await;
    let range = format!("desde={}&hasta={}", moment(start), moment(start + 600 * MINUTE));
    for summed in [false, true] {
        for query in ["intervalo=1h", "intervalo=1d", "intervalo=5m"] {
            let buckets = buckets(&server, &device, &format!("{query}&variable=muy_grande&{range}")).await;
            assert_eq!(buckets.iter().map(|b| b["n"].as_i64().expect("a count")).sum::<i64>(), 200);
            for b in &buckets {
                let number = |key: &str| b[key].as_f64().unwrap_or_else(|| panic!("{key} of {b}"));
                assert!(number("min") <= number("avg") && number("avg") <= number("max"), "{b}");
            }
        }
        let path = format!("/api/v1/sensores/{}/estadisticas?{range}", device.id_sensor);
        let variables = &server.get(&path).await["variables"];
        assert!(variables["muy_grande"]["avg"].is_f64(), "{variables}");
        assert_eq!(variables["temperatura"]["avg"], 20.0);
        let csv = ask(&server, &device, &format!("intervalo=1d&{range}"), "text/csv").await.text().await;
        let csv = csv.expect("text");
        assert!(!csv.contains("inf") && !csv.contains("NaN"), "summed: {summed}: {csv}");
        all_summed(&server);
    }
}

#[tokio::test]
async fn availability_is_what_came_of_what_the_interval_lets_expect() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let body = json!({ "intervalo_lectura": 600 });
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    assert_eq!(server.request(Method::PATCH, &path, &server.token, Some(body)).await.status(), 200);
    // Six an hour are expected. A day with all of them; one with half, and a burst that makes up for nothing; none.
    let start = midnight(5);
    let mut readings = Vec::new();
    for n in 0..144 {
        readings.push(start + n * 10 * MINUTE);
        if n % 2 == 0 {
            readings.push(start + DAY + n * 10 * MINUTE);
        }
    }
    readings.extend((1..=500).map(|n| start + DAY + n * 100_000));
    let readings: Vec<_> =
        readings.iter().map(|ts| json!({ "timestamp": moment(*ts), "temperatura": 20 })).collect();
    send(&server, &device, &readings).await;
    let of = async |from: i64, to: i64| {
        let (desde, hasta) = (moment(start + from * DAY), moment(start + to * DAY - 1));
        let path = format!("/api/v1/sensores/{}/estadisticas?desde={desde}&hasta={hasta}", device.id_sensor);
        server.get(&path).await["disponibilidad"].as_f64()
    };
    for summed in [false, true] {
        assert_eq!(of(0, 1).await, Some(100.0), "summed: {summed}");
        // The burst fills its hour, 3 of whose 6 were missing.
        assert_eq!(of(1, 2).await, Some(100.0 * 75.0 / 144.0), "summed: {summed}");
        assert_eq!(of(2, 3).await, Some(0.0), "summed: {summed}");
        assert_eq!(of(-3, -1).await, None, "nothing is expected before the first reading");
        all_summed(&server);
    }
}
