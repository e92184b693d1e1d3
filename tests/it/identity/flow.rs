//! The whole flow of the contract: the same with every provider.

use reqwest::Method;
use serde_json::{Value, json};

use super::double::Double;
use super::{empresa, login, me, post, said, server};
use crate::support::Server;
use crate::support::server::PASSWORD;

/// Registration, sign-in, profile, refresh, invitation, roles, deactivation, the end.
pub async fn whole(server: &Server) {
    let (status, made) = post(server, "/api/v1/auth/register", empresa(41)).await;
    assert_eq!((status, &made["user_type"]), (201, &"empresa".into()), "{made}");
    let refusals = [
        (
            "email",
            json!({ "dni": "00000042", "empresa": { "ruc": "20000000042", "razon_social": "F" } }),
            "email_in_use",
        ),
        ("ruc", json!({ "email": "e42@x.pe", "dni": "00000042" }), "ruc_in_use"),
        (
            "dni",
            json!({ "email": "e42@x.pe", "empresa": { "ruc": "20000000042", "razon_social": "F" } }),
            "dni_in_use",
        ),
        ("password", json!({ "email": "e42@x.pe", "password": "corta" }), "validation_failed"),
    ];
    for (what, change, code) in refusals {
        let mut body = empresa(41);
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let (_, refused) = post(server, "/api/v1/auth/register", body).await;
        assert_eq!(refused["code"], code, "{what}: {refused}");
    }

    let (status, wrong) = login(server, "e41@x.pe", "una clave larga y otra").await;
    assert_eq!((status, &wrong["code"]), (401, &"invalid_credentials".into()));
    let (status, unknown) = login(server, "nobody@x.pe", PASSWORD).await;
    assert_eq!((status, &unknown["code"]), (401, &"invalid_credentials".into()));
    let (status, session) = login(server, "E41@x.pe", PASSWORD).await;
    assert_eq!(status, 200, "{session}");
    assert_eq!((&session["token_type"], &session["ruc"]), (&"bearer".into(), &"20000000041".into()));
    let token = session["access_token"].as_str().expect("a token");
    let (_, profile) = me(server, token).await;
    for (field, value) in [("email", "e41@x.pe"), ("rol", "admin_empresa"), ("nombre_empresa", "Fundo 41")] {
        assert_eq!(profile[field], value);
    }
    assert_eq!(profile["user_id"], made["user_id"]);

    let refresh = |token: &Value| json!({ "refresh_token": token });
    let (status, second) = post(server, "/api/v1/auth/refresh", refresh(&session["refresh_token"])).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(second["refresh_token"], session["refresh_token"]);
    let (status, bad) = post(server, "/api/v1/auth/refresh", json!({ "refresh_token": "nobody's" })).await;
    assert_eq!((status, &bad["code"]), (401, &"invalid_token".into()));

    // Somebody is invited, comes, and changes their role: from the next request on.
    let invite = server.request(Method::POST, "/api/v1/trabajadores/invitaciones", token, None).await;
    let code = said(invite).await.1["codigo_invitacion"].clone();
    let person = json!({ "email": "t41@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "Luz",
        "apellidos": "Rey", "codigo_invitacion": code });
    let (status, person) = post(server, "/api/v1/auth/register", person).await;
    assert_eq!(status, 201, "{person}");
    let (_, theirs) = login(server, "t41@x.pe", PASSWORD).await;
    let worker = theirs["access_token"].as_str().expect("a token").to_owned();
    let id = theirs["id_trabajador"].as_i64().expect("a key");
    let people = |token: String| async move {
        server.request(Method::GET, "/api/v1/trabajadores", &token, None).await.status().as_u16()
    };
    assert_eq!(people(worker.clone()).await, 403);
    let path = format!("/api/v1/trabajadores/{id}");
    let change = |body: Value| server.request(Method::PUT, &path, token, Some(body));
    assert_eq!(change(json!({ "rol": "supervisor" })).await.status(), 200);
    assert_eq!(people(worker.clone()).await, 200, "with the same token");
    assert_eq!(change(json!({ "activo": false })).await.status(), 200);
    assert_eq!(people(worker.clone()).await, 401);
    let (status, inactive) = login(server, "t41@x.pe", PASSWORD).await;
    assert_eq!((status, &inactive["code"]), (401, &"account_inactive".into()));

    let end = server.request(Method::POST, "/api/v1/auth/logout", token, None).await;
    assert_eq!(end.status(), 204);
    let (status, _) = post(server, "/api/v1/auth/refresh", refresh(&second["refresh_token"])).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn the_whole_flow_with_accounts_of_our_own() {
    whole(&Server::start().await).await;
}

#[tokio::test]
async fn the_whole_flow_with_supabase() {
    let double = Double::start();
    whole(&server(&double).await).await;
    let emails = double.emails();
    for there in ["admin@fundo.pe", "e41@x.pe", "t41@x.pe"] {
        assert!(emails.iter().any(|e| e == there), "{emails:?}");
    }
    assert!(!emails.iter().any(|e| e == "e42@x.pe"), "conflicts are found before an identity is made");
}

#[tokio::test]
async fn the_whole_flow_with_supabase_and_its_newer_form_of_errors() {
    let double = Double::start();
    double.speaks_newer();
    whole(&server(&double).await).await;
}
