//! People: how they come in, what their role lets them, and that they are out at once.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::people::{another_empresa, delete, get, list, person, post, put, refusal, sign_in};
use crate::support::mqtt::{packet, text};
use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Server};

#[tokio::test]
async fn a_code_lets_one_person_in_with_its_role() {
    let server = Server::start().await;
    let invite = json!({ "rol": "supervisor" });
    let answer = post(&server, "/api/v1/trabajadores/invitaciones", &server.token, invite).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["cache-control"]),
        (201, &"no-store".parse().expect("a value"))
    );
    let invited: Value = answer.json().await.expect("JSON");
    let code = invited["codigo_invitacion"].as_str().expect("a code").to_owned();
    assert_eq!((&invited["rol"], &invited["estado"]), (&json!("supervisor"), &json!("vigente")));
    let listed = server.get("/api/v1/trabajadores/invitaciones").await;
    assert!(!listed.to_string().contains(&code), "the code is shown once");

    let register = |email: &str, code: &str| {
        json!({ "email": email, "password": PASSWORD, "user_type": "trabajador", "nombres": "Luz",
            "apellidos": "Rey", "codigo_invitacion": code })
    };
    let wrong = post(&server, "/api/v1/auth/register", "", register("a@x.pe", "AAAA-BBBB")).await;
    assert_eq!(refusal(wrong).await, (422, "invalid_invitation".to_owned()));
    // However it is typed.
    let typed = code.to_lowercase().replace('-', " ");
    assert_eq!(post(&server, "/api/v1/auth/register", "", register("a@x.pe", &typed)).await.status(), 201);
    let me = sign_in(&server, "a@x.pe").await;
    assert_eq!((&me["rol"], &me["ruc"]), (&json!("supervisor"), &json!("20123456789")));
    let again = post(&server, "/api/v1/auth/register", "", register("b@x.pe", &code)).await;
    assert_eq!(refusal(again).await, (422, "invalid_invitation".to_owned()));
    let used = &server.get("/api/v1/trabajadores/invitaciones").await[0];
    assert_eq!((&used["estado"], &used["usada_por"]), (&json!("usada"), &me["user_id"]));
    let path = format!("/api/v1/trabajadores/invitaciones/{}", used["id_invitacion"]);
    let answer = server.request(reqwest::Method::DELETE, &path, &server.token, None).await;
    assert_eq!(refusal(answer).await, (409, "invitation_used".to_owned()));
}

#[tokio::test]
async fn an_account_without_an_empresa_joins_one_and_a_revoked_code_lets_nobody_in() {
    let server = Server::start().await;
    let register = json!({ "email": "a@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "Luz",
        "apellidos": "Rey" });
    assert_eq!(post(&server, "/api/v1/auth/register", "", register).await.status(), 201);
    let token = server.sign_in("a@x.pe").await;
    let invite = async || {
        let answer =
            post(&server, "/api/v1/trabajadores/invitaciones", &server.token, json!({ "rol": "worker" }))
                .await;
        answer.json::<Value>().await.expect("JSON")
    };
    let revoked = invite().await;
    let path = format!("/api/v1/trabajadores/invitaciones/{}", revoked["id_invitacion"]);
    let other = another_empresa(&server).await;
    assert_eq!(delete(&server, &path, &other).await, 404);
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    let join = |invited: &Value| json!({ "codigo_invitacion": invited["codigo_invitacion"] });
    let answer = post(&server, "/api/v1/auth/unirse", &token, join(&revoked)).await;
    assert_eq!(refusal(answer).await, (422, "invalid_invitation".to_owned()));
    assert_eq!(get(&server, "/api/v1/sensores", &token).await.status(), 403);

    let invited = invite().await;
    let answer = post(&server, "/api/v1/auth/unirse", &token, join(&invited)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.expect("JSON")["rol"], "worker");
    assert_eq!(get(&server, "/api/v1/sensores", &token).await.status(), 200, "with the same token");
    // The empresa reads who came in, by which code, and not the code.
    let me: Value = get(&server, "/api/v1/auth/me", &token).await.json().await.expect("JSON");
    let told = list(&server, "/api/v1/auditoria?accion=unirse", &server.token).await;
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&told["user_id"], &told["objeto"]), (&me["user_id"], &json!("trabajador")));
    assert_eq!(told["id_objeto"], me["id_trabajador"].to_string());
    let como = json!({ "email": "a@x.pe", "rol": "worker", "id_invitacion": invited["id_invitacion"] });
    assert_eq!((&told["antes"], &told["despues"]), (&Value::Null, &como));
    assert_eq!(list(&server, "/api/v1/auditoria?accion=unirse", &other).await.len(), 0);
    let again = post(&server, "/api/v1/auth/unirse", &token, join(&invite().await)).await;
    assert_eq!(refusal(again).await, (409, "already_member".to_owned()));
}

