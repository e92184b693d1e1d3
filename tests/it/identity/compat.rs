//! This server in the place of Supabase: its own clients, and another Alertrace.

use std::process::{Command as Sync, Stdio};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::mail::{Mailbox, with_mail};
use super::totp::code;
use super::{flow, login, me, post, said};
use crate::support::server::{EMAIL, PASSWORD, place};
use crate::support::{Server, client_dir, postgres};

const ANON: &str = "anon-key-of-ours";
const SERVICE: &str = "service-role-key-of-ours";
const SECRET: &str = "shared-by-both-and-thirty-two-bytes";

fn dialect(mut command: Sync) -> Sync {
    command
        .env("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true")
        .env("SUPABASE_KEY", ANON)
        .env("SUPABASE_SERVICE_ROLE_KEY", SERVICE);
    command
}

async fn client(mut command: Command, server: &Server) {
    command.args([&format!("http://{}", server.http), ANON, SERVICE]).kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await;
    let output = output.expect("in time").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// A client that asks for the links of messages as it goes.
async fn reader_of_mail(mut command: Command) {
    let mut mailbox = Mailbox::open().await;
    let server = with_mail(
        &mailbox,
        &[
            ("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true"),
            ("ALERTRACE__IDENTITY__CONFIRM_EMAIL", "true"),
            ("SUPABASE_KEY", ANON),
            ("SUPABASE_SERVICE_ROLE_KEY", SERVICE),
        ],
    )
    .await;
    command.args([&format!("http://{}", server.http), ANON, SERVICE]).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut hears = child.stdin.take().expect("piped");
    let whole = async {
        while let Some(line) = said.next_line().await.expect("text") {
            let link = mailbox.link(line.strip_prefix("link ").expect("what it asks for")).await;
            hears.write_all(format!("{link}\n").as_bytes()).await.expect("it reads");
        }
        child.wait().await.expect("it ends").success()
    };
    let well = tokio::time::timeout(std::time::Duration::from_secs(60), whole).await;
    assert!(well.expect("in time"), "what it says is above");
}

#[tokio::test]
async fn supabase_js_confirms_an_address_and_replaces_a_password_by_mail() {
    let mut node = Command::new("node");
    node.env("NODE_PATH", client_dir().join("node_modules"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/supabase_mail.cjs"));
    reader_of_mail(node).await;
}

#[tokio::test]
async fn supabase_auth_confirms_an_address_and_replaces_a_password_by_mail() {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", client_dir().join("supabase"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/supabase_auth_mail.py"));
    reader_of_mail(python).await;
}

#[tokio::test]
async fn supabase_js_signs_up_in_and_out_and_administers() {
    let server = Server::start_with(dialect).await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", client_dir().join("node_modules"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/supabase.cjs"));
    client(node, &server).await;
    // What it made is an identity; a person is made by registering, with its password.
    let (status, refused) = login(&server, "js@x.pe", "otra clave larga").await;
    assert_eq!((status, &refused["code"]), (403, &"perfil_incompleto".into()));
    let person = json!({ "email": "js@x.pe", "password": "otra clave larga", "user_type": "trabajador",
        "nombres": "Ana", "apellidos": "Paz" });
    assert_eq!(post(&server, "/api/v1/auth/register", person).await.0, 201);
    assert_eq!(login(&server, "js@x.pe", "otra clave larga").await.0, 200);
}

#[tokio::test]
async fn supabase_js_enrols_a_second_factor_shows_it_and_takes_it_away() {
    let server = Server::start_with(dialect).await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", client_dir().join("node_modules"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/supabase_mfa.cjs"));
    client(node, &server).await;
}

#[tokio::test]
async fn supabase_auth_from_pypi_signs_up_in_and_out_and_administers() {
    let server = Server::start_with(dialect).await;
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", client_dir().join("supabase"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/supabase_auth_flow.py"));
    client(python, &server).await;
}

