//! An HTTP double of Supabase Auth: what it answers is what Supabase documents, quoted with its source beside
//! each. It keeps accounts, signs tokens, and fails in the ways that a test asks for.
//!
//! Sources, of <https://github.com/supabase/auth>, each by its file and function, which moves less than a line:
//! `internal/api/user.go` as in 009e6fe68719ee3621c6f679f6cda94986730de2, `internal/api/admin.go` as in
//! b1cd2b0377d14eed3a6204b1cd55c07cc3e1feee; of the same time `openapi.yaml`, `README.md` and, in `internal/api`,
//! `errors.go` (the forms of errors), `apierrors/errorcode.go` (their codes), `token.go`, `signup.go`, `recover.go`,
//! `verify.go`, `logout.go`, `mfa.go`, `auth.go`, `jwks.go`.

#![expect(clippy::result_large_err, reason = "a refusal is an answer")]

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alertrace::domain::{Clock as _, SystemClock};
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const ANON: &str = "anon-key-of-the-double";
/// The code of every second factor.
pub const CODE: &str = "123456";
pub const SERVICE: &str = "service-role-key-of-the-double";

/// How a path misbehaves.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers, but later than anybody waits.
    Slow(Duration),
    /// Answers with this.
    Says(u16, &'static str),
    /// Does what it is asked, and the connection is cut before the answer.
    Cut,
    /// Does what it is asked, and answers when [`Double::release`] says so.
    Held,
}

/// A key that tokens are signed with.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pub algorithm: Algorithm,
    pub secret: EncodingKey,
    pub public: Value,
}

impl Key {
    /// RS256 or ES256, made by openssl.
    pub fn new(kid: &str, algorithm: Algorithm) -> Self {
        let how: &[&str] = if algorithm == Algorithm::RS256 {
            &["genrsa", "-traditional", "2048"]
        } else {
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        };
        let pem = Command::new("openssl").args(how).output().expect("openssl runs").stdout;
        let secret = if algorithm == Algorithm::RS256 {
            EncodingKey::from_rsa_pem(&pem)
        } else {
            EncodingKey::from_ec_pem(&pem)
        };
        let secret = secret.expect("a key");
        let mut jwk = Jwk::from_encoding_key(&secret, algorithm).expect("its public part");
        jwk.common.key_id = Some(kid.to_owned());
        let public = serde_json::to_value(jwk).expect("JSON");
        Self { kid: kid.to_owned(), algorithm, secret, public }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.secret).expect("a token")
    }
}

#[derive(Debug, Clone)]
struct User {
    id: String,
    email: String,
    password: String,
    confirmed: bool,
    /// Has a second factor, whose code is [`CODE`].
    factor: bool,
    app_metadata: Value,
    user_metadata: Value,
}

struct Inner {
    users: Vec<User>,
    /// Whose they are, and of which sign-in.
    refresh: HashMap<String, (String, String)>,
    recovery: HashMap<String, String>,
    faults: HashMap<String, Fault>,
    asked: Vec<String>,
    key: Key,
    published: Vec<Value>,
    /// New accounts are confirmed by themselves.
    autoconfirm: bool,
    /// The newer form of errors: `{code, message}`.
    newer: bool,
    n: u64,
}

/// See the module.
#[derive(Clone)]
pub struct Double {
    inner: Arc<Mutex<Inner>>,
    held: watch::Sender<bool>,
    pub url: String,
    stop: Arc<watch::Sender<()>>,
}

/// Whether `asked` is `path`, or begins with it where it ends with `*`.
fn is(path: &str, asked: &str) -> bool {
    path.strip_suffix('*')
        .map_or(path == asked, |start| asked.starts_with(start) && asked.len() > start.len())
}

fn now() -> i64 {
    SystemClock.now().secs()
}

impl Double {
    pub fn start() -> Self {
        Self::start_with(Key::new("k1", Algorithm::ES256))
    }