#[tokio::test]
async fn after_the_first_empresa_registration_is_by_invitation() {
    let first = |mut command: std::process::Command| {
        command.env("ALERTRACE__IDENTITY__REGISTRATION", "first");
        command
    };
    let server = Server::start_with(first).await;
    let body = json!({ "email": "a@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "Luz",
        "apellidos": "Rey" });
    let answer = post(&server, "/api/v1/auth/register", "", body.clone()).await;
    assert_eq!(refusal(answer).await, (403, "invitation_required".to_owned()));
    // Without a body it is for a worker.
    let path = "/api/v1/trabajadores/invitaciones";
    let invited = server.request(reqwest::Method::POST, path, &server.token, None).await;
    assert_eq!(post(&server, path, &server.token, json!({ "rol": "operador" })).await.status(), 422);
    let invited: Value = invited.json().await.expect("JSON");
    let mut body = body;
    body["codigo_invitacion"] = invited["codigo_invitacion"].clone();
    assert_eq!(post(&server, "/api/v1/auth/register", "", body).await.status(), 201);
    assert_eq!(sign_in(&server, "a@x.pe").await["rol"], "worker");
}

#[tokio::test]
async fn only_administrators_change_people_and_only_their_own() {
    let server = Server::start().await;
    let (worker, supervisor) =
        (person(&server, "w", "worker").await, person(&server, "s", "supervisor").await);
    let other = another_empresa(&server).await;
    let path = format!("/api/v1/trabajadores/{}", worker.id);
    let new = || json!({ "email": "n@x.pe", "password": PASSWORD, "nombre": "N", "apellido": "N" });
    for (token, see, change, item) in
        [(&worker.token, 403, 403, 403), (&supervisor.token, 200, 403, 200), (&other, 200, 0, 404)]
    {
        assert_eq!(get(&server, "/api/v1/trabajadores", token).await.status(), see);
        assert_eq!(get(&server, &path, token).await.status(), item);
        if change == 403 {
            assert_eq!(post(&server, "/api/v1/trabajadores", token, new()).await.status(), 403);
            let answer = post(&server, "/api/v1/trabajadores/invitaciones", token, json!({})).await;
            assert_eq!(answer.status(), 403);
            assert_eq!(get(&server, "/api/v1/trabajadores/invitaciones", token).await.status(), 403);
            assert_eq!(put(&server, &path, token, json!({ "nombre": "X" })).await.status(), 403);
            assert_eq!(delete(&server, &path, token).await, 403);
        } else {
            assert_eq!(put(&server, &path, token, json!({ "nombre": "X" })).await.status(), 404);
            assert_eq!(delete(&server, &path, token).await, 404);
        }
    }
    let theirs = list(&server, "/api/v1/trabajadores", &other).await;
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    let found = list(&server, "/api/v1/trabajadores", &server.token).await;
    assert_eq!(found.len(), 3);
    assert_eq!(found[1]["email"], worker.email);
    assert_eq!(found[1]["user_id"], worker.user_id);
    // What is refused changes nothing.
    assert_eq!(server.get(&path).await["nombre"], "w");
}

#[tokio::test]
async fn a_person_is_changed_field_by_field() {
    let server = Server::start().await;
    let worker = person(&server, "w", "worker").await;
    let path = format!("/api/v1/trabajadores/{}", worker.id);
    let body = json!({ "nombres": "Luz", "dni": "12345678", "telefono": "999", "email": worker.email });
    let changed: Value = put(&server, &path, &server.token, body).await.json().await.expect("JSON");
    assert_eq!(
        (&changed["nombre"], &changed["apellido"], &changed["dni"], &changed["telefono"]),
        (&json!("Luz"), &json!("Paz"), &json!("12345678"), &json!("999"))
    );
    let changed: Value =
        put(&server, &path, &server.token, json!({ "telefono": null })).await.json().await.expect("JSON");
    assert_eq!((&changed["telefono"], &changed["dni"]), (&Value::Null, &json!("12345678")));
    for (body, field) in [
        (json!({ "dni": "1" }), "dni"),
        (json!({ "nombre": " " }), "nombre"),
        (json!({ "rol": "operador" }), "rol"),
        (json!({ "rol": "jefe" }), "rol"),
        (json!({ "email": "otro@x.pe" }), "email"),
    ] {
        let answer = put(&server, &path, &server.token, body).await;
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.json::<Value>().await.expect("JSON")["errors"][0]["campo"], field);
    }
    let second = person(&server, "x", "worker").await;
    let path = format!("/api/v1/trabajadores/{}", second.id);
    let taken = put(&server, &path, &server.token, json!({ "dni": "12345678" })).await;
    assert_eq!(refusal(taken).await, (409, "dni_in_use".to_owned()));
}

