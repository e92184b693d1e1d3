//! Routes as the OpenAPI document knows them: with that document, for whoever wants to read it, or without it, for
//! whoever serves them. While it is put together it takes ten megabytes, which an idle server would keep.

use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::State;

/// Routes under way, in the order in which they are added.
pub(super) struct Routes {
    inner: OpenApiRouter<State>,
    documented: bool,
}

impl Routes {
    /// None yet; `documented` = what is said of them is kept.
    pub(super) fn new(openapi: OpenApi, documented: bool) -> Self {
        Self { inner: OpenApiRouter::with_openapi(openapi), documented }.forget()
    }

    /// Those of one path, by `routes!`.
    pub(super) fn routes(self, of_one_path: UtoipaMethodRouter<State>) -> Self {
        Self { inner: self.inner.routes(of_one_path), ..self }.forget()
    }

    /// `inner` under `path`.
    pub(super) fn nest(self, path: &str, inner: Self) -> Self {
        Self { inner: self.inner.nest(path, inner.inner), ..self }.forget()
    }

    fn forget(mut self) -> Self {
        if !self.documented {
            *self.inner.get_openapi_mut() = OpenApi::default();
        }
        self
    }

    /// The routes, and what is said of them.
    pub(super) fn into_parts(self) -> (axum::Router<State>, OpenApi) {
        self.inner.split_for_parts()
    }
}
