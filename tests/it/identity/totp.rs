//! The second factor: asked for from its first code on, and no road leads round it.

use alertrace::domain::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};
use totp_rs::Totp;

use super::double::Double;
use super::mail::{Mailbox, forgot, reset, token, with_mail};
use super::{empresa, login, me, post, said, server};
use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Server};

const NEW: &str = "otra clave larga";

/// What an app shows, so many steps from now.
pub(super) fn code(url: &str, later: u64) -> String {
    let totp = Totp::from_url(url).expect("an address of an app");
    let now = u64::try_from(SystemClock.now().secs()).expect("after 1970");
    totp.generate(now + 30 * later).to_string()
}

fn text(of: &Value) -> String {
    of.as_str().expect("text").to_owned()
}

async fn ask(server: &Server, path: &str, token: &str, body: Value) -> (u16, Value) {
    said(server.request(Method::POST, path, token, Some(body)).await).await
}

async fn with_code(server: &Server, email: &str, password: &str, code: &str) -> (u16, Value) {
    let body = json!({ "email": email, "password": password, "codigo": code });
    post(server, "/api/v1/auth/login", body).await
}

/// Sets a second factor up; answers its address.
async fn begin(server: &Server, token: &str) -> String {
    let begun = server.request(Method::POST, "/api/v1/auth/totp", token, None).await;
    let (status, begun) = said(begun).await;
    assert_eq!(status, 201, "{begun}");
    let url = text(&begun["otpauth_url"]);
    assert!(url.contains(&text(&begun["secreto"])), "{begun}");
    url
}

/// And confirms it; answers the address and what was answered.
pub(super) async fn enrol(server: &Server, token: &str) -> (String, Value) {
    let url = begin(server, token).await;
    let body = json!({ "codigo": code(&url, 0) });
    let (status, confirmed) = ask(server, "/api/v1/auth/totp/confirmar", token, body).await;
    assert_eq!(status, 200, "{confirmed}");
    (url, confirmed)
}

async fn state(server: &Server, token: &str) -> Value {
    said(server.request(Method::GET, "/api/v1/auth/totp", token, None).await).await.1
}

