//! The console: who is answered it, what it may load, and what an installer does on it, in a real Chromium.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::process::Command;

use crate::support::server::{EMAIL, PASSWORD, command, create_account, place};
use crate::support::{Server, client_dir, postgres};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

async fn ask(server: &Server, method: reqwest::Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let url = format!("http://{}{path}", server.http);
    // As it is on the line.
    let client = Client::builder().no_gzip().build().expect("a client");
    let request = headers.iter().fold(client.request(method, url), |r, (k, v)| r.header(*k, *v));
    request.send().await.expect("an answer")
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    ask(server, reqwest::Method::GET, path, headers).await
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |v| v.to_str().expect("text"))
}

fn varies_by(answer: &Response, name: &str) -> bool {
    let all = answer.headers().get_all("vary").iter().map(|v| v.to_str().expect("text"));
    all.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(name))
}

#[tokio::test]
async fn a_browser_is_answered_the_page_and_a_program_the_description() {
    let server = Server::start().await;
    for accept in [&[][..], &[("accept", "*/*")], &[("accept", "application/json")]] {
        let answer = get(&server, "/", accept).await;
        assert_eq!((answer.status(), header(&answer, "content-type")), (StatusCode::OK, "application/json"));
        assert_eq!(header(&answer, "content-security-policy"), NO_PAGE);
        assert!(varies_by(&answer, "accept"), "{:?}", answer.headers());
        assert_eq!(answer.json::<Value>().await.expect("JSON")["api"], "/api/v1");
    }
    let answer = get(&server, "/", &[("accept", BROWSER)]).await;
    assert_eq!(answer.status(), 200);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", POLICY),
        ("cache-control", "no-cache"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(header(&answer, name), value, "{name}");
    }
    assert!(varies_by(&answer, "accept"), "{:?}", answer.headers());
    let (tag, length) = (header(&answer, "etag").to_owned(), header(&answer, "content-length").to_owned());
    let page = answer.text().await.expect("text");
    assert!(page.starts_with("<!doctype html>") && page.contains("/consola/inicio.js"), "{page}");

    let head = ask(&server, reqwest::Method::HEAD, "/", &[("accept", BROWSER)]).await;
    assert_eq!((head.status(), header(&head, "etag")), (StatusCode::OK, tag.as_str()));
    assert_eq!((header(&head, "content-length"), page.len()), (length.as_str(), length.parse().unwrap()));
    assert_eq!(head.text().await.expect("text"), "");

    let same = get(&server, "/", &[("accept", BROWSER), ("if-none-match", &tag)]).await;
    assert_eq!((same.status(), header(&same, "content-security-policy")), (StatusCode::NOT_MODIFIED, POLICY));
    // Of another answer of the same address.
    let other = get(&server, "/", &[("if-none-match", &tag)]).await;
    assert_eq!(other.status(), 200);
}

#[tokio::test]
async fn what_the_page_is_made_of_is_compressed_and_kept_until_it_changes() {
    let server = Server::start().await;
    let mut tags = Vec::new();
    for (name, kind) in [
        ("inicio.js", "text/javascript; charset=utf-8"),
        ("estilo.css", "text/css; charset=utf-8"),
        ("icono.svg", "image/svg+xml"),
    ] {
        let path = format!("/consola/{name}");
        let answer = get(&server, &path, &[("accept-encoding", "gzip")]).await;
        assert_eq!((answer.status(), header(&answer, "content-type")), (StatusCode::OK, kind), "{name}");
        assert_eq!(header(&answer, "content-security-policy"), NO_PAGE, "{name} is no page");
        assert_eq!(header(&answer, "cache-control"), "no-cache");
        assert!(varies_by(&answer, "accept-encoding"), "{name}: {:?}", answer.headers());
        assert_eq!(header(&answer, "content-encoding"), "gzip", "{name}");
        let tag = header(&answer, "etag").to_owned();
        let same = get(&server, &path, &[("if-none-match", &tag)]).await;
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED, "{name} {tag}");
        assert_eq!(get(&server, &path, &[("if-none-match", "W/\"other\"")]).await.status(), 200);
        tags.push(tag);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
    for path in ["/consola", "/consola/", "/consola/nada.js", "/consola/tests.rs", "/consola/pagina.html"] {
        assert_eq!(get(&server, path, &[("accept", BROWSER)]).await.status(), 404, "{path}");
    }
}

/// Runs what `tests/clients/consola.cjs` does under this name against `server`.
async fn browser(what: &str, server: &Server) {
    let mut node = Command::new("node");
    node.env("NODE_PATH", client_dir().join("node_modules"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/consola.cjs"));
    node.args([what, &format!("http://{}", server.http), &server.mqtts]).arg(server.ca());
    node.args([EMAIL, PASSWORD]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(150), node.output()).await.expect("in time");
    let output = output.expect("node runs");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn an_installer_registers_adds_a_sensor_sees_it_speak_and_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), postgres::of_this_run());
    let server = Server::open(dir, place, |mut command| {
        command.env("ALERTRACE__IDENTITY__REGISTRATION", "first");
        command
    });
    browser("vida", &server).await;
}

#[tokio::test]
async fn everybody_is_shown_what_their_role_may_do_and_no_more() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = place(dir.path(), postgres::of_this_run());
    assert!(create_account(dir.path(), &place, EMAIL, "20123456789"), "user create");
    let mut create = command(dir.path());
    create.args(["user", "create", "--email", "op@fundo.pe", "--password-stdin", "--operador"]);
    create.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut create = create.spawn().expect("the binary starts");
    std::io::Write::write_all(&mut create.stdin.take().expect("piped"), PASSWORD.as_bytes()).expect("read");
    assert!(create.wait().expect("it ends").success());
    let server = Server::take_over(dir, place).await;
    browser("roles", &server).await;
}

#[tokio::test]
async fn a_page_that_was_cut_off_says_so_and_comes_back_and_a_token_that_ended_is_renewed() {
    browser("corte", &Server::start().await).await;
}
