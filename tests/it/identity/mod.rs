//! Who somebody is: the built-in accounts, and a Supabase project in their place.

mod attacks;
mod compat;
mod double;
mod ended;
mod faults;
mod flow;
mod mail;
mod saga;
mod sign_in;
mod supabase;
mod totp;

use std::process::Command;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::Server;
use crate::support::postgres;
use crate::support::server::{PASSWORD, Place, place};
use double::{ANON, Double, SERVICE};

/// Where a server has its data, and the double as its identity provider.
fn beside(dir: &tempfile::TempDir, double: &Double) -> Place {
    let mut place = place(dir.path(), postgres::of_this_run());
    place.extend([
        ("SUPABASE_URL", double.url.clone()),
        ("SUPABASE_KEY", ANON.to_owned()),
        ("SUPABASE_SERVICE_ROLE_KEY", SERVICE.to_owned()),
        ("ALERTRACE__IDENTITY__SUPABASE_TIMEOUT_S", "2".to_owned()),
    ]);
    place
}

/// A server whose people are known by the double; its administrator too.
async fn server(double: &Double) -> Server {
    server_with(double, |command| command).await
}

async fn server_with(double: &Double, wrap: impl FnOnce(Command) -> Command) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = beside(&dir, double);
    Server::start_in(dir, place, wrap).await
}

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    said(server.request(Method::POST, path, "", Some(body)).await).await
}

async fn said(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

async fn login(server: &Server, email: &str, password: &str) -> (u16, Value) {
    post(server, "/api/v1/auth/login", json!({ "email": email, "password": password })).await
}

/// An empresa of its own, in the nested shape.
fn empresa(n: u32) -> Value {
    json!({ "email": format!("e{n}@x.pe"), "password": PASSWORD, "nombre": "Ana", "apellido": "Paz",
        "dni": format!("{n:08}"), "empresa": { "ruc": format!("2{n:010}"), "razon_social": format!("Fundo {n}") } })
}

async fn me(server: &Server, token: &str) -> (u16, Value) {
    said(server.request(Method::GET, "/api/v1/auth/me", token, None).await).await
}
