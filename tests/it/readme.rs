//! The page that a person installs by: every command of it works, and both languages say the same.

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("a page")
}

/// Runs what a reader would, in an empty directory and a network of its own; the sketch for the ESP32 is published
/// as it would publish.
#[test]
fn the_readme_can_be_followed_word_by_word() {
    let mut follow = Command::new(root().join("scripts/readme-check"));
    let output = follow.arg(env!("CARGO_BIN_EXE_alertrace")).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for value in ["21.5", "21.6", "21.7", "21.8"] {
        assert!(said.contains(&format!("\"temperatura\":{value}")), "{value} was not read back: {said}");
    }
    assert!(said.contains("good") && said.contains("4 lecturas"), "the backup: {said}");
}

/// The transcript is of this page and of this schema, and not of what they once were.
#[test]
fn the_transcript_is_of_this_readme() {
    let (readme, transcript) = (page("README.md"), page("docs/transcript.md"));
    let again = "scripts/transcript makes it anew";
    let mut rest = transcript.as_str();
    for block in readme.split("\n```sh run\n").skip(1) {
        let block = block.split("\n```").next().expect("a block");
        let shown: String =
            block.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("$ {l}\n") }).collect();
        let (_, after) = rest.split_once(&shown).unwrap_or_else(|| panic!("{again}; it has not:\n{shown}"));
        rest = after;
    }
    let schema = format!("schema {}:", crate::backup::newest_schema());
    assert!(transcript.contains(&schema), "{again}: it is not of {schema}");
    assert!(!transcript.contains("FAIL"), "doctor found something");
}

/// The headings' levels, and what is between fences.
fn shape(page: &str) -> (Vec<usize>, Vec<String>) {
    let (mut headings, mut blocks, mut inside) = (Vec::new(), Vec::new(), None::<String>);
    for line in page.lines() {
        match (&mut inside, line.starts_with("```")) {
            (Some(_), true) => blocks.extend(inside.take()),
            (Some(block), false) => block.extend([line, "\n"]),
            (None, true) => inside = Some(format!("{line}\n")),
            (None, false) if line.starts_with('#') => headings.push(line.find(' ').expect("a heading")),
            (None, false) => {}
        }
    }
    (headings, blocks)
}

#[test]
fn both_languages_have_the_same_headings_and_the_same_commands() {
    let (english, spanish) = (shape(&page("README.md")), shape(&page("README.es.md")));
    assert!(english.0.len() > 10 && english.1.len() > 10, "{english:?}");
    assert_eq!(english.0, spanish.0, "headings, by level");
    assert_eq!(english.1, spanish.1, "what is to be pasted");
}

/// As GitHub makes them.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let docs = std::fs::read_dir(root().join("docs")).expect("a directory").flatten();
    let docs = docs.map(|e| format!("docs/{}", e.file_name().to_string_lossy()));
    let pages = ["README.md", "README.es.md", "CHANGELOG.md"].map(String::from).into_iter().chain(docs);
    let mut broken = Vec::new();
    for name in pages.filter(|name| Path::new(name).extension().is_some_and(|e| e == "md")) {
        let text = page(&name);
        let dir = root().join(&name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(t, _)| t) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { dir.clone() } else { dir.with_file_name(file) };
            let there = path.exists()
                && (part.is_empty() || {
                    let text = std::fs::read_to_string(&path).expect("a page");
                    text.lines()
                        .any(|l| l.starts_with('#') && anchor(l.trim_start_matches('#').trim()) == part)
                });
            if !there {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
