//! What every operation of the OpenAPI document says alike: written here once, and not beside each handler.
//!
//! A handler's annotation names what is its own: its summary, its parameters, its answer, and the refusals
//! that mean something special there. What the layers around it can answer, the form of a problem, and the
//! headers that work everywhere are added by [`complete`], and so is what each shape looks like filled in
//! (`examples.json`: what the server answered, made to read well).

use axum::http::StatusCode;
use serde_json::{Map, Value};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{Schema, Type};
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

/// What makes a thing that paths name, or lists it: method, path, status, the parameter, and where the answer has it.
/// From there a link leads to every operation on it.
const MAKERS: [(&str, &str, &str, &str, &str); 7] = [
    ("post", "/api/v1/sensores", "201", "id_sensor", "$response.body#/sensor/id_sensor"),
    ("post", "/api/v1/cultivos", "201", "id_cultivo", "$response.body#/id_cultivo"),
    ("post", "/api/v1/trabajadores", "201", "id_trabajador", "$response.body#/id_trabajador"),
    ("post", "/api/v1/trabajadores/invitaciones", "201", "id_invitacion", "$response.body#/id_invitacion"),
    ("post", "/api/v1/asignaciones", "201", "id_asignacion", "$response.body#/id_asignacion"),
    ("post", "/api/v1/api-keys", "201", "id_api_key", "$response.body#/id_api_key"),
    ("get", "/api/v1/alertas", "200", "id_alerta", "$response.body#/0/id_alerta"),
];

/// An example of each shape that is answered, and of those that are asked with in one of several forms, by its name in
/// the document. One empresa's day: what is named in two of them is the same thing.
const EXAMPLES: &str = include_str!("examples.json");

/// Several shapes under one name, more than one of which may be met: no `oneOf`, as is derived.
macro_rules! any_of {
    ($vis:vis $any:ident, $name:literal, $($shape:ty),+) => {
        #[doc = concat!("`", $name, "` in the document.")]
        $vis struct $any;

        impl utoipa::ToSchema for $any {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                $(schemas.push((<$shape>::name().into_owned(), <$shape as utoipa::PartialSchema>::schema()));
                <$shape as utoipa::ToSchema>::schemas(schemas);)+
            }
        }

        impl utoipa::PartialSchema for $any {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::schema::AnyOfBuilder::new()
                    $(.item(utoipa::openapi::Ref::from_schema_name(<$shape as utoipa::ToSchema>::name())))+
                    .into()
            }
        }
    };
}
pub(super) use any_of;

/// A member of a schema that the library has no place for: what it calls extensions is written as it is.
pub(super) fn member(name: &str, value: Value) -> Extensions {
    [(name, value)].into_iter().collect()
}

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

    /// See `etag`. A sensor's tag is of what people set of it: what it said is always sent.
    fn is_conditional(&self) -> bool {
        self.method == "get"
            && self.is_api()
            && !self.is_sign_in()
            && !self.path.ends_with("/live")
            && self.path != "/api/v1/sensores/{id_sensor}"
    }

    /// What can be changed with `If-Match` is answered with the tag for it.
    fn is_guarded(&self) -> bool {
        match self.method {
            "get" => self.path == "/api/v1/sensores/{id_sensor}" || self.path.ends_with("/umbrales"),
            "patch" => self.path == "/api/v1/sensores/{id_sensor}",
            "put" => self.path.ends_with("/umbrales") || self.path.ends_with("/umbrales/{variable}"),
            _ => false,
        }
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
    link(openapi);
    show(openapi);
}

/// Puts each of [`EXAMPLES`] to the shape of its name. That all of them find it, a test says.
fn show(openapi: &mut OpenApi) {
    let Some(components) = &mut openapi.components else { return };
    for (name, value) in serde_json::from_str::<Map<String, Value>>(EXAMPLES).unwrap_or_default() {
        if let Some(example) = components.schemas.get_mut(&name).and_then(example) {
            *example = Some(value);
        }
    }
}

/// Where a schema's example is written.
fn example(schema: &mut RefOr<Schema>) -> Option<&mut Option<Value>> {
    let RefOr::T(schema) = schema else { return None };
    match schema {
        Schema::Array(schema) => Some(&mut schema.example),
        Schema::Object(schema) => Some(&mut schema.example),
        Schema::OneOf(schema) => Some(&mut schema.example),
        Schema::AllOf(schema) => Some(&mut schema.example),
        Schema::AnyOf(schema) => Some(&mut schema.example),
        _ => None,
    }
}

