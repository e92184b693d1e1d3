//! Who is connected by MQTT, who was, and who is not let in. An administrator sees the devices and the
//! people of their empresa; the operador sees everybody's connections, and nobody's data.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{OriginalUri, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::extract::{Pagina, Path, Query, Sesion};
use super::finish::to_its_end;
use super::problem::Problem;
use super::{State, paging};
use crate::domain::{Rol, Timestamp};
use crate::realtime::clientes::{Cliente, Clientes, Fallo, Quien};
use crate::store::auditoria::Hecho;

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ClienteMqttTipo)]
enum Tipo {
    Dispositivo,
    Usuario,
    /// A program with an API key.
    Integracion,
    Anonimo,
    /// Not let in under any name that is known.
    Desconocido,
}

/// A client: connected, or the last that is known of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ClienteMqtt)]
pub(super) struct Body {
    /// The connection's number, for `DELETE`; null when it is not connected.
    id: Option<u64>,
    tipo: Tipo,
    conectado: bool,
    client_id: Option<String>,
    /// The `device_id`, or the name that was given by somebody who was not let in.
    device_id: Option<String>,
    id_sensor: Option<i64>,
    user_id: Option<String>,
    #[schema(value_type = Option<String>)]
    ip: Option<IpAddr>,
    /// `tcp`, `tls` or `websocket`.
    via: Option<&'static str>,
    /// `3.1.1` or `5.0`.
    version: Option<&'static str>,
    keep_alive: Option<u16>,
    desde: Option<Timestamp>,
    hasta: Option<Timestamp>,
    mensajes_recibidos: u64,
    mensajes_enviados: u64,
    mensajes_rechazados: u64,
    bytes_recibidos: u64,
    bytes_enviados: u64,
    /// Why its last connection ended, unless it took leave; or why it is not let in.
    ultimo_error: Option<LastError>,
}

/// What went wrong last.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ClienteMqttError)]
pub(super) struct LastError {
    motivo: String,
    momento: Timestamp,
    #[schema(value_type = String)]
    ip: IpAddr,
    /// How many times in a row.
    veces: u64,
}

impl From<Fallo> for LastError {
    fn from(f: Fallo) -> Self {
        Self { motivo: f.motivo, momento: f.momento, ip: f.ip, veces: f.veces }
    }
}

impl Body {
    fn new(c: &Cliente) -> Self {
        let n = |cuenta: &AtomicU64| cuenta.load(Ordering::Relaxed);
        let (tipo, device_id, id_sensor, user_id) = match &c.quien {
            Quien::Dispositivo(s) => {
                (Tipo::Dispositivo, Some(s.device_id.to_string()), Some(s.id_sensor), None)
            }
            Quien::Usuario { user_id, .. } => (Tipo::Usuario, None, None, Some(user_id.clone())),
            Quien::Llave { .. } => (Tipo::Integracion, None, None, None),
            Quien::Anonimo => (Tipo::Anonimo, None, None, None),
        };
        Self {
            id: Some(c.numero),
            tipo,
            conectado: true,
            client_id: Some(c.client_id.clone()),
            device_id,
            id_sensor,
            user_id,
            ip: Some(c.ip),
            via: Some(c.via),
            version: Some(c.version),
            keep_alive: Some(c.keep_alive),
            desde: Some(c.desde),
            hasta: None,
            mensajes_recibidos: n(&c.cuentas.recibidos),
            mensajes_enviados: n(&c.cuentas.enviados),
            mensajes_rechazados: n(&c.cuentas.rechazados),
            bytes_recibidos: n(&c.cuentas.bytes_recibidos),
            bytes_enviados: n(&c.cuentas.bytes_enviados),
            ultimo_error: None,
        }
    }

    /// Somebody who was never let in.
    fn failed(tipo: Tipo, usuario: String, id_sensor: Option<i64>, fallo: Fallo) -> Self {
        Self {
            id: None,
            tipo,
            conectado: false,
            client_id: None,
            device_id: Some(usuario),
            id_sensor,
            user_id: None,
            ip: None,
            via: None,
            version: None,
            keep_alive: None,
            desde: None,
            hasta: None,
            mensajes_recibidos: 0,
            mensajes_enviados: 0,
            mensajes_rechazados: 0,
            bytes_recibidos: 0,
            bytes_enviados: 0,
            ultimo_error: Some(fallo.into()),
        }
    }
}

/// Whose connections `sesion` may see: everybody's, or those of one empresa.
fn scope(sesion: &Sesion) -> Result<Option<i64>, Problem> {
    match sesion.0.rol {
        Rol::Operador => Ok(None),
        _ => sesion.admin().map(Some),
    }
}

