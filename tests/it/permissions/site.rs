//! A server with somebody of each kind, and something of each kind to ask for.

use std::collections::HashMap;

use alertrace::domain::{Clock as _, SystemClock};
use alertrace::identity::tokens::{Claims, Firmante};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::Caller;
use super::table::{ROUTES, Route};
use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Device, Server, documented};

/// See the module.
pub struct Site {
    pub server: Server,
    http: reqwest::Client,
    tokens: HashMap<&'static str, String>,
    /// What placeholders stand for, for one route.
    made: HashMap<String, String>,
    /// The ids of its requests.
    asked: Vec<String>,
    /// A connection to be ended.
    client: Option<Client>,
    n: u32,
}

impl Site {
    pub async fn start() -> Self {
        // Everybody signs in here, again and again.
        let server = Server::start_with(|mut command| {
            command.env("ALERTRACE__IDENTITY__MAX_SIGN_INS_PER_ACCOUNT_PER_MIN", "0");
            command.env("ALERTRACE__HTTP__MAX_SIGN_INS_PER_ADDRESS_PER_MIN", "0");
            command
        });
        Self::on(server.await).await
    }

    /// The same, on a server that the test has started.
    pub async fn on(server: Server) -> Self {
        let http = reqwest::Client::new();
        let (tokens, made) = (HashMap::new(), HashMap::new());
        let mut site = Self { server, http, tokens, made, asked: Vec::new(), client: None, n: 100 };
        let empresa = json!({ "email": "other@x.pe", "password": PASSWORD, "user_type": "empresa",
            "nombre_empresa": "Otra", "ruc": "20987654321" });
        site.register(empresa).await;
        for name in ["assigned", "unassigned", "supervisor", "operator"] {
            let email = format!("{name}@x.pe");
            let person = json!({ "email": email, "password": PASSWORD, "user_type": "trabajador",
                "nombres": name, "apellidos": "X" });
            site.register(person).await;
        }
        let ours = "(SELECT id_empresa FROM empresas WHERE ruc = '20123456789')";
        site.server.sql(&format!(
            "UPDATE trabajadores SET id_empresa = {ours} WHERE email IN \
             ('assigned@x.pe', 'unassigned@x.pe', 'supervisor@x.pe'); \
             UPDATE trabajadores SET rol = 'supervisor' WHERE email = 'supervisor@x.pe'; \
             UPDATE trabajadores SET rol = 'operador' WHERE email = 'operator@x.pe'"
        ));
        for name in ["assigned", "unassigned", "supervisor", "operator", "other"] {
            let token = site.server.sign_in(&format!("{name}@x.pe")).await;
            site.tokens.insert(name, token);
        }
        let expired = site.expired().await;
        site.tokens.insert("expired", expired);
        site.tokens.insert("admin", site.server.token.clone());
        // Of HTTP it may do nothing.
        let key = json!({ "nombre": "P", "scopes": ["mqtt:subscribe"] });
        let key = site.post("/api/v1/api-keys", key).await["api_key"].as_str().expect("a key").to_owned();
        site.tokens.insert("key", key);
        site
    }

    /// The paths of all GET routes of the API but the WebSocket, of something that is there.
    pub async fn get_paths(&mut self) -> Vec<String> {
        let mut paths = Vec::new();
        for route in ROUTES.iter().filter(|r| r.method == "GET" && r.path.starts_with("/api/") && r.ok == 200)
        {
            paths.push(self.fill(route.path).await);
        }
        paths
    }

    /// The token of `admin`, `other`, `supervisor`, `assigned`, `unassigned` or `operator`.
    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    async fn register(&self, body: Value) {
        let answer = self.server.request(Method::POST, "/api/v1/auth/register", "", Some(body)).await;
        assert_eq!(answer.status(), 201);
    }

    /// A token of the administrator that was good until an hour ago.
    async fn expired(&self) -> String {
        let me = self.server.get("/api/v1/auth/me").await;
        let secret = std::fs::read_to_string(self.server.data_dir().join("jwt.secret")).expect("the secret");
        let then = SystemClock.now().minus(std::time::Duration::from_secs(7_200));
        let claims = Claims::new(me["user_id"].as_str().expect("a key"), "x", then, 3_600, "x");
        Firmante::new(secret.trim().as_bytes()).firma(&claims).expect("a token")
    }

    /// Nothing made for the last route serves the next.
    pub fn forget(&mut self) {
        self.made.clear();
        self.asked.clear();
    }

