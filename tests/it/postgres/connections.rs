//! How many connections there are, and how long one is waited for.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;

use super::on;
use crate::support::Server;
use crate::support::postgres::Cluster;

#[tokio::test]
async fn there_are_no_more_connections_than_configured_and_who_gets_none_is_told_in_time() {
    let cluster = Cluster::own();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_in(dir, on(&cluster), |mut command| {
        command.env("ALERTRACE__DATABASE__MAX_CONNECTIONS", "4");
        command.env("ALERTRACE__DATABASE__ACQUIRE_TIMEOUT_MS", "700");
        command
    })
    .await;
    // Somebody has a table that every question needs.
    let mut psql = Command::new("psql");
    psql.args(["-XAtq"]).arg(cluster.url()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut holder = psql.spawn().expect("psql runs");
    let mut stdin = holder.stdin.take().expect("piped");
    stdin.write_all(b"BEGIN; LOCK TABLE alertrace.cultivos IN ACCESS EXCLUSIVE MODE;\n").expect("a pipe");
    let locked = "SELECT COUNT(*) FROM pg_locks WHERE relation = 'alertrace.cultivos'::regclass \
                  AND mode = 'AccessExclusiveLock' AND granted";
    while cluster.sql(locked) != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // More than there are connections: those that have one wait for the table, the others are told.
    let ask = async || {
        let begun = Instant::now();
        let answer = server.request(Method::GET, "/api/v1/cultivos", &server.token, None).await;
        (begun.elapsed(), answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let watch = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ours = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'alertrace'";
        let n: u32 = cluster.sql(ours).parse().expect("a number");
        stdin.write_all(b"COMMIT;\n").expect("a pipe");
        drop(stdin);
        n
    };
    let (answers, connections) = tokio::join!(join_all((0..12).map(|_| ask())), watch);
    // And one that asks why there is none.
    assert!((4..=5).contains(&connections), "{connections}");
    let (told, answered): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, status, _)| *status == 503);
    assert!((1..=4).contains(&answered.len()), "{answered:?}");
    assert!(answered.iter().all(|(_, status, _)| *status == 200), "{answered:?}");
    for (took, _, problem) in &told {
        assert_eq!(problem["code"], "store_unavailable", "{problem}");
        assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(took), "{took:?}");
    }
    assert!(told.len() >= 8, "{}", told.len());
    holder.wait().expect("it ends");
    server.get("/api/v1/cultivos").await;
}