/// Leads from what makes a thing to the operations on it; see [`MAKERS`].
fn link(openapi: &mut OpenApi) {
    let mut ids = Vec::new();
    for (path, item) in &mut openapi.paths.paths {
        for (_, operation) in operations(item) {
            ids.push((path.clone(), operation.operation_id.clone().unwrap_or_default()));
        }
    }
    for (path, item) in &mut openapi.paths.paths {
        for (method, operation) in operations(item) {
            for (_, _, status, parameter, at) in MAKERS.iter().filter(|m| (m.0, m.1) == (method, path)) {
                let Some(RefOr::T(response)) = operation.responses.responses.get_mut(*status) else {
                    continue;
                };
                let named = format!("{{{parameter}}}");
                // Of what was just made there is no second factor.
                for (_, id) in
                    ids.iter().filter(|(path, _)| path.contains(&named) && !path.ends_with("/totp"))
                {
                    let link = LinkBuilder::new().operation_id(id).parameter(*parameter, *at).build();
                    response.links.insert(id.clone(), RefOr::T(link));
                }
            }
        }
    }
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
    let device = operation
        .security
        .iter()
        .flatten()
        .any(|way| *way == SecurityRequirement::new("device", Vec::<String>::new()));
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
    can(signed && !device, 403, "Not for an API key, or for an account without a profile");
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
    can(place.is_api() && !device, 502, "Whoever keeps the passwords failed, or cannot be trusted");
    can(place.is_api(), 503, "Not now; try again in a few seconds");
    can(place.is_conditional(), 304, "Nothing has changed since the `ETag` in `If-None-Match`");
    for (status, response) in &mut operation.responses.responses {
        let (Ok(status), RefOr::T(response)) = (status.parse(), response) else { continue };
        complete_response(place, status, response);
    }
    let parameters = operation.parameters.get_or_insert_default();
    for parameter in parameters.iter_mut() {
        let RefOr::T(parameter) = parameter else { continue };
        if let (None, Some(RefOr::T(Schema::Object(schema)))) =
            (&parameter.description, &mut parameter.schema)
        {
            parameter.description = schema.description.take();
        }
        if parameter.parameter_in == ParameterIn::Path && parameter.description.is_none() {
            parameter.description = Some("The key of the thing that the path names".to_owned());
        }
        if let (ParameterIn::Path, Some(RefOr::T(Schema::Object(schema)))) =
            (&parameter.parameter_in, &mut parameter.schema)
            && schema.schema_type == Type::Integer.into()
        {
            schema.minimum = Some(1.into());
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
    let list = response.headers.contains_key("x-total-count");
    let ok = (200..300).contains(&status);
    let mut says = |condition: bool, name: &str, kind: Type, text: &str| {
        if condition && !response.headers.contains_key(&name.to_ascii_lowercase()) {
            let schema = ObjectBuilder::new().schema_type(kind);
            let header = HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build();
            response.headers.insert(name.to_owned(), RefOr::T(header));
        }
    };
    says(matches!(status, 429 | 503) && place.is_api(), "Retry-After", Type::Integer, "Seconds to wait");
    says(status == 401, "WWW-Authenticate", Type::String, "How to sign in");
    says(list, "Link", Type::String, "The next page, `rel=\"next\"`; absent on the last");
    let tagged = place.is_conditional() && matches!(status, 200 | 304) || place.is_guarded() && status == 200;
    let text = if place.is_guarded() { "For `If-Match`, before a change" } else { "For `If-None-Match`" };
    says(tagged, "ETag", Type::String, text);
    let replayed = "`true`: the answer of before to the same `Idempotency-Key`";
    says(place.takes_key() && ok, "Idempotency-Replayed", Type::String, replayed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_shown_by_the_shape_of_its_name() {
        let examples: Map<String, Value> = serde_json::from_str(EXAMPLES).expect("an object");
        assert!(!examples.is_empty());
        let mut schemas = crate::api::openapi().components.expect("components").schemas;
        for (name, value) in examples {
            let shown = schemas.get_mut(&name).and_then(example);
            assert_eq!(shown.and_then(Option::take), Some(value), "{name}");
        }
    }
}
