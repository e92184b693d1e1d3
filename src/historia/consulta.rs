//! Buckets and figures.

use std::collections::BTreeMap;

use super::tramos::{Tramo, tramos};
use super::{Fuente, Intervalo, Rango, siguiente};
use crate::domain::{Agregado, Timestamp};
use crate::store::lecturas::{Cubeta, Orden};
use crate::store::{Result, Tx, horas, lecturas};

/// Readings in one text.
const PAGINA: i64 = 2_000;
/// Readings summed for buckets that no hour answers for.
const MAX_LECTURAS: i64 = 1_000_000;
/// (bucket, variable) pairs in one answer.
const MAX_FIGURAS: usize = 50_000;
/// Variables in one answer: a device may invent names, some hundred of them at a time.
pub const MAX_VARIABLES: usize = 1_000;
/// Hours in one answer: those of 57 years, and there are none before 1970.
const MAX_HORAS: usize = 500_000;

/// As many rows as are taken, and one by which it is known that there are more.
fn y_una(maximo: usize) -> i64 {
    i64::try_from(maximo + 1).unwrap_or(i64::MAX)
}

/// What a variable came to in a bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Figura {
    /// The bucket's first moment.
    pub inicio: Timestamp,
    /// Which variable.
    pub variable: String,
    /// The figures.
    pub total: Agregado,
}

/// Sums the readings of a range into buckets and hands each over, oldest first. `false` = whoever takes
/// them has had enough, or one has more than [`MAX_VARIABLES`]. No more is held than a page comes to.
pub(super) async fn sum_readings(
    tx: &mut Tx,
    id_sensor: i64,
    rango: Rango,
    variable: Option<&str>,
    inicio: impl Fn(Timestamp) -> Timestamp,
    mut toma: impl FnMut(Cubeta) -> bool,
) -> Result<bool> {
    let (mut desde, mut cubetas) = (rango.desde, Vec::new());
    loop {
        let tira = lecturas::tira(tx, id_sensor, desde, rango.antes_de, Orden::Ascendente, PAGINA).await?;
        tira.suma(&mut cubetas, variable, &inicio);
        let sigue = tira.extremos.filter(|_| tira.n == PAGINA).map(|(_, ultima)| ultima.next());
        // What comes next may belong to the last one.
        let hechas = cubetas.len().saturating_sub(usize::from(sigue.is_some()));
        if !cubetas.drain(..hechas).all(&mut toma) {
            return Ok(false);
        }
        if cubetas.last().is_some_and(|c| c.variables.len() > MAX_VARIABLES) {
            return Ok(false);
        }
        match sigue {
            Some(sigue) => desde = sigue,
            None => return Ok(true),
        }
    }
}

/// Which parts of a range of whole hours come from where.
pub(super) async fn plan(tx: &mut Tx, id_sensor: i64, rango: Rango) -> Result<Vec<Tramo>> {
    let historia = horas::history(tx, id_sensor).await?;
    let pendientes = horas::pending(tx, id_sensor, rango.desde, rango.antes_de).await?;
    Ok(tramos(rango, &historia, &pendientes))
}

/// A range of whole buckets ([`Intervalo::cubre`]), oldest first; a bucket without a value of a variable
/// is absent. `None` = more than 50,000 figures, or, for buckets of less than an hour, than a million readings.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn buckets(
    tx: &mut Tx,
    id_sensor: i64,
    rango: Rango,
    intervalo: Intervalo,
    variable: Option<&str>,
) -> Result<Option<Vec<Figura>>> {
    let mut figuras: BTreeMap<(Timestamp, String), Agregado> = BTreeMap::new();
    let mut anota = |inicio, variable: &str, total: &Agregado| {
        let figura = figuras.entry((inicio, variable.to_owned()));
        figura.and_modify(|f| f.junta(total)).or_insert(*total);
        figuras.len() <= MAX_FIGURAS
    };
    let tramos = if intervalo.de_horas() {
        plan(tx, id_sensor, rango).await?
    } else {
        let (desde, antes_de) = (rango.desde, rango.antes_de);
        if lecturas::count(tx, id_sensor, desde, antes_de, MAX_LECTURAS + 1).await? > MAX_LECTURAS {
            return Ok(None);
        }
        vec![Tramo { rango, fuente: Fuente::Lecturas }]
    };
    for Tramo { rango, fuente } in tramos {
        if fuente != Fuente::Lecturas {
            let ancho = (intervalo.origen(), intervalo.micros());
            let tramo = (rango.desde, rango.antes_de);
            let limite = y_una(MAX_FIGURAS);
            for c in horas::buckets(tx, id_sensor, tramo, ancho, variable, limite).await? {
                if !anota(intervalo.inicio(c.cubeta), &c.variable, &c.total) {
                    return Ok(None);
                }
            }
        }
        if fuente != Fuente::Horas {
            let inicio = |ts| intervalo.inicio(intervalo.numero(ts));
            let toma = |c: Cubeta| c.totales().all(|(variable, total)| anota(c.inicio, variable, &total));
            if !sum_readings(tx, id_sensor, rango, variable, inicio, toma).await? {
                return Ok(None);
            }
        }
    }
    let figura = |((inicio, variable), total)| Figura { inicio, variable, total };
    Ok(Some(figuras.into_iter().map(figura).collect()))
}