fn visible(quien: &Quien, scope: Option<i64>) -> bool {
    let Some(id_empresa) = scope else { return true };
    match quien {
        Quien::Dispositivo(s) => s.id_empresa == id_empresa,
        Quien::Usuario { id_empresa: suya, .. } => *suya == Some(id_empresa),
        Quien::Llave { id_empresa: suya, .. } => *suya == id_empresa,
        Quien::Anonimo => false,
    }
}

/// Narrows the list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only those connected, or only those that are not.
    conectado: Option<bool>,
    /// Only this device.
    #[param(pattern = r"^[^\x00]*$")]
    device_id: Option<String>,
}

/// Who is connected by MQTT, the last that is known of those who are not, and who is not let in and
/// why. Since the server's start.
#[utoipa::path(get, path = "/mqtt/clientes", tag = "mqtt", params(Filters, Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not an administrator"), (status = 422, description = "limit or skip out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let hoja = pagina.hoja()?;
    let scope = scope(&sesion)?;
    let mut all = everybody(&state, &state.parts().clientes, scope);
    all.retain(|b| {
        filters.conectado.is_none_or(|c| b.conectado == c)
            && filters.device_id.as_ref().is_none_or(|d| b.device_id.as_ref() == Some(d))
    });
    let total = i64::try_from(all.len()).unwrap_or(i64::MAX);
    // They have no key that outlives them: here a cursor is a place in the list.
    let numbered = (1_i64..).zip(all).filter(|(n, _)| *n > hoja.despues.unwrap_or_default());
    let page = |n: i64| usize::try_from(n).unwrap_or_default();
    let found: Vec<(i64, Body)> = numbered.skip(page(hoja.skip)).take(page(hoja.limit) + 1).collect();
    Ok(paging::list(&uri, hoja, (found, total), |(n, _)| *n, |(_, body)| body))
}

fn everybody(state: &State, clientes: &Clientes, scope: Option<i64>) -> Vec<Body> {
    let vivos = clientes.vivos();
    let mut all: Vec<Body> =
        vivos.iter().filter(|c| visible(&c.quien, scope)).map(|c| Body::new(c)).collect();
    for ido in clientes.idos() {
        if visible(&ido.cliente.quien, scope) {
            let (momento, ip) = (ido.hasta, ido.cliente.ip);
            let error = ido.motivo.map(|motivo| LastError { motivo, momento, ip, veces: 1 });
            let last = Body { id: None, conectado: false, hasta: Some(ido.hasta), ..Body::new(&ido.cliente) };
            all.push(Body { ultimo_error: error, ..last });
        }
    }
    for (usuario, fallo) in clientes.fallos() {
        let sensor = state.parts().directorio.sensor(&usuario);
        if scope.is_some_and(|id| sensor.as_ref().is_none_or(|s| s.id_empresa != id)) {
            continue;
        }
        // The failure is the newest that is known of a device: beside its connections, if it has any.
        if let Some(known) = all.iter_mut().find(|b| b.device_id.as_ref() == Some(&usuario)) {
            known.ultimo_error = Some(fallo.into());
        } else {
            let tipo = if sensor.is_some() { Tipo::Dispositivo } else { Tipo::Desconocido };
            all.push(Body::failed(tipo, usuario, sensor.map(|s| s.id_sensor), fallo));
        }
    }
    all
}

/// Disconnect a client (MQTT 5 is told 0x98). It may connect again; to keep a device out, revoke its
/// credential.
#[utoipa::path(delete, path = "/mqtt/clientes/{id}", tag = "mqtt", params(("id" = u64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such connection")))]
pub(super) async fn disconnect(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<u64>,
) -> Result<StatusCode, Problem> {
    let scope = scope(&sesion)?;
    let cliente = state.parts().clientes.vivo(id).filter(|c| visible(&c.quien, scope));
    let cliente = cliente.ok_or_else(Problem::not_found)?;
    let mut autor = sesion.1;
    // Of the empresa whose it is, whoever cuts it off.
    match &cliente.quien {
        Quien::Dispositivo(s) => autor.id_empresa = Some(s.id_empresa),
        Quien::Usuario { id_empresa: Some(id), .. } | Quien::Llave { id_empresa: id, .. } => {
            autor.id_empresa = Some(*id);
        }
        Quien::Usuario { .. } | Quien::Anonimo => {}
    }
    let cut_off = state.clone();
    let work = async move {
        let mut tx = cut_off.parts().store.write().await?;
        autor.anota(&mut tx, &Hecho::nuevo("desconectar", "cliente_mqtt", &cliente.client_id)).await?;
        tx.commit().await?;
        tracing::info!(client_id = cliente.client_id, por = sesion.0.user_id, "a client is disconnected");
        cliente.corte.cancel();
        Ok(StatusCode::NO_CONTENT)
    };
    to_its_end(&state, work).await
}
