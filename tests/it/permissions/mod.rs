//! Every route, asked by everybody: the table in [`table`] is what is expected, what `docs/permissions.md`
//! says, and complete.

mod site;
mod table;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

pub use site::Site;
use table::{ROUTES, Route};

/// Who asks, those first who may do the least: what a request changes must not stand in the way of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Nobody,
    Expired,
    Key,
    Operator,
    Other,
    Unassigned,
    Assigned,
    Supervisor,
    Admin,
}

impl Caller {
    const ALL: [Self; 9] = [
        Self::Nobody,
        Self::Expired,
        Self::Key,
        Self::Operator,
        Self::Other,
        Self::Unassigned,
        Self::Assigned,
        Self::Supervisor,
        Self::Admin,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Nobody => "no token",
            Self::Expired => "expired token",
            Self::Key => "API key without scope",
            Self::Operator => "operador",
            Self::Other => "admin of another empresa",
            Self::Unassigned => "worker, not assigned",
            Self::Assigned => "worker, assigned",
            Self::Supervisor => "supervisor",
            Self::Admin => "admin",
        }
    }
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/permissions.md");
/// Set, the test writes the document instead of comparing it.
const WRITE: &str = "ALERTRACE_WRITE_DOCS";

#[tokio::test]
async fn every_route_answers_everybody_as_the_table_says() {
    let mut site = Site::start().await;
    let mut wrong = Vec::new();
    for route in ROUTES {
        site.forget();
        for caller in Caller::ALL {
            let expected = route.who.answers(caller, route.ok);
            let status = site.ask(route, caller).await;
            if status != expected {
                wrong.push(format!(
                    "{} {} as {}: {status}, expected {expected}",
                    route.method,
                    route.path,
                    caller.title()
                ));
            }
        }
        if route.changes() && !site.is_written_down().await {
            wrong.push(format!("{} {} leaves nothing in the audit", route.method, route.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A path without the names of its parameters.
fn anonymous(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_of_the_api_is_in_the_table_and_no_other() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json"));
    let document: Value = serde_json::from_str(&document.expect("it is there")).expect("JSON");
    let mut documented: Vec<String> = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys().filter(|k| *k != "parameters") {
            documented.push(format!("{} {}", method.to_uppercase(), anonymous(path)));
        }
    }
    let mut table: Vec<String> =
        ROUTES.iter().map(|r| format!("{} {}", r.method, anonymous(r.path))).collect();
    documented.sort();
    table.sort();
    let lacking: Vec<_> = documented.iter().filter(|r| !table.contains(r)).collect();
    let unknown: Vec<_> = table.iter().filter(|r| !documented.contains(r)).collect();
    assert!(
        lacking.is_empty() && unknown.is_empty(),
        "add a line to tests/it/permissions/table.rs for {lacking:?}; take out {unknown:?}"
    );
    assert_eq!(table.len(), documented.len(), "a route stands there twice");
}

#[test]
fn the_documented_permissions_are_the_tested_ones() {
    let now = document(ROUTES);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(Path::new(DOCUMENT), now).expect("it can be written");
        return;
    }
    let kept = std::fs::read_to_string(DOCUMENT).expect("it is there");
    assert!(now == kept, "permissions changed: run this test with {WRITE}=1 and review the difference");
}

fn document(routes: &[Route]) -> String {
    let mut text = String::from(
        "# Who may do what\n\n\
         Made from `tests/it/permissions/table.rs`, by which every route of `docs/openapi.json` is asked by everybody; `ALERTRACE_WRITE_DOCS=1\n\
         cargo test --test it permissions` writes it. A status is what the caller is answered: what belongs to another\n\
         empresa, or to a worker it is not assigned to, answers 404 as if it did not exist. An administrator of another\n\
         empresa is answered of their own where a route names no object. `/sensores/live` opens for whoever shows no token\n\
         yet, who has five seconds to say one.\n\n",
    );
    text.push_str("| route |");
    for caller in Caller::ALL {
        let _ = write!(text, " {} |", caller.title());
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(Caller::ALL.len()));
    text.push('\n');
    for route in routes {
        let _ = write!(text, "| {} `{}` |", route.method, route.path);
        for caller in Caller::ALL {
            let _ = write!(text, " {} |", route.who.answers(caller, route.ok));
        }
        text.push('\n');
    }
    text
}
