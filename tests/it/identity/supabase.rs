//! Supabase as the identity provider: people who are known there and not here, keys that change, secrets.

use std::path::Path;
use std::process::Command;

use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::{Value, json};

use super::double::{ANON, CODE, Double, Fault, Key, SERVICE};
use super::{beside, empresa, flow, login, mail, me, post, saga, server, server_with, totp};
use crate::postgres::tls::certificates;
use crate::support::server::{EMAIL, PASSWORD, place};
use crate::support::{Client, Server, postgres};

const JWKS: &str = "/auth/v1/.well-known/jwks.json";

/// Waits until a server has asked for the double's keys.
pub async fn ready(double: &Double) {
    for _ in 0..100 {
        if double.asked(JWKS) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it never asks for keys");
}

#[tokio::test]
async fn somebody_who_is_known_there_alone_has_no_profile_until_they_register() {
    let double = Double::start();
    let server = server(&double).await;
    let user_id = double.add("sola@x.pe", PASSWORD, true);
    let (status, refused) = login(&server, "sola@x.pe", PASSWORD).await;
    assert_eq!((status, &refused["code"]), (403, &"perfil_incompleto".into()));
    // With a token that a front end got from Supabase itself, too.
    let token = double.key().sign(&double.claims(&user_id));
    let (status, refused) = me(&server, &token).await;
    assert_eq!((status, &refused["code"]), (403, &"perfil_incompleto".into()));

    let mut body = empresa(7);
    body["email"] = "sola@x.pe".into();
    body["password"] = "another long password".into();
    let (status, refused) = post(&server, "/api/v1/auth/register", body.clone()).await;
    assert_eq!((status, &refused["code"]), (409, &"email_in_use".into()), "not with another's password");
    body["password"] = PASSWORD.into();
    let (status, made) = post(&server, "/api/v1/auth/register", body).await;
    assert_eq!((status, &made["user_id"]), (201, &user_id.clone().into()));
    let (status, profile) = me(&server, &token).await;
    assert_eq!((status, &profile["empresa_nombre"]), (200, &"Fundo 7".into()), "with the same token");
}

#[tokio::test]
async fn without_the_service_role_key_people_confirm_their_address_first() {
    let double = Double::start();
    double.confirms_by_mail();
    double.add(EMAIL, PASSWORD, true);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut place = beside(&dir, &double);
    place.retain(|(name, _)| *name != "SUPABASE_SERVICE_ROLE_KEY");
    // `user create` finds the administrator there, by the same password.
    let server = Server::start_in(dir, place, |command| command).await;
    let (status, made) = post(&server, "/api/v1/auth/register", empresa(8)).await;
    assert_eq!(status, 201, "{made}");
    let (status, refused) = login(&server, "e8@x.pe", PASSWORD).await;
    assert_eq!((status, &refused["code"]), (401, &"email_not_confirmed".into()));
    // An address that somebody has is answered there as if it were new.
    double.add("ya@x.pe", "another long password", true);
    let mut body = empresa(9);
    body["email"] = "ya@x.pe".into();
    let (status, refused) = post(&server, "/api/v1/auth/register", body).await;
    assert_eq!((status, &refused["code"]), (409, &"email_in_use".into()));
    assert_eq!(double.asked("/auth/v1/admin/users"), 0);
}

#[tokio::test]
async fn keys_that_change_are_followed_and_outages_survived() {
    let double = Double::start();
    let server = server(&double).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let old = session["access_token"].as_str().expect("a token");
    assert_eq!(me(&server, old).await.0, 200);
    assert_eq!(double.asked(JWKS), 1, "kept");
    // Nobody publishes keys for a while.
    double.fault(JWKS, Some(Fault::Says(500, "")));
    let stranger = Key::new("k9", Algorithm::ES256).sign(&double.claims("x"));
    assert_eq!(me(&server, &stranger).await.0, 401);
    assert_eq!(me(&server, old).await.0, 200, "what is known goes on");
    double.fault(JWKS, None);
    // Another key, of another kind.
    double.rotate(Key::new("k2", Algorithm::RS256));
    let (status, session) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(status, 200);
    assert_eq!(me(&server, session["access_token"].as_str().expect("a token")).await.0, 200);
    assert_eq!(me(&server, old).await.0, 401, "its key was withdrawn");
    // However many names are invented, the provider is asked a few times.
    let before = double.asked(JWKS);
    let key = double.key();
    for n in 0..50 {
        let invented = Key { kid: format!("invented-{n}"), ..key.clone() };
        assert_eq!(me(&server, &invented.sign(&double.claims("x"))).await.0, 401);
    }
    let more = double.asked(JWKS) - before;
    assert!(more <= 2, "asked {more} times");
}

#[tokio::test]
async fn no_secret_is_in_any_line_of_the_log() {
    let double = Double::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let mut place = beside(&dir, &double);
    place.push(("SUPABASE_JWT_SECRET", "shared-secret-of-thirty-two-bytes!".to_owned()));
    let server = Server::start_in(dir, place, |inner| talkative(&inner, &log)).await;
    flow::whole(&server).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    double.fault("/auth/v1/token", Some(Fault::Says(500, "")));
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 502);
    tells_nothing(&log, &session, &[ANON, SERVICE, "shared-secret-of-thirty-two-bytes!"]);
}

