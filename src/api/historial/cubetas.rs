//! What each variable came to in buckets of one width.

use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::csv;
use super::super::problem::Problem;
use super::{Range, from, nombre, within};
use crate::domain::{Agregado, Timestamp, Variable};
use crate::historia::{self, Figura, Fuente, Intervalo};
use crate::store::Tx;
use crate::store::lecturas::Orden;
use crate::store::sensores::Sensor;

/// Buckets in one answer.
const MAX_CUBETAS: i64 = 5_000;

/// What a variable came to in a bucket.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Cubeta)]
pub(in super::super) struct Bucket {
    id_sensor: i64,
    /// The bucket's first moment.
    timestamp: Timestamp,
    variable: String,
    #[serde(flatten)]
    figures: Figures,
}

/// What values came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Cifras)]
pub(in super::super) struct Figures {
    /// How many values.
    n: i64,
    min: f64,
    max: f64,
    /// Their mean.
    avg: f64,
}

impl From<&Agregado> for Figures {
    fn from(a: &Agregado) -> Self {
        Self { n: a.n, min: a.min, max: a.max, avg: a.media() }
    }
}

/// The answer in buckets.
pub(super) async fn answer(
    tx: &mut Tx,
    sensor: &Sensor,
    query: &Range,
    intervalo: Intervalo,
    variable: Option<Variable>,
    como_csv: bool,
) -> Result<Response, Problem> {
    let id = sensor.quien.id_sensor;
    let (mut rango, abierto) = within(tx, id, query).await?;
    if abierto && !rango.vacio() {
        let ultima = Timestamp::clamped(rango.antes_de.micros() - 1);
        rango.desde = rango.desde.max(intervalo.ultimos(ultima, MAX_CUBETAS));
    }
    let (rango, cuantas) = intervalo.cubre(rango);
    let demasiadas = || {
        Problem::field(
            "intervalo",
            "Demasiados datos en una respuesta: como máximo 5000 intervalos y 50000 valores; elija un intervalo mayor, un rango menor o una variable.",
            "Too much for one answer: at most 5000 intervals and 50000 figures; choose a wider one, a shorter range, or a variable.",
        )
    };
    if cuantas > MAX_CUBETAS {
        return Err(demasiadas());
    }
    let solo = variable.as_ref().map(Variable::as_str);
    let figuras = historia::buckets(tx, id, rango, intervalo, solo).await?;
    let mut figuras = figuras.ok_or_else(demasiadas)?;
    if query.orden(Orden::Ascendente) == Orden::Descendente {
        figuras.reverse();
    }
    let fuente = if intervalo.de_horas() { Fuente::Horas } else { Fuente::Lecturas };
    let response = if como_csv {
        csv::response(&nombre(sensor, "intervalos"), as_csv(&figuras).into())
    } else {
        let bucket = |f: Figura| Bucket {
            id_sensor: id,
            timestamp: f.inicio,
            variable: f.variable,
            figures: Figures::from(&f.total),
        };
        axum::Json(figuras.into_iter().map(bucket).collect::<Vec<_>>()).into_response()
    };
    Ok(from(fuente, response))
}

fn as_csv(figuras: &[Figura]) -> String {
    let mut salida = String::new();
    csv::line(&mut salida, &["timestamp", "variable", "n", "min", "max", "avg"]);
    for Figura { inicio, variable, total } in figuras {
        let campos = [total.min, total.max, total.media()].map(|v| v.to_string());
        let (momento, n) = (inicio.to_string(), total.n.to_string());
        csv::line(&mut salida, &[&momento, variable, &n, &campos[0], &campos[1], &campos[2]]);
    }
    salida
}
