//! What docs/openapi.json says that an operation may answer: whoever asks for something in a test is answered one of
//! those, or the test fails.

use std::sync::OnceLock;

use serde_json::Value;

/// The document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json"));
        serde_json::from_str(&text.expect("it is there")).expect("JSON")
    })
}

/// Whether `path` is one of those that `template` stands for.
fn matches(template: &str, path: &str) -> bool {
    let (mut names, mut parts) = (template.split('/'), path.trim_end_matches('/').split('/'));
    loop {
        match (names.next(), parts.next()) {
            (None, None) => return true,
            (Some(name), Some(part)) if name == part || name.starts_with('{') && !part.is_empty() => {}
            _ => return false,
        }
    }
}

/// Fails the test when the operation is documented and this status of it is not.
pub fn check(method: &str, path: &str, status: u16) {
    let path = path.split('?').next().unwrap_or_default();
    let paths = document()["paths"].as_object().expect("paths");
    // `/sensores/live` before `/sensores/{id_sensor}`.
    let fixed = |template: &&String| template.matches('{').count();
    let Some(template) = paths.keys().filter(|t| matches(t, path)).min_by_key(fixed) else { return };
    let Some(operation) = paths[template].get(method.to_lowercase()) else { return };
    let documented = operation["responses"].get(status.to_string()).is_some();
    assert!(documented, "{method} {template} answers {status}, which docs/openapi.json does not say");
}
