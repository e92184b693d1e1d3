//! What is whose: the account that [`super::put`] and [`super::purge`] keep, so that nothing is counted.

use super::{Result, Tx, on, row};

row!(
    /// What the history of an empresa takes: its summed readings and its hours.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Tamano {
        /// Whose.
        pub id_empresa: i64,
        /// Bytes, about.
        pub bytes: i64,
    }
);

/// What each empresa's history takes, the largest first. One row a sensor is read.
///
/// # Errors
/// `Unavailable`.
pub async fn sizes(tx: &mut Tx) -> Result<Vec<Tamano>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT s.id_empresa, CAST(SUM(h.bytes) AS BIGINT) AS bytes \
             FROM historia h JOIN sensores s ON s.id_sensor = h.id_sensor \
             GROUP BY s.id_empresa ORDER BY 2 DESC, 1",
        )
        .fetch_all(db)
        .await
    })?)
}