#[tokio::test]
async fn no_secret_is_in_any_line_of_the_log_with_accounts_of_our_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let mut place = place(dir.path(), postgres::of_this_run());
    let secret = "our-own-secret-of-thirty-two-bytes!";
    let mut mailbox = mail::Mailbox::open().await;
    place.extend([
        ("ALERTRACE__MAIL__TRANSPORT", "smtp".to_owned()),
        ("ALERTRACE__MAIL__SMTP_URL", mailbox.url()),
        ("JWT_SECRET_KEY", secret.to_owned()),
        ("ALERTRACE__IDENTITY__SUPABASE_COMPAT", "true".to_owned()),
        ("SUPABASE_KEY", ANON.to_owned()),
        ("SUPABASE_SERVICE_ROLE_KEY", SERVICE.to_owned()),
    ]);
    let server = Server::start_in(dir, place, |inner| talkative(&inner, &log)).await;
    flow::whole(&server).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let url = format!("http://{}/auth/v1/token?grant_type=password", server.http);
    let body = json!({ "email": EMAIL, "password": PASSWORD });
    let answer = reqwest::Client::new().post(url).header("apikey", ANON).json(&body).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let (factor, confirmed) = totp::enrol(&server, session["access_token"].as_str().expect("a token")).await;
    let factor = factor.split(['?', '&']).find_map(|part| part.strip_prefix("secret=")).expect("a secret");
    let codes = confirmed["codigos_recuperacion"].as_array().expect("codes").iter();
    let mut keys: Vec<_> = codes.map(|code| code.as_str().expect("a code")).collect();
    assert_eq!(keys.len(), 10);
    // What is shown once, and what goes by mail.
    let token = confirmed["access_token"].as_str().expect("a token");
    let invited = server.request(Method::POST, "/api/v1/trabajadores/invitaciones", token, None).await;
    let invited = super::said(invited).await.1;
    let invitation = invited["codigo_invitacion"].as_str().expect("a code");
    let joins = json!({ "email": "i@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "I",
        "apellidos": "J", "codigo_invitacion": invitation });
    assert_eq!(post(&server, "/api/v1/auth/register", joins).await.0, 201);
    assert_eq!(mail::forgot(&server, EMAIL).await.0, 202);
    let link = mail::token(&mailbox.link(EMAIL).await);
    let new = "una clave que nadie tiene";
    assert_eq!(mail::reset(&server, &link, new).await.0, 200);
    keys.extend([ANON, SERVICE, secret, factor, token, invitation, &link, new]);
    tells_nothing(&log, &session, &keys);
}

/// The binary at its most talkative, into a file.
pub(super) fn talkative(inner: &Command, log: &Path) -> Command {
    let script = format!("exec \"$0\" \"$@\" 2> >(tee -a {} >&2)", log.display());
    let mut command = Server::wrapped("bash", &["-c", &script], inner);
    command.env("ALERTRACE__LOG__LEVEL", "trace");
    command
}

