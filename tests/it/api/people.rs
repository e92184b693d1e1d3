//! Who the tests of the API ask as.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::Server;
use crate::support::server::PASSWORD;

/// A person of the server's empresa, signed in.
pub struct Person {
    pub id: i64,
    pub user_id: String,
    pub email: String,
    pub token: String,
    pub refresh_token: String,
}

/// Makes an account of this role, and signs it in.
pub async fn person(server: &Server, name: &str, rol: &str) -> Person {
    let email = format!("{name}@fundo.pe");
    let body = json!({ "email": email, "password": PASSWORD, "nombre": name, "apellido": "Paz", "rol": rol });
    let made = post(server, "/api/v1/trabajadores", &server.token, body).await;
    assert_eq!(made.status(), 201, "make {name}");
    let made: Value = made.json().await.expect("JSON");
    assert_eq!((&made["rol"], &made["activo"]), (&json!(rol), &json!(true)));
    let signed_in = sign_in(server, &email).await;
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    Person {
        id: made["id_trabajador"].as_i64().expect("a key"),
        user_id: text(&made["user_id"]),
        email,
        token: text(&signed_in["access_token"]),
        refresh_token: text(&signed_in["refresh_token"]),
    }
}

pub async fn sign_in(server: &Server, email: &str) -> Value {
    let body = json!({ "email": email, "password": PASSWORD });
    let answer = post(server, "/api/v1/auth/login", "", body).await;
    assert_eq!(answer.status(), 200, "sign-in of {email}");
    answer.json().await.expect("JSON")
}

/// The administrator of another empresa.
pub async fn another_empresa(server: &Server) -> String {
    let register = json!({ "email": "otra@otra.pe", "password": PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999" });
    assert_eq!(post(server, "/api/v1/auth/register", "", register).await.status(), 201);
    server.sign_in("otra@otra.pe").await
}

pub async fn post(server: &Server, path: &str, token: &str, body: Value) -> Response {
    server.request(Method::POST, path, token, Some(body)).await
}

pub async fn put(server: &Server, path: &str, token: &str, body: Value) -> Response {
    server.request(Method::PUT, path, token, Some(body)).await
}

pub async fn patch(server: &Server, path: &str, token: &str, body: Value) -> Response {
    server.request(Method::PATCH, path, token, Some(body)).await
}

pub async fn get(server: &Server, path: &str, token: &str) -> Response {
    server.request(Method::GET, path, token, None).await
}

pub async fn delete(server: &Server, path: &str, token: &str) -> u16 {
    server.request(Method::DELETE, path, token, None).await.status().as_u16()
}

/// The status and the `code` of a refusal.
pub async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.expect("a problem");
    (status, problem["code"].as_str().unwrap_or_else(|| panic!("{problem}")).to_owned())
}

/// A list that must be answered.
pub async fn list(server: &Server, path: &str, token: &str) -> Vec<Value> {
    let answer = get(server, path, token).await;
    assert_eq!(answer.status(), 200, "GET {path}");
    answer.json().await.expect("an array")
}
