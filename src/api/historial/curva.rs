//! Readings as a curve of so many points.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};

use super::super::csv;
use super::super::problem::Problem;
use super::super::shapes::LecturaBody;
use super::{Range, from, nombre, within};
use crate::domain::{Timestamp, Valores, Variable};
use crate::historia::{self, Curva};
use crate::store::Tx;
use crate::store::lecturas::Orden;
use crate::store::sensores::Sensor;

/// Fields of a curve as CSV: each variable has its points at moments of its own, and a column.
const MAX_CELDAS: usize = 4_000_000;

/// The answer as a curve.
pub(super) async fn answer(
    tx: &mut Tx,
    sensor: &Sensor,
    query: &Range,
    puntos: usize,
    variable: Option<Variable>,
    como_csv: bool,
) -> Result<Response, Problem> {
    let id = sensor.quien.id_sensor;
    let (rango, _) = within(tx, id, query).await?;
    let solo = variable.as_ref().map(Variable::as_str);
    let demasiados = || {
        Problem::field(
            "variable",
            "Demasiadas variables o puntos en este rango: elija una variable, o menos puntos.",
            "Too many variables or points in this range: choose one variable, or fewer points.",
        )
    };
    let curva = historia::curve(tx, id, rango, solo, puntos).await?.ok_or_else(demasiados)?;
    let (fuente, nombres) = (curva.fuente, curva.variables.keys().cloned().collect::<Vec<_>>());
    let mut lecturas = merged(id, curva);
    if query.orden(Orden::Ascendente) == Orden::Descendente {
        lecturas.reverse();
    }
    if como_csv && nombres.len().saturating_mul(lecturas.len()) > MAX_CELDAS {
        return Err(demasiados());
    }
    let response = if como_csv {
        csv::response(&nombre(sensor, "curva"), as_csv(&nombres, &lecturas).into())
    } else {
        axum::Json(lecturas).into_response()
    };
    Ok(from(fuente, response))
}

/// The curves of all variables as readings, each with the variables that have a point there.
fn merged(id_sensor: i64, curva: Curva) -> Vec<LecturaBody> {
    let mut por_momento: BTreeMap<Timestamp, Valores> = BTreeMap::new();
    for (nombre, puntos) in curva.variables {
        let Some(variable) = Variable::new(&nombre) else { continue };
        for (ts, valor) in puntos {
            por_momento.entry(ts).or_default().set(variable.clone(), valor);
        }
    }
    let lectura = |(timestamp, valores)| LecturaBody { id_sensor, timestamp, valores };
    por_momento.into_iter().map(lectura).collect()
}

fn as_csv(nombres: &[String], lecturas: &[LecturaBody]) -> String {
    let mut salida = String::new();
    let cabecera = std::iter::once("timestamp").chain(nombres.iter().map(String::as_str));
    csv::line(&mut salida, &cabecera.collect::<Vec<_>>());
    for l in lecturas {
        let valor = |n: &String| Variable::new(n).and_then(|v| l.valores.get(&v)).map(|v| v.to_string());
        let valores: Vec<String> = nombres.iter().map(|n| valor(n).unwrap_or_default()).collect();
        let momento = l.timestamp.to_string();
        let campos = std::iter::once(momento.as_str()).chain(valores.iter().map(String::as_str));
        csv::line(&mut salida, &campos.collect::<Vec<_>>());
    }
    salida
}
