//! Readings as they were measured.

use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::super::extract::momento;
use super::super::problem::Problem;
use super::super::shapes::LecturaBody;
use super::super::{State, csv as texto, paging};
use super::{Range, nombre, too_many};
use crate::domain::{Timestamp, Valores, Variable};
use crate::historia::{self, Rango};
use crate::store::lecturas::Orden;
use crate::store::sensores::Sensor;
use crate::store::{self, Tx};

/// All of the range as CSV, a page at a time, each from a transaction of its own.
pub(super) async fn csv(
    state: &State,
    mut tx: Tx,
    sensor: &Sensor,
    query: &Range,
    variable: Option<Variable>,
    limit: Option<i64>,
) -> Result<Response, Problem> {
    let id = sensor.quien.id_sensor;
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
    let body = texto::readings(state, id, rango, orden, columnas, variable, limit);
    Ok(texto::response(&nombre(sensor, "lecturas"), body))
}

/// A page, with `Link` to the next one.
pub(super) async fn json(
    mut tx: Tx,
    id: i64,
    query: &Range,
    variable: Option<&Variable>,
    limit: i64,
    uri: &Uri,
) -> Result<Response, Problem> {
    let pagina = page(&mut tx, id, query, variable, limit).await?;
    tx.commit().await?;
    let mut response = axum::Json(&pagina.lecturas).into_response();
    let ultima = pagina.lecturas.last().filter(|_| pagina.hay_mas);
    if let Some(enlace) = ultima.and_then(|l| paging::next(uri, &paging::cursor(l.timestamp))) {
        response.headers_mut().insert(header::LINK, enlace);
    }
    Ok(response)
}

struct Pagina {
    lecturas: Vec<LecturaBody>,
    hay_mas: bool,
}

async fn page(
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
