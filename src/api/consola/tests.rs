//! What the page asks for is there, and what it knows by heart is what the server means.

use std::path::Path;

use super::*;
use crate::domain::Variable;

fn accepts(values: &[&'static str]) -> bool {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(header::ACCEPT, value.parse().unwrap());
    }
    wanted(&headers)
}

#[test]
fn a_browser_gets_the_page_and_everybody_else_json() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
    for page in [
        &[BROWSER][..],
        &["text/html"],
        &["TEXT/HTML; level=1"],
        &["text/*, application/json;q=0.5"],
        &["application/json;q=0.9", "text/html"],
        &["text/html;q=0.2"],
    ] {
        assert!(accepts(page), "{page:?}");
    }
    for json in [
        &[][..],
        &[""],
        &["*/*"],
        &["application/json"],
        &["text/html, application/json"],
        &["text/html;q=0"],
        &["text/html;q=0.5, */*"],
        &["text/html;q=x"],
        &["text/plain"],
    ] {
        assert!(!accepts(json), "{json:?}");
    }
}

fn text(name: &str) -> &'static str {
    FICHEROS.iter().find(|f| f.0 == name).unwrap_or_else(|| panic!("{name} is not served")).2
}

/// What stands between `before` and the next `after`, each time.
fn between<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
}

#[test]
fn what_the_page_and_its_scripts_ask_for_is_served_and_nothing_else_lies_there() {
    let mut asked: Vec<String> =
        between(PAGINA, "=\"/consola/", '"').into_iter().map(str::to_owned).collect();
    for (_, _, script) in FICHEROS.iter().filter(|f| f.1 == JS) {
        asked.extend(between(script, "from \"./", '"').into_iter().map(str::to_owned));
    }
    asked.sort();
    asked.dedup();
    let mut served: Vec<_> = FICHEROS.iter().map(|f| f.0.to_owned()).collect();
    served.sort();
    assert_eq!(asked, served);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/consola");
    let there = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    let mut there: Vec<_> = there.filter(|name| !["tests.rs", "pagina.html"].contains(&&**name)).collect();
    there.sort();
    assert_eq!(there, served);
}

#[test]
fn nothing_stands_in_the_page_that_its_policy_forbids_and_no_data_becomes_markup() {
    for never in ["<style", " style=", " onclick", "<script>", "http://", "https://"] {
        assert!(!PAGINA.contains(never), "{never}");
    }
    for (name, _, script) in FICHEROS.iter().filter(|f| f.1 == JS) {
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "new Function",
            "\"style\"",
        ] {
            assert!(!script.contains(never), "{never} in {name}");
        }
        assert!(script.starts_with("// "), "{name} begins with what it is for");
        let lines = script.lines().count();
        assert!(lines <= 300, "{name} has {lines} lines");
    }
}

/// What `t(…)` is called with; `h(…)` and `createElement(…)` are others.
fn keys(scripts: &str, open: char, close: char) -> Vec<&str> {
    let call = format!("t({open}");
    let own = |at: usize| !scripts[..at].ends_with(|c: char| c.is_alphanumeric());
    let called = scripts.match_indices(&call).filter(|(at, _)| own(*at));
    called.filter_map(|(at, _)| scripts[at + call.len()..].split(close).next()).collect()
}

