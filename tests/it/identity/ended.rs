//! What ends with a sign-in, and with a password: every token and every connection, at once. And what changes for a
//! person, from their very next request on.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::mail::{Mailbox, forgot, reset, token, with_mail};
use super::totp::enrol;
use super::{login, me, post, said};
use crate::live;
use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Server};

const NEW: &str = "otra clave larga";
const SERVICE: &str = "service-role-key-of-ours";

/// Somebody who is signed in, with a WebSocket and an MQTT connection by that.
struct Here {
    access: String,
    refresh: Value,
    socket: live::Socket,
    client: Client,
}

impl Here {
    async fn enters(server: &Server, name: &str, password: &str) -> Self {
        let (status, session) = login(server, EMAIL, password).await;
        assert_eq!(status, 200, "{session}");
        Self::by(server, name, &session).await
    }

    async fn by(server: &Server, name: &str, session: &Value) -> Self {
        let access = session["access_token"].as_str().expect("a token").to_owned();
        let bearer = format!("Bearer {access}");
        let (mut socket, _) = live::open(server, "", &[("authorization", &bearer)]).await.expect("it opens");
        assert_eq!(live::event(&mut socket).await["type"], "snapshot");
        let (client, code) = Client::connect(&server.mqtt, 5, name, "jwt", &access).await;
        assert_eq!(code, 0);
        Self { access, refresh: session["refresh_token"].clone(), socket, client }
    }

    async fn ended(mut self, server: &Server, why: &str) {
        let (status, refused) = me(server, &self.access).await;
        assert_eq!((status, &refused["code"]), (401, &"invalid_token".into()), "{why}");
        let body = json!({ "refresh_token": self.refresh });
        assert_eq!(post(server, "/api/v1/auth/refresh", body).await.0, 401, "{why}");
        assert_eq!(live::close_code(&mut self.socket).await, 4401, "{why}");
        // As long as something comes it is not over.
        while self.client.read().await.is_some() {}
        let (_, code) = Client::connect(&server.mqtt, 5, "again", "jwt", &self.access).await;
        assert_ne!(code, 0, "{why}");
    }

    /// Nothing of it ended.
    async fn goes_on(&mut self, server: &Server, why: &str) {
        assert_eq!(me(server, &self.access).await.0, 200, "{why}");
        assert!(self.client.alive().await, "{why}");
        self.socket.send(Message::Ping("here".into())).await.expect("it is open");
        let pong = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            loop {
                match self.socket.next().await.expect("it is open").expect("a message") {
                    Message::Pong(_) => break true,
                    Message::Close(_) => break false,
                    _ => {}
                }
            }
        });
        assert!(pong.await.expect("in time"), "{why}");
    }
}

async fn dialect(mailbox: &Mailbox) -> Server {
    with_mail(
        mailbox,
        &[
            ("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true"),
            ("ALERTRACE__IDENTITY__SUPABASE_SERVICE_ROLE_KEY", SERVICE),
        ],
    )
    .await
}

#[tokio::test]
async fn another_password_ends_what_the_old_one_opened() {
    let mut mailbox = Mailbox::open().await;
    let server = dialect(&mailbox).await;
    let thief = Here::enters(&server, "thief", PASSWORD).await;
    assert_eq!(forgot(&server, EMAIL).await.0, 202);
    let link = mailbox.link(EMAIL).await;
    assert_eq!(reset(&server, &token(&link), NEW).await.0, 200);
    thief.ended(&server, "by the link of a message").await;

    let thief = Here::enters(&server, "thief", NEW).await;
    let mut own = Here::enters(&server, "own", NEW).await;
    let change = Some(json!({ "password": PASSWORD }));
    let changed = server.request(Method::PUT, "/auth/v1/user", &own.access, change).await;
    let (status, changed) = said(changed).await;
    assert_eq!(status, 200, "{changed}");
    thief.ended(&server, "by its owner").await;
    own.goes_on(&server, "whoever changed it").await;

    let path = format!("/auth/v1/admin/users/{}", changed["id"].as_str().expect("a key"));
    let change = Some(json!({ "password": NEW }));
    assert_eq!(server.request(Method::PUT, &path, SERVICE, change).await.status(), 200);
    own.ended(&server, "by whoever administers accounts").await;
    let (_, session) = login(&server, EMAIL, NEW).await;
    let token = session["access_token"].as_str().expect("a token");
    let audit = server.request(Method::GET, "/api/v1/auditoria?limit=20", token, None).await;
    let audit = said(audit).await.1;
    let told = |user_id: &Value, accion: &str| {
        let same = |a: &&Value| a["user_id"] == *user_id && a["accion"] == accion && a["objeto"] == "acceso";
        audit.as_array().expect("a list").iter().filter(same).count()
    };
    let own = &changed["id"];
    assert_eq!((told(own, "restablecer"), told(own, "cambiar")), (1, 1), "{audit}");
    assert_eq!(told(&"service_role".into(), "cambiar"), 1, "{audit}");
}

