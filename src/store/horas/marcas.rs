//! Which hours are to be summed, in the store and in memory.

use std::collections::HashSet;

use sqlx::QueryBuilder;

use super::{Result, Timestamp, Tx, on, row};

/// An hour of a sensor: (`id_sensor`, its first moment).
pub type Pendiente = (i64, Timestamp);

/// Hours that the writer knows to be marked, so that the usual batch marks nothing.
///
/// Held (locked) from inside a transaction to after its commit, both by who writes readings and by who
/// takes marks: what is in here is marked in the store and not taken. A transaction first, the lock
/// second, everywhere.
#[derive(Debug, Default)]
pub struct Marcas(HashSet<Pendiente>);

impl Marcas {
    /// How many are remembered: all that 50,000 sensors write in an hour and its neighbour. Beyond it
    /// nothing is remembered, and marking costs a statement more now and then.
    const MAX: usize = 100_000;

    /// Of `horas`, those that are not known to be marked.
    #[must_use]
    pub fn faltan(&self, horas: impl IntoIterator<Item = Pendiente>) -> Vec<Pendiente> {
        let mut faltan: Vec<Pendiente> = Vec::new();
        let mut anterior = None;
        for hora in horas {
            // Readings come in the order of their key.
            if anterior.replace(hora) != Some(hora) && !self.0.contains(&hora) {
                faltan.push(hora);
            }
        }
        faltan
    }

    /// `horas` are marked, and committed.
    pub fn recuerda(&mut self, horas: Vec<Pendiente>) {
        if self.0.len() + horas.len() > Self::MAX {
            self.0.clear();
        }
        self.0.extend(horas);
    }

    /// `horas` may not be marked any more.
    pub fn olvida(&mut self, horas: &[Pendiente]) {
        for hora in horas {
            self.0.remove(hora);
        }
    }
}

/// Rows in one statement; SQLite takes 32,766 bound values.
pub(super) const FILAS: usize = 1_000;

/// Marks hours as to be summed, each at most once in `horas`.
///
/// # Errors
/// `Refused` when a sensor is gone, `Unavailable`.
pub async fn mark(tx: &mut Tx, horas: &[Pendiente]) -> Result<()> {
    for horas in horas.chunks(FILAS) {
        on!(&mut *tx, |db| {
            let mut q = QueryBuilder::new("INSERT INTO horas_pendientes (id_sensor, hora) ");
            q.push_values(horas, |mut fila, (id_sensor, hora)| {
                fila.push_bind(*id_sensor).push_bind(hora.micros());
            });
            q.push(" ON CONFLICT (id_sensor, hora) DO UPDATE SET tomada = FALSE");
            q.build().persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}

pub(in crate::store) const TOMA: &str = "UPDATE horas_pendientes SET tomada = TRUE WHERE (id_sensor, hora) IN \
     (SELECT id_sensor, hora FROM horas_pendientes WHERE hora <= $1 ORDER BY hora LIMIT $2) \
     RETURNING id_sensor, hora";

/// Whether any hour that begins at `hasta` or before is marked.
///
/// # Errors
/// `Unavailable`.
pub async fn any(tx: &mut Tx, hasta: Timestamp) -> Result<bool> {
    row!(
        struct Primera {
            hora: Option<i64>,
        }
    );
    let primera: Primera = on!(tx, |db| {
        sqlx::query_as("SELECT MIN(hora) AS hora FROM horas_pendientes").fetch_one(db).await
    })?;
    Ok(primera.hora.is_some_and(|hora| hora <= hasta.micros()))
}

/// Takes up to `cuantas` marked hours that begin at `hasta` or before, the oldest first. A write from now
/// on marks them again. The caller holds [`Marcas`] and has it forget them.
///
/// # Errors
/// `Unavailable`.
pub async fn take(tx: &mut Tx, hasta: Timestamp, cuantas: i64) -> Result<Vec<Pendiente>> {
    row!(
        struct Fila {
            id_sensor: i64,
            hora: i64,
        }
    );
    let filas: Vec<Fila> =
        on!(tx, |db| sqlx::query_as(TOMA).bind(hasta.micros()).bind(cuantas).fetch_all(db).await)?;
    Ok(filas.into_iter().map(|f| (f.id_sensor, Timestamp::clamped(f.hora))).collect())
}

/// Takes the marks of `horas` away, where nothing was written since they were taken.
pub(super) async fn unmark(tx: &mut Tx, horas: &[Pendiente]) -> Result<()> {
    for horas in horas.chunks(FILAS) {
        on!(&mut *tx, |db| {
            let mut q =
                QueryBuilder::new("DELETE FROM horas_pendientes WHERE tomada AND (id_sensor, hora) IN (");
            q.push_values(horas, |mut fila, (id_sensor, hora)| {
                fila.push_bind(*id_sensor).push_bind(hora.micros());
            });
            q.push(")");
            q.build().persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}