    pub fn start_with(key: Key) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let inner = Inner {
            users: Vec::new(),
            refresh: HashMap::new(),
            recovery: HashMap::new(),
            faults: HashMap::new(),
            asked: Vec::new(),
            published: vec![key.public.clone()],
            key,
            autoconfirm: true,
            newer: false,
            n: 0,
        };
        let (stop, mut stopped) = watch::channel(());
        let double = Self {
            inner: Arc::new(Mutex::new(inner)),
            held: watch::channel(false).0,
            url,
            stop: Arc::new(stop),
        };
        let routes = Router::new()
            .route("/auth/v1/token", post(token))
            .route("/auth/v1/signup", post(signup))
            .route("/auth/v1/user", get(user).put(change))
            .route("/auth/v1/logout", post(logout))
            .route("/auth/v1/recover", post(recover))
            .route("/auth/v1/verify", post(verify))
            .route("/auth/v1/factors/{id}/challenge", post(challenge))
            .route("/auth/v1/factors/{id}/verify", post(show))
            .route("/auth/v1/admin/users", get(list).post(create))
            .route("/auth/v1/admin/users/{id}", delete(remove))
            .route("/auth/v1/.well-known/jwks.json", get(jwks))
            .layer(from_fn_with_state(double.clone(), misbehave))
            .with_state(double.clone());
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let until = async move { drop(stopped.changed().await) };
            axum::serve(listener, routes).with_graceful_shutdown(until).await
        };
        // A thread of its own: a test waits for the binary without giving way.
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve)
        });
        double
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().expect("no panic holds it"))
    }

    /// Of the path, or of those that begin with it where it ends with `*`.
    pub fn fault(&self, path: &str, fault: Option<Fault>) {
        if matches!(fault, Some(Fault::Held)) {
            self.held.send_replace(false);
        }
        self.with(|i| match fault {
            Some(fault) => drop(i.faults.insert(path.to_owned(), fault)),
            None => drop(i.faults.remove(path)),
        });
    }

    /// Lets go of what is held, now and until something else is to be.
    pub fn release(&self) {
        self.held.send_replace(true);
    }

    /// How often a path was asked; one that ends with `*` is the beginning of several.
    pub fn asked(&self, path: &str) -> usize {
        self.with(|i| i.asked.iter().filter(|p| is(path, p)).count())
    }

    /// Somebody sets a second factor up there.
    pub fn enrol(&self, email: &str) {
        self.with(|i| i.users.iter_mut().filter(|u| u.email == email).for_each(|u| u.factor = true));
    }

    pub fn confirms_by_mail(&self) {
        self.with(|i| i.autoconfirm = false);
    }

    pub fn speaks_newer(&self) {
        self.with(|i| i.newer = true);
    }

    /// Signs with another key from now on; those before are not published any more.
    pub fn rotate(&self, key: Key) {
        self.with(|i| {
            i.published = vec![key.public.clone()];
            i.key = key;
        });
    }

    pub fn publish(&self, jwk: Value) {
        self.with(|i| i.published.push(jwk));
    }

    pub fn emails(&self) -> Vec<String> {
        self.with(|i| i.users.iter().map(|u| u.email.clone()).collect())
    }

    /// Somebody who signed up elsewhere.
    pub fn add(&self, email: &str, password: &str, confirmed: bool) -> String {
        self.with(|i| i.add(email, password, confirmed, Value::Null, Value::Null).id)
    }

    /// The key of an account.
    pub fn id(&self, email: &str) -> String {
        self.with(|i| i.users.iter().find(|u| u.email == email).map(|u| u.id.clone())).expect("an account")
    }

    fn recovery_code(&self, email: &str) -> Option<String> {
        self.with(|i| i.recovery.iter().find(|(_, e)| *e == email).map(|(code, _)| code.clone()))
    }

    /// The code of a message that is asked for in the background.
    pub async fn recovered(&self, email: &str) -> String {
        for _ in 0..200 {
            if let Some(code) = self.recovery_code(email) {
                return code;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no message was asked for");
    }

    /// The claims of a token as Supabase makes them (`internal/api/token.go`, `GoTrueClaims`).
    pub fn claims(&self, user_id: &str) -> Value {
        json!({
            "iss": format!("{}/auth/v1", self.url), "sub": user_id, "aud": "authenticated", "role": "authenticated",
            "iat": now(), "exp": now() + 3600, "email": "x@x.pe", "phone": "", "app_metadata": {"provider": "email"},
            "user_metadata": {}, "aal": "aal1", "amr": [{"method": "password", "timestamp": now()}],
            "session_id": "5e53c7d6-5e53-4c7d-8e53-5e53c7d65e53", "is_anonymous": false
        })
    }

    pub fn key(&self) -> Key {
        self.with(|i| i.key.clone())
    }

    pub fn stop(&self) {
        self.stop.send_replace(());
    }
}

impl Inner {
    fn add(&mut self, email: &str, password: &str, confirmed: bool, app: Value, user: Value) -> User {
        self.n += 1;
        let added = User {
            id: format!("11111111-2222-4333-8444-{:012}", self.n),
            email: email.to_owned(),
            password: password.to_owned(),
            confirmed,
            factor: false,
            app_metadata: app,
            user_metadata: user,
        };
        self.users.push(added.clone());
        added
    }
}

/// `openapi.yaml`, `UserSchema`; `identities` is empty for an address that somebody has.
fn user_json(u: &User) -> Value {
    let confirmed = u.confirmed.then_some("2026-05-15T20:49:40.882805774-07:00");
    let factor = |u: &User| {
        json!([{ "id": u.id, "friendly_name": "Teléfono", "factor_type": "totp", "status": "verified",
        "created_at": "2026-05-15T20:49:40.882805774-07:00", "updated_at": "2026-05-15T20:49:40.882805774-07:00" }])
    };
    json!({
        "id": u.id, "aud": "authenticated", "role": "authenticated", "email": u.email, "phone": "",
        "email_confirmed_at": confirmed, "confirmed_at": confirmed, "app_metadata": u.app_metadata,
        "user_metadata": u.user_metadata, "identities": [{"provider": "email", "user_id": u.id}],
        "factors": u.factor.then(|| factor(u)),
        "created_at": "2026-05-15T19:53:12.368652374-07:00", "updated_at": SystemClock.now()
    })
}

/// `internal/api/token.go`, `AccessTokenResponse`.
fn session(double: &Double, u: &User) -> Value {
    let n = double.with(|i| {
        i.n += 1;
        i.n
    });
    session_of(double, u, "aal1", &format!("5e53c7d6-5e53-4c7d-8e53-{n:012}"))
}

fn session_of(double: &Double, u: &User, aal: &str, id: &str) -> Value {
    let key = double.key();
    let mut claims = double.claims(&u.id);
    (claims["aal"], claims["session_id"]) = (aal.into(), id.into());
    let access = key.sign(&claims);
    let refresh = double.with(|i| {
        i.n += 1;
        let token = format!("refresh-{aal}-{}", i.n);
        i.refresh.insert(token.clone(), (u.id.clone(), id.to_owned()));
        token
    });
    json!({ "access_token": access, "token_type": "bearer", "expires_in": 3600, "expires_at": now() + 3600,
        "refresh_token": refresh, "user": user_json(u) })
}

fn answer(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().expect("a value"));
    response
}