#[tokio::test]
async fn a_second_factor_is_asked_for_from_its_first_code_on() {
    let server = Server::start().await;
    let (_, before) = login(&server, EMAIL, PASSWORD).await;
    let own = text(&before["access_token"]);
    assert_eq!(state(&server, &own).await["activo"], false);
    let none = ask(&server, "/api/v1/auth/totp/confirmar", &own, json!({ "codigo": "123456" })).await;
    assert_eq!((none.0, &none.1["code"]), (409, &"sin_totp".into()));
    let left = begin(&server, &own).await;
    let url = begin(&server, &own).await;
    let (_, other) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(other["token_type"], "bearer", "not before it is confirmed");
    for wrong in [code(&left, 0), "x".to_owned()] {
        let (status, refused) =
            ask(&server, "/api/v1/auth/totp/confirmar", &own, json!({ "codigo": wrong })).await;
        assert_eq!((status, &refused["errors"][0]["campo"]), (422, &"codigo".into()), "{refused}");
    }
    let first = code(&url, 0);
    let body = json!({ "codigo": first });
    let (status, confirmed) = ask(&server, "/api/v1/auth/totp/confirmar", &own, body).await;
    assert_eq!(status, 200, "{confirmed}");
    let codes: Vec<String> =
        confirmed["codigos_recuperacion"].as_array().expect("codes").iter().map(text).collect();
    assert_eq!(codes.len(), 10);

    // Everything from before is over; the answer goes on.
    for old in [&before, &other] {
        assert_eq!(me(&server, &text(&old["access_token"])).await.1["code"], "invalid_token");
        let refresh = json!({ "refresh_token": old["refresh_token"] });
        assert_eq!(post(&server, "/api/v1/auth/refresh", refresh).await.0, 401);
    }
    let token = text(&confirmed["access_token"]);
    assert_eq!(me(&server, &token).await.0, 200);
    let refresh = json!({ "refresh_token": confirmed["refresh_token"] });
    let (status, next) = post(&server, "/api/v1/auth/refresh", refresh).await;
    assert_eq!(status, 200);
    assert_eq!(me(&server, &text(&next["access_token"])).await.0, 200, "and its successors too");
    let again = server.request(Method::POST, "/api/v1/auth/totp", &token, None).await;
    assert_eq!(said(again).await.1["code"], "totp_activo");

    let answer = server
        .request(
            Method::POST,
            "/api/v1/auth/login",
            "",
            Some(json!({ "email": EMAIL, "password": PASSWORD, "codigo": " " })),
        )
        .await;
    assert!(answer.headers().contains_key("www-authenticate"));
    let (status, refused) = said(answer).await;
    assert_eq!((status, &refused["code"]), (401, &"totp_requerido".into()));
    assert!(text(&refused["detail"]).contains("dos pasos"), "{refused}");
    assert_eq!(login(&server, EMAIL, "another long one").await.1["code"], "invalid_credentials");
    for used in [first.as_str(), "000000", "x", &"9".repeat(10_000)] {
        let (status, refused) = with_code(&server, EMAIL, PASSWORD, used).await;
        assert_eq!((status, &refused["code"]), (401, &"totp_incorrecto".into()), "{refused}");
    }
    let second = code(&url, 1);
    let typed = format!("{} {}", &second[..3], &second[3..]);
    assert_eq!(with_code(&server, EMAIL, PASSWORD, &typed).await.0, 200, "early by a step");
    assert_eq!(with_code(&server, EMAIL, PASSWORD, &second).await.1["code"], "totp_incorrecto", "good once");

    // Recovery codes, and the two ways of the password form.
    assert_eq!(with_code(&server, EMAIL, PASSWORD, &codes[0].to_lowercase()).await.0, 200);
    assert_eq!(with_code(&server, EMAIL, PASSWORD, &codes[0]).await.1["code"], "totp_incorrecto");
    let form = async |field: &str, code: &str| {
        let url = format!("http://{}/api/v1/auth/token", server.http);
        let fields = [("username", EMAIL), ("password", PASSWORD), (field, code)];
        said(reqwest::Client::new().post(url).form(&fields).send().await.expect("an answer")).await
    };
    assert_eq!(form("grant_type", "password").await.1["code"], "totp_requerido");
    assert_eq!(form("codigo", &codes[1]).await.0, 200);
    assert_eq!(form("client_secret", &codes[2]).await.0, 200);
    assert_eq!(state(&server, &token).await["codigos_restantes"], 7);
    let (status, renewed) =
        ask(&server, "/api/v1/auth/totp/codigos", &token, json!({ "codigo": codes[3] })).await;
    assert_eq!(status, 200, "{renewed}");
    assert_eq!(with_code(&server, EMAIL, PASSWORD, &codes[4]).await.0, 401, "there are others");

    let quit = "/api/v1/auth/totp/quitar";
    let wrong = ask(&server, quit, &token, json!({ "password": "another long one" })).await;
    assert_eq!((wrong.0, &wrong.1["errors"][0]["campo"]), (422, &"password".into()));
    assert_eq!(ask(&server, quit, &token, json!({})).await.0, 422);
    assert_eq!(ask(&server, quit, &token, json!({ "password": PASSWORD })).await.0, 204);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 200);
    let audit = said(server.request(Method::GET, "/api/v1/auditoria?limit=100", &token, None).await).await.1;
    let audit: Vec<(String, String)> = audit
        .as_array()
        .expect("a list")
        .iter()
        .map(|a| (text(&a["accion"]), text(&a["objeto"])))
        .filter(|(_, objeto)| objeto == "totp" || objeto == "codigo_de_recuperacion")
        .collect();
    let told = |accion: &str, objeto: &str| {
        audit.iter().filter(|(a, o)| (a.as_str(), o.as_str()) == (accion, objeto)).count()
    };
    assert_eq!((told("activar", "totp"), told("borrar", "totp")), (1, 1), "{audit:?}");
    assert_eq!((told("usar", "codigo_de_recuperacion"), told("renovar", "codigo_de_recuperacion")), (4, 1));
}

