//! Bounds that stand in place of the empresa's: those of a crop, and before them those of one sensor. A
//! reading is held against the closest that is set for its variable.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::State;
use super::etag::{IfMatch, Tag};
use super::extract::{Json, Path, Sesion};
use super::finish::to_its_end;
use super::problem::Problem;
use super::umbrales::{Bounds, Changes, MAX_UMBRALES, changes, too_many, wrong};
use crate::alertas::{Umbrales, umbrales};
use crate::domain::{Rango, Variable};
use crate::ingest::Cambiados;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::sensores::Alcance;
use crate::store::umbrales::De;
use crate::store::{self, Tx, cultivos, sensores};

/// Where bounds come from.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = OrigenUmbral)]
enum Origen {
    /// Nobody set any.
    Defecto,
    Empresa,
    Cultivo,
    Sensor,
}

/// The bounds in force for a variable, and who set them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = UmbralEnVigor, example = json!({ "variable": "temperatura", "min": 5.0, "max": 25.0, "unidad": "°C", "origen": "cultivo" }))]
pub(super) struct InForce {
    variable: String,
    min: f64,
    max: f64,
    /// Empty for a variable of the site's own.
    unidad: &'static str,
    origen: Origen,
}

/// Where an exception stands, once the caller has been found to own it.
#[derive(Clone, Copy)]
enum Sitio {
    Cultivo { id_empresa: i64, id: i64 },
    Sensor { id_empresa: i64, id: i64 },
}

impl Sitio {
    const fn de(self) -> De {
        match self {
            Self::Cultivo { id, .. } => De::Cultivo(id),
            Self::Sensor { id, .. } => De::Sensor(id),
        }
    }

    /// Under which name the audit tells of its bounds, and of which thing.
    const fn objeto(self) -> (&'static str, i64) {
        match self {
            Self::Cultivo { id, .. } => ("umbrales_cultivo", id),
            Self::Sensor { id, .. } => ("umbrales_sensor", id),
        }
    }

    const fn cambiados(self) -> Cambiados {
        match self {
            Self::Cultivo { id_empresa, .. } => Cambiados::Empresa(id_empresa),
            Self::Sensor { id_empresa, id } => Cambiados::Sensor { id_empresa, id_sensor: id },
        }
    }

    const fn id_empresa(self) -> i64 {
        match self {
            Self::Cultivo { id_empresa, .. } | Self::Sensor { id_empresa, .. } => id_empresa,
        }
    }

    /// 404 unless it is there, for this scope.
    async fn check(self, tx: &mut Tx, alcance: Alcance) -> Result<(), Problem> {
        let found = match self {
            Self::Cultivo { id, .. } => cultivos::get(tx, alcance, id).await?.is_some(),
            Self::Sensor { id, .. } => sensores::get(tx, alcance, id).await?.is_some(),
        };
        if found { Ok(()) } else { Err(Problem::not_found()) }
    }
}

/// What is in force there.
async fn in_force(tx: &mut Tx, sitio: Sitio) -> Result<Vec<InForce>, Problem> {
    let mut all: BTreeMap<Variable, (Rango, Origen)> = umbrales::defaults()
        .iter()
        .map(|(variable, rango)| (variable.clone(), (*rango, Origen::Defecto)))
        .collect();
    let cultivo = match sitio {
        Sitio::Cultivo { id, .. } => Some(id),
        Sitio::Sensor { id, .. } => store::umbrales::cultivo_of(tx, id).await?,
    };
    let mut layers = vec![(De::Empresa(sitio.id_empresa()), Origen::Empresa)];
    layers.extend(cultivo.map(|id| (De::Cultivo(id), Origen::Cultivo)));
    if let Sitio::Sensor { id, .. } = sitio {
        layers.push((De::Sensor(id), Origen::Sensor));
    }
    for (de, origen) in layers {
        let set = store::umbrales::of(tx, de).await?;
        all.extend(set.into_iter().map(|(variable, rango)| (variable, (rango, origen))));
    }
    let one = |(variable, (rango, origen)): (Variable, (Rango, Origen))| InForce {
        unidad: variable.unidad(),
        variable: variable.to_string(),
        min: rango.min,
        max: rango.max,
        origen,
    };
    Ok(all.into_iter().map(one).collect())
}

async fn read(state: &State, alcance: Alcance, sitio: Sitio) -> Result<Response, Problem> {
    let mut tx = state.parts().store.read().await?;
    sitio.check(&mut tx, alcance).await?;
    let found = in_force(&mut tx, sitio).await?;
    tx.commit().await?;
    Ok(Tag::answer(&found))
}