/// `internal/api/errors.go`: `HTTPError`, or `HTTPErrorResponse20240101`.
fn error(double: &Double, status: u16, code: &str, msg: &str) -> Response {
    let body = if double.with(|i| i.newer) {
        json!({ "code": code, "message": msg })
    } else {
        json!({ "code": status, "error_code": code, "msg": msg })
    };
    answer(status, body.to_string())
}

async fn misbehave(State(double): State<Double>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let fault = double.with(|i| {
        i.asked.push(path.clone());
        i.faults.iter().find(|(at, _)| is(at, &path)).map(|(_, fault)| fault.clone())
    });
    // The gateway in front of it (Kong): no key, no answer.
    if !path.contains("/.well-known/") {
        let key = request.headers().get("apikey").and_then(|k| k.to_str().ok()).unwrap_or_default();
        if key.is_empty() {
            return answer(401, r#"{"message":"No API key found in request"}"#);
        }
        if ![ANON, SERVICE].contains(&key) {
            return answer(401, r#"{"message":"Invalid API key"}"#);
        }
    }
    match fault {
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            next.run(request).await
        }
        Some(Fault::Says(status, body)) => answer(status, body),
        Some(Fault::Cut) => {
            next.run(request).await;
            // hyper closes the connection of a handler that unwinds.
            std::panic::resume_unwind(Box::new("the connection is cut"));
        }
        Some(Fault::Held) => {
            let response = next.run(request).await;
            let _ = double.held.subscribe().wait_for(|released| *released).await;
            response
        }
        None => next.run(request).await,
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default()
}

type Answered = Result<Response, Response>;

/// `auth.go`, `requireAdmin`: only `service_role` may.
fn admin(double: &Double, headers: &HeaderMap) -> Result<(), Response> {
    let not = || error(double, 403, "not_admin", "User not allowed");
    if bearer(headers) == SERVICE { Ok(()) } else { Err(not()) }
}

/// `token.go`, `ResourceOwnerPasswordGrant` and `RefreshTokenGrant`: "Invalid login credentials", "Email not confirmed",
/// "Invalid Refresh Token: Refresh Token Not Found".
async fn token(
    State(double): State<Double>,
    Query(query): Query<HashMap<String, String>>,
    axum::Json(body): axum::Json<Value>,
) -> Answered {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    if query["grant_type"] == "refresh_token" {
        let id = double.with(|i| i.refresh.remove(&text("refresh_token")));
        let not_found = || {
            error(&double, 400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        };
        let (id, session) = id.ok_or_else(not_found)?;
        let user = double.with(|i| i.users.iter().find(|u| u.id == id).cloned()).ok_or_else(not_found)?;
        let aal = if text("refresh_token").contains("aal2") { "aal2" } else { "aal1" };
        return Ok(answer(200, session_of(&double, &user, aal, &session).to_string()));
    }
    let wrong = || error(&double, 400, "invalid_credentials", "Invalid login credentials");
    let user = double.with(|i| i.users.iter().find(|u| u.email == text("email")).cloned());
    let user = user.filter(|u| u.password == text("password")).ok_or_else(wrong)?;
    if !user.confirmed {
        return Err(error(&double, 400, "email_not_confirmed", "Email not confirmed"));
    }
    Ok(answer(200, session(&double, &user).to_string()))
}

/// `signup.go`, `Signup` (a session where e-mails need not be confirmed, else the account) and `sanitizeUser`.
async fn signup(State(double): State<Double>, axum::Json(body): axum::Json<Value>) -> Answered {
    let (email, password) = (body["email"].as_str().expect("text"), body["password"].as_str().expect("text"));
    let autoconfirm = double.with(|i| i.autoconfirm);
    if double.emails().iter().any(|e| e == email) {
        if autoconfirm {
            return Err(error(&double, 422, "user_already_exists", "User already registered"));
        }
        // `README.md`, POST /signup: "if there is a duplicate sign up, this ID will be faux"; no identities.
        let faux = json!({ "id": "99999999-9999-4999-8999-999999999999", "email": email, "identities": [] });
        return Ok(answer(200, faux.to_string()));
    }
    let user = double.with(|i| i.add(email, password, autoconfirm, Value::Null, body["data"].clone()));
    let body = if autoconfirm { session(&double, &user) } else { user_json(&user) };
    Ok(answer(200, body.to_string()))
}

/// Of a token that is one.
fn claims(headers: &HeaderMap) -> Value {
    jsonwebtoken::dangerous::insecure_decode::<Value>(bearer(headers)).expect("a token").claims
}

fn session_id(headers: &HeaderMap) -> String {
    claims(headers)["session_id"].as_str().expect("text").to_owned()
}

/// `auth.go`, `parseJWTClaims`: "invalid JWT: unable to parse or verify signature".
fn whose(double: &Double, headers: &HeaderMap) -> Result<User, Response> {
    let bad = || error(double, 403, "bad_jwt", "invalid JWT: unable to parse or verify signature");
    let claims =
        jsonwebtoken::dangerous::insecure_decode::<Value>(bearer(headers)).map_err(|_| bad())?.claims;
    double.with(|i| i.users.iter().find(|u| claims["sub"] == *u.id).cloned()).ok_or_else(bad)
}

/// `user.go`, `UserGet`.
async fn user(State(double): State<Double>, headers: HeaderMap) -> Answered {
    Ok(answer(200, user_json(&whose(&double, &headers)?).to_string()))
}

/// `user.go`, `UserUpdate`: 401 `insufficient_aal`, 422 `same_password`, else the account.
async fn change(
    State(double): State<Double>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Answered {
    let user = whose(&double, &headers)?;
    let new = body["password"].as_str().expect("text");
    if user.factor && claims(&headers)["aal"] != "aal2" {
        let msg = "AAL2 session is required to update email or password when MFA is enabled.";
        return Err(error(&double, 401, "insufficient_aal", msg));
    }
    if new == user.password {
        let msg = "New password should be different from the old password.";
        return Err(error(&double, 422, "same_password", msg));
    }
    double.with(|i| {
        if let Some(u) = i.users.iter_mut().find(|u| u.id == user.id) {
            new.clone_into(&mut u.password);
        }
    });
    Ok(answer(200, user_json(&user).to_string()))
}

/// `mfa.go`, `ChallengeFactorResponse`.
async fn challenge(State(double): State<Double>, headers: HeaderMap) -> Answered {
    whose(&double, &headers)?;
    Ok(answer(200, json!({ "id": "challenge-1", "type": "totp", "expires_at": now() + 300 }).to_string()))
}

/// `mfa.go`, `VerifyFactor`: 422 `mfa_verification_failed`, else a session of `aal2`.
async fn show(
    State(double): State<Double>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Answered {
    let user = whose(&double, &headers)?;
    if body["challenge_id"] != "challenge-1" || body["code"] != CODE {
        return Err(error(&double, 422, "mfa_verification_failed", "Invalid TOTP code entered"));
    }
    Ok(answer(200, session_of(&double, &user, "aal2", &session_id(&headers)).to_string()))
}

/// `logout.go`, `Logout`: 204.
async fn logout(
    State(double): State<Double>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answered {
    let user = whose(&double, &headers)?;
    let own = session_id(&headers);
    let local = query.get("scope").is_some_and(|scope| scope == "local");
    double.with(|i| i.refresh.retain(|_, (id, session)| *id != user.id || (local && *session != own)));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `recover.go`, `Recover`: `{}` whether or not there is such an account.
async fn recover(State(double): State<Double>, axum::Json(body): axum::Json<Value>) -> Response {
    let email = body["email"].as_str().expect("text").to_owned();
    double.with(|i| {
        if i.users.iter().any(|u| u.email == email) {
            i.n += 1;
            let code = format!("recovery-{}", i.n);
            i.recovery.insert(code, email);
        }
    });
    answer(200, "{}")
}

/// `verify.go`, `Verify`: 403 `otp_expired`, else a session.
async fn verify(State(double): State<Double>, axum::Json(body): axum::Json<Value>) -> Answered {
    let code = body["token_hash"].as_str().unwrap_or_default();
    let gone = || error(&double, 403, "otp_expired", "Email link is invalid or has expired");
    let email = double.with(|i| i.recovery.remove(code)).ok_or_else(gone)?;
    let user = double.with(|i| i.users.iter().find(|u| u.email == email).cloned()).ok_or_else(gone)?;
    Ok(answer(200, session(&double, &user).to_string()))
}

/// `admin.go`, `adminUserCreate`: 422 `email_exists` (`DuplicateEmailMsg`), else the account.
async fn create(
    State(double): State<Double>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Answered {
    admin(&double, &headers)?;
    let (email, password) = (body["email"].as_str().expect("text"), body["password"].as_str().expect("text"));
    if double.emails().iter().any(|e| e == email) {
        let msg = "A user with this email address has already been registered";
        return Err(error(&double, 422, "email_exists", msg));
    }
    let confirmed = body["email_confirm"] == true;
    let user = double.with(|i| i.add(email, password, confirmed, body["app_metadata"].clone(), Value::Null));
    Ok(answer(200, user_json(&user).to_string()))
}

/// `admin.go`, `adminUsers`, `AdminListUsersResponse`.
async fn list(
    State(double): State<Double>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Answered {
    admin(&double, &headers)?;
    let first = query.get("page").is_none_or(|p| p == "1");
    let users: Vec<Value> =
        if first { double.with(|i| i.users.iter().map(user_json).collect()) } else { Vec::new() };
    Ok(answer(200, json!({ "users": users, "aud": "authenticated" }).to_string()))
}

/// `admin.go`, `adminUserDelete`, and `loadUser`: "User not found".
async fn remove(
    State(double): State<Double>,
    headers: HeaderMap,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Answered {
    admin(&double, &headers)?;
    let before = double.emails().len();
    double.with(|i| i.users.retain(|u| u.id != id));
    if double.emails().len() == before {
        return Err(error(&double, 404, "user_not_found", "User not found"));
    }
    Ok(answer(200, "{}"))
}

/// `internal/api/jwks.go`, `JwksResponse`.
async fn jwks(State(double): State<Double>) -> impl IntoResponse {
    let keys = double.with(|i| i.published.clone());
    answer(200, json!({ "keys": keys }).to_string())
}
