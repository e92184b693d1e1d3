//! The empresa of whoever asks.

use axum::extract::State as Shared;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::State;
use super::extract::{Entero, Json, Sesion, dado, presente};
use super::finish::to_its_end;
use super::problem::Problem;
use super::validate::Check;
use crate::domain::Timestamp;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::empresas::{self, Ficha};

/// An empresa.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Empresa)]
pub(super) struct EmpresaBody {
    id_empresa: i64,
    ruc: String,
    razon_social: String,
    email: Option<String>,
    telefono: Option<String>,
    /// Days that its readings are kept; null = as long as the installation keeps any.
    retencion_dias: Option<i64>,
    /// Days that its hourly figures are kept; null = as long as the installation keeps any.
    retencion_horas_dias: Option<i64>,
    fecha_creacion: Timestamp,
}

impl From<Ficha> for EmpresaBody {
    fn from(f: Ficha) -> Self {
        Self {
            id_empresa: f.id_empresa,
            ruc: f.ruc,
            razon_social: f.razon_social,
            email: f.email,
            telefono: f.telefono,
            retencion_dias: f.retencion_dias,
            retencion_horas_dias: f.retencion_horas_dias,
            fecha_creacion: Timestamp::clamped(f.creada),
        }
    }
}

/// What to change; absent stays, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = EmpresaCambio, example = json!({ "telefono": "014445566", "retencion_dias": 365 }))]
pub(super) struct Patch {
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    razon_social: Option<String>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, format = Email, max_length = 254)]
    email: Option<Option<String>>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    telefono: Option<Option<String>>,
    /// Readings older than this are removed for good, their hourly figures stay. More than the
    /// installation's own days has no effect.
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 36_500)]
    retencion_dias: Option<Option<Entero>>,
    /// Hourly figures older than this are removed for good.
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 36_500)]
    retencion_horas_dias: Option<Option<Entero>>,
}

/// The empresa.
#[utoipa::path(get, path = "/empresas/me", tag = "empresas",
    responses((status = 200, body = EmpresaBody),
        (status = 403, description = "Belongs to no empresa")))]
pub(super) async fn get(Shared(state): Shared<State>, sesion: Sesion) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.alcance()?.id_empresa;
    let mut tx = state.parts().store.read().await?;
    let ficha = empresas::get(&mut tx, id_empresa).await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(axum::Json(EmpresaBody::from(ficha)))
}

/// Change the empresa.
#[utoipa::path(patch, path = "/empresas/me", tag = "empresas", request_body = Patch,
    responses((status = 200, body = EmpresaBody),
        (status = 403, description = "Not an administrator")))]
pub(super) async fn patch(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(p): Json<Patch>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    Ok(axum::Json(to_its_end(&state, change(state.clone(), sesion.1, id_empresa, p)).await?))
}

async fn change(state: State, autor: Autor, id_empresa: i64, p: Patch) -> Result<EmpresaBody, Problem> {
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    let antes = empresas::get(&mut tx, id_empresa).await?.ok_or_else(Problem::not_found)?;
    let ficha = antes.clone();
    let ficha = Ficha {
        razon_social: p.razon_social.unwrap_or(ficha.razon_social),
        email: p.email.unwrap_or(ficha.email),
        telefono: p.telefono.unwrap_or(ficha.telefono),
        retencion_dias: p.retencion_dias.map_or(ficha.retencion_dias, |dado| dado.map(|n| n.0)),
        retencion_horas_dias: p
            .retencion_horas_dias
            .map_or(ficha.retencion_horas_dias, |dado| dado.map(|n| n.0)),
        ..ficha
    };
    check(&ficha)?;
    empresas::update(&mut tx, &ficha).await?;
    let (antes, ficha) = (EmpresaBody::from(antes), EmpresaBody::from(ficha));
    autor.anota(&mut tx, &Hecho::cambiado("empresa", id_empresa, &antes, &ficha)).await?;
    tx.commit().await?;
    // What is older is refused from now on, and not taken only to be forgotten.
    parts.ingest.recargar_retenciones().await?;
    Ok(ficha)
}

fn check(ficha: &Ficha) -> Result<(), Problem> {
    let mut check = Check::default();
    check.text("razon_social", &ficha.razon_social);
    if let Some(email) = &ficha.email {
        check.email("email", email);
    }
    if let Some(telefono) = &ficha.telefono {
        check.text("telefono", telefono);
    }
    for (campo, dias) in
        [("retencion_dias", ficha.retencion_dias), ("retencion_horas_dias", ficha.retencion_horas_dias)]
    {
        let good = dias.is_none_or(|d| (1..=36_500).contains(&d));
        check.that(good, campo, "De 1 a 36500 días.", "From 1 to 36,500 days.");
    }
    check.done()
}
