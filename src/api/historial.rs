//! What a sensor said: as it was measured, in buckets, as a curve, as figures; as JSON or CSV.

use std::collections::BTreeMap;

use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::extract::{Path, Query, momento};
use super::lector::Lector;
use super::problem::Problem;
use super::shapes::LecturaBody;
use super::{State, csv, paging};
use crate::domain::{Agregado, Timestamp, Valores, Variable};
use crate::historia::{self, Curva, Figura, Fuente, Intervalo, MAX_PUNTOS, MAX_VARIABLES, Rango};
use crate::identity::Permiso;
use crate::store::lecturas::Orden;
use crate::store::sensores::{self, Sensor};
use crate::store::{self, Tx};

/// Buckets in one answer.
const MAX_CUBETAS: i64 = 5_000;
/// Fields of a curve as CSV: each variable has its points at moments of its own, and a column.
const MAX_CELDAS: usize = 4_000_000;
/// Where the answer comes from.
const FUENTE: &str = "x-alertrace-fuente";

/// Which readings, and how.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// From this moment on (RFC 3339).
    #[param(format = DateTime)]
    desde: Option<String>,
    /// Up to this moment (RFC 3339).
    #[param(format = DateTime)]
    hasta: Option<String>,
    /// Only this variable, and only the readings that have it.
    #[param(pattern = "^[a-z][a-z0-9_]{0,31}$")]
    variable: Option<String>,
    /// At most this many readings (1 … 1,000; default 100). CSV has no default and no maximum.
    #[param(minimum = 1, default = 100)]
    limit: Option<i64>,
    /// `asc` = oldest first (default with `intervalo` and `puntos`), `desc` = newest first (default without).
    #[param(inline)]
    orden: Option<Order>,
    /// Where the page before ended, from its `Link: rel="next"`.
    #[param(pattern = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$")]
    cursor: Option<String>,
    /// What each variable came to in buckets of this width (`1m 5m 10m 15m 30m 1h 2h 3h 6h 8h 12h 1d 7d`),
    /// at most 5,000 of them. Buckets are whole and in UTC; a week begins on Monday. Without `desde`, the
    /// newest 5,000.
    intervalo: Option<String>,
    /// A curve of at most this many points of each variable (3 … 5,000), chosen by
    /// Largest-Triangle-Three-Buckets among the readings or, for a long range, among the smallest and
    /// the largest of each hour (`X-Alertrace-Fuente` says which). At most 200,000 over all variables, and as
    /// CSV 4,000,000 fields.
    #[param(minimum = 3, maximum = 5000)]
    puntos: Option<i64>,
}

/// In which order.
#[derive(Deserialize, Clone, Copy, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    Asc,
    Desc,
}

/// What is asked for, checked.
enum Forma {
    Lecturas,
    Cubetas(Intervalo),
    Curva(usize),
}

/// What a variable came to in a bucket.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Cubeta)]
pub(super) struct Bucket {
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
pub(super) struct Figures {
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

/// A reading; with `intervalo`, what a variable came to in a bucket.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the shape of either list, for the documentation")]
#[schema(as = LecturaOCubeta)]
pub(super) enum ReadingOrBucket {
    Lectura(LecturaBody),
    Cubeta(Bucket),
}

impl Range {
    fn forma(&self) -> Result<Forma, Problem> {
        match (self.intervalo.as_deref(), self.puntos) {
            (None, None) => Ok(Forma::Lecturas),
            (Some(_), Some(_)) => {
                Err(Problem::field("puntos", "No junto con intervalo.", "Not together with intervalo."))
            }
            (Some(texto), None) => {
                let malo = || {
                    let nombres = Intervalo::nombres();
                    Problem::field("intervalo", format!("Uno de: {nombres}."), format!("One of: {nombres}."))
                };
                Intervalo::parse(texto).map(Forma::Cubetas).ok_or_else(malo)
            }
            (None, Some(puntos)) => {
                let puntos = usize::try_from(puntos).ok().filter(|p| (3..=MAX_PUNTOS).contains(p));
                let malo = || Problem::field("puntos", "De 3 a 5000.", "From 3 to 5000.");
                puntos.map(Forma::Curva).ok_or_else(malo)
            }
        }
    }