#[tokio::test]
async fn nobody_deactivates_themselves_and_one_administrator_stays() {
    let server = Server::start().await;
    let me = server.get("/api/v1/auth/me").await["id_trabajador"].clone();
    let path = format!("/api/v1/trabajadores/{me}");
    for answer in [
        server.request(reqwest::Method::DELETE, &path, &server.token, None).await,
        put(&server, &path, &server.token, json!({ "activo": false })).await,
    ] {
        assert_eq!(refusal(answer).await, (409, "self_deactivation".to_owned()));
    }
    let demote = || put(&server, &path, &server.token, json!({ "rol": "worker" }));
    assert_eq!(refusal(demote().await).await, (409, "last_admin".to_owned()));
    // One that is not active is none.
    let second = person(&server, "b", "admin_empresa").await;
    let theirs = format!("/api/v1/trabajadores/{}", second.id);
    assert_eq!(delete(&server, &theirs, &server.token).await, 204);
    assert_eq!(refusal(demote().await).await, (409, "last_admin".to_owned()));
    assert_eq!(put(&server, &theirs, &server.token, json!({ "activo": true })).await.status(), 200);
    assert_eq!(demote().await.status(), 200);
    assert_eq!(sign_in(&server, EMAIL).await["rol"], "worker");
    let last = server.sign_in(&second.email).await;
    let answer = server.request(reqwest::Method::DELETE, &theirs, &last, None).await;
    assert_eq!(refusal(answer).await.0, 409);
}

/// Whether a WebSocket is closed with 4401.
async fn closed_4401(socket: &mut super::Socket) -> bool {
    let wait = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code == CloseCode::from(4401),
                Some(Ok(_)) => {}
                _ => return false,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), wait).await.unwrap_or_default()
}

#[tokio::test]
async fn a_deactivated_person_is_out_at_once_everywhere() {
    let server = Server::start().await;
    server.device("s1").await;
    let boss = person(&server, "s", "supervisor").await;
    let mut socket = super::live_as(&server, &boss.token).await;
    assert!(matches!(socket.next().await, Some(Ok(Message::Text(_)))), "a snapshot");
    let (mut panel, code) = Client::connect(&server.mqtt, 5, "p", "jwt", &boss.token).await;
    assert_eq!(code, 0);

    let path = format!("/api/v1/trabajadores/{}", boss.id);
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    assert!(closed_4401(&mut socket).await);
    assert_eq!(panel.read().await.map(|(f, body)| (f, body[0])), Some((0xe0, 0x87)));
    assert_eq!(Client::connect(&server.mqtt, 5, "p", "jwt", &boss.token).await.1, 0x86);
    let answer = get(&server, "/api/v1/sensores", &boss.token).await;
    assert_eq!(refusal(answer).await, (401, "account_inactive".to_owned()));
    let refresh = || json!({ "refresh_token": boss.refresh_token });
    assert_eq!(post(&server, "/api/v1/auth/refresh", "", refresh()).await.status(), 401);
    let login = json!({ "email": boss.email, "password": PASSWORD });
    assert_eq!(post(&server, "/api/v1/auth/login", "", login).await.status(), 401);
    let found = list(&server, "/api/v1/trabajadores?activo=false", &server.token).await;
    assert_eq!((found.len(), &found[0]["activo"]), (1, &json!(false)));

    // Let in again, they sign in anew: what was theirs before stays dead.
    assert_eq!(put(&server, &path, &server.token, json!({ "activo": true })).await.status(), 200);
    assert_eq!(post(&server, "/api/v1/auth/refresh", "", refresh()).await.status(), 401);
    let answer = get(&server, "/api/v1/sensores", &boss.token).await;
    assert_eq!(refusal(answer).await, (401, "invalid_token".to_owned()));
    assert_eq!(Client::connect(&server.mqtt, 5, "p", "jwt", &boss.token).await.1, 0x86);
    let anew = server.sign_in(&boss.email).await;
    assert_eq!(get(&server, "/api/v1/sensores", &anew).await.status(), 200);
}