/// Neither the password, however it is written, nor the tokens of a session, nor the keys are in a log.
fn tells_nothing(log: &Path, session: &Value, keys: &[&str]) {
    let log = std::fs::read_to_string(log).expect("the log");
    assert!(log.lines().count() > 100, "at its most talkative");
    let password = [PASSWORD.to_owned(), PASSWORD.replace(' ', "+"), PASSWORD.replace(' ', "%20")];
    let tokens = ["access_token", "refresh_token"].map(|name| session[name].as_str().expect("a token"));
    for secret in password.iter().map(String::as_str).chain(tokens).chain(keys.iter().copied()) {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in {}", line.unwrap_or_default());
    }
}

#[tokio::test]
async fn what_supabase_refuses_to_our_key_is_said_in_the_log_and_not_to_people() {
    let double = Double::start();
    let server = server_with(&double, |mut command| {
        command.env("SUPABASE_SERVICE_ROLE_KEY", "another-key");
        command
    })
    .await;
    let (status, refused) = post(&server, "/api/v1/auth/register", empresa(3)).await;
    assert_eq!((status, &refused["code"]), (502, &"identity_failed".into()));
    assert!(!refused.to_string().contains("API key"), "{refused}");
    assert_eq!(json!(double.emails().len()), 1);
}

#[tokio::test]
async fn a_token_from_before_somebody_was_deactivated_stays_refused_when_they_are_let_in_again() {
    let double = Double::start();
    let server = server(&double).await;
    let person = json!({ "email": "w@x.pe", "password": PASSWORD, "nombre": "W", "apellido": "Z" });
    let made = server.request(Method::POST, "/api/v1/trabajadores", &server.token, Some(person)).await;
    let id = super::said(made).await.1["id_trabajador"].clone();
    let (_, before) = login(&server, "w@x.pe", PASSWORD).await;
    let before = before["access_token"].as_str().expect("a token");
    let path = format!("/api/v1/trabajadores/{id}");
    let put = async |activo: bool| {
        let body = Some(json!({ "activo": activo }));
        assert_eq!(server.request(Method::PUT, &path, &server.token, body).await.status(), 200);
    };
    put(false).await;
    assert_eq!(me(&server, before).await.1["code"], "account_inactive");
    // Tokens tell the time in whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    put(true).await;
    assert_eq!(me(&server, before).await.1["code"], "invalid_token");
    let (_, after) = login(&server, "w@x.pe", PASSWORD).await;
    assert_eq!(me(&server, after["access_token"].as_str().expect("a token")).await.0, 200);
    put(true).await;
    assert_eq!(me(&server, after["access_token"].as_str().expect("a token")).await.0, 200, "nothing changed");
}

#[tokio::test]
async fn another_password_ends_the_tokens_that_supabase_issued_before() {
    let double = Double::start();
    let server = server(&double).await;
    let (_, before) = login(&server, EMAIL, PASSWORD).await;
    let before = before["access_token"].as_str().expect("a token");
    assert_eq!(me(&server, before).await.0, 200);
    assert_eq!(mail::forgot(&server, EMAIL).await.0, 202);
    let code = double.recovered(EMAIL).await;
    // Tokens tell the time in whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    assert_eq!(mail::reset(&server, &code, "otra clave larga").await.0, 200);
    assert_eq!(me(&server, before).await.1["code"], "invalid_token");
    let (_, after) = login(&server, EMAIL, "otra clave larga").await;
    assert_eq!(me(&server, after["access_token"].as_str().expect("a token")).await.0, 200);
}