#[tokio::test]
async fn a_sign_in_that_is_ended_ends_with_all_it_opened_and_no_other_does() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true");
        command
    })
    .await;
    let mut own = Here::enters(&server, "own", PASSWORD).await;
    let other = Here::enters(&server, "other", PASSWORD).await;
    let list = server.request(Method::GET, "/api/v1/auth/sesiones", &own.access, None).await;
    let list = said(list).await.1;
    let list = list.as_array().expect("a list");
    assert!(list[1]["actual"] == true && list[0]["actual"] == false, "{list:?}");
    let path = format!("/api/v1/auth/sesiones/{}", list[0]["id"].as_str().expect("its name"));
    assert_eq!(server.request(Method::DELETE, &path, &own.access, None).await.status(), 204);
    other.ended(&server, "one of the list").await;

    let other = Here::enters(&server, "other", PASSWORD).await;
    let body = Some(json!({ "refresh_token": other.refresh }));
    let out = server.request(Method::POST, "/api/v1/auth/logout", &other.access, body).await;
    assert_eq!(out.status(), 204);
    other.ended(&server, "who signs out").await;
    let other = Here::enters(&server, "other", PASSWORD).await;
    let path = "/auth/v1/logout?scope=others";
    assert_eq!(server.request(Method::POST, path, &own.access, None).await.status(), 204);
    other.ended(&server, "one of the others").await;
    own.goes_on(&server, "who asked").await;
    assert_eq!(server.request(Method::POST, "/api/v1/auth/logout", &own.access, None).await.status(), 204);
    own.ended(&server, "who signs out of everything").await;
}

#[tokio::test]
async fn what_changes_for_a_person_holds_on_their_very_next_request() {
    let server = Server::start().await;
    let person = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "W", "apellido": "Z" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(person)).await;
    let path = format!("/api/v1/trabajadores/{}", said(made).await.1["id_trabajador"]);
    let put = async |body: Value| {
        assert_eq!(server.request(Method::PUT, &path, &server.token, Some(body)).await.status(), 200);
    };
    let people = async |token: &str| {
        server.request(Method::GET, "/api/v1/trabajadores", token, None).await.status().as_u16()
    };
    let token = server.sign_in("w@x.pe").await;
    for _ in 0..5 {
        // Twice: what is kept of them is of before.
        assert_eq!([people(&token).await, people(&token).await], [403, 403]);
        put(json!({ "rol": "supervisor" })).await;
        assert_eq!([people(&token).await, people(&token).await], [200, 200]);
        put(json!({ "rol": "worker" })).await;
    }
    put(json!({ "activo": false })).await;
    assert_eq!(me(&server, &token).await.1["code"], "account_inactive");
    put(json!({ "activo": true })).await;
    assert_eq!(me(&server, &token).await.1["code"], "invalid_token");

    let token = server.sign_in("w@x.pe").await;
    assert_eq!([people(&token).await, people(&token).await], [403, 403]);
    enrol(&server, &token).await;
    assert_eq!(me(&server, &token).await.1["code"], "invalid_token", "it showed no second factor");

    // Who belongs to no empresa sees nothing until they join one.
    let body = json!({ "email": "t@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "T",
        "apellidos": "U" });
    assert_eq!(post(&server, "/api/v1/auth/register", body).await.0, 201);
    let token = server.sign_in("t@x.pe").await;
    let sensors =
        async || server.request(Method::GET, "/api/v1/sensores", &token, None).await.status().as_u16();
    assert_eq!([sensors().await, sensors().await], [403, 403]);
    let invited =
        server.request(Method::POST, "/api/v1/trabajadores/invitaciones", &server.token, None).await;
    let code = json!({ "codigo_invitacion": said(invited).await.1["codigo_invitacion"] });
    let joined = server.request(Method::POST, "/api/v1/auth/unirse", &token, Some(code)).await;
    assert_eq!(joined.status(), 200);
    assert_eq!(sensors().await, 200);
}
