//! No question about the past reads more than its sensor's part of a table, however large the table.

use std::time::Duration;

use super::horas::{self, marcas, tamano};
use super::lecturas::{self, tira};
use super::{Db, Options, Store, rechazos};

/// The tables that grow with the readings.
const LARGE: [&str; 4] = ["lecturas", "lecturas_hora", "horas", "horas_pendientes"];

#[tokio::test]
async fn history_is_found_by_key_and_never_searched_for() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { readers: 1, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("a.db"), options).await.unwrap();
    let by_sensor = [
        tira::ASCENDENTE,
        tira::DESCENDENTE,
        lecturas::CUANTAS,
        lecturas::PAGINA.0,
        lecturas::PAGINA.1,
        lecturas::PAGINA_CON.0,
        lecturas::PAGINA_CON.1,
        horas::CUBETAS,
        horas::CUBETAS_DE,
        horas::EXTREMOS,
        horas::EXTREMOS_DE,
        horas::LECTURAS,
        horas::CUANTAS,
        horas::PENDIENTES,
        tamano::VIEJOS,
        tamano::VIEJOS_DE,
        marcas::VISITA,
        marcas::PRIMERAS,
    ];
    let Db::Sqlite(mut tx) = store.read().await.unwrap().db else { panic!("SQLite") };
    for sql in by_sensor {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(&mut *tx).await.unwrap();
        let steps: Vec<String> = plan.into_iter().map(|(_, _, _, step)| step).collect();
        assert!(steps.iter().any(|s| s.starts_with("SEARCH")), "{sql}: {steps:#?}");
        for step in &steps {
            let scanned = step.strip_prefix("SCAN ").and_then(|s| s.split(' ').next());
            // `s` is `sensores` or what the query itself has found, `t` what a subquery found.
            assert!(
                scanned.is_none_or(|t| !LARGE.contains(&t) && !["l", "h", "p"].contains(&t)),
                "{sql}: {steps:#?}"
            );
            assert!(!step.contains("AUTOMATIC"), "{sql}: {steps:#?}");
            // Readings come in the order of the key: a month of them is never sorted.
            assert!(!step.contains("ORDER BY"), "{sql}: {steps:#?}");
        }
    }
}

/// In the transaction of readings: nothing is read of refusals but what is kept of a sensor, and what goes.
#[tokio::test]
async fn refusals_are_trimmed_in_the_index_of_their_sensors() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { readers: 1, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("a.db"), options).await.unwrap();
    let Db::Sqlite(mut tx) = store.write().await.unwrap().db else { panic!("SQLite") };
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", rechazos::recorte(3)));
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(&mut *tx).await.unwrap();
    let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
    for step in [
        "SEARCH lecturas_rechazadas USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH x USING COVERING INDEX lecturas_rechazadas_sensor (id_sensor=? AND id_rechazo<?)",
        "SEARCH y USING COVERING INDEX lecturas_rechazadas_sensor (id_sensor=?)",
    ] {
        assert!(steps.contains(&step), "{step}: {steps:#?}");
    }
    let scanned =
        |step: &&&str| step.starts_with("SCAN") && !["c", "v", "3 CONSTANT ROWS"].contains(&step[5..].trim());
    assert_eq!(steps.iter().filter(scanned).count(), 0, "{steps:#?}");
    assert!(steps.iter().all(|step| !step.contains("ORDER BY") && !step.contains("AUTOMATIC")), "{steps:#?}");
}
