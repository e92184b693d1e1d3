//! Readings as CSV (RFC 4180), a page at a time: however long the range and however slow the client, one
//! page is held, and no transaction while the client takes it.
//!
//! Fields are moments, numbers and names of variables, none of which ever needs quotes.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::State;
use crate::historia::Rango;
use crate::store::lecturas::{self, Orden, Tira};
use crate::store::{self, Store};

/// Readings in a page.
const PAGINA: i64 = 2_000;

/// Whether CSV is asked for.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|tipo| {
        let (tipo, parametros) = tipo.split_once(';').unwrap_or((tipo, ""));
        tipo.trim().eq_ignore_ascii_case("text/csv") && parametros.trim() != "q=0"
    })
}

/// A CSV answer that is saved under `nombre`.
pub(super) fn response(nombre: &str, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    if let Ok(como) = HeaderValue::try_from(format!("attachment; filename=\"{nombre}.csv\"")) {
        headers.insert(header::CONTENT_DISPOSITION, como);
    }
    response
}

/// A line of fields.
pub(super) fn line(salida: &mut String, campos: &[&str]) {
    for (i, campo) in campos.iter().enumerate() {
        if i > 0 {
            salida.push(',');
        }
        salida.push_str(campo);
    }
    salida.push_str("\r\n");
}

/// What is left to be sent.
struct Resto {
    store: Store,
    id_sensor: i64,
    rango: Rango,
    orden: Orden,
    /// In order.
    columnas: Vec<String>,
    /// Only readings that have this variable, the only column.
    variable: Option<String>,
    lineas: i64,
    /// The names of the columns have not been sent yet.
    cabecera: bool,
}

/// The readings of a range, at most `lineas` of them, under the names of their variables, which are in order.
pub(super) fn readings(
    state: &State,
    id_sensor: i64,
    rango: Rango,
    orden: Orden,
    columnas: Vec<String>,
    variable: Option<String>,
    lineas: Option<i64>,
) -> Body {
    let store = state.parts().store.clone();
    let lineas = lineas.unwrap_or(i64::MAX);
    let resto = Resto { store, id_sensor, rango, orden, columnas, variable, lineas, cabecera: true };
    Body::from_stream(stream::try_unfold(resto, |mut resto| async move {
        // A page without a line of its own (none has the variable) is no end.
        loop {
            match resto.next().await {
                Ok(Some(texto)) if texto.is_empty() => {}
                Ok(Some(texto)) => return Ok(Some((Bytes::from(texto), resto))),
                Ok(None) => return Ok(None),
                Err(e) => {
                    tracing::warn!(error = %e, id_sensor = resto.id_sensor, "an export was cut short");
                    return Err(e);
                }
            }
        }
    }))
}

impl Resto {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> store::Result<Option<String>> {
        let mut salida = String::new();
        if std::mem::take(&mut self.cabecera) {
            let nombres = std::iter::once("timestamp").chain(self.columnas.iter().map(String::as_str));
            line(&mut salida, &nombres.collect::<Vec<_>>());
            return Ok(Some(salida));
        }
        if self.rango.vacio() || self.lineas <= 0 {
            return Ok(None);
        }
        let Rango { desde, antes_de } = self.rango;
        let mut tx = self.store.read().await?;
        let tira = lecturas::tira(&mut tx, self.id_sensor, desde, antes_de, self.orden, PAGINA).await?;
        tx.commit().await?;
        match (tira.extremos, self.orden) {
            (None, _) => return Ok(None),
            (Some((_, ultima)), Orden::Ascendente) => self.rango.desde = ultima.next(),
            (Some((primera, _)), Orden::Descendente) => self.rango.antes_de = primera,
        }
        self.lines(&tira, &mut salida);
        Ok(Some(salida))
    }

    fn lines(&mut self, tira: &Tira, salida: &mut String) {
        for (ts, valores) in tira.iter() {
            if self.lineas <= 0 {
                break;
            }
            let momento = ts.to_string();
            let mut campos = vec![""; 1 + self.columnas.len()];
            campos[0] = &momento;
            for (nombre, valor) in lecturas::pares_texto(valores) {
                // In the order of their names, as `columnas` is.
                if let Ok(i) = self.columnas.binary_search_by(|c| c.as_str().cmp(nombre)) {
                    campos[1 + i] = valor;
                }
            }
            if self.variable.is_some() && campos[1].is_empty() {
                continue;
            }
            line(salida, &campos);
            self.lineas -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_sent_to_who_asks_for_it() {
        let asks = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wanted(&headers)
        };
        for accept in ["text/csv", "Text/CSV; q=0.9", "application/json;q=0.1, text/csv"] {
            assert!(asks(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "text/*", "text/csv;q=0"] {
            assert!(!asks(accept), "{accept}");
        }
        assert!(!wanted(&HeaderMap::new()));
    }
}