#[tokio::test]
async fn a_sign_in_that_crosses_a_deactivation_leaves_nothing_that_works() {
    let server = Server::start().await;
    let boss = person(&server, "s", "supervisor").await;
    let path = format!("/api/v1/trabajadores/{}", boss.id);
    for n in 0..8 {
        let login = json!({ "email": boss.email, "password": PASSWORD });
        let signing_in = post(&server, "/api/v1/auth/login", "", login);
        let deactivating = async {
            tokio::time::sleep(std::time::Duration::from_millis(n * 15)).await;
            delete(&server, &path, &server.token).await
        };
        let (signed_in, deactivated) = tokio::join!(signing_in, deactivating);
        assert_eq!(deactivated, 204);
        assert_eq!(put(&server, &path, &server.token, json!({ "activo": true })).await.status(), 200);
        if signed_in.status() != 200 {
            assert_eq!(refusal(signed_in).await, (401, "account_inactive".to_owned()));
            continue;
        }
        let signed_in: Value = signed_in.json().await.expect("JSON");
        let token = signed_in["access_token"].as_str().expect("a token");
        assert_eq!(get(&server, "/api/v1/sensores", token).await.status(), 401, "attempt {n}");
        let refresh = json!({ "refresh_token": signed_in["refresh_token"] });
        assert_eq!(post(&server, "/api/v1/auth/refresh", "", refresh).await.status(), 401, "attempt {n}");
    }
}

#[tokio::test]
async fn another_role_holds_at_once_on_what_is_open() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let boss = person(&server, "s", "supervisor").await;
    let mut socket = super::live_as(&server, &boss.token).await;
    assert!(matches!(socket.next().await, Some(Ok(Message::Text(_)))), "a snapshot");
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    assert_eq!(get(&server, &path, &boss.token).await.status(), 200);
    let person = format!("/api/v1/trabajadores/{}", boss.id);
    assert_eq!(put(&server, &person, &server.token, json!({ "rol": "worker" })).await.status(), 200);
    assert_eq!(get(&server, &path, &boss.token).await.status(), 404, "with the same token");
    assert!(closed_4401(&mut socket).await);
}

/// Connects as a person, with a session that is kept for ten minutes; answers whether it was there.
async fn kept(server: &Server, token: &str) -> (Client, bool) {
    kept_as(server, "jwt", token).await
}

/// As [`kept`], by any sign-in.
pub async fn kept_as(server: &Server, user: &str, token: &str) -> (Client, bool) {
    let mut body = text("MQTT");
    body.extend([5, 0b1100_0000, 0, 60, 5, 0x11, 0, 0, 2, 88]);
    for part in ["p", user, token] {
        body.extend(text(part));
    }
    let mut client = Client::open(&server.mqtt, 5).await;
    client.send(&packet(0x10, &body)).await;
    let (first, body) = client.read().await.expect("a CONNACK");
    assert_eq!((first, body[1]), (0x20, 0));
    (client, body[0] == 1)
}

#[tokio::test]
async fn nothing_waits_in_a_session_for_somebody_who_was_shut_out() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    for connected in [true, false] {
        let boss = person(&server, &format!("s{connected}"), "supervisor").await;
        let (mut panel, present) = kept(&server, &boss.token).await;
        assert!(!present);
        assert_eq!(panel.subscribe("sensores/+/data").await, 1);
        if !connected {
            drop(panel);
            // It is there for whoever has the right to it.
            let (again, present) = kept(&server, &boss.token).await;
            assert!(present);
            drop(again);
        }
        let path = format!("/api/v1/trabajadores/{}", boss.id);
        assert_eq!(delete(&server, &path, &server.token).await, 204);
        let mut client = Client::device(&server.mqtt, 5, &device).await;
        assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
        assert_eq!(put(&server, &path, &server.token, json!({ "activo": true })).await.status(), 200);
        let (mut panel, present) = kept(&server, &server.sign_in(&boss.email).await).await;
        assert!(!present, "connected when shut out: {connected}");
        assert!(panel.alive().await);
    }
}

#[tokio::test]
async fn who_is_no_administrator_any_more_has_no_codes_left_either() {
    let server = Server::start().await;
    for (name, change) in [("uno", json!({ "activo": false })), ("dos", json!({ "rol": "worker" }))] {
        let admin = person(&server, name, "admin_empresa").await;
        let path = "/api/v1/trabajadores/invitaciones";
        let invited = post(&server, path, &admin.token, json!({ "rol": "admin_empresa" })).await;
        let invited: Value = invited.json().await.expect("JSON");
        let answer = put(&server, &format!("/api/v1/trabajadores/{}", admin.id), &server.token, change).await;
        assert_eq!(answer.status(), 200);
        let body = json!({ "email": format!("{name}@x.pe"), "password": PASSWORD, "user_type": "trabajador",
            "nombres": "Luz", "apellidos": "Rey", "codigo_invitacion": invited["codigo_invitacion"] });
        let answer = post(&server, "/api/v1/auth/register", "", body).await;
        assert_eq!(refusal(answer).await, (422, "invalid_invitation".to_owned()), "{name}");
    }
}