    fn variable(&self) -> Result<Option<Variable>, Problem> {
        let malo =
            || Problem::field("variable", "No es el nombre de una variable.", "Not the name of a variable.");
        self.variable.as_deref().map(|nombre| Variable::new(nombre).ok_or_else(malo)).transpose()
    }

    fn orden(&self, sin_decir: Orden) -> Orden {
        match self.orden {
            Some(Order::Asc) => Orden::Ascendente,
            Some(Order::Desc) => Orden::Descendente,
            None => sin_decir,
        }
    }

    fn limit(&self, csv: bool) -> Result<Option<i64>, Problem> {
        match self.limit {
            None => Ok((!csv).then_some(100)),
            Some(n) if n >= 1 && (csv || n <= 1_000) => Ok(Some(n)),
            Some(_) => Err(Problem::field("limit", "De 1 a 1000.", "From 1 to 1000.")),
        }
    }

    /// The range, `None` where it is open.
    fn rango(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let hasta = momento("hasta", self.hasta.as_deref())?;
        Ok((momento("desde", self.desde.as_deref())?, hasta.map(Timestamp::next)))
    }
}

/// The readings of a sensor: as they were measured, in buckets (`intervalo`), or as a curve (`puntos`).
///
/// `Accept: text/csv` gets the same as CSV, without a limit unless one is given. Readings that are past
/// the retention are gone; buckets of an hour and more, and curves, still have what they came to.
#[utoipa::path(get, path = "/sensores/{id}/lecturas", tag = "lecturas", security(("account" = []), ("api_key" = [])), params(("id" = i64, Path), Range),
    responses((status = 200, content((Vec<ReadingOrBucket> = "application/json"), (String = "text/csv")),
            headers(("link" = String, description = "The next page, `rel=\"next\"`; absent on the last"),
                ("x-alertrace-fuente" = String, description = "With `intervalo` or `puntos`: `horas` or `lecturas`"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"),
        (status = 404, description = "No such sensor"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    lector: Lector,
    Path(id): Path<i64>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<Range>,
) -> Result<Response, Problem> {
    let (csv, forma) = (csv::wanted(&headers), query.forma()?);
    let (variable, limit) = (query.variable()?, query.limit(csv)?);
    let mut tx = state.parts().store.read().await?;
    let sensor = sensores::get(&mut tx, lector.alcance(Permiso::LecturasRead)?, id)
        .await?
        .ok_or_else(Problem::not_found)?;
    match forma {
        Forma::Cubetas(intervalo) => buckets(&mut tx, &sensor, &query, intervalo, variable, csv).await,
        Forma::Curva(puntos) => curve(&mut tx, &sensor, &query, puntos, variable, csv).await,
        Forma::Lecturas if csv => {
            let (desde, antes_de) = query.rango()?;
            // What arrives while it is sent would have no column.
            let ahora = state.parts().clock.now();
            let fin = sensor.ultima.as_ref().map_or(ahora, |(ts, _)| ts.next().max(ahora));
            let desde = desde.unwrap_or(Timestamp::MIN);
            let rango = Rango { desde, antes_de: antes_de.unwrap_or(Timestamp::MAX).min(fin) };
            let columnas = if let Some(v) = &variable {
                vec![v.as_str().to_owned()]
            } else {
                let e = historia::statistics(&mut tx, id, rango).await?.ok_or_else(too_many)?;
                e.variables.into_keys().collect()
            };
            tx.commit().await?;
            let variable = variable.map(|v| v.as_str().to_owned());
            let orden = query.orden(Orden::Descendente);
            let body = csv::readings(&state, id, rango, orden, columnas, variable, limit);
            Ok(csv::response(&nombre(&sensor, "lecturas"), body))
        }
        Forma::Lecturas => {
            let limit = limit.unwrap_or(100);
            let pagina = readings(&mut tx, id, &query, variable.as_ref(), limit).await?;
            tx.commit().await?;
            let mut response = axum::Json(&pagina.lecturas).into_response();
            let ultima = pagina.lecturas.last().filter(|_| pagina.hay_mas);
            if let Some(enlace) = ultima.and_then(|l| paging::next(&uri, &paging::cursor(l.timestamp))) {
                response.headers_mut().insert(header::LINK, enlace);
            }
            Ok(response)
        }
    }
}

/// More variables than an answer has room for.
fn too_many() -> Problem {
    Problem::field(
        "variable",
        format!(
            "Demasiadas variables en este rango: como máximo {MAX_VARIABLES}; elija una, o un rango menor."
        ),
        format!("Too many variables in this range: at most {MAX_VARIABLES}; choose one, or a shorter range."),
    )
}

fn nombre(sensor: &Sensor, que: &str) -> String {
    format!("{que}-{}", sensor.quien.device_id)
}

struct Pagina {
    lecturas: Vec<LecturaBody>,
    hay_mas: bool,
}

async fn readings(
    tx: &mut Tx,
    id: i64,
    query: &Range,
    variable: Option<&Variable>,
    limit: i64,
) -> Result<Pagina, Problem> {
    let mut desde = momento("desde", query.desde.as_deref())?.unwrap_or(Timestamp::MIN);
    let mut hasta = momento("hasta", query.hasta.as_deref())?.unwrap_or(Timestamp::MAX);
    let orden = query.orden(Orden::Descendente);
    let mut filas = Vec::new();
    let fin = match (paging::parse(query.cursor.as_deref())?, orden) {
        (None, _) => false,
        (Some(aqui), Orden::Ascendente) => {
            desde = desde.max(aqui.next());
            aqui == Timestamp::MAX
        }
        (Some(aqui), Orden::Descendente) => {
            hasta = hasta.min(Timestamp::clamped(aqui.micros() - 1));
            aqui == Timestamp::MIN
        }
    };
    if !fin {
        // One more tells whether there is a next page.
        filas = match variable {
            None => store::lecturas::page(tx, id, desde, hasta, orden, limit + 1).await?,
            Some(v) => store::lecturas::page_with(tx, id, desde, hasta, v, orden, limit + 1).await?,
        };
    }
    let caben = usize::try_from(limit).unwrap_or_default();
    let hay_mas = filas.len() > caben;
    filas.truncate(caben);
    let solo = |valores: Valores| match variable {
        None => valores,
        Some(v) => {
            let mut uno = Valores::new();
            if let Some(valor) = valores.get(v) {
                uno.set(v.clone(), valor);
            }
            uno
        }
    };
    let lectura = |f: store::lecturas::Fila| LecturaBody {
        id_sensor: f.id_sensor,
        timestamp: f.ts,
        valores: solo(f.valores),
    };
    Ok(Pagina { lecturas: filas.into_iter().map(lectura).collect(), hay_mas })
}

/// The range asked for; where it is open, as far as anything is known.
async fn within(tx: &mut Tx, id: i64, query: &Range) -> Result<(Rango, bool), Problem> {
    let (desde, antes_de) = query.rango()?;
    let abierto = desde.is_none();
    let (primera, ultima) = match (desde, antes_de) {
        (Some(desde), Some(antes_de)) => return Ok((Rango { desde, antes_de }, abierto)),
        _ => match store::horas::extent(tx, id).await? {
            Some(conocido) => conocido,
            None => return Ok((Rango { desde: Timestamp::MIN, antes_de: Timestamp::MIN }, abierto)),
        },
    };
    let antes_de = antes_de.unwrap_or_else(|| ultima.next());
    Ok((Rango { desde: desde.unwrap_or(primera), antes_de }, abierto))
}

async fn buckets(
    tx: &mut Tx,
    sensor: &Sensor,
    query: &Range,
    intervalo: Intervalo,
    variable: Option<Variable>,
    csv: bool,
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
    let response = if csv {
        csv::response(&nombre(sensor, "intervalos"), buckets_csv(&figuras).into())
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

fn buckets_csv(figuras: &[Figura]) -> String {
    let mut salida = String::new();
    csv::line(&mut salida, &["timestamp", "variable", "n", "min", "max", "avg"]);
    for Figura { inicio, variable, total } in figuras {
        let campos = [total.min, total.max, total.media()].map(|v| v.to_string());
        let (momento, n) = (inicio.to_string(), total.n.to_string());
        csv::line(&mut salida, &[&momento, variable, &n, &campos[0], &campos[1], &campos[2]]);
    }
    salida
}

async fn curve(
    tx: &mut Tx,
    sensor: &Sensor,
    query: &Range,
    puntos: usize,
    variable: Option<Variable>,
    csv: bool,
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
    if csv && nombres.len().saturating_mul(lecturas.len()) > MAX_CELDAS {
        return Err(demasiados());
    }
    let response = if csv {
        csv::response(&nombre(sensor, "curva"), curve_csv(&nombres, &lecturas).into())
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

fn curve_csv(nombres: &[String], lecturas: &[LecturaBody]) -> String {
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

/// Says where an answer comes from.
fn from(fuente: Fuente, mut response: Response) -> Response {
    let fuente = if fuente == Fuente::Lecturas { "lecturas" } else { "horas" };
    response.headers_mut().insert(FUENTE, HeaderValue::from_static(fuente));
    response
}

/// Of which range.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Period {
    /// From this moment on (RFC 3339); by default 30 days before `hasta`.
    #[param(format = DateTime)]
    desde: Option<String>,
    /// Up to this moment (RFC 3339); by default now.
    #[param(format = DateTime)]
    hasta: Option<String>,
}

/// What a range came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Estadisticas)]
pub(super) struct Statistics {
    id_sensor: i64,
    /// The range that the figures are of: the one asked for, except that an hour whose readings are past
    /// the retention is whole.
    desde: Timestamp,
    /// See `desde`.
    hasta: Timestamp,
    /// Readings, of whatever variables.
    lecturas: i64,
    /// Of the readings that `intervalo_lectura` lets expect since the sensor was installed, how many came,
    /// in percent; null where none was expected. Counted by the hour (by the interval, where that is
    /// longer): a burst in one hour makes up for nothing that another lacks.
    disponibilidad: Option<f64>,
    /// By variable.
    variables: BTreeMap<String, Figures>,
}

/// What each variable of a sensor came to in a range, and how much of what was expected came.
#[utoipa::path(get, path = "/sensores/{id}/estadisticas", tag = "lecturas", security(("account" = []), ("api_key" = [])), params(("id" = i64, Path), Period),
    responses((status = 200, body = Statistics), (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"),
        (status = 404, description = "No such sensor"), (status = 422, description = "Not a date, or more than 1,000 variables")))]
pub(super) async fn statistics(
    Shared(state): Shared<State>,
    lector: Lector,
    Path(id): Path<i64>,
    Query(period): Query<Period>,
) -> Result<axum::Json<Statistics>, Problem> {
    const DIAS: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
    let ahora = state.parts().clock.now();
    let hasta = momento("hasta", period.hasta.as_deref())?.unwrap_or(ahora);
    let desde = momento("desde", period.desde.as_deref())?.unwrap_or_else(|| hasta.minus(DIAS));
    let mut tx = state.parts().store.read().await?;
    let sensor = sensores::get(&mut tx, lector.alcance(Permiso::LecturasRead)?, id)
        .await?
        .ok_or_else(Problem::not_found)?;
    let rango = Rango { desde, antes_de: hasta.next() };
    let e = historia::statistics(&mut tx, id, rango).await?.ok_or_else(too_many)?;
    let primera = store::horas::extent(&mut tx, id).await?.map(|(primera, _)| primera);
    tx.commit().await?;
    let desde = primera.map_or(sensor.fecha_instalacion, |p| p.min(sensor.fecha_instalacion));
    let vida = Rango { desde, antes_de: ahora };
    Ok(axum::Json(Statistics {
        id_sensor: id,
        desde: e.rango.desde,
        hasta: Timestamp::clamped(e.rango.antes_de.micros() - 1),
        lecturas: e.lecturas,
        disponibilidad: e.disponibilidad(sensor.intervalo_lectura, vida),
        variables: e.variables.iter().map(|(v, a)| (v.clone(), Figures::from(a))).collect(),
    }))
}
