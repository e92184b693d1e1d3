//! The console: the page at `/` by which an installer sees that everything works. It is plain HTML, CSS and modules of
//! JavaScript in this binary, and a client of the API like any other: nothing is served here that the API does not say
//! (`docs/decisions/0018-console.md`).

use axum::Extension;
use axum::Router;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::State;
use super::etag::{Tag, Whole};

/// Where what the page is made of is.
const PATH: &str = "/consola";

/// What the page may load: what is beside it. It may be framed by nobody, and no form of it is sent anywhere.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const PAGINA: &str = include_str!("consola/pagina.html");

/// A file of the page: its name, what it is, and its text.
type Fichero = (&'static str, &'static str, &'static str);

macro_rules! ficheros {
    ($($name:literal: $kind:ident),+ $(,)?) => { [$(($name, $kind, include_str!(concat!("consola/", $name)))),+] };
}

/// What the page is made of.
const FICHEROS: [Fichero; 21] = ficheros![
    "estilo.css": CSS,
    "icono.svg": SVG,
    "inicio.js": JS,
    "alertas.js": JS,
    "alta.js": JS,
    "api.js": JS,
    "conexiones.js": JS,
    "dom.js": JS,
    "entrada.js": JS,
    "formato.js": JS,
    "grafico.js": JS,
    "historia.js": JS,
    "planta.js": JS,
    "porques.js": JS,
    "sensor.js": JS,
    "sensores.js": JS,
    "servidor.js": JS,
    "sesion.js": JS,
    "textos.js": JS,
    "variables.js": JS,
    "vivo.js": JS,
];

/// The files of the page, each with a tag of its own: a browser asks whether they are still the same.
pub(super) fn assets() -> Router<State> {
    FICHEROS.into_iter().fold(Router::new(), |routes, (name, kind, text)| {
        routes.route(&format!("{PATH}/{name}"), get(async move || kept(kind, text)))
    })
}

/// The page.
pub(super) fn page() -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY)];
    (policy, kept(HTML, PAGINA)).into_response()
}

/// An answer that a browser keeps, and asks about before it shows it again: a page of one version never runs with the
/// scripts of another. Nothing of it is looked at before somebody asks: most servers are never asked.
fn kept(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (Extension(Whole), Tag::of(&text).weak(), headers, text).into_response()
}

/// Whether whoever asks would rather have a page than JSON (RFC 9110 section 12.5.1): a browser says so, and what takes
/// anything is a program.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
    let (mut html, mut json) = (Quality::default(), Quality::default());
    for range in accept.flat_map(|text| text.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let quality = quality.map_or(1.0, |q| q.parse().unwrap_or(0.0));
        html.hears(&kind, ["text/html", "text/*"], quality);
        json.hears(&kind, ["application/json", "application/*"], quality);
    }
    html.value > json.value
}

/// How much one media type is wanted: what names it most closely counts.
#[derive(Default)]
struct Quality {
    closeness: u8,
    value: f32,
}

impl Quality {
    fn hears(&mut self, kind: &str, [exact, family]: [&str; 2], value: f32) {
        let closeness = match kind {
            k if k == exact => 3,
            k if k == family => 2,
            "*/*" => 1,
            _ => return,
        };
        if closeness > self.closeness {
            *self = Self { closeness, value };
        }
    }
}

#[cfg(test)]
mod tests;