/// What a range came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Estadisticas {
    /// The range that they are of: the one asked for, except that an hour whose readings are gone is
    /// whole.
    pub rango: Rango,
    /// Readings, of whatever variables.
    pub lecturas: i64,
    /// By name.
    pub variables: BTreeMap<String, Agregado>,
    /// Readings by hour, in order; hours without any are absent.
    pub por_hora: Vec<(Timestamp, i64)>,
}

/// What a range came to, to the microsecond. `None` = more than [`MAX_VARIABLES`], or more hours than there
/// have been.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn statistics(tx: &mut Tx, id_sensor: i64, pedido: Rango) -> Result<Option<Estadisticas>> {
    let zona = horas::history(tx, id_sensor).await?.zona();
    let rango = whole_where_gone(pedido, zona);
    let mut e = Estadisticas { rango, lecturas: 0, variables: BTreeMap::new(), por_hora: Vec::new() };
    if rango.vacio() {
        return Ok(Some(e));
    }
    let (a, b) = (rango.desde.techo_hora(), rango.antes_de.hora());
    let mut partes = Vec::new();
    if a > b {
        partes.push(Tramo { rango, fuente: Fuente::Lecturas });
    } else {
        partes.push(Tramo { rango: Rango { desde: rango.desde, antes_de: a }, fuente: Fuente::Lecturas });
        partes.extend(plan(tx, id_sensor, Rango { desde: a, antes_de: b }).await?);
        partes.push(Tramo { rango: Rango { desde: b, antes_de: rango.antes_de }, fuente: Fuente::Lecturas });
    }
    for Tramo { rango, fuente } in partes {
        if rango.vacio() {
            continue;
        }
        if fuente != Fuente::Lecturas && !e.add_hours(tx, id_sensor, rango).await? {
            return Ok(None);
        }
        let toma = |c: Cubeta| e.add_bucket(&c);
        if fuente != Fuente::Horas && !sum_readings(tx, id_sensor, rango, None, Timestamp::hora, toma).await?
        {
            return Ok(None);
        }
    }
    e.por_hora.sort_unstable();
    e.por_hora.dedup_by(|otra, una| {
        let misma = otra.0 == una.0;
        una.1 += if misma { otra.1 } else { 0 };
        misma
    });
    Ok(Some(e))
}

/// Widens a range to whole hours where the readings are gone.
fn whole_where_gone(pedido: Rango, zona: Timestamp) -> Rango {
    let Rango { mut desde, mut antes_de } = pedido;
    if desde < zona {
        desde = desde.hora();
    }
    if antes_de > desde && antes_de.hora() != antes_de && antes_de < zona {
        antes_de = siguiente(antes_de.hora());
    }
    Rango { desde, antes_de }
}

impl Estadisticas {
    /// `false` = that is too much.
    fn add_bucket(&mut self, c: &Cubeta) -> bool {
        self.lecturas += c.n;
        self.por_hora.push((c.inicio, c.n));
        for (variable, total) in c.totales() {
            self.add(variable, &total);
        }
        self.variables.len() <= MAX_VARIABLES && self.por_hora.len() <= MAX_HORAS
    }

