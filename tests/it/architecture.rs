//! The floors of `docs/ARCHITECTURE.md`: no import climbs, and libraries stay in their rooms.

use std::path::{Path, PathBuf};

const FLOORS: [(&str, u8); 21] = [
    ("main", 6),
    ("cli", 6),
    ("app", 5),
    ("lifecycle", 5),
    ("api", 4),
    ("mqtt", 4),
    ("ingest", 3),
    ("mantenimiento", 3),
    ("alertas", 2),
    ("realtime", 2),
    ("identity", 2),
    ("historia", 2),
    ("store", 1),
    ("tls", 1),
    ("domain", 0),
    ("config", 0),
    ("limits", 0),
    ("telemetry", 0),
    ("lib", 6),
    ("alertrace", 6),
    ("tests", 6),
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
}

/// The top-level modules that a `use crate::…` line names, several in braces.
fn imported(line: &str) -> Vec<String> {
    let Some(rest) = line.trim_start().strip_prefix("use crate::") else { return Vec::new() };
    let parts: Vec<&str> = match rest.strip_prefix('{') {
        Some(group) => group.split([',', '}']).collect(),
        None => vec![rest],
    };
    let name = |p: &str| p.trim().split([':', ';', '{', ' ']).next().unwrap_or_default().to_owned();
    parts.into_iter().map(name).filter(|n| !n.is_empty()).collect()
}

#[test]
fn no_import_climbs_and_libraries_stay_in_their_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 40, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).expect("inside").to_str().expect("UTF-8").to_owned();
        let module = relative.split(['/', '.']).next().expect("a name").to_owned();
        let own = floor(&module).unwrap_or_else(|| panic!("{module} has no floor"));
        let text = std::fs::read_to_string(&file).expect("text");
        for line in text.lines() {
            for other in imported(line) {
                let Some(theirs) = floor(&other) else { continue };
                if theirs > own || (own == 4 && theirs == 4 && other != module) {
                    wrong.push(format!("{relative}: {line}"));
                }
            }
        }
        for (library, rooms) in [
            ("rumqttd::", &["mqtt/router.rs"][..]),
            ("mqtt_protocol_core::", &["mqtt/protocol/"]),
            ("sqlx::", &["store/"]),
            ("axum::", &["api/"]),
            ("rumqttc::", &["cli/"]),
            ("rustls::", &["tls/"]),
            ("rcgen::", &["tls/"]),
            ("x509_parser::", &["tls/"]),
            ("reqwest::", &["cli/", "identity/supabase/", "identity/jwks.rs"]),
            ("jsonwebtoken::", &["identity/"]),
            ("sentry::", &["telemetry/incidents.rs", "telemetry.rs"]),
            ("opentelemetry", &["telemetry/traces.rs", "telemetry.rs"]),
            ("lettre::", &["identity/correo.rs"]),
            ("totp_rs::", &["identity/totp.rs"]),
            ("qrcode::", &["identity/totp.rs"]),
        ] {
            let uses = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(library));
            if uses && !rooms.iter().any(|room| relative.starts_with(room)) {
                wrong.push(format!("{relative}: {library} belongs to {rooms:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is kept of people is dropped by every writing transaction but that of readings (`store/presentes.rs`).
#[test]
fn whoever_writes_beside_the_readings_writes_as_everybody() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let named = |file: &PathBuf| {
        let name = file.strip_prefix(&root).expect("inside").to_str().expect("UTF-8").to_owned();
        let first = std::fs::read_to_string(file).expect("text").contains(".write_first()");
        (first && !name.contains("tests")).then_some(name)
    };
    let (writer, others): (Vec<_>, Vec<_>) =
        files.iter().filter_map(named).partition(|name| name.starts_with("ingest/writer/"));
    let others: std::collections::BTreeSet<_> = others.into_iter().collect();
    assert_eq!(Vec::from_iter(others), ["store/mod.rs", "store/postgres/mod.rs"]);
    assert!(!writer.is_empty());
    for name in writer {
        let text = std::fs::read_to_string(root.join(&name)).expect("text");
        for of_people in ["trabajadores::", "identidades::", "sesiones::", "refrescos::", "totp::"] {
            assert!(!text.contains(of_people), "{of_people} in a transaction of readings, in {name}");
        }
    }
}
