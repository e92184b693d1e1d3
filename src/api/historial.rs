//! What a sensor said: as it was measured, in buckets, as a curve, as figures; as JSON or CSV.

use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde::Deserialize;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::Type;

use super::State;
use super::csv;
use super::extract::{Path, Query, momento};
use super::lector::Lector;
use super::openapi::any_of;
use super::problem::Problem;
use super::shapes::LecturaBody;
use crate::domain::{Timestamp, Variable};
use crate::historia::{Fuente, Intervalo, MAX_PUNTOS, MAX_VARIABLES, Rango};
use crate::identity::Permiso;
use crate::store::lecturas::Orden;
use crate::store::sensores::{self, Sensor};
use crate::store::{self, Tx};

mod crudas;
mod cubetas;
mod curva;
pub(super) mod estadisticas;

use cubetas::Bucket;

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
    /// See [`intervalos`].
    #[param(schema_with = intervalos)]
    intervalo: Option<String>,
    /// A curve of at most this many points of each variable (3 … 5,000), chosen by
    /// Largest-Triangle-Three-Buckets among the readings or, for a long range, among the smallest and
    /// the largest of each hour (`X-Alertrace-Fuente` says which). At most 200,000 over all variables, and as
    /// CSV 4,000,000 fields.
    #[param(minimum = 3, maximum = 5000)]
    puntos: Option<i64>,
}

/// The widths that there are, and what is answered with one.
fn intervalos() -> ObjectBuilder {
    let text = "What each variable came to in buckets of this width, at most 5,000 of them. Buckets are whole and in \
                UTC; a week begins on Monday. Without `desde`, the newest 5,000.";
    let widths = Intervalo::nombres();
    let schema = ObjectBuilder::new().schema_type(Type::String).description(Some(text));
    schema.enum_values(Some(widths.split(", ").map(str::to_owned)))
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

// A reading; with `intervalo`, what a variable came to in a bucket.
any_of!(pub(super) ReadingOrBucket, "LecturaOCubeta", LecturaBody, Bucket);

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
#[utoipa::path(get, path = "/sensores/{id_sensor}/lecturas", tag = "lecturas", security(("account" = []), ("api_key" = [])), params(("id_sensor" = i64, Path), Range),
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
        Forma::Cubetas(intervalo) => {
            cubetas::answer(&mut tx, &sensor, &query, intervalo, variable, csv).await
        }
        Forma::Curva(puntos) => curva::answer(&mut tx, &sensor, &query, puntos, variable, csv).await,
        Forma::Lecturas if csv => crudas::csv(&state, tx, &sensor, &query, variable, limit).await,
        Forma::Lecturas => crudas::json(tx, id, &query, variable.as_ref(), limit.unwrap_or(100), &uri).await,
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

/// Says where an answer comes from.
fn from(fuente: Fuente, mut response: Response) -> Response {
    let fuente = if fuente == Fuente::Lecturas { "lecturas" } else { "horas" };
    response.headers_mut().insert(FUENTE, HeaderValue::from_static(fuente));
    response
}
