//! Months of readings: made ahead and on demand, dropped when their days are over.

use std::time::{Duration, Instant};

use super::{schema, start};
use crate::support::postgres::{Cluster, Database, shared};
use crate::support::{Client, Server};

#[tokio::test]
async fn a_month_is_there_before_a_reading_needs_it_and_goes_when_its_days_are_over() {
    let mut server = Server::start_on(Database::Postgres).await;
    let schema = schema(&server);
    let device = server.device("s1").await;
    let partitions = || {
        let sql = "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = to_regclass('{s}.lecturas') ORDER BY 1";
        let text = shared().sql(&sql.replace("{s}", &schema));
        text.lines().map(|l| l.trim_start_matches(&format!("{schema}.")).to_owned()).collect::<Vec<_>>()
    };
    let now = chrono::DateTime::from_timestamp_micros(
        alertrace::domain::Clock::now(&alertrace::domain::SystemClock).micros(),
    )
    .expect("now");
    let named = |ago: i64| (now - chrono::Duration::days(ago)).format("lecturas_%Y_%m").to_string();
    let start = Instant::now();
    while partitions().len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", partitions());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(partitions()[0], named(0), "this month and two more");

    // A device that catches up after a year; all in one message.
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let reading = |ago: i64| {
        format!("{{\"temperatura\":20,\"timestamp\":{}}}", (now - chrono::Duration::days(ago)).timestamp())
    };
    let payload = format!("[{},{},{}]", reading(400), reading(200), reading(0));
    assert_eq!(client.publish("sensores/s1/data", 1, &payload).await, 0);
    assert_eq!(server.readings(&device).await.len(), 3);
    assert!(partitions().contains(&named(400)) && partitions().contains(&named(200)), "{:?}", partitions());

    // Years later.
    shared().sql(&format!(
        "CREATE TABLE {schema}.lecturas_2019_12 PARTITION OF {schema}.lecturas \
         FOR VALUES FROM (1575158400000000) TO (1577836800000000)"
    ));
    server.kill_and_restart();
    let start = Instant::now();
    while partitions().contains(&"lecturas_2019_12".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", partitions());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(partitions().contains(&named(400)), "within its days");
    assert_eq!(server.readings(&device).await.len(), 3);

    // One that is not empty goes once what is in it has become hours.
    shared().sql(&format!(
        "SET search_path TO {schema}; CREATE TABLE lecturas_2019_12 PARTITION OF lecturas \
         FOR VALUES FROM (1575158400000000) TO (1577836800000000); \
         INSERT INTO lecturas SELECT {}, 1575158400000000 + n * 600000000, '{{\"temperatura\":20.5}}' \
         FROM generate_series(CAST(0 AS BIGINT), 299) n",
        device.id_sensor
    ));
    server.kill_and_restart();
    let start = Instant::now();
    while shared().sql(&format!("SELECT COUNT(*) FROM {schema}.lecturas WHERE ts < 1577836800000000")) != "0"
    {
        assert!(partitions().contains(&"lecturas_2019_12".to_owned()), "it has readings");
        assert!(start.elapsed() < Duration::from_secs(20), "they stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It is looked for hourly, and at a start.
    server.kill_and_restart();
    let start = Instant::now();
    while partitions().contains(&"lecturas_2019_12".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", partitions());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let path =
        format!("/api/v1/sensores/{}/estadisticas?desde=2019-12-01&hasta=2020-01-01", device.id_sensor);
    let december = server.get(&path).await;
    assert_eq!(
        (&december["lecturas"], &december["variables"]["temperatura"]["n"]),
        (&300.into(), &300.into())
    );
}

/// As an operator with TimescaleDB does it (docs/operations.md), but for the extension itself.
#[tokio::test]
async fn a_table_that_an_operator_put_in_place_of_ours_serves_the_same_queries() {
    let cluster = Cluster::own();
    let mut server = start(super::on(&cluster)).await;
    let device = server.device("s1").await;
    // Three days of readings, the oldest of them past the days that it is given later.
    let start = crate::history::midnight(40);
    let reading = |n: i64| serde_json::json!({ "timestamp": crate::history::moment(start + n * 600_000_000), "temperatura": n % 10 });
    crate::history::send(&server, &device, &(0..432).map(reading).collect::<Vec<_>>()).await;
    assert_eq!(server.terminate().await.0, Some(0));
    cluster.sql(
        "SET search_path TO alertrace; ALTER TABLE lecturas RENAME TO lecturas_por_mes; \
         CREATE TABLE lecturas (id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE, \
         ts BIGINT NOT NULL, valores TEXT NOT NULL, PRIMARY KEY (id_sensor, ts)); \
         INSERT INTO lecturas SELECT * FROM lecturas_por_mes; DROP TABLE lecturas_por_mes",
    );
    server.kill_and_restart();
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    assert_eq!(server.readings(&device).await.len(), 433);
    let range = format!(
        "desde={}&hasta={}",
        crate::history::moment(start),
        crate::history::moment(start + 3 * 86_400_000_000 - 1)
    );
    let of = |what: &str| format!("/api/v1/sensores/{}/{what}{range}", device.id_sensor);
    // From readings; then, with those past their days gone, from hours.
    for gone in [false, true] {
        if gone {
            std::fs::create_dir_all(server.dir().join("config")).expect("a directory");
            let file = server.dir().join("config/alertrace.toml");
            std::fs::write(file, "[store]\nretention_days = 39\n").expect("a file");
            server.kill_and_restart();
            let begun = Instant::now();
            let old = format!(
                "SELECT COUNT(*) FROM alertrace.lecturas WHERE ts < {}",
                crate::history::midnight(39)
            );
            while cluster.sql(&old) != "0" {
                assert!(begun.elapsed() < Duration::from_secs(20), "they stay");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let days = server.get(&of("lecturas?intervalo=1d&")).await;
        let days = days.as_array().expect("an array");
        assert!(days.len() == 3 && days.iter().all(|d| d["n"] == 144 && d["max"] == 9.0), "{days:?}");
        let figures = server.get(&of("estadisticas?")).await;
        assert_eq!(
            (&figures["lecturas"], &figures["variables"]["temperatura"]["avg"]),
            (&432.into(), &serde_json::json!(1_936.0 / 432.0))
        );
        let curve = server.get(&of("lecturas?puntos=100&variable=temperatura&")).await;
        assert!(curve.as_array().is_some_and(|points| (50..=100).contains(&points.len())), "{curve}");
    }
    assert_ne!(cluster.sql("SELECT COUNT(*) FROM alertrace.lecturas"), "433", "what is past its days went");
}
