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

    /// Nothing of a sensor may be marked any more.
    pub fn olvida_sensor(&mut self, id_sensor: i64) {
        self.0.retain(|(suyo, _)| *suyo != id_sensor);
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

pub(in crate::store) const VISITA: &str = "WITH RECURSIVE s (id, n) AS (\
     SELECT MIN(id_sensor), CAST(1 AS BIGINT) FROM horas_pendientes WHERE id_sensor > $1 \
     UNION ALL SELECT (SELECT MIN(p.id_sensor) FROM horas_pendientes p WHERE p.id_sensor > s.id), s.n + 1 \
     FROM s WHERE s.id IS NOT NULL AND s.n < $2) \
     SELECT s.id AS id_sensor, (SELECT MIN(p.hora) FROM horas_pendientes p WHERE p.id_sensor = s.id) AS hora \
     FROM s WHERE s.id IS NOT NULL";
pub(in crate::store) const PRIMERAS: &str =
    "SELECT hora FROM horas_pendientes WHERE id_sensor = $1 AND hora <= $2 ORDER BY hora LIMIT $3";

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

/// Marked hours whose turn it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turno {
    /// At most as many as were asked for.
    pub horas: Vec<Pendiente>,
    /// The sensor after which it goes on; `None` = every sensor has had its turn.
    pub sigue: Option<i64>,
}

/// About `cuantas` marked hours that begin at `hasta` or before, of the sensors after `tras`: sensors in
/// turn, each with as many of its oldest as there is room for all of theirs. However many hours one has
/// marked, the next has its turn. Some hundred sensors are looked at: there may be none to sum among them,
/// and some among those that follow.
///
/// # Errors
/// `Unavailable`.
pub async fn due(tx: &mut Tx, tras: i64, hasta: Timestamp, cuantas: usize) -> Result<Turno> {
    /// Sensors in one look.
    const VISITAS: i64 = 500;
    row!(
        struct Visita {
            id_sensor: i64,
            hora: i64,
        }
    );
    row!(
        struct Primera {
            hora: i64,
        }
    );
    let visitas: Vec<Visita> =
        on!(&mut *tx, |db| sqlx::query_as(VISITA).bind(tras).bind(VISITAS).fetch_all(db).await)?;
    let todas = i64::try_from(visitas.len()).is_ok_and(|n| n < VISITAS);
    let ultima = visitas.last().filter(|_| !todas).map(|v| v.id_sensor);
    let mut vencidas: Vec<Visita> = visitas.into_iter().filter(|v| v.hora <= hasta.micros()).collect();
    let sigue = if vencidas.len() > cuantas {
        vencidas.truncate(cuantas);
        vencidas.last().map(|v| v.id_sensor)
    } else {
        ultima
    };
    let cada = i64::try_from(cuantas / vencidas.len().max(1)).unwrap_or(i64::MAX);
    let mut horas = Vec::with_capacity(cuantas);
    for Visita { id_sensor, hora } in vencidas {
        if cada <= 1 {
            horas.push((id_sensor, Timestamp::clamped(hora)));
            continue;
        }
        let primeras: Vec<Primera> = on!(&mut *tx, |db| {
            sqlx::query_as(PRIMERAS).bind(id_sensor).bind(hasta.micros()).bind(cada).fetch_all(db).await
        })?;
        horas.extend(primeras.into_iter().map(|p| (id_sensor, Timestamp::clamped(p.hora))));
    }
    Ok(Turno { horas, sigue })
}

/// Takes marked hours; answers those that are marked still. A write from now on marks them again. The
/// caller holds [`Marcas`] and has it forget them.
///
/// # Errors
/// `Unavailable`.
pub async fn take(tx: &mut Tx, horas: &[Pendiente]) -> Result<Vec<Pendiente>> {
    row!(
        struct Fila {
            id_sensor: i64,
            hora: i64,
        }
    );
    let mut tomadas = Vec::with_capacity(horas.len());
    for horas in horas.chunks(FILAS) {
        let filas: Vec<Fila> = on!(&mut *tx, |db| {
            let mut q =
                QueryBuilder::new("UPDATE horas_pendientes SET tomada = TRUE WHERE (id_sensor, hora) IN (");
            q.push_values(horas, |mut fila, (id_sensor, hora)| {
                fila.push_bind(*id_sensor).push_bind(hora.micros());
            });
            q.push(") RETURNING id_sensor, hora");
            q.build_query_as().persistent(false).fetch_all(db).await
        })?;
        tomadas.extend(filas.into_iter().map(|f| (f.id_sensor, Timestamp::clamped(f.hora))));
    }
    Ok(tomadas)
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