#[tokio::test]
async fn a_reset_that_came_to_no_end_here_is_ended_by_the_next_try() {
    let double = Double::start();
    let server = server(&double).await;
    let (_, before) = login(&server, EMAIL, PASSWORD).await;
    let before = before["access_token"].as_str().expect("a token");
    // The password is another there, and nobody here was told: a store that failed, a process that died.
    let link = double.key().sign(&double.claims(&double.id(EMAIL)));
    let body = json!({ "password": "otra clave larga" });
    let change = reqwest::Client::new().put(format!("{}/auth/v1/user", double.url)).header("apikey", ANON);
    assert_eq!(change.bearer_auth(&link).json(&body).send().await.expect("an answer").status(), 200);
    assert_eq!(me(&server, before).await.0, 200, "nobody can know");
    // Tokens tell the time in whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    assert_eq!(mail::reset(&server, &link, "otra clave larga").await.1["code"], "same_password");
    assert_eq!(me(&server, before).await.1["code"], "invalid_token");
    assert_eq!(mail::reset(&server, &link, "una tercera clave").await.0, 200, "the link goes on");
}

#[tokio::test]
async fn a_second_factor_that_an_account_has_there_is_asked_for_here() {
    let double = Double::start();
    let mut server = server(&double).await;
    let (status, before) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(status, 200);
    double.enrol(EMAIL);
    let (status, refused) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!((status, &refused["code"]), (401, &"totp_requerido".into()));
    let with_code = async |code: &str| {
        let body = json!({ "email": EMAIL, "password": PASSWORD, "codigo": code });
        post(&server, "/api/v1/auth/login", body).await
    };
    assert_eq!(with_code("000000").await.1["code"], "totp_incorrecto");
    let (status, shown) = with_code(CODE).await;
    assert_eq!(status, 200, "{shown}");
    let token = shown["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(me(&server, &token).await.0, 200);
    let refresh = json!({ "refresh_token": shown["refresh_token"] });
    let (status, next) = post(&server, "/api/v1/auth/refresh", refresh).await;
    assert_eq!(status, 200, "a sign-in that showed it goes on: {next}");
    let refresh = json!({ "refresh_token": before["refresh_token"] });
    assert_eq!(post(&server, "/api/v1/auth/refresh", refresh).await.1["code"], "totp_requerido");
    // A token that its own client got by the password alone, and one whose account nobody here has heard of since the start.
    let half = double.key().sign(&double.claims(shown["user_id"].as_str().expect("a key")));
    for _ in 0..2 {
        assert_eq!(me(&server, &half).await.1["code"], "totp_requerido");
        assert_eq!(me(&server, &token).await.0, 200);
        server.kill_and_restart();
    }
    // While nobody can say whether it has one, nothing is opened by the password alone; what showed it goes on.
    double.fault("/auth/v1/user", Some(Fault::Cut));
    server.kill_and_restart();
    assert_eq!(me(&server, &half).await.1["code"], "identity_unavailable");
    assert_eq!(me(&server, &token).await.0, 200);
    double.fault("/auth/v1/user", None);
    // Another password wants it too.
    assert_eq!(mail::reset(&server, &half, "otra clave larga").await.1["code"], "totp_requerido");
}

#[tokio::test]
async fn a_refreshed_pair_reaches_its_owner_though_nothing_can_be_written() {
    if postgres::of_this_run() != postgres::Database::Sqlite {
        return;
    }
    let double = Double::start();
    let server = server_with(&double, |mut command| {
        command.env("ALERTRACE__STORE__BUSY_TIMEOUT_MS", "150");
        command
    })
    .await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let mut somebody = saga::hold(&server);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 503, "so that it is held");
    // Its predecessor is spent there.
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    let (status, next) = post(&server, "/api/v1/auth/refresh", refresh).await;
    somebody.kill().expect("it ends");
    somebody.wait().expect("it ended");
    assert_eq!(status, 200, "{next}");
    assert_eq!(me(&server, next["access_token"].as_str().expect("a token")).await.0, 200);
}

