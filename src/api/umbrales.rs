//! The bounds of an empresa.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::schema::{AdditionalProperties, Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};

use super::State;
use super::etag::{IfMatch, Tag};
use super::extract::{Json, Sesion};
use super::finish::to_its_end;
use super::openapi::member;
use super::problem::{Problem, Texto};
use crate::alertas::Umbrales;
use crate::domain::{Rango, Variable};
use crate::ingest::Cambiados;
use crate::store;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::umbrales::De;

/// The older, flat names of the front end: prefix and variable.
const PLANOS: [(&str, Variable); 8] = [
    ("temp", Variable::TEMPERATURA),
    ("temperatura", Variable::TEMPERATURA),
    ("humedad_aire", Variable::HUMEDAD_AIRE),
    ("humedad_suelo", Variable::HUMEDAD_SUELO),
    ("ph", Variable::PH_SUELO),
    ("ph_suelo", Variable::PH_SUELO),
    ("radiacion", Variable::RADIACION_SOLAR),
    ("radiacion_solar", Variable::RADIACION_SOLAR),
];
/// Those of them that an answer carries.
const DICHOS: [&str; 5] = ["temp", "humedad_aire", "humedad_suelo", "ph", "radiacion"];

/// Bounds of one variable.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Umbral, example = json!({ "min": 5.0, "max": 30.0 }))]
pub(super) struct Bounds {
    /// Smallest value inside.
    pub(super) min: f64,
    /// Largest value inside.
    pub(super) max: f64,
}

/// One entry of the answer: bounds under a variable's name, or one of the older flat numbers.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = UmbralOPlano)]
pub(super) enum Entry {
    /// Under a variable's name.
    Bounds(Bounds),
    /// Under a flat name (`temp_min`).
    Flat(f64),
}

/// Bounds to set: see [`PartialSchema`](utoipa::PartialSchema) below, which is all that it is for.
pub(super) struct Changes;

impl utoipa::ToSchema for Changes {
    fn name() -> Cow<'static, str> {
        "UmbralesCambio".into()
    }
}

impl utoipa::PartialSchema for Changes {
    /// Under the name of a variable its bounds, which lie in its physical range; under a flat name a number. At
    /// least one of either, and no other name.
    fn schema() -> RefOr<Schema> {
        let number = |rango: Option<Rango>| {
            let number = ObjectBuilder::new().schema_type(Type::Number);
            rango.iter().fold(number, |n, r| n.minimum(Some(r.min)).maximum(Some(r.max)))
        };
        let bounds = |rango: Option<Rango>| {
            let bounds = ObjectBuilder::new().schema_type(Type::Object);
            bounds
                .property("min", number(rango))
                .required("min")
                .property("max", number(rango))
                .required("max")
        };
        let mut schema = ObjectBuilder::new().schema_type(Type::Object);
        for nombre in Variable::conocidas().chain(Variable::alias()) {
            schema = schema.property(nombre, bounds(Variable::new(nombre).and_then(|v| v.rango_fisico())));
        }
        for (prefijo, variable) in &PLANOS {
            for extremo in ["min", "max"] {
                schema = schema.property(format!("{prefijo}_{extremo}"), number(variable.rango_fisico()));
            }
        }
        let plano = format!("({})_(min|max)$", PLANOS.map(|(prefijo, _)| prefijo).join("|"));
        let own = RefOr::from(Schema::from(bounds(None).build()));
        let patterns = json!({ format!("^{plano}"): { "type": "number" }, format!("^(?!{plano})[a-z][a-z0-9_]{{0,31}}$"): own });
        schema
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .min_properties(Some(1))
            .max_properties(Some(MAX_UMBRALES))
            .extensions(Some(member("patternProperties", patterns)))
            .description(Some("Bounds by variable, or the older flat numbers"))
            .into()
    }
}

/// Bounds by variable, and the same flat (`temp_min`, `temp_max`, …) as the front end reads them.
type Body = BTreeMap<String, Entry>;

