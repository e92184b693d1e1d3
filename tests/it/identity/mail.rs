//! Messages, by a real mail server: links that confirm an e-mail and choose another password.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::double::Double;
use super::supabase::talkative;
use super::{empresa, login, post, server};
use crate::postgres::tls::certificates;
use crate::support::server::{EMAIL, PASSWORD, place};
use crate::support::{Server, client_dir, postgres};

const NEW: &str = "otra clave larga";

pub(super) struct Mailbox {
    lines: Lines<BufReader<ChildStdout>>,
    port: String,
    _child: Child,
}

impl Mailbox {
    pub async fn open() -> Self {
        Self::with(&[]).await
    }

    async fn with(args: &[&str]) -> Self {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", client_dir().join("supabase"));
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/smtpd.py")).args(args);
        let mut child = python.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("python3 runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = lines.next_line().await.expect("a line").expect("the port");
        Self { lines, port, _child: child }
    }

    /// Where it takes messages.
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// The next message.
    async fn message(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line()).await;
        let line = line.expect("a message in time").expect("a line").expect("a message");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The link of the next message, which must be to `to`.
    pub async fn link(&mut self, to: &str) -> String {
        let message = self.message().await;
        assert_eq!(message["to"], json!([to]), "{message}");
        let text = message["text"].as_str().expect("text");
        text.lines().find(|l| l.starts_with("http")).expect("a link").to_owned()
    }

    async fn is_quiet(&mut self) {
        let line = tokio::time::timeout(Duration::from_millis(700), self.lines.next_line()).await;
        assert!(line.is_err(), "{line:?}");
    }
}

pub(super) async fn with_mail(mailbox: &Mailbox, more: &'static [(&'static str, &'static str)]) -> Server {
    let url = mailbox.url();
    Server::start_with(|mut command| {
        command.env("ALERTRACE__MAIL__TRANSPORT", "smtp").env("ALERTRACE__MAIL__SMTP_URL", url);
        command.envs(more.iter().copied());
        command
    })
    .await
}

pub(super) fn token(link: &str) -> String {
    let url = url::Url::parse(link).expect("an address");
    url.query_pairs().find(|(name, _)| name == "token").expect("a token").1.into_owned()
}

pub(super) async fn forgot(server: &Server, email: &str) -> (u16, Value) {
    post(server, "/api/v1/auth/forgot-password", json!({ "email": email })).await
}

pub(super) async fn reset(server: &Server, token: &str, password: &str) -> (u16, Value) {
    let body = json!({ "token": token, "new_password": password });
    post(server, "/api/v1/auth/reset-password", body).await
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_the_link_of_a_message() {
    let mut mailbox = Mailbox::open().await;
    let server = with_mail(&mailbox, &[]).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let known = forgot(&server, " Admin@Fundo.pe").await;
    assert_eq!(known, forgot(&server, "nobody@x.pe").await, "nobody learns who has an account");
    assert_eq!(known.0, 202);
    let link = mailbox.link(EMAIL).await;
    assert!(link.starts_with("http://localhost:3000/reset-password?token="), "{link}");
    let token = token(&link);
    assert_eq!(forgot(&server, EMAIL).await, known, "a message a minute, and not a word of it");
    mailbox.is_quiet().await;

    let (status, weak) = reset(&server, &token, "password123").await;
    assert_eq!((status, &weak["code"]), (422, &"weak_password".into()));
    let (status, wrong) = reset(&server, "nobody's", NEW).await;
    assert_eq!((status, &wrong["code"]), (422, &"invalid_code".into()));
    assert_eq!(reset(&server, &token, NEW).await.0, 200, "what failed has not spent it");
    assert_eq!(reset(&server, &token, NEW).await.1["code"], "invalid_code", "good once");
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 401);
    assert_eq!(login(&server, EMAIL, NEW).await.0, 200);
    let old = json!({ "refresh_token": session["refresh_token"] });
    assert_eq!(post(&server, "/api/v1/auth/refresh", old).await.0, 401, "every sign-in ended");
}

#[tokio::test]
async fn whoever_registers_confirms_their_address_where_that_is_asked() {
    let mut mailbox = Mailbox::open().await;
    let server = with_mail(&mailbox, &[("ALERTRACE__IDENTITY__CONFIRM_EMAIL", "true")]).await;
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 200, "the command line's need not");
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(5)).await.0, 201);
    let (status, refused) = login(&server, "e5@x.pe", PASSWORD).await;
    assert_eq!((status, &refused["code"]), (401, &"email_not_confirmed".into()));
    let link = mailbox.link("e5@x.pe").await;
    let path = format!("/api/v1/auth/confirm?token={}", token(&link));
    assert!(link.ends_with(&path), "{link}");
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let follow = async || {
        client.get(format!("http://{}{path}", server.http)).send().await.expect("an answer").status()
    };
    assert_eq!(follow().await, 303);
    assert_eq!(follow().await, 422, "good once");
    assert_eq!(login(&server, "e5@x.pe", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn a_front_end_of_supabase_follows_the_link_to_its_own_page() {
    let mut mailbox = Mailbox::open().await;
    let server = with_mail(&mailbox, &[("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true")]).await;
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    for (asked, leads) in [
        ("http://localhost:5173/cambiar", "http://localhost:5173/cambiar#access_token="),
        ("https://evil.example/", "http://localhost:3000#access_token="),
    ] {
        // Another account each, since one gets a message a minute.
        let email = format!("r{}@x.pe", asked.len());
        let url = |path: &str| format!("http://{}/auth/v1/{path}", server.http);
        let body = json!({ "email": email, "password": PASSWORD });
        assert_eq!(client.post(url("signup")).json(&body).send().await.expect("an answer").status(), 200);
        let recover = client.post(url(&format!("recover?redirect_to={asked}")));
        let answer = recover.json(&json!({ "email": email })).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let link = mailbox.link(&email).await;
        let (_, query) = link.split_once('?').expect("a query");
        let answer = client.get(url(&format!("verify?{query}"))).send().await.expect("an answer");
        assert_eq!(answer.status(), 303);
        let location = answer.headers()["location"].to_str().expect("text").to_owned();
        assert!(location.starts_with(leads), "{location}");
        let token =
            location.split("access_token=").nth(1).expect("a token").split('&').next().expect("a token");
        let change =
            client.put(url("user")).bearer_auth(token).json(&json!({ "password": NEW })).send().await;
        assert_eq!(change.expect("an answer").status(), 200);
        assert_eq!(login(&server, &email, NEW).await.1["code"], "perfil_incompleto");
    }
}

#[tokio::test]
async fn without_mail_there_is_a_code_that_says_so_and_with_supabase_it_sends() {
    let none = Server::start().await;
    let (status, said) = forgot(&none, EMAIL).await;
    assert_eq!((status, &said["code"]), (501, &"mail_not_configured".into()));
    assert_eq!(forgot(&none, "nobody@x.pe").await, (status, said));

    let double = Double::start();
    let server = server(&double).await;
    assert_eq!(forgot(&server, "nobody@x.pe").await.0, 202);
    assert_eq!(forgot(&server, EMAIL).await.0, 202);
    let code = double.recovered(EMAIL).await;
    assert_eq!(reset(&server, "nobody's", NEW).await.1["code"], "invalid_code");
    assert_eq!(reset(&server, &code, NEW).await.0, 200);
    assert_eq!(login(&server, EMAIL, NEW).await.0, 200);
    // Or with the token that Supabase's own link carries.
    let (_, session) = login(&server, EMAIL, NEW).await;
    let token = session["access_token"].as_str().expect("a token");
    assert_eq!(reset(&server, token, PASSWORD).await.0, 200);
    assert_eq!(server.request(Method::GET, "/health", "", None).await.status(), 200);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 200);
}

#[tokio::test]
async fn a_mail_server_is_spoken_to_over_tls_and_only_to_the_one_that_was_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    certificates(dir.path(), "site", "DNS:localhost");
    certificates(dir.path(), "another", "DNS:localhost");
    let file = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (pem, key) = (file("site-server.pem"), file("site-server.key"));
    for (how, scheme, query) in [("starttls", "smtp", "?tls=required"), ("smtps", "smtps", "")] {
        let mut mailbox = Mailbox::with(&[how, &pem, &key]).await;
        let url = format!("{scheme}://localhost:{}{query}", mailbox.port);
        let trusting = async |ca: &str| {
            Server::start_with(|mut command| {
                command.env("ALERTRACE__MAIL__TRANSPORT", "smtp").env("ALERTRACE__MAIL__SMTP_URL", &url);
                command.env("ALERTRACE__MAIL__FROM", "Finca <riego@finca.example>");
                command.env("ALERTRACE__MAIL__SITE_URL", "https://panel.finca.example/");
                command.env("SSL_CERT_FILE", file(ca));
                command
            })
            .await
        };
        let server = trusting("site.pem").await;
        assert_eq!(forgot(&server, EMAIL).await.0, 202);
        let message = mailbox.message().await;
        assert_eq!(
            (&message["tls"], &message["from"]),
            (&true.into(), &"riego@finca.example".into()),
            "{how}"
        );
        let text = message["text"].as_str().expect("text");
        assert!(text.contains("https://panel.finca.example/reset-password?token="), "{text}");
        let server = trusting("another.pem").await;
        assert_eq!(forgot(&server, EMAIL).await.0, 202);
        mailbox.is_quiet().await;
        let metrics = server.request(Method::GET, "/metrics", "", None).await.text().await.expect("text");
        assert!(metrics.contains("alertrace_mail_total{result=\"failed\"} 1"), "{how}: {metrics}");
    }
}

#[tokio::test]
async fn for_a_demonstration_messages_are_in_the_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let place = place(dir.path(), postgres::of_this_run());
    let server = Server::start_in(dir, place, |mut inner| {
        inner.env("ALERTRACE__MAIL__TRANSPORT", "log");
        talkative(&inner, &log)
    })
    .await;
    assert_eq!(forgot(&server, EMAIL).await.0, 202);
    let written = || std::fs::read_to_string(&log).unwrap_or_default();
    let link = |text: &str| {
        let rest = text.split("/reset-password?token=").nth(1)?;
        Some(rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect::<String>())
    };
    for _ in 0..100 {
        if link(&written()).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let token = link(&written()).expect("a link in the log");
    assert_eq!(reset(&server, &token, NEW).await.0, 200);
    assert_eq!(login(&server, EMAIL, NEW).await.0, 200);
}
