//! Every route, asked by everybody: the table in [`table`] is what is expected, what `docs/permissions.md`
//! says, and complete.

mod site;
mod table;

use std::fmt::Write as _;
use std::path::Path;

use crate::support::documented::document;

pub use site::Site;
use table::{ROUTES, Route};

use crate::support::postgres::{Database, of_this_run};

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

/// Routes that the OpenAPI document does not have: WebSockets, what the console is made of, the documentation and the
/// document itself.
const OTHERS: [&str; 5] = ["/consola/inicio.js", "/docs/", "/mqtt", "/openapi.json", "/sensores/live"];

/// The paths of `.route("…"` in the files below `dir`.
fn routed(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten().map(|e| e.path()) {
        if entry.is_dir() {
            routed(&entry, found);
        } else {
            let text = std::fs::read_to_string(&entry).expect("a file");
            // What stands in tests serves nobody.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let paths = text.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(paths.map(str::to_owned));
        }
    }
}

#[test]
fn a_route_that_is_not_documented_is_one_of_those_that_are_known() {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let (mut all, mut compat) = (Vec::new(), Vec::new());
    routed(&api, &mut all);
    // The dialect of Supabase, off unless it is asked for; tests/it/identity/compat.rs asks who may what there.
    routed(&api.join("compat"), &mut compat);
    let unknown: Vec<_> =
        all.iter().filter(|path| !compat.contains(path) && !OTHERS.contains(&path.as_str())).collect();
    assert!(all.len() > compat.len() && !compat.is_empty());
    assert!(unknown.is_empty(), "document them, or add them to OTHERS and to the table: {unknown:?}");
}

/// What is written in the audit is written with the change: where it cannot be, there is no change.
#[tokio::test]
async fn a_change_that_cannot_be_written_down_is_not_made() {
    let mut site = Site::start().await;
    let mut requests = Vec::new();
    // Whom it cuts off is connected when the request comes, and no longer.
    for route in ROUTES.iter().filter(|r| r.changes() && !r.path.starts_with("/api/v1/mqtt/")) {
        requests.push((route, site.ready(route).await));
    }
    assert!(requests.len() > 30);
    match of_this_run() {
        Database::Sqlite => site
            .server
            .sql("CREATE TRIGGER no BEFORE INSERT ON auditoria BEGIN SELECT RAISE(ABORT, 'no'); END"),
        _ => site.server.sql("ALTER TABLE auditoria ADD CONSTRAINT no CHECK (false) NOT VALID"),
    }
    let before = people_set(&site);
    let mut wrong = Vec::new();
    for (route, request) in requests {
        let status = request.send().await.expect("an answer").status();
        if status.is_success() {
            wrong.push(format!("{} {}: {status}", route.method, route.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let after = people_set(&site);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}

/// A line for each table that people change, with all that is in it.
fn people_set(site: &Site) -> Vec<String> {
    const TABLES: [&str; 17] = [
        "alertas",
        "altas",
        "api_keys",
        "asignaciones",
        "codigos",
        "codigos_totp",
        "comandos",
        "configuraciones",
        "cultivos",
        "empresas",
        "identidades",
        "invitaciones",
        "sensores",
        "trabajadores",
        "umbrales",
        "umbrales_cultivo",
        "umbrales_sensor",
    ];
    TABLES.map(|table| format!("{table}: {}", site.server.rows(table))).into()
}

/// A path without the names of its parameters.
fn anonymous(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_of_the_api_is_in_the_table_and_no_other() {
    let mut documented: Vec<String> = OTHERS.map(|path| format!("GET {path}")).into();
    for (path, operations) in document()["paths"].as_object().expect("paths") {
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
    let now = permissions(ROUTES);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(Path::new(DOCUMENT), now).expect("it can be written");
        return;
    }
    let kept = std::fs::read_to_string(DOCUMENT).expect("it is there");
    assert!(now == kept, "permissions changed: run this test with {WRITE}=1 and review the difference");
}

fn permissions(routes: &[Route]) -> String {
    let mut text = String::from(
        "# Who may do what\n\n\
         Made from `tests/it/permissions/table.rs`, by which every route is asked by everybody; `ALERTRACE_WRITE_DOCS=1\n\
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
