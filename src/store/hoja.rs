//! Which part of a list is asked for. Every list is in the order of its key, so that a part of it is found
//! by key however far in it is.

/// What comes after `despues` (in the order of the list), past `skip`, at most `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hoja {
    /// The key that the part before ended with.
    pub despues: Option<i64>,
    /// Left out first.
    pub skip: i64,
    /// At most so many.
    pub limit: i64,
}

impl Hoja {
    /// The whole list.
    pub const TODO: Self = Self::primeras(i64::MAX);

    /// Its beginning.
    #[must_use]
    pub const fn primeras(limit: i64) -> Self {
        Self { despues: None, skip: 0, limit }
    }

    /// The bound of an ascending list: `key > $n`.
    pub(super) fn sobre(&self) -> i64 {
        self.despues.unwrap_or(i64::MIN)
    }

    /// The bound of a descending list: `key < $n`.
    pub(super) fn bajo(&self) -> i64 {
        self.despues.unwrap_or(i64::MAX)
    }

    /// How many rows to read: one more than asked for says that there is more.
    pub(super) const fn pide(&self) -> i64 {
        self.limit.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sensores::{self, Alcance};
    use super::super::{Db, Options, Store, Tx, alertas};
    use crate::domain::{EstadoAlerta, EstadoSensor, Severidad, Timestamp};

    /// Every filter of the two lists that grow with a site, alone and together.
    fn lists(tx: &Tx) -> Vec<String> {
        let mut all = Vec::new();
        for id_trabajador in [None, Some(1)] {
            let alcance = Alcance { id_empresa: 1, id_trabajador };
            for n in 0..8 {
                let filtro = sensores::Filtro {
                    activo: [None, Some(true)][n & 1],
                    ubicacion: [None, Some("x")][n >> 1 & 1],
                    estado: [None, Some(EstadoSensor::Activo)][n >> 2 & 1],
                };
                all.push(format!("FROM sensores s {}", sensores::donde(tx, alcance, &filtro)));
            }
            for n in 0..32 {
                let ts = [None, Some(Timestamp::MIN)][n >> 4 & 1];
                let filtro = alertas::Filtro {
                    estado: [None, Some(EstadoAlerta::Resuelta)][n & 1],
                    severidad: [None, Some(Severidad::Alta)][n >> 1 & 1],
                    tipo: [None, Some("x")][n >> 2 & 1],
                    id_sensor: [None, Some(1)][n >> 3 & 1],
                    desde: ts,
                    hasta: ts,
                };
                all.push(format!("FROM alertas a {}", alertas::donde(tx, alcance, &filtro)));
            }
        }
        all
    }

    #[tokio::test]
    async fn no_filter_of_a_list_searches_a_whole_table() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { readers: 1, busy_timeout: Duration::from_secs(5) };
        let store = Store::open_sqlite(&dir.path().join("a.db"), options).await.unwrap();
        let tx = store.read().await.unwrap();
        let lists = lists(&tx);
        let Db::Sqlite(mut tx) = tx.db else { panic!("SQLite") };
        for list in lists {
            let (key, order) =
                if list.contains("sensores s") { ("s.id_sensor", "ASC") } else { ("a.id_alerta", "DESC") };
            for sql in [
                format!("SELECT COUNT(*) {list}"),
                format!("SELECT * {list} AND {key} > $9 ORDER BY {key} {order} LIMIT $10 OFFSET $11"),
            ] {
                let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
                let plan: Vec<(i64, i64, i64, String)> =
                    sqlx::query_as(explain).fetch_all(&mut *tx).await.unwrap();
                assert!(plan.iter().all(|(.., step)| !step.starts_with("SCAN")), "{sql}: {plan:#?}");
            }
        }
    }
}