#[tokio::test]
async fn no_road_leads_round_a_second_factor() {
    let mut mailbox = Mailbox::open().await;
    let server = with_mail(&mailbox, &[("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true")]).await;
    let (url, confirmed) = enrol(&server, &server.token).await;
    let recovery = text(&confirmed["codigos_recuperacion"][0]);

    // The dialect lets the password in, as far as to the factor.
    let grant = json!({ "email": EMAIL, "password": PASSWORD });
    let (status, half) = post(&server, "/auth/v1/token?grant_type=password", grant).await;
    assert_eq!(status, 200, "{half}");
    let half = text(&half["access_token"]);
    assert_eq!(me(&server, &half).await.1["code"], "totp_requerido");
    // By the link of a message, too.
    assert_eq!(forgot(&server, EMAIL).await.0, 202);
    let link = mailbox.link(EMAIL).await;
    let (status, changed) = reset(&server, &token(&link), NEW).await;
    assert_eq!(status, 200, "{changed}");
    assert!(changed["access_token"].is_null());
    assert_eq!(me(&server, &half).await.1["code"], "invalid_token", "what the old password opened is over");
    assert_eq!(login(&server, EMAIL, NEW).await.1["code"], "totp_requerido");
    let grant = json!({ "email": EMAIL, "password": NEW });
    let (_, after) = post(&server, "/auth/v1/token?grant_type=password", grant).await;
    let refresh = json!({ "refresh_token": after["refresh_token"] });
    let (status, refused) = post(&server, "/api/v1/auth/refresh", refresh.clone()).await;
    assert_eq!((status, &refused["code"]), (401, &"totp_requerido".into()));
    let (status, refreshed) = post(&server, "/auth/v1/token?grant_type=refresh_token", refresh).await;
    assert_eq!(status, 200, "what was refused has not spent it: {refreshed}");

    for session in [&after, &refreshed] {
        let token = text(&session["access_token"]);
        let (status, refused) = me(&server, &token).await;
        assert_eq!((status, &refused["code"]), (401, &"totp_requerido".into()));
        for path in ["/api/v1/sensores", "/api/v1/auth/totp", "/api/v1/auth/sesiones"] {
            let answer = server.request(Method::GET, path, &token, None).await;
            assert_eq!(answer.status(), 401, "{path}");
        }
        let quit = ask(&server, "/api/v1/auth/totp/quitar", &token, json!({ "password": NEW })).await;
        assert_eq!(quit.0, 401);
        let (_, code) = Client::connect(&server.mqtt, 5, "p", "jwt", &token).await;
        assert_eq!(code, 0x86, "MQTT");
        let socket = reqwest::Client::new()
            .get(format!("http://{}/api/v1/sensores/live", server.http))
            .bearer_auth(&token)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(socket.send().await.expect("an answer").status(), 401, "WebSocket");
        let user = server.request(Method::GET, "/auth/v1/user", &token, None).await;
        let (status, user) = said(user).await;
        assert_eq!((status, &user["factors"][0]["status"]), (200, &"verified".into()), "{user}");
        let change = server.request(Method::PUT, "/auth/v1/user", &token, Some(json!({ "data": {} }))).await;
        assert_eq!(said(change).await.1["error_code"], "insufficient_aal");
        let begun = ask(&server, "/auth/v1/factors", &token, json!({ "factor_type": "totp" })).await;
        assert_eq!(begun.1["error_code"], "too_many_enrolled_mfa_factors");
    }
    assert_eq!(with_code(&server, EMAIL, NEW, &recovery).await.0, 200);
    assert_eq!(with_code(&server, EMAIL, NEW, &code(&url, 1)).await.0, 200);
}