    /// Whether one of the requests since then is in the audit.
    pub async fn is_written_down(&self) -> bool {
        let changes = self.server.get("/api/v1/auditoria?limit=100").await;
        let ours = |c: &Value| c["peticion"].as_str().is_some_and(|p| self.asked.iter().any(|a| a == p));
        changes.as_array().expect("a list").iter().any(ours)
    }

    /// The status that `caller` is answered.
    pub async fn ask(&mut self, route: &Route, caller: Caller) -> u16 {
        let path = self.fill(route.path).await;
        let body = self.fill(route.body).await;
        let method = Method::from_bytes(route.method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("http://{}{path}", self.server.http));
        let id = format!("asked-{}", self.n);
        request = self.signed(request, caller).header("x-request-id", &id);
        self.asked.push(id);
        if route.ok == 101 {
            request = request
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            if route.path == "/mqtt" {
                request = request.header("sec-websocket-protocol", "mqtt");
            }
        }
        if !body.is_empty() {
            let json = body.starts_with(['{', '[']);
            let kind = if json { "application/json" } else { "application/x-www-form-urlencoded" };
            request = request.header("content-type", kind).body(body);
        }
        let status = request.send().await.expect("an answer").status().as_u16();
        documented::check(route.method, &path, status);
        status
    }

    /// A request of the administrator's for a route, with everything that it names in place, not sent yet.
    pub async fn ready(&mut self, route: &Route) -> RequestBuilder {
        self.forget();
        let (path, body) = (self.fill(route.path).await, self.fill(route.body).await);
        let method = Method::from_bytes(route.method.as_bytes()).expect("a method");
        let request = self.http.request(method, format!("http://{}{path}", self.server.http));
        let request = self.signed(request, Caller::Admin);
        if body.is_empty() { request } else { request.header("content-type", "application/json").body(body) }
    }

    fn signed(&self, request: RequestBuilder, caller: Caller) -> RequestBuilder {
        let name = match caller {
            Caller::Nobody => return request,
            Caller::Key => return request.header("x-api-key", &self.tokens["key"]),
            Caller::Expired => "expired",
            Caller::Operator => "operator",
            Caller::Other => "other",
            Caller::Unassigned => "unassigned",
            Caller::Assigned => "assigned",
            Caller::Supervisor => "supervisor",
            Caller::Admin => "admin",
        };
        request.bearer_auth(&self.tokens[name])
    }

    async fn fill(&mut self, text: &str) -> String {
        self.n += 1;
        let mut text = text.replace("{n}", &self.n.to_string());
        for name in [
            "sensor",
            "alerta",
            "cliente",
            "refresh",
            "sesion",
            "trabajador",
            "con_totp",
            "invitacion",
            "asignacion",
            "cultivo",
            "con_umbral",
            "umbral_propio",
            "lugar",
            "llave",
            "caudal",
            "ph_suelo",
        ] {
            let placeholder = format!("{{{name}}}");
            if text.contains(&placeholder) {
                let value = self.make(name).await;
                text = text.replace(&placeholder, &value);
            }
        }
        text
    }

