//! Behind a transaction pooler every transaction has another session.

use futures_util::future::join_all;

use super::start;
use crate::support::postgres::shared;
use crate::support::{Client, Server};

#[tokio::test]
async fn sessions_that_are_shared_mix_nothing_up() {
    // Two servers share PgBouncer's five sessions, and with them the names of statements.
    let place = |name: &str| {
        let schema = format!("p{}{name}", std::process::id());
        vec![("DATABASE_URL", shared().pooler_url()), ("ALERTRACE__DATABASE__SCHEMA", schema)]
    };
    let (one, two) = tokio::join!(start(place("a")), start(place("b")));
    tokio::join!(join_all((0..6).map(|n| site(&one, n, 20))), join_all((0..6).map(|n| site(&two, n, 25))));
}

/// A device that publishes while somebody looks at the dashboard.
async fn site(server: &Server, n: u8, valor: u8) {
    let id = format!("s{n}");
    let device = server.device(&id).await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let topic = format!("sensores/{id}/data");
    for pid in 1..=40 {
        let payload = format!("{{\"temperatura\":{valor},\"humedad\":{pid}}}");
        assert_eq!(client.publish(&topic, pid, &payload).await, 0);
        if pid % 10 == 0 {
            server.get("/api/v1/sensores/with-readings").await;
            server.get("/api/v1/alertas").await;
        }
    }
    let readings = server.readings(&device).await;
    assert_eq!(readings.len(), 40);
    assert!(readings.iter().all(|l| l["temperatura"].as_f64() == Some(f64::from(valor))));
}