#[tokio::test]
async fn what_is_known_here_is_not_asked_there() {
    let double = Double::start();
    let server = server_with(&double, |mut command| {
        command.env("ALERTRACE__IDENTITY__MAX_SIGN_INS_PER_ACCOUNT_PER_MIN", "4");
        command
    })
    .await;
    let made = double.asked("/auth/v1/admin/users");
    let mut taken = empresa(1);
    taken["email"] = EMAIL.into();
    let (status, refused) = post(&server, "/api/v1/auth/register", taken).await;
    assert_eq!((status, &refused["code"]), (409, &"email_in_use".into()));
    assert_eq!(double.asked("/auth/v1/admin/users"), made);
    // One sign-in more or less is the test's own.
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(login(&server, EMAIL, "another long password").await.0);
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    let asked = double.asked("/auth/v1/token");
    assert_eq!(login(&server, EMAIL, PASSWORD).await.0, 429);
    assert_eq!(double.asked("/auth/v1/token"), asked);
}

#[tokio::test]
async fn whether_an_account_has_a_second_factor_is_asked_once_in_a_while() {
    const USER: &str = "/auth/v1/user";
    let double = Double::start();
    let mut server = server(&double).await;
    let token = server.token.clone();
    assert_eq!((me(&server, &token).await.0, double.asked(USER)), (200, 0), "its sign-in said so");
    server.kill_and_restart();
    // By many at once, as a panel opens.
    let ask = || async { me(&server, &token).await.0 };
    let all = futures_util::future::join_all((0..8).map(|_| ask())).await;
    assert_eq!((all, double.asked(USER)), (vec![200; 8], 1));
    // It has had enough of us, and says nothing of whoever has a token.
    double.fault(USER, Some(Fault::Says(429, "")));
    server.kill_and_restart();
    assert_eq!(me(&server, &token).await.0, 429);
    let (_, code) = Client::connect(&server.mqtt, 5, "panel", "jwt", &token).await;
    assert_eq!(code, 0x88, "the server is not available: it is worth coming back");
}

/// In front of `http`, with the certificate of `name` in `dir`; answers its port.
async fn over_tls(http: &str, dir: &Path, name: &str) -> u16 {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let file = |what: &str| dir.join(format!("{name}-server.{what}"));
    let certificate = CertificateDer::from_pem_file(file("pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config.expect("they fit")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let http = http.strip_prefix("http://").expect("an address").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, http) = (acceptor.clone(), http.clone());
            tokio::spawn(async move {
                let (Ok(mut tls), Ok(mut plain)) =
                    (acceptor.accept(stream).await, tokio::net::TcpStream::connect(http).await)
                else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    port
}

// The proxy works while the test waits for processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_on_a_server_of_ones_own_is_believed_by_its_authority_and_no_other() {
    let double = Double::start();
    let certs = tempfile::tempdir().expect("a temporary directory");
    certificates(certs.path(), "own", "DNS:localhost,IP:127.0.0.1");
    certificates(certs.path(), "other", "DNS:localhost,IP:127.0.0.1");
    let port = over_tls(&double.url, certs.path(), "own").await;
    let trusted = certs.path().join("trusted.pem");
    std::fs::copy(certs.path().join("own.pem"), &trusted).expect("a copy");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut place = beside(&dir, &double);
    place.retain(|(name, _)| *name != "SUPABASE_URL");
    place.push(("SUPABASE_URL", format!("https://localhost:{port}")));
    place.push(("ALERTRACE__IDENTITY__SUPABASE_ISSUER", format!("{}/auth/v1", double.url)));
    place.push(("ALERTRACE__IDENTITY__SUPABASE_CA", trusted.display().to_string()));
    let mut server = Server::start_in(dir, place, |command| command).await;
    flow::whole(&server).await;

    // The same with another authority in the file.
    std::fs::copy(certs.path().join("other.pem"), &trusted).expect("a copy");
    server.kill_and_restart();
    let (status, refused) = login(&server, EMAIL, PASSWORD).await;
    assert_eq!((status, &refused["code"]), (502, &"identity_untrusted".into()), "{refused}");
    assert!(refused["detail"].as_str().expect("text").contains("certificado"), "{refused}");
    // A file that is none is a bad configuration.
    server.kill();
    let mut serve = server.command();
    serve.arg("serve").env("ALERTRACE__IDENTITY__SUPABASE_CA", certs.path().join("nothing.pem"));
    let output = serve.output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("identity.supabase_ca"));
}