#[tokio::test]
async fn the_dialect_is_not_spoken_where_nobody_asked_for_it_and_registration_holds_for_it() {
    let server = Server::start().await;
    assert_eq!(server.request(Method::GET, "/auth/v1/settings", "", None).await.status(), 404);
    let server = Server::start_with(|command| {
        let mut command = dialect(command);
        command.env("ALERTRACE__IDENTITY__REGISTRATION", "first");
        command
    })
    .await;
    let body = json!({ "email": "x@x.pe", "password": PASSWORD });
    let url = format!("http://{}/auth/v1/signup", server.http);
    let answer =
        reqwest::Client::new().post(url).header("apikey", ANON).json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 422);
    let said: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(
        (&said["error_code"], &said["code"]),
        (&"signup_disabled".into(), &422.into()),
        "the older form"
    );
}

/// Another Alertrace, whose Supabase is `there`.
async fn beside(there: &Server, more: &[(&'static str, &str)]) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut place = place(dir.path(), postgres::of_this_run());
    place.extend([
        ("SUPABASE_URL", format!("http://{}", there.http)),
        ("SUPABASE_KEY", ANON.to_owned()),
        ("SUPABASE_SERVICE_ROLE_KEY", SERVICE.to_owned()),
        ("ALERTRACE__IDENTITY__SUPABASE_ISSUER", "alertrace".to_owned()),
    ]);
    place.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    // Its administrator is a person here; the account of that e-mail there has one too, and so is another.
    Server::start_in(dir, place, |command| command).await
}

/// One that keeps passwords for others: its own administrator goes by another e-mail.
async fn keeper(more: &'static [(&'static str, &'static str)]) -> Server {
    let server = Server::start_with(|command| {
        let mut command = dialect(command);
        command.envs(more.iter().copied());
        command
    })
    .await;
    server.sql("UPDATE identidades SET email = 'keeper@x.pe'; UPDATE trabajadores SET email = 'keeper@x.pe'");
    server
}

#[tokio::test]
async fn the_whole_flow_with_another_alertrace_by_its_published_key() {
    let there = keeper(&[("ALERTRACE__IDENTITY__JWT_ALGORITHM", "EdDSA")]).await;
    let keys = there.get("/.well-known/jwks.json").await;
    let [key] = &keys["keys"].as_array().expect("a set")[..] else { panic!("{keys}") };
    assert_eq!((&key["kty"], &key["crv"], &key["use"]), (&"OKP".into(), &"Ed25519".into(), &"sig".into()));
    assert!(key["kid"].is_string() && key["x"].is_string() && key["d"].is_null(), "{keys}");
    let here = beside(&there, &[]).await;
    flow::whole(&here).await;
    let (_, session) = login(&here, EMAIL, PASSWORD).await;
    let token = session["access_token"].as_str().expect("a token");
    assert_eq!(me(&here, token).await.0, 200);
    assert_eq!(me(&there, token).await.1["code"], "perfil_incompleto", "known there, a person here");
    // Its own second factor is asked for here.
    let ask = async |path: &str, token: &str, body: serde_json::Value| {
        let url = format!("http://{}/auth/v1/{path}", there.http);
        let request = reqwest::Client::new().post(url).header("apikey", ANON).bearer_auth(token).json(&body);
        said(request.send().await.expect("an answer")).await.1
    };
    let factor = ask("factors", token, json!({ "factor_type": "totp" })).await;
    let (id, uri) =
        (factor["id"].as_str().expect("its name"), factor["totp"]["uri"].as_str().expect("a URI"));
    let challenge = ask(&format!("factors/{id}/challenge"), token, json!({})).await;
    let first = json!({ "challenge_id": challenge["id"], "code": code(uri, 0) });
    let shown = ask(&format!("factors/{id}/verify"), token, first).await;
    assert!(shown["access_token"].is_string(), "{shown}");
    let (status, refused) = login(&here, EMAIL, PASSWORD).await;
    assert_eq!((status, &refused["code"]), (401, &"totp_requerido".into()));
    let body = json!({ "email": EMAIL, "password": PASSWORD, "codigo": code(uri, 1) });
    let (status, session) = post(&here, "/api/v1/auth/login", body).await;
    assert_eq!(status, 200, "{session}");
    assert_eq!(me(&here, session["access_token"].as_str().expect("a token")).await.0, 200);
}

#[tokio::test]
async fn the_whole_flow_with_another_alertrace_by_a_shared_secret() {
    let there = keeper(&[("JWT_SECRET_KEY", SECRET)]).await;
    let here = beside(&there, &[("SUPABASE_JWT_SECRET", SECRET)]).await;
    flow::whole(&here).await;
}