/// Changes what is set there; readings are held against it once this returns.
async fn write(
    state: State,
    autor: Autor,
    sitio: Sitio,
    if_match: IfMatch,
    what: impl FnOnce(&Umbrales) -> Result<Change, Problem> + Send,
) -> Result<Vec<InForce>, Problem> {
    let parts = state.parts();
    let alcance = Alcance { id_empresa: sitio.id_empresa(), id_trabajador: None };
    let mut tx = parts.store.write().await?;
    sitio.check(&mut tx, alcance).await?;
    if_match.check(&in_force(&mut tx, sitio).await?)?;
    let before = store::umbrales::of(&mut tx, sitio.de()).await?;
    let empresa = store::umbrales::of(&mut tx, De::Empresa(sitio.id_empresa())).await?;
    match what(&Umbrales::with(empresa).sobre(before.iter().cloned()))? {
        Change::Set(bounds) => {
            let fresh = bounds.keys().filter(|v| !before.iter().any(|(b, _)| b == *v)).count();
            if before.len() + fresh > MAX_UMBRALES {
                return Err(too_many());
            }
            for (variable, rango) in &bounds {
                store::umbrales::set(&mut tx, sitio.de(), variable, *rango).await?;
            }
        }
        Change::Unset(variable) => {
            if !store::umbrales::unset(&mut tx, sitio.de(), &variable).await? {
                return Err(Problem::not_found());
            }
        }
    }
    let after = in_force(&mut tx, sitio).await?;
    let set = store::umbrales::of(&mut tx, sitio.de()).await?;
    let (objeto, id) = sitio.objeto();
    autor.anota(&mut tx, &Hecho::cambiado(objeto, id, &told(&before), &told(&set))).await?;
    tx.commit().await?;
    parts.ingest.recargar_umbrales(sitio.cambiados()).await?;
    Ok(after)
}

/// Bounds as the audit tells of them.
fn told(set: &[(Variable, Rango)]) -> Value {
    let one = |(v, r): &(Variable, Rango)| (v.to_string(), json!({ "min": r.min, "max": r.max }));
    Value::Object(set.iter().map(one).collect())
}

enum Change {
    Set(BTreeMap<Variable, Rango>),
    Unset(Variable),
}

/// The variable of a path; what cannot be one has no bounds.
fn variable(nombre: &str) -> Result<Variable, Problem> {
    Variable::new(nombre).ok_or_else(Problem::not_found)
}

async fn put_one(
    state: &State,
    autor: Autor,
    sitio: Sitio,
    if_match: IfMatch,
    nombre: &str,
    bounds: Bounds,
) -> Result<Response, Problem> {
    let variable = variable(nombre)?;
    let rango = Rango { min: bounds.min, max: bounds.max };
    if let Some(texto) = wrong(&variable, rango) {
        return Err(Problem::invalid(vec![("min".to_owned(), texto)]));
    }
    let set = move |_: &Umbrales| Ok(Change::Set(BTreeMap::from([(variable, rango)])));
    Ok(Tag::answer(&to_its_end(state, write(state.clone(), autor, sitio, if_match, set)).await?))
}

async fn delete_one(
    state: &State,
    autor: Autor,
    sitio: Sitio,
    if_match: IfMatch,
    nombre: &str,
) -> Result<StatusCode, Problem> {
    let variable = variable(nombre)?;
    let unset = move |_: &Umbrales| Ok(Change::Unset(variable));
    to_its_end(state, write(state.clone(), autor, sitio, if_match, unset)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The bounds that a sensor's readings are held against, and who set them.
#[utoipa::path(get, path = "/sensores/{id_sensor}/umbrales", tag = "umbrales", params(("id_sensor" = i64, Path)),
    responses((status = 200, body = Vec<InForce>),
        (status = 403, description = "No empresa"), (status = 404, description = "No such sensor")))]
pub(super) async fn of_sensor(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let alcance = sesion.alcance()?;
    read(&state, alcance, Sitio::Sensor { id_empresa: alcance.id_empresa, id }).await
}

/// Set the bounds of one variable for one sensor, before those of its crop and its empresa. Answers all that
/// are in force.
#[utoipa::path(put, path = "/sensores/{id_sensor}/umbrales/{variable}", tag = "umbrales", request_body = Bounds,
    params(("id_sensor" = i64, Path), ("variable" = String, Path, pattern = "^[a-z][a-z0-9_]{0,31}$", example = "temperatura"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    responses((status = 200, body = Vec<InForce>),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such sensor, or not a variable"),
        (status = 409, description = "Too many"), (status = 412, description = "Somebody changed them meanwhile")))]
