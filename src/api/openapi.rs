//! What every operation of the OpenAPI document says alike: written here once, and not beside each handler.
//!
//! A handler's annotation names what is its own: its summary, its parameters, its answer, and the refusals
//! that mean something special there. What the layers around it can answer, the form of a problem, and the
//! headers that work everywhere are added by [`complete`].

use axum::http::StatusCode;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder, Server,
};

/// What an operation's tag stands for.
const TAGS: [(&str, &str); 16] = [
    ("auth", "Accounts, sign-in and tokens"),
    ("empresas", "The empresa of whoever asks"),
    ("trabajadores", "The people of an empresa, and who is invited"),
    ("asignaciones", "Which worker sees which sensor"),
    ("cultivos", "Crops"),
    ("sensores", "Devices and their credentials"),
    ("lecturas", "What sensors said, and what was refused of it"),
    ("comandos", "What devices are asked to do and set to"),
    ("alertas", "What needs somebody's attention"),
    ("umbrales", "The bounds that readings are held against"),
    ("dashboard", "Figures, counted from data"),
    ("live", "What sensors say, as they say it"),
    ("api-keys", "How programs sign in"),
    ("mqtt", "Who is connected by MQTT"),
    ("auditoria", "Who changed what"),
    ("server", "The server itself"),
];

/// Where one operation is.
struct Place<'a> {
    method: &'static str,
    path: &'a str,
}

impl Place<'_> {
    fn is_api(&self) -> bool {
        self.path.starts_with("/api/v1/")
    }

    fn is_sign_in(&self) -> bool {
        self.path.starts_with("/api/v1/auth/")
    }

    /// See `idempotencia`.
    fn takes_key(&self) -> bool {
        self.method == "post" && self.is_api() && !self.is_sign_in() && self.path != "/api/v1/sensores/data"
    }

    /// See `etag`.
    fn is_conditional(&self) -> bool {
        self.method == "get" && self.is_api() && !self.is_sign_in() && !self.path.ends_with("/live")
    }
}

/// Completes the document.
pub(super) fn complete(openapi: &mut OpenApi) {
    openapi.servers = Some(vec![Server::new("/")]);
    let mut used: Vec<String> = Vec::new();
    for (path, item) in &mut openapi.paths.paths {
        for (method, operation) in operations(item) {
            used.extend(operation.tags.iter().flatten().cloned());
            complete_one(&Place { method, path }, operation);
        }
    }
    let tags = TAGS.iter().filter(|(name, _)| used.iter().any(|u| u == name));
    let tag = |(name, text): &(&str, &str)| TagBuilder::new().name(*name).description(Some(*text)).build();
    openapi.tags = Some(tags.map(tag).collect());
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
        ("patch", &mut item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn complete_one(place: &Place<'_>, operation: &mut Operation) {
    // `list` of one file and `list` of another.
    if let (Some(id), Some(tag)) = (&mut operation.operation_id, operation.tags.iter().flatten().next()) {
        *id = format!("{tag}_{id}");
    }
    // `security(())` is what an operation for everybody says.
    let everybody = SecurityRequirement::default();
    let signed = operation.security.as_ref().is_none_or(|ways| !ways.contains(&everybody));
    let body = operation.request_body.is_some();
    let mut can = |condition: bool, status: u16, text: &str| {
        let responses = &mut operation.responses.responses;
        if condition && !responses.contains_key(&status.to_string()) {
            let response = ResponseBuilder::new().description(text).build();
            responses.insert(status.to_string(), RefOr::T(response));
        }
    };
    can(body || place.takes_key(), 400, "Not JSON, or an `Idempotency-Key` that is not visible ASCII");
    can(signed, 401, "Not signed in");
    can(place.path.contains('{'), 404, "There is no such thing, or it is not yours to see");
    can(place.takes_key(), 409, "The request before with this `Idempotency-Key` is being carried out");
    can(body, 413, "The body is too large");
    can(body, 415, "The body is not `application/json`");
    can(
        body || place.takes_key(),
        422,
        "Fields are wrong, or the `Idempotency-Key` was used with another body",
    );
    can(place.is_api() || place.path == "/", 429, "Too many requests");
    can(true, 500, "The server failed; it has been logged");
    can(place.is_api(), 503, "Not now; try again in a few seconds");
    can(place.is_conditional(), 304, "Nothing has changed since the `ETag` in `If-None-Match`");
    for (status, response) in &mut operation.responses.responses {
        let (Ok(status), RefOr::T(response)) = (status.parse(), response) else { continue };
        complete_response(place, status, response);
    }
    let parameters = operation.parameters.get_or_insert_default();
    for parameter in parameters.iter_mut() {
        let RefOr::T(parameter) = parameter else { continue };
        if parameter.parameter_in == ParameterIn::Path && parameter.description.is_none() {
            parameter.description = Some("The key of the thing that the path names".to_owned());
        }
    }
    if place.takes_key() {
        let text = "Names this request: sent again with the same body within 24 hours (of an account's newest 1,000 \
                    keys), it is not carried out again, and answered as it was (`Idempotency-Replayed: true`).";
        let key = ObjectBuilder::new().min_length(Some(1)).max_length(Some(255)).pattern(Some("^[!-~]+$"));
        parameters.push(RefOr::T(header("Idempotency-Key", text, key)));
    }
    if place.is_conditional() {
        let text = "An `ETag`: what has not changed is not sent again.";
        parameters.push(RefOr::T(header("If-None-Match", text, ObjectBuilder::new())));
    }
}

fn complete_response(place: &Place<'_>, status: u16, response: &mut Response) {
    let code = StatusCode::from_u16(status).ok();
    if response.description.is_empty() {
        let reason = code.and_then(|c| c.canonical_reason());
        reason.unwrap_or("Answer").clone_into(&mut response.description);
    }
    if status >= 400 && response.content.is_empty() {
        response.content.insert("application/problem+json".to_owned(), RefOr::T(problem()));
    }
    if matches!(status, 429 | 503) && place.is_api() {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait")).build();
        response.headers.insert("Retry-After".to_owned(), RefOr::T(header));
    }
}

fn problem() -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build()
}

fn header(name: &str, text: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(schema.schema_type(Type::String).build()))
        .build()
}
