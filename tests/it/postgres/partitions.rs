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
}

/// As an operator with TimescaleDB does it (docs/operations.md), but for the extension itself.
#[tokio::test]
async fn a_table_that_an_operator_put_in_place_of_ours_serves_the_same_queries() {
    let cluster = Cluster::own();
    let mut server = start(super::on(&cluster)).await;
    let device = server.device("s1").await;
    assert_eq!(server.terminate().await.0, Some(0));
    cluster.sql(
        "SET search_path TO alertrace; ALTER TABLE lecturas RENAME TO lecturas_por_mes; \
         CREATE TABLE lecturas (id_sensor BIGINT NOT NULL REFERENCES sensores (id_sensor) ON DELETE CASCADE, \
         ts BIGINT NOT NULL, valores TEXT NOT NULL, PRIMARY KEY (id_sensor, ts)); DROP TABLE lecturas_por_mes",
    );
    server.kill_and_restart();
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    assert_eq!(server.readings(&device).await.len(), 1);
    assert_eq!(cluster.sql("SELECT COUNT(*) FROM alertrace.lecturas"), "1");
}