#[test]
fn every_text_that_is_asked_for_is_there_and_every_one_that_is_there_is_asked_for() {
    let mut known: Vec<&str> = Vec::new();
    for line in text("textos.js").lines() {
        let Some((key, texts)) = line.trim().split_once(": [\"") else { continue };
        assert!(texts.ends_with("\"],") && texts.contains("\", \""), "two languages: {line}");
        known.push(key.trim_matches('"'));
    }
    assert!(known.len() > 100, "{}", known.len());
    let scripts: String = FICHEROS.iter().filter(|f| f.1 == JS && f.0 != "textos.js").map(|f| f.2).collect();
    let asked = keys(&scripts, '"', '"');
    let lacking: Vec<_> = asked.iter().filter(|k| !known.contains(k)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    // Those of a family are put together from what the API answers: t(`motivo.${…}`).
    let families = keys(&scripts, '`', '$');
    let idle: Vec<_> =
        known.iter().filter(|k| !asked.contains(k) && !families.iter().any(|f| k.starts_with(f))).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn the_page_knows_every_variable_and_every_reason_as_the_server_does() {
    let variables = text("variables.js");
    for nombre in Variable::conocidas() {
        let v = Variable::new(nombre).unwrap();
        let line = format!("{nombre}: [\"{}\", \"{}\", \"", v.unidad(), v.titulo());
        assert!(variables.contains(&line), "{line}");
    }
    let textos = text("textos.js");
    let source = include_str!("../../domain/lectura.rs");
    let motivos = between(source.split("impl Motivo {").nth(1).unwrap(), " => \"", '"');
    assert!(motivos.len() >= 14, "{motivos:?}");
    for motivo in motivos {
        assert!(textos.contains(&format!("\"motivo.{motivo}\": [")), "{motivo}");
    }
    for campo in crate::api::shapes::DE_UN_SENSOR {
        assert!(variables.contains(&format!("\"{campo}\"")), "{campo} is no variable");
    }
}

#[test]
fn what_the_page_explains_of_connections_is_what_the_broker_says() {
    let mqtt = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mqtt");
    let files = ["admission.rs", "connection/mod.rs", "protocol/types.rs"];
    let said: String = files.iter().map(|f| std::fs::read_to_string(mqtt.join(f)).unwrap()).collect();
    let explained = between(text("porques.js"), "  [\"", '"');
    assert!(explained.len() > 10, "{explained:?}");
    for phrase in explained {
        assert!(said.contains(phrase), "{phrase}");
    }
}

#[test]
fn whatever_ends_a_connection_is_explained_on_the_page() {
    let mqtt = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mqtt");
    let mut said = Vec::new();
    for (file, from, to) in [
        ("protocol/types.rs", "const fn motivo(self)", "\n    }\n"),
        ("connection/mod.rs", "impl fmt::Display for Fin {", "\n}\n"),
    ] {
        let source = std::fs::read_to_string(mqtt.join(file)).unwrap();
        let arms = source.split(from).nth(1).and_then(|rest| rest.split(to).next()).unwrap();
        said.extend(arms.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    assert!(said.len() >= 18, "{said:?}");
    let explained = between(text("porques.js"), "  [\"", '"');
    // That is no error.
    said.retain(|reason| reason != "it took leave" && !explained.iter().any(|e| reason.contains(e)));
    assert!(said.is_empty(), "{said:?}");
}

/// The relative luminance of `#rrggbb` or `#rgb` (WCAG 2.2).
fn luminance(colour: &str) -> f64 {
    let digits = colour.trim_start_matches('#');
    let wide =
        if digits.len() == 3 { digits.chars().flat_map(|c| [c, c]).collect() } else { digits.to_owned() };
    let channel = |at: usize| {
        let c = f64::from(u8::from_str_radix(&wide[at..at + 2], 16).unwrap()) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
}

#[test]
fn every_text_stands_out_from_what_is_behind_it_by_day_and_by_night() {
    let schemes: Vec<&str> = between(text("estilo.css"), ":root {", '}');
    assert_eq!(schemes.len(), 2);
    for scheme in schemes {
        let colour = |name: &str| luminance(between(scheme, &format!("--{name}: "), ';')[0]);
        let mut pairs = vec![("texto", "fondo"), ("texto", "papel"), ("menor", "fondo"), ("menor", "papel")];
        pairs.extend([("marca", "papel"), ("marca", "fondo"), ("marca", "suave"), ("marca-texto", "marca")]);
        pairs.extend([("bien", "papel"), ("alta", "papel"), ("critica", "papel"), ("media", "media-fondo")]);
        pairs.extend([("bien", "bien-fondo"), ("neutro", "neutro-fondo"), ("texto", "neutro-fondo")]);
        pairs.extend([("baja", "baja-fondo"), ("alta", "alta-fondo"), ("critica", "critica-fondo")]);
        for (front, back) in pairs {
            let (a, b) = (colour(front), colour(back));
            let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(contrast >= 4.5, "{front} on {back}: {contrast:.2}");
        }
    }
}