    /// `false` = that is too much.
    async fn add_hours(&mut self, tx: &mut Tx, id_sensor: i64, rango: Rango) -> Result<bool> {
        for h in horas::readings(tx, id_sensor, rango.desde, rango.antes_de, y_una(MAX_HORAS)).await? {
            self.lecturas += h.n;
            self.por_hora.push((h.hora, h.n));
        }
        // One bucket that holds it all.
        let (todo, limite) = ((0, i64::MAX), y_una(MAX_VARIABLES));
        for c in horas::buckets(tx, id_sensor, (rango.desde, rango.antes_de), todo, None, limite).await? {
            self.add(&c.variable, &c.total);
        }
        Ok(self.variables.len() <= MAX_VARIABLES && self.por_hora.len() <= MAX_HORAS)
    }

    fn add(&mut self, variable: &str, total: &Agregado) {
        match self.variables.get_mut(variable) {
            Some(ya) => ya.junta(total),
            None => drop(self.variables.insert(variable.to_owned(), *total)),
        }
    }

    /// How much of what was expected came, from 0 to 100, for a sensor that reports every `cada` seconds
    /// and whose history lies in `vida`; `None` when nothing was expected. Counted by the hour (by the
    /// interval, where that is longer): what comes in one hour makes up for nothing that another lacks.
    #[must_use]
    pub fn disponibilidad(&self, cada: i64, vida: Rango) -> Option<f64> {
        let (desde, antes_de) = (self.rango.desde.max(vida.desde), self.rango.antes_de.min(vida.antes_de));
        let cada = cada.max(1).saturating_mul(1_000_000);
        if desde >= antes_de {
            return None;
        }
        let ancho = cada.saturating_add(Timestamp::HORA - 1) / Timestamp::HORA * Timestamp::HORA;
        let mut ventanas: BTreeMap<i64, i64> = BTreeMap::new();
        for (hora, n) in &self.por_hora {
            *ventanas.entry(hora.micros() / ancho).or_default() += n;
        }
        #[expect(clippy::cast_precision_loss, reason = "durations and counts, far below 2^52 of either")]
        let (mut hubo, esperadas) = (0.0, Rango { desde, antes_de }.micros() as f64 / cada as f64);
        for (ventana, n) in ventanas {
            let inicio = (ventana * ancho).max(desde.micros());
            let fin = (ventana * ancho + ancho).min(antes_de.micros());
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let caben = (fin - inicio).max(0) as f64 / cada as f64;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let n = n as f64;
            hubo += n.min(caben);
        }
        Some((100.0 * hubo / esperadas).clamp(0.0, 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hora(n: i64) -> Timestamp {
        Timestamp::clamped(n * Timestamp::HORA)
    }

    fn con(por_hora: &[(i64, i64)], horas: i64) -> Estadisticas {
        Estadisticas {
            rango: Rango { desde: hora(0), antes_de: hora(horas) },
            lecturas: 0,
            variables: BTreeMap::new(),
            por_hora: por_hora.iter().map(|(h, n)| (hora(*h), *n)).collect(),
        }
    }

    #[test]
    fn a_burst_does_not_make_up_for_silence() {
        let toda = Rango { desde: Timestamp::MIN, antes_de: Timestamp::MAX };
        let de = |e: Estadisticas, cada| e.disponibilidad(cada, toda).unwrap().round();
        assert!((de(con(&[(0, 12), (1, 12)], 2), 300) - 100.0).abs() < 1e-9);
        assert!((de(con(&[(0, 500)], 2), 300) - 50.0).abs() < 1e-9);
        // Every four hours: one in each window is all.
        assert!((de(con(&[(1, 1), (4, 1)], 8), 14_400) - 100.0).abs() < 1e-9);
        assert!((de(con(&[(1, 2)], 8), 14_400) - 50.0).abs() < 1e-9);
        // Nothing is expected before the first reading.
        let vida = Rango { desde: hora(1), antes_de: hora(2) };
        assert_eq!(con(&[(1, 12)], 2).disponibilidad(300, vida), Some(100.0));
        assert_eq!(con(&[], 2).disponibilidad(300, Rango { desde: hora(2), antes_de: hora(9) }), None);
    }

    #[test]
    fn an_hour_whose_readings_are_gone_is_whole() {
        let media = |n: i64| Timestamp::clamped(hora(n).micros() + Timestamp::HORA / 2);
        let pedido = Rango { desde: media(1), antes_de: media(3) };
        assert_eq!(whole_where_gone(pedido, Timestamp::MIN), pedido);
        assert_eq!(whole_where_gone(pedido, hora(2)), Rango { desde: hora(1), antes_de: media(3) });
        assert_eq!(whole_where_gone(pedido, hora(9)), Rango { desde: hora(1), antes_de: hora(4) });
    }
}
