//! `lecturas` by months: made before they are needed, dropped when their days are over and retention has emptied them.
//!
//! There is no default partition. A device that catches up after two years finds its month made in the
//! transaction that stores the reading; a default one would have to be searched, under a lock that stops
//! every reading, each time that a month is made beside it, and its rows would never be dropped by the month.
//! `store.retention_days` bounds how many there can be. Where an operator has made something else of
//! `lecturas` (a TimescaleDB hypertable), it is left alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Datelike as _, NaiveDate};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Row as _};

use super::super::Result;
use super::tx::in_time;
use crate::domain::Timestamp;

/// Months made ahead of time.
const ADELANTE: i32 = 2;

/// A month of the calendar, UTC: months since the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Mes(i32);

impl Mes {
    /// The month of a moment.
    pub(in crate::store) fn de(ts: Timestamp) -> Self {
        let dia = DateTime::from_timestamp_micros(ts.micros()).unwrap_or_default();
        Self(dia.year() * 12 + i32::try_from(dia.month0()).unwrap_or_default())
    }

    pub(super) fn con_los_que_vienen(self) -> impl Iterator<Item = Self> {
        (self.0..=self.0 + ADELANTE).map(Self)
    }

    /// The name of its partition.
    pub(super) fn particion(self) -> String {
        format!("lecturas_{:04}_{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }

    fn parse(particion: &str) -> Option<Self> {
        let (year, month) = particion.strip_prefix("lecturas_")?.split_once('_')?;
        let mes = Self(year.parse::<i32>().ok()? * 12 + month.parse::<i32>().ok()? - 1);
        (mes.particion() == particion).then_some(mes)
    }

    /// Its first microsecond.
    fn empieza(self) -> i64 {
        let month = u32::try_from(self.0.rem_euclid(12)).unwrap_or_default() + 1;
        let dia = NaiveDate::from_ymd_opt(self.0.div_euclid(12), month, 1).unwrap_or_default();
        dia.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros()
    }
}

/// The partitions that are there; `None` = `lecturas` is not partitioned by us.
#[derive(Debug)]
pub(super) struct Particiones(Option<Mutex<BTreeSet<Mes>>>);

impl Particiones {
    pub(super) async fn load(pool: &PgPool, lee: &Arc<str>) -> Result<Self> {
        let mut tx = pool.begin_with(AssertSqlSafe(lee.clone())).await?;
        let por_meses =
            sqlx::raw_sql("SELECT 1 FROM pg_partitioned_table WHERE partrelid = to_regclass('lecturas')")
                .fetch_optional(&mut *tx)
                .await?
                .is_some();
        let filas = sqlx::raw_sql(
            "SELECT CAST(c.relname AS TEXT) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = to_regclass('lecturas')",
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let nombres = filas.iter().map(|f| f.try_get(0)).collect::<sqlx::Result<Vec<&str>>>()?;
        let meses = nombres.into_iter().filter_map(Mes::parse).collect();
        Ok(Self(por_meses.then(|| Mutex::new(meses))))
    }

    pub(super) const fn por_meses(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn falta(&self, mes: Mes) -> bool {
        self.con(|meses| !meses.contains(&mes)).unwrap_or(false)
    }

    /// They are there.
    pub(super) fn hay(&self, hechas: Vec<Mes>) {
        self.con(|meses| meses.extend(hechas));
    }

    /// Those that end at or before a moment.
    pub(super) fn antes_de(&self, ts: Timestamp) -> Vec<Mes> {
        let viejas = |meses: &mut BTreeSet<Mes>| meses.iter().copied().filter(|m| *m < Mes::de(ts)).collect();
        self.con(viejas).unwrap_or_default()
    }

    /// Beside the table, then into it: whoever reads or writes `lecturas` is not held up.
    pub(super) async fn make(&self, db: &mut PgConnection, mes: Mes) -> Result<()> {
        let (nombre, desde, hasta) = (mes.particion(), mes.empieza(), Mes(mes.0 + 1).empieza());
        let sql = format!(
            "SELECT 1 FROM pg_inherits WHERE inhparent = to_regclass('lecturas') AND inhrelid = to_regclass('{nombre}')"
        );
        if in_time(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut *db)).await?.is_some() {
            return Ok(());
        }
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {nombre} (LIKE lecturas INCLUDING ALL); \
             ALTER TABLE lecturas ATTACH PARTITION {nombre} FOR VALUES FROM ({desde}) TO ({hasta})"
        );
        in_time(sqlx::raw_sql(AssertSqlSafe(sql)).execute(db)).await?;
        tracing::info!(particion = nombre, "a month of readings has its partition");
        Ok(())
    }

    /// Dropping one locks all of `lecturas`: it waits for whoever reads no longer than nobody minds.
    /// `false` = it has readings left, which retention removes once their hours are summed.
    pub(super) async fn remove(&self, db: &mut PgConnection, mes: Mes) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", mes.particion());
        if in_time(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut *db)).await?.is_some() {
            return Ok(false);
        }
        // Forgotten first: should it stay after all, whoever needs it finds it.
        self.con(|meses| meses.remove(&mes));
        let sql = format!("SET LOCAL lock_timeout TO 1000; DROP TABLE IF EXISTS {}", mes.particion());
        let hecho = in_time(sqlx::raw_sql(AssertSqlSafe(sql)).execute(db)).await;
        if hecho.is_err() {
            self.hay(vec![mes]);
        }
        hecho?;
        Ok(true)
    }

    fn con<T>(&self, hace: impl FnOnce(&mut BTreeSet<Mes>) -> T) -> Option<T> {
        Some(hace(&mut self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let ts = |text| Timestamp::parse(text).unwrap();
        let diciembre = Mes::de(ts("2026-12-31T23:59:59.999999Z"));
        assert_eq!(diciembre.particion(), "lecturas_2026_12");
        assert_eq!(Mes(diciembre.0 + 1).empieza(), ts("2027-01-01T00:00:00Z").micros());
        assert_eq!(Mes::de(ts("2027-01-01T00:00:00Z")).particion(), "lecturas_2027_01");
        assert_eq!(Mes::parse("lecturas_2026_12"), Some(diciembre));
        for other in ["lecturas_2026_13", "lecturas_2026_1", "lecturas_vieja", "ultimas_lecturas"] {
            assert_eq!(Mes::parse(other), None, "{other}");
        }
    }
}