fn body(umbrales: &Umbrales) -> Body {
    let todos = umbrales.todos().into_iter();
    let mut body: Body =
        todos.map(|(v, r)| (v.to_string(), Entry::Bounds(Bounds { min: r.min, max: r.max }))).collect();
    for (prefijo, variable) in PLANOS.iter().filter(|(p, _)| DICHOS.contains(p)) {
        if let Some(rango) = umbrales.de(variable) {
            body.insert(format!("{prefijo}_min"), Entry::Flat(rango.min));
            body.insert(format!("{prefijo}_max"), Entry::Flat(rango.max));
        }
    }
    body
}

async fn current(tx: &mut store::Tx, id_empresa: i64) -> Result<Umbrales, Problem> {
    Ok(Umbrales::with(store::umbrales::of(tx, De::Empresa(id_empresa)).await?))
}

/// What the document shows: the defaults, and a temperature that somebody set.
fn shown() -> Body {
    body(&Umbrales::with([(Variable::TEMPERATURA, Rango { min: 5.0, max: 30.0 })]))
}

/// The bounds that readings are held against.
#[utoipa::path(get, path = "/umbrales", tag = "umbrales",
    responses((status = 200, body = BTreeMap<String, Entry>, example = json!(shown())),
        (status = 403, description = "Not a supervisor")))]
pub(super) async fn get(Shared(state): Shared<State>, sesion: Sesion) -> Result<Response, Problem> {
    let id_empresa = sesion.supervisor()?;
    let mut tx = state.parts().store.read().await?;
    let umbrales = current(&mut tx, id_empresa).await?;
    tx.commit().await?;
    Ok(Tag::answer(&body(&umbrales)))
}

/// Set bounds. `{"temperatura":{"min":5,"max":30}}`, or the older `{"temp_min":5,"temp_max":30}`; what
/// is not named stays. With `If-Match`, only if nobody has changed them since their `ETag` was read.
#[utoipa::path(put, path = "/umbrales", tag = "umbrales",
    params(("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    request_body(content = Changes, example = json!({ "temperatura": { "min": 5, "max": 30 } })),
    responses((status = 200, body = BTreeMap<String, Entry>, example = json!(shown())),
        (status = 403, description = "Not a supervisor"), (status = 409, description = "Too many"),
        (status = 412, description = "Somebody changed them meanwhile")))]
pub(super) async fn put(
    Shared(state): Shared<State>,
    sesion: Sesion,
    if_match: IfMatch,
    Json(given): Json<serde_json::Map<String, Value>>,
) -> Result<Response, Problem> {
    let id_empresa = sesion.supervisor()?;
    let setting = set(state.clone(), sesion.1, if_match, id_empresa, given);
    Ok(Tag::answer(&to_its_end(&state, setting).await?))
}

async fn set(
    state: State,
    autor: Autor,
    if_match: IfMatch,
    id_empresa: i64,
    given: serde_json::Map<String, Value>,
) -> Result<Body, Problem> {
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    let antes = current(&mut tx, id_empresa).await?;
    if_match.check(&body(&antes))?;
    let nuevos = changes(&antes, &given)?;
    for (variable, rango) in &nuevos {
        store::umbrales::set(&mut tx, De::Empresa(id_empresa), variable, *rango).await?;
    }
    let despues = body(&current(&mut tx, id_empresa).await?);
    autor.anota(&mut tx, &Hecho::cambiado("umbrales", id_empresa, &body(&antes), &despues)).await?;
    tx.commit().await?;
    parts.ingest.recargar_umbrales(Cambiados::Empresa(id_empresa)).await?;
    Ok(despues)
}

/// Variables that an empresa, a crop or a sensor may have bounds for.
pub(super) const MAX_UMBRALES: usize = 128;

