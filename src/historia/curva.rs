//! A curve of so many points, for a chart.

use std::collections::BTreeMap;

use super::consulta::{plan, sum_readings};
use super::lttb::{self, Punto};
use super::tramos::Tramo;
use super::{Fuente, Rango};
use crate::domain::Timestamp;
use crate::store::lecturas::{Cubeta, Orden};
use crate::store::{Result, Tx, horas, lecturas};

/// Points of one curve.
pub const MAX_PUNTOS: usize = 5_000;
/// Up to this many readings are looked at one by one, however long the range: a month at one a minute.
const POCAS: i64 = 50_000;
/// And up to this many, where the hours are too few for the points asked for.
const MUCHAS: i64 = 1_000_000;
/// Values held at a time, over all variables.
const MAX_VALORES: usize = 2_000_000;
/// Points in one answer, over all variables: forty of them at 5,000 each.
const MAX_TODOS: usize = 200_000;
const PAGINA: i64 = 2_000;
/// (hour, variable) pairs held at a time.
const PAGINA_HORAS: i64 = 5_000;

/// Curves by variable, and what they were chosen from.
#[derive(Debug, Clone, PartialEq)]
pub struct Curva {
    /// [`Fuente::Lecturas`], or [`Fuente::Horas`]: the smallest and the largest reading of each hour.
    pub fuente: Fuente,
    /// In order of time, each point a reading that was made.
    pub variables: BTreeMap<String, Vec<Punto>>,
}

/// The curve of each variable (or of one) over a range, at most `puntos` points each. `None` = too many
/// values; one variable alone has fewer.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn curve(
    tx: &mut Tx,
    id_sensor: i64,
    rango: Rango,
    variable: Option<&str>,
    puntos: usize,
) -> Result<Option<Curva>> {
    if rango.vacio() {
        return Ok(Some(Curva { fuente: Fuente::Lecturas, variables: BTreeMap::new() }));
    }
    let horas = Rango { desde: rango.desde.hora(), antes_de: rango.antes_de.techo_hora() };
    let tramos = plan(tx, id_sensor, horas).await?;
    let fuente = choose(tx, id_sensor, horas, &tramos, puntos).await?;
    let todos = match fuente {
        Fuente::Lecturas => from_readings(tx, id_sensor, rango, variable).await?,
        Fuente::Horas | Fuente::Ambas => from_hours(tx, id_sensor, rango, &tramos, variable).await?,
    };
    let Some(todos) = todos else { return Ok(None) };
    if todos.values().map(|suyos| suyos.len().min(puntos)).sum::<usize>() > MAX_TODOS {
        return Ok(None);
    }
    let reducida = |(nombre, todos): (String, Vec<Punto>)| (nombre, lttb::reduce(&todos, puntos));
    Ok(Some(Curva { fuente, variables: todos.into_iter().map(reducida).collect() }))
}

/// Readings, unless they are gone, or so many that their hours do.
async fn choose(
    tx: &mut Tx,
    id_sensor: i64,
    rango: Rango,
    tramos: &[Tramo],
    puntos: usize,
) -> Result<Fuente> {
    let mut cuantas = 0;
    for Tramo { rango, fuente } in tramos {
        if *fuente != Fuente::Lecturas {
            let n = horas::count(tx, id_sensor, rango.desde, rango.antes_de).await?;
            if *fuente == Fuente::Ambas && n > 0 {
                return Ok(Fuente::Horas);
            }
            cuantas += n;
        }
    }
    for Tramo { rango, fuente } in tramos {
        if *fuente != Fuente::Horas && cuantas <= MUCHAS {
            cuantas += lecturas::count(tx, id_sensor, rango.desde, rango.antes_de, MUCHAS + 1).await?;
        }
    }
    let de_las_horas = rango.micros() / Timestamp::HORA * 2;
    let bastan = de_las_horas >= i64::try_from(puntos).unwrap_or(i64::MAX);
    let limite = if bastan { POCAS } else { MUCHAS };
    Ok(if cuantas <= limite { Fuente::Lecturas } else { Fuente::Horas })
}

type Todos = BTreeMap<String, Vec<Punto>>;

async fn from_readings(
    tx: &mut Tx,
    id_sensor: i64,
    rango: Rango,
    variable: Option<&str>,
) -> Result<Option<Todos>> {
    let (mut todos, mut valores, mut desde) = (Todos::new(), 0, rango.desde);
    loop {
        let tira = lecturas::tira(tx, id_sensor, desde, rango.antes_de, Orden::Ascendente, PAGINA).await?;
        match variable {
            Some(variable) => {
                let suyos = todos.entry(variable.to_owned()).or_default();
                let antes = suyos.len();
                suyos.extend(tira.valores_de(variable));
                valores += suyos.len() - antes;
            }
            None => {
                for (ts, texto) in tira.iter() {
                    for (nombre, valor) in lecturas::pares(texto) {
                        match todos.get_mut(nombre) {
                            Some(suyos) => suyos.push((ts, valor)),
                            None => drop(todos.insert(nombre.to_owned(), vec![(ts, valor)])),
                        }
                        valores += 1;
                    }
                }
            }
        }
        if valores > MAX_VALORES {
            return Ok(None);
        }
        match tira.extremos {
            Some((_, ultima)) if tira.n == PAGINA => desde = ultima.next(),
            _ => return Ok(Some(todos)),
        }
    }
}

/// The two ends of every hour, each at the moment of its reading.
async fn from_hours(
    tx: &mut Tx,
    id_sensor: i64,
    rango: Rango,
    tramos: &[Tramo],
    variable: Option<&str>,
) -> Result<Option<Todos>> {
    let (mut todos, mut valores) = (Todos::new(), 0);
    let mut anota = |c: Cubeta| {
        for (nombre, resumen) in c.variables {
            let suyos = todos.entry(nombre).or_default();
            for (ts, valor) in [(resumen.min_ts, resumen.total.min), (resumen.max_ts, resumen.total.max)] {
                if rango.desde <= ts && ts < rango.antes_de {
                    suyos.push((ts, valor));
                    valores += 1;
                }
            }
        }
        valores <= MAX_VALORES
    };
    for Tramo { rango, fuente } in tramos {
        let mut sigue = (*fuente != Fuente::Lecturas).then_some(rango.desde);
        while let Some(desde) = sigue {
            let pagina = horas::hours(tx, id_sensor, desde, rango.antes_de, variable, PAGINA_HORAS).await?;
            let nada = pagina.cubetas.is_empty();
            if !pagina.cubetas.into_iter().all(&mut anota) {
                return Ok(None);
            }
            if nada && pagina.sigue.is_some() {
                // One hour has more variables than there is room for.
                return Ok(None);
            }
            sigue = pagina.sigue;
        }
        if *fuente != Fuente::Horas
            && !sum_readings(tx, id_sensor, *rango, variable, Timestamp::hora, &mut anota).await?
        {
            return Ok(None);
        }
    }
    for suyos in todos.values_mut() {
        suyos.sort_unstable_by_key(|(ts, _)| *ts);
        suyos.dedup_by_key(|(ts, _)| *ts);
    }
    Ok(Some(todos))
}
