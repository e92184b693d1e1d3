//! What the OpenAPI document must say of every operation, and that no two shapes of it share a name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

fn document() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json"));
    serde_json::from_str(&text.expect("it is there")).expect("JSON")
}

/// The name under which the schema that begins at `lines[0]` (its derive) is in the document, and which type it is.
fn named(lines: &[&str]) -> Option<(String, String)> {
    let mut name = None;
    for line in lines.iter().skip(1).take(12) {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if line.trim_start().starts_with("#[schema(as =") {
            name = words.iter().skip_while(|w| **w != "as").find(|w| !w.is_empty() && **w != "as").copied();
        }
        if let Some(at) = words.iter().position(|w| matches!(*w, "struct" | "enum")) {
            let own = words[at + 1];
            return Some((name.unwrap_or(own).to_owned(), own.to_owned()));
        }
    }
    None
}

#[test]
fn no_two_shapes_share_a_name_in_the_document() {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dir in ["src/api", "src/api/auth", "src/api/historial", "src/api/live", "src/domain"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        for file in std::fs::read_dir(dir).expect("a directory").flatten().map(|e| e.path()) {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            for at in (0..lines.len()).filter(|at| lines[*at].contains("ToSchema)]")) {
                let (name, own) = named(&lines[at..]).expect("a type");
                names.entry(name).or_default().push(format!("{own} of {}", file.display()));
            }
            // Written by hand: `fn name() -> … { "Name".into() }`, or by `any_of!(…, "Name", …)`.
            for (at, line) in lines.iter().enumerate() {
                let by_hand =
                    line.contains("any_of!(") || at > 0 && lines[at - 1].contains("fn name() -> Cow");
                if let Some(name) = line.split('"').nth(1).filter(|_| by_hand) {
                    names.entry(name.to_owned()).or_default().push(format!(
                        "line {} of {}",
                        at + 1,
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(names.len() > 30, "{names:?}");
    let shared: Vec<_> = names.iter().filter(|(_, types)| types.len() > 1).collect();
    assert!(shared.is_empty(), "the last would be described for all; add #[schema(as = …)]: {shared:#?}");
}

#[test]
fn every_operation_has_a_summary_examples_of_what_it_takes_and_answers_and_the_form_of_its_refusals() {
    let document = document();
    let mut lacking = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let mut lacks = |what: &str| lacking.push(format!("{method} {path}: {what}"));
            if operation["summary"].as_str().is_none_or(str::is_empty) {
                lacks("a summary");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or_default();
                if parameter["description"].as_str().is_none_or(str::is_empty) {
                    lacks(&format!("a description of {name}"));
                }
            }
            for content in
                operation["requestBody"]["content"].as_object().into_iter().flatten().map(|(_, c)| c)
            {
                if !is_shown(&document, content) {
                    lacks("an example of its body");
                }
            }
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let refusal = status.starts_with(['4', '5']);
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                if status.starts_with('2')
                    && response["content"].get("application/json").is_some_and(|c| !is_shown(&document, c))
                {
                    lacks(&format!("an example of {status}"));
                }
                if refusal && problem != "#/components/schemas/Problem" {
                    lacks(&format!("the form of {status}"));
                }
            }
            if operation["responses"].get("500").is_none() {
                lacks("500");
            }
        }
    }
    assert!(lacking.is_empty(), "{lacking:#?}");
}

/// Whether an example is shown of what is asked or answered: beside it, of its schema, or of its items'.
fn is_shown(document: &Value, content: &Value) -> bool {
    let schema = &content["schema"];
    has_example(document, content) || has_example(document, schema) || has_example(document, &schema["items"])
}

/// Whether a schema, or what it refers to, has one of the whole of it: those of its parts show no answer.
fn has_example(document: &Value, schema: &Value) -> bool {
    let referred = schema["$ref"].as_str().and_then(|r| document.pointer(r.trim_start_matches('#')));
    schema.get("example").is_some()
        || schema.get("examples").is_some()
        || referred.is_some_and(|s| has_example(document, s))
}