    /// What a placeholder stands for: made once a route; what is used up by whoever may, once a
    /// request.
    async fn make(&mut self, name: &str) -> String {
        if !["cliente", "con_umbral", "umbral_propio"].contains(&name)
            && let Some(value) = self.made.get(name)
        {
            return value.clone();
        }
        let value = match name {
            "sensor" => self.sensor().await.id_sensor.to_string(),
            "alerta" => self.alert().await,
            "cliente" => self.connection().await,
            "refresh" => {
                let body = json!({ "email": EMAIL, "password": PASSWORD });
                let answer = self.server.request(Method::POST, "/api/v1/auth/login", "", Some(body)).await;
                let body: Value = answer.json().await.expect("JSON");
                body["refresh_token"].as_str().expect("a token").to_owned()
            }
            "sesion" => {
                self.server.sign_in(EMAIL).await;
                let mine = self.server.get("/api/v1/auth/sesiones").await;
                mine[0]["id"].as_str().expect("the latest").to_owned()
            }
            "trabajador" => {
                let body = json!({ "email": format!("m{}@x.pe", self.n), "password": PASSWORD, "nombre": "M",
                    "apellido": "N" });
                self.post("/api/v1/trabajadores", body).await["id_trabajador"].to_string()
            }
            "con_totp" => {
                let body = json!({ "email": format!("f{}@x.pe", self.n), "password": PASSWORD, "nombre": "M",
                    "apellido": "N" });
                let id = self.post("/api/v1/trabajadores", body).await["id_trabajador"].to_string();
                self.server.sql(&format!(
                    "INSERT INTO totp (user_id, id_factor, nombre, secreto, creado, confirmado) \
                     SELECT user_id, user_id, '', '', 1, 1 FROM trabajadores WHERE id_trabajador = {id}"
                ));
                id
            }
            "invitacion" => {
                self.post("/api/v1/trabajadores/invitaciones", json!({})).await["id_invitacion"].to_string()
            }
            "asignacion" => {
                let person = self.server.get("/api/v1/auth/me").await["id_trabajador"].clone();
                let body = json!({ "id_trabajador": person, "id_sensor": self.sensor().await.id_sensor });
                self.post("/api/v1/asignaciones", body).await["id_asignacion"].to_string()
            }
            "cultivo" => self.crop().await,
            "con_umbral" => {
                let id = self.crop().await;
                self.bounds("cultivos", &id).await;
                id
            }
            "umbral_propio" => {
                let id = self.sensor().await.id_sensor.to_string();
                self.bounds("sensores", &id).await;
                id
            }
            "lugar" => {
                let id = self.sensor().await.id_sensor;
                let lugar = format!("Lote-{id}");
                let moved = json!({ "ubicacion_sensor": lugar });
                let path = format!("/api/v1/sensores/{id}");
                let token = &self.server.token;
                let answer = self.server.request(Method::PATCH, &path, token, Some(moved)).await;
                assert_eq!(answer.status(), 200);
                lugar
            }
            "llave" => {
                let body = json!({ "nombre": "P", "scopes": ["lecturas:read"] });
                self.post("/api/v1/api-keys", body).await["id_api_key"].to_string()
            }
            // Variables, by their own names.
            "caudal" | "ph_suelo" => name.to_owned(),
            _ => unreachable!("{name}"),
        };
        self.made.insert(name.to_owned(), value.clone());
        value
    }

    /// What the administrator makes.
    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.server.request(Method::POST, path, &self.server.token, Some(body)).await;
        assert_eq!(answer.status(), 201, "{path}");
        answer.json().await.expect("JSON")
    }

    /// A crop that such a sensor stands in.
    async fn crop(&mut self) -> String {
        let id =
            self.post("/api/v1/cultivos", json!({ "tipo_cultivo": "Palta" })).await["id_cultivo"].to_string();
        let device = self.sensor().await;
        self.server
            .sql(&format!("UPDATE sensores SET id_cultivo = {id} WHERE id_sensor = {}", device.id_sensor));
        id
    }

    /// Bounds of ours for `ph_suelo` there.
    async fn bounds(&self, what: &str, id: &str) {
        let path = format!("/api/v1/{what}/{id}/umbrales/ph_suelo");
        let body = json!({ "min": 5, "max": 7 });
        let answer = self.server.request(Method::PUT, &path, &self.server.token, Some(body)).await;
        assert_eq!(answer.status(), 200, "{path}");
    }

    /// A sensor of ours, assigned to one of the workers.
    async fn sensor(&mut self) -> Device {
        self.n += 1;
        let device = self.server.device(&format!("s{}", self.n)).await;
        self.server.sql(&format!(
            "INSERT INTO asignaciones (id_trabajador, id_sensor, desde) \
             SELECT id_trabajador, {}, 0 FROM trabajadores WHERE email = 'assigned@x.pe'",
            device.id_sensor
        ));
        device
    }

    /// An open alert of such a sensor.
    async fn alert(&mut self) -> String {
        let device = self.sensor().await;
        let url = format!("http://{}/api/v1/sensores/data", self.server.http);
        let reading = self.http.post(url).basic_auth(&device.id, Some(&device.token));
        let answer = reading.json(&json!({ "temperatura": 45 })).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        let alerts = self.server.get(&format!("/api/v1/alertas?sensor={}", device.id_sensor)).await;
        alerts[0]["id_alerta"].to_string()
    }

    /// The number of a connection of such a sensor.
    async fn connection(&mut self) -> String {
        let device = self.sensor().await;
        self.client = Some(Client::device(&self.server.mqtt, 5, &device).await);
        let path = format!("/api/v1/mqtt/clientes?conectado=true&device_id={}", device.id);
        self.server.get(&path).await[0]["id"].to_string()
    }
}