#[tokio::test]
async fn codes_of_one_account_are_tried_a_few_times_an_hour() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__IDENTITY__MAX_SIGN_INS_PER_ACCOUNT_PER_MIN", "0");
        command
    })
    .await;
    let (_, confirmed) = enrol(&server, &server.token).await;
    let mut statuses = Vec::new();
    for n in 0..20 {
        statuses.push(with_code(&server, EMAIL, PASSWORD, &format!("{n:06}")).await.0);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    let recovery = text(&confirmed["codigos_recuperacion"][0]);
    assert_eq!(with_code(&server, EMAIL, PASSWORD, &recovery).await.0, 429, "the right one too, for a while");
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 401, "which costs the password nothing");
}

#[tokio::test]
async fn an_administrator_takes_away_that_of_their_own_people_and_the_command_line_anybodys() {
    let mut server = Server::start().await;
    let person = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "W", "apellido": "Z" });
    let (status, made) = ask(&server, "/api/v1/trabajadores", &server.token, person).await;
    assert_eq!(status, 201, "{made}");
    enrol(&server, &server.sign_in("w@x.pe").await).await;
    assert_eq!(post(&server, "/api/v1/auth/register", empresa(1)).await.0, 201);
    let stranger = server.sign_in("e1@x.pe").await;
    let path = |id: &Value| format!("/api/v1/trabajadores/{id}/totp");
    let theirs = path(&made["id_trabajador"]);
    let take =
        async |path: &str, token: &str| said(server.request(Method::DELETE, path, token, None).await).await;
    assert_eq!(take(&theirs, &stranger).await.0, 404);
    assert_eq!(login(&server, "w@x.pe", PASSWORD).await.1["code"], "totp_requerido");
    assert_eq!(take(&theirs, &server.token).await.0, 204);
    assert_eq!(login(&server, "w@x.pe", PASSWORD).await.0, 200);
    assert_eq!(take(&theirs, &server.token).await.0, 404, "none is left");
    let audit = server.get("/api/v1/auditoria?limit=5").await;
    let audit = audit.as_array().expect("a list");
    assert!(
        audit
            .iter()
            .any(|a| a["accion"] == "borrar" && a["objeto"] == "totp" && a["id_objeto"] == made["user_id"]),
        "{audit:?}"
    );

    let (_, confirmed) = enrol(&server, &server.token).await;
    let token = text(&confirmed["access_token"]);
    let (_, own) = me(&server, &token).await;
    let (status, refused) = take(&path(&own["id_trabajador"]), &token).await;
    assert_eq!((status, &refused["code"]), (409, &"totp_propio".into()), "not without a code");
    server.terminate().await;
    let said = server.run(&["user", "remove-totp", "--email", "Admin@Fundo.pe"]);
    assert!(said.contains("password alone"), "{said}");
    let mut again = server.command();
    let none = again.args(["user", "remove-totp", "--email", EMAIL]).output().expect("it runs");
    assert_eq!(none.status.code(), Some(1));
    server.kill_and_restart();
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 200);
}

#[tokio::test]
async fn with_supabase_its_own_second_factors_are_to_be_used() {
    let double = Double::start();
    let server = server(&double).await;
    for (method, path, body) in [
        (Method::GET, "/api/v1/auth/totp", None),
        (Method::POST, "/api/v1/auth/totp", None),
        (Method::POST, "/api/v1/auth/totp/confirmar", Some(json!({ "codigo": "123456" }))),
        (Method::POST, "/api/v1/auth/totp/codigos", Some(json!({ "codigo": "123456" }))),
        (Method::POST, "/api/v1/auth/totp/quitar", Some(json!({ "codigo": "123456" }))),
        (Method::DELETE, "/api/v1/trabajadores/999/totp", None),
    ] {
        let (status, refused) = said(server.request(method, path, &server.token, body).await).await;
        assert_eq!((status, &refused["code"]), (501, &"totp_del_proveedor".into()), "{path}");
        assert!(text(&refused["detail"]).contains("Supabase"), "{refused}");
    }
}