pub(super) async fn put_of_sensor(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path((id, nombre)): Path<(i64, String)>,
    if_match: IfMatch,
    Json(bounds): Json<Bounds>,
) -> Result<Response, Problem> {
    let sitio = Sitio::Sensor { id_empresa: sesion.supervisor()?, id };
    put_one(&state, sesion.1, sitio, if_match, &nombre, bounds).await
}

/// Take a sensor's own bounds of one variable away: those of its crop or its empresa hold again.
#[utoipa::path(delete, path = "/sensores/{id_sensor}/umbrales/{variable}", tag = "umbrales",
    params(("id_sensor" = i64, Path), ("variable" = String, Path, pattern = "^[a-z][a-z0-9_]{0,31}$", example = "temperatura"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    responses((status = 204), (status = 403, description = "Not a supervisor"),
        (status = 404, description = "No such sensor, or it has none of its own"),
        (status = 412, description = "Somebody changed them meanwhile")))]
pub(super) async fn delete_of_sensor(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path((id, nombre)): Path<(i64, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let sitio = Sitio::Sensor { id_empresa: sesion.supervisor()?, id };
    delete_one(&state, sesion.1, sitio, if_match, &nombre).await
}

/// The bounds that the sensors in a crop are held against, and who set them.
#[utoipa::path(get, path = "/cultivos/{id_cultivo}/umbrales", tag = "umbrales", params(("id_cultivo" = i64, Path)),
    responses((status = 200, body = Vec<InForce>),
        (status = 403, description = "No empresa"), (status = 404, description = "No such crop")))]
pub(super) async fn of_cultivo(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let alcance = sesion.alcance()?;
    read(&state, alcance, Sitio::Cultivo { id_empresa: alcance.id_empresa, id }).await
}

/// Set bounds for the sensors in a crop, before those of the empresa; what is not named stays. Takes the same
/// two forms as `PUT /umbrales`, and answers all that are in force.
#[utoipa::path(put, path = "/cultivos/{id_cultivo}/umbrales", tag = "umbrales",
    params(("id_cultivo" = i64, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    request_body(content = Changes, example = json!({ "temperatura": { "min": 5, "max": 25 } })),
    responses((status = 200, body = Vec<InForce>),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such crop"),
        (status = 409, description = "Too many"), (status = 412, description = "Somebody changed them meanwhile")))]
pub(super) async fn put_all_of_cultivo(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    if_match: IfMatch,
    Json(given): Json<serde_json::Map<String, Value>>,
) -> Result<Response, Problem> {
    let sitio = Sitio::Cultivo { id_empresa: sesion.supervisor()?, id };
    let set = move |before: &Umbrales| changes(before, &given).map(Change::Set);
    Ok(Tag::answer(&to_its_end(&state, write(state.clone(), sesion.1, sitio, if_match, set)).await?))
}

/// Set the bounds of one variable for the sensors in a crop, before those of the empresa. Answers all that
/// are in force.
#[utoipa::path(put, path = "/cultivos/{id_cultivo}/umbrales/{variable}", tag = "umbrales", request_body = Bounds,
    params(("id_cultivo" = i64, Path), ("variable" = String, Path, pattern = "^[a-z][a-z0-9_]{0,31}$", example = "temperatura"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    responses((status = 200, body = Vec<InForce>),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such crop, or not a variable"),
        (status = 409, description = "Too many"), (status = 412, description = "Somebody changed them meanwhile")))]
pub(super) async fn put_of_cultivo(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path((id, nombre)): Path<(i64, String)>,
    if_match: IfMatch,
    Json(bounds): Json<Bounds>,
) -> Result<Response, Problem> {
    let sitio = Sitio::Cultivo { id_empresa: sesion.supervisor()?, id };
    put_one(&state, sesion.1, sitio, if_match, &nombre, bounds).await
}

/// Take a crop's bounds of one variable away: those of the empresa hold again.
#[utoipa::path(delete, path = "/cultivos/{id_cultivo}/umbrales/{variable}", tag = "umbrales",
    params(("id_cultivo" = i64, Path), ("variable" = String, Path, pattern = "^[a-z][a-z0-9_]{0,31}$", example = "temperatura"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    responses((status = 204), (status = 403, description = "Not a supervisor"),
        (status = 404, description = "No such crop, or it has none"),
        (status = 412, description = "Somebody changed them meanwhile")))]
pub(super) async fn delete_of_cultivo(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path((id, nombre)): Path<(i64, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let sitio = Sitio::Cultivo { id_empresa: sesion.supervisor()?, id };
    delete_one(&state, sesion.1, sitio, if_match, &nombre).await
}