/// What a body asks to be changed, checked.
pub(super) fn changes(
    antes: &Umbrales,
    body: &serde_json::Map<String, Value>,
) -> Result<BTreeMap<Variable, Rango>, Problem> {
    let (mut nuevos, mut malos) = (BTreeMap::new(), Vec::new());
    for (nombre, valor) in body {
        let mut malo = |es: &'static str, en: &'static str| malos.push((nombre.clone(), Texto::new(es, en)));
        if let Some((variable, es_min)) = plano(nombre) {
            let Some(n) = valor.as_f64() else {
                malo("Es un número.", "It is a number.");
                continue;
            };
            let rango: &mut Rango = nuevos
                .entry(variable.clone())
                .or_insert_with(|| antes.de(&variable).unwrap_or(Rango { min: f64::MIN, max: f64::MAX }));
            if es_min {
                rango.min = n;
            } else {
                rango.max = n;
            }
            continue;
        }
        let Some(variable) = Variable::new(nombre) else {
            malo("No es el nombre de una variable.", "Not the name of a variable.");
            continue;
        };
        match serde_json::from_value::<Bounds>(valor.clone()) {
            Ok(b) => drop(nuevos.insert(variable, Rango { min: b.min, max: b.max })),
            Err(_) => malo("Es un objeto con min y max.", "It is an object with min and max."),
        }
    }
    let suyos = antes.todos().iter().filter(|(v, _)| !nuevos.contains_key(*v)).count();
    if suyos + nuevos.len() > MAX_UMBRALES {
        return Err(too_many());
    }
    let malo = |(v, r): (&Variable, &Rango)| Some((v.to_string(), wrong(v, *r)?));
    malos.extend(nuevos.iter().filter_map(malo));
    if nuevos.is_empty() && malos.is_empty() {
        malos.push((String::new(), Texto::new("No hay nada que cambiar.", "There is nothing to change.")));
    }
    if malos.is_empty() { Ok(nuevos) } else { Err(Problem::invalid(malos)) }
}

pub(super) fn too_many() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "too_many_umbrales",
        "Hay demasiados umbrales: como máximo 128 variables.",
        "There are too many thresholds: 128 variables at most.",
    )
}

/// What is wrong with bounds.
pub(super) fn wrong(variable: &Variable, rango: Rango) -> Option<Texto> {
    let inverted = Texto::new("min debe ser menor que max.", "min must be below max.");
    let outside =
        Texto::new("Fuera del rango físico de la variable.", "Outside the variable's physical range.");
    if rango.min >= rango.max {
        return Some(inverted);
    }
    variable.rango_fisico().filter(|f| rango.min < f.min || rango.max > f.max).map(|_| outside)
}

/// (variable, whether it is the minimum) of a flat name.
fn plano(nombre: &str) -> Option<(Variable, bool)> {
    let (prefijo, es_min) = match nombre.strip_suffix("_min") {
        Some(prefijo) => (prefijo, true),
        None => (nombre.strip_suffix("_max")?, false),
    };
    PLANOS.iter().find(|(p, _)| *p == prefijo).map(|(_, v)| (v.clone(), es_min))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pide(json: &str) -> Result<BTreeMap<Variable, Rango>, Problem> {
        changes(&Umbrales::default(), &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn both_shapes_are_taken() {
        let r = Rango { min: 5.0, max: 30.0 };
        for json in [r#"{"temperatura":{"min":5,"max":30}}"#, r#"{"temp_min":5,"temp_max":30}"#] {
            assert_eq!(pide(json).unwrap(), BTreeMap::from([(Variable::TEMPERATURA, r)]), "{json}");
        }
        assert_eq!(pide(r#"{"temp_min":5}"#).unwrap()[&Variable::TEMPERATURA].max.to_bits(), 35f64.to_bits());
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            "{}",
            r#"{"temperatura":{"min":30,"max":30}}"#,
            r#"{"temp_min":36}"#,
            r#"{"ph":{"min":1,"max":15}}"#,
            r#"{"temperatura":3}"#,
            r#"{"temp_min":{"min":1,"max":2}}"#,
            r#"{"Malo":{"min":1,"max":2}}"#,
        ] {
            assert!(pide(json).is_err(), "{json}");
        }
    }
}
