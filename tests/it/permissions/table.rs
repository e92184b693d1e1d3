//! Who may do what: a line for each route. To add a route, add its line.
//!
//! A placeholder in a path or a body (`{sensor}`) is something that the administrator of the test's empresa
//! has made; `Site::make` says how. `{n}` is a number that no other request has.

use super::Caller::{self, Assigned, Expired, Key, Nobody, Operator, Other};

/// Who gets the route's own answer, and what the others get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody, signed in or not.
    Anyone,
    /// Every account.
    Account,
    /// Every account that belongs to an empresa, of its own empresa.
    Member,
    /// Whoever sees the sensor: its empresa, and of the workers those it is assigned to.
    Sees,
    /// Supervisors and administrators, of their own empresa.
    Supervisor,
    /// The same, of something that belongs to an empresa.
    SupervisorOf,
    /// Administrators, of their own empresa.
    Admin,
    /// The same, of something that belongs to an empresa.
    AdminOf,
    /// Administrators, of their own empresa, and the operador.
    Operator,
    /// The same, of something that belongs to an empresa.
    OperatorOf,
    /// The operador alone.
    Installation,
    /// Devices alone, with their own token.
    Device,
    /// Accounts that belong to no empresa: nobody of the table does.
    Homeless,
    /// Accounts with a second factor that is set up, and a code of it: nobody of the table has one.
    Holder,
    /// Whoever it belongs to, an account of the administrator here.
    Own,
    /// A WebSocket: who comes without a token has five seconds to say one.
    Socket,
}

impl Who {
    /// What `caller` is answered by a route whose own answer is `ok`.
    pub fn answers(self, caller: Caller, ok: u16) -> u16 {
        use Caller::{Admin, Supervisor};
        let allowed = |callers: &[Caller]| callers.contains(&caller);
        match (self, caller) {
            (Self::Anyone, _) | (Self::Socket, Nobody | Key) => ok,
            (Self::Device, _) | (_, Nobody | Expired) => 401,
            (_, Key) => 403,
            (Self::Account | Self::Holder, _) => ok,
            (Self::Homeless, _) => 409,
            (Self::Own, Admin) => ok,
            (Self::Own, _) => 404,
            (Self::Operator | Self::OperatorOf | Self::Installation, Operator) => ok,
            (Self::Installation, _) => 403,
            (_, Operator) => 403,
            (Self::Sees | Self::SupervisorOf | Self::AdminOf | Self::OperatorOf, Other) => 404,
            (Self::Member | Self::Socket, _) => ok,
            (Self::Sees, _) => {
                if allowed(&[Assigned, Supervisor, Admin]) {
                    ok
                } else {
                    404
                }
            }
            (Self::Supervisor | Self::SupervisorOf, _) => {
                if allowed(&[Other, Supervisor, Admin]) {
                    ok
                } else {
                    403
                }
            }
            (Self::Admin | Self::AdminOf | Self::Operator | Self::OperatorOf, _) => {
                if allowed(&[Other, Admin]) { ok } else { 403 }
            }
        }
    }
}

/// A line of the table.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub who: Who,
    /// Its own answer.
    pub ok: u16,
    /// What is sent; a form where it does not begin as JSON does.
    pub body: &'static str,
}

impl Route {
    /// Whether the empresa's administrator is to find it in the audit.
    pub fn changes(&self) -> bool {
        // What is the installation's is told in no empresa's audit.
        let nobodys =
            matches!(self.who, Who::Anyone | Who::Device | Who::Homeless | Who::Holder | Who::Installation);
        self.method != "GET" && !nobodys
    }
}

const fn route(method: &'static str, path: &'static str, who: Who, ok: u16, body: &'static str) -> Route {
    Route { method, path, who, ok, body }
}

const fn get(path: &'static str, who: Who) -> Route {
    route("GET", path, who, 200, "")
}

/// See the module.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    get("/", Who::Anyone),
    get("/health", Who::Anyone),
    get("/ready", Who::Anyone),
    get("/metrics", Who::Anyone),
    get("/.well-known/jwks.json", Who::Anyone),
    get("/openapi.json", Who::Anyone),
    get("/docs/", Who::Anyone),
    get("/consola/inicio.js", Who::Anyone),
    // Who may is what the CONNECT shows.
    route("GET", "/mqtt", Who::Anyone, 101, ""),
    route("GET", "/sensores/live", Who::Socket, 101, ""),

    route("POST", "/api/v1/auth/register", Who::Anyone, 201,
        r#"{"email":"p{n}@x.pe","password":"una clave larga","user_type":"trabajador","nombres":"P","apellidos":"Q"}"#),
    route("POST", "/api/v1/auth/login", Who::Anyone, 200, r#"{"email":"admin@fundo.pe","password":"una clave larga"}"#),
    route("POST", "/api/v1/auth/token", Who::Anyone, 200, "username=admin@fundo.pe&password=una clave larga"),
    route("POST", "/api/v1/auth/refresh", Who::Anyone, 200, r#"{"refresh_token":"{refresh}"}"#),
    // Another sign-in than the one that asks, which goes on asking.
    route("POST", "/api/v1/auth/logout", Who::Account, 204, r#"{"refresh_token":"{refresh}"}"#),
    get("/api/v1/auth/me", Who::Account),
    get("/api/v1/auth/verify-token", Who::Account),
    // The test's server sends no mail, and nobody has a token of a message.
    route("POST", "/api/v1/auth/forgot-password", Who::Anyone, 501, r#"{"email":"admin@fundo.pe"}"#),
    route("POST", "/api/v1/auth/reset-password", Who::Anyone, 422, r#"{"token":"x","new_password":"una clave larga"}"#),
    route("GET", "/api/v1/auth/confirm", Who::Anyone, 400, ""),
    get("/api/v1/auth/sesiones", Who::Account),
    route("DELETE", "/api/v1/auth/sesiones/{sesion}", Who::Own, 204, ""),
    get("/api/v1/auth/totp", Who::Account),
    route("POST", "/api/v1/auth/totp", Who::Account, 201, ""),
    route("POST", "/api/v1/auth/totp/confirmar", Who::Holder, 422, r#"{"codigo":"x"}"#),
    route("POST", "/api/v1/auth/totp/codigos", Who::Holder, 409, r#"{"codigo":"x"}"#),
    route("POST", "/api/v1/auth/totp/quitar", Who::Holder, 409, r#"{"codigo":"x"}"#),

    route("POST", "/api/v1/auth/unirse", Who::Homeless, 200, r#"{"codigo_invitacion":"0000"}"#),

    get("/api/v1/empresas/me", Who::Member),
    route("PATCH", "/api/v1/empresas/me", Who::Admin, 200, r#"{"telefono":"{n}"}"#),

    get("/api/v1/trabajadores", Who::Supervisor),
    route("POST", "/api/v1/trabajadores", Who::Admin, 201,
        r#"{"email":"t{n}@x.pe","password":"una clave larga","nombre":"T","apellido":"U"}"#),
    get("/api/v1/trabajadores/invitaciones", Who::Admin),
    route("POST", "/api/v1/trabajadores/invitaciones", Who::Admin, 201, ""),
    route("DELETE", "/api/v1/trabajadores/invitaciones/{invitacion}", Who::AdminOf, 204, ""),
    get("/api/v1/trabajadores/{trabajador}", Who::SupervisorOf),
    route("PUT", "/api/v1/trabajadores/{trabajador}", Who::AdminOf, 200, r#"{"nombre":"T{n}"}"#),
    route("DELETE", "/api/v1/trabajadores/{trabajador}", Who::AdminOf, 204, ""),

    route("DELETE", "/api/v1/trabajadores/{con_totp}/totp", Who::AdminOf, 204, ""),
    get("/api/v1/asignaciones", Who::Supervisor),
    route("POST", "/api/v1/asignaciones", Who::AdminOf, 201, r#"{"id_trabajador":{trabajador},"id_sensor":{sensor}}"#),
    get("/api/v1/asignaciones/trabajador/{trabajador}", Who::SupervisorOf),
    get("/api/v1/asignaciones/sensor/{sensor}", Who::SupervisorOf),
    route("DELETE", "/api/v1/asignaciones/{asignacion}", Who::AdminOf, 204, ""),

    get("/api/v1/cultivos", Who::Member),
    route("POST", "/api/v1/cultivos", Who::Admin, 201, r#"{"tipo_cultivo":"Palta"}"#),
    get("/api/v1/cultivos/{cultivo}", Who::Sees),
    route("PATCH", "/api/v1/cultivos/{cultivo}", Who::AdminOf, 200, r#"{"variedad":"V{n}"}"#),
    route("PUT", "/api/v1/cultivos/{cultivo}", Who::AdminOf, 200, r#"{"variedad":"V{n}"}"#),
    route("DELETE", "/api/v1/cultivos/{cultivo}", Who::AdminOf, 204, ""),
    get("/api/v1/cultivos/{cultivo}/umbrales", Who::Sees),
    route("PUT", "/api/v1/cultivos/{cultivo}/umbrales", Who::SupervisorOf, 200, r#"{"caudal":{"min":1,"max":{n}}}"#),
    route("PUT", "/api/v1/cultivos/{cultivo}/umbrales/{caudal}", Who::SupervisorOf, 200, r#"{"min":1,"max":{n}}"#),
    route("DELETE", "/api/v1/cultivos/{con_umbral}/umbrales/{ph_suelo}", Who::SupervisorOf, 204, ""),

    get("/api/v1/sensores", Who::Member),
    route("POST", "/api/v1/sensores", Who::Admin, 201, r#"{"device_id":"p{n}","nombre":"P","tipo":"t"}"#),
    get("/api/v1/sensores/with-readings", Who::Member),
    get("/api/v1/sensores/{sensor}", Who::Sees),
    route("PATCH", "/api/v1/sensores/{sensor}", Who::AdminOf, 200, r#"{"nombre":"P{n}"}"#),
    route("DELETE", "/api/v1/sensores/{sensor}", Who::AdminOf, 204, ""),
    route("POST", "/api/v1/sensores/{sensor}/credenciales", Who::AdminOf, 201, ""),
    route("POST", "/api/v1/sensores/move", Who::AdminOf, 200, r#"{"from_ubicacion":"{lugar}","to_ubicacion":"Otro {n}"}"#),
    route("DELETE", "/api/v1/sensores/by-ubicacion/{lugar}", Who::AdminOf, 200, ""),
    get("/api/v1/sensores/{sensor}/umbrales", Who::Sees),
    route("PUT", "/api/v1/sensores/{sensor}/umbrales/{caudal}", Who::SupervisorOf, 200, r#"{"min":1,"max":{n}}"#),
    route("DELETE", "/api/v1/sensores/{umbral_propio}/umbrales/{ph_suelo}", Who::SupervisorOf, 204, ""),
    get("/api/v1/sensores/{sensor}/comandos", Who::SupervisorOf),
    route("POST", "/api/v1/sensores/{sensor}/comandos", Who::SupervisorOf, 201, r#"{"comando":"regar"}"#),
    get("/api/v1/sensores/{sensor}/config", Who::SupervisorOf),
    route("PUT", "/api/v1/sensores/{sensor}/config", Who::SupervisorOf, 200, r#"{"intervalo_lectura":{n}}"#),
    get("/api/v1/sensores/{sensor}/lecturas", Who::Sees),
    get("/api/v1/sensores/{sensor}/estadisticas", Who::Sees),
    get("/api/v1/sensores/{sensor}/rechazos", Who::SupervisorOf),
    route("POST", "/api/v1/sensores/data", Who::Device, 201, r#"{"temperatura":20}"#),
    route("GET", "/api/v1/sensores/live", Who::Socket, 101, ""),

    get("/api/v1/alertas", Who::Member),
    get("/api/v1/alertas/count/pendientes", Who::Member),
    get("/api/v1/alertas/{alerta}", Who::Sees),
    route("PATCH", "/api/v1/alertas/{alerta}", Who::Sees, 200, r#"{"estado":"en_proceso","notas":"{n}"}"#),
    route("PATCH", "/api/v1/alertas/{alerta}/viewed", Who::Sees, 200, ""),
    route("POST", "/api/v1/alertas/{alerta}/viewed", Who::Sees, 200, ""),
    route("PATCH", "/api/v1/alertas/{alerta}/read", Who::Sees, 200, ""),
    route("POST", "/api/v1/alertas/{alerta}/read", Who::Sees, 200, ""),
    route("PATCH", "/api/v1/alertas/{alerta}/resolve", Who::Sees, 200, r#"{"notas":"{n}"}"#),
    route("POST", "/api/v1/alertas/{alerta}/resolve", Who::Sees, 200, ""),

    get("/api/v1/umbrales", Who::Supervisor),
    route("PUT", "/api/v1/umbrales", Who::Supervisor, 200, r#"{"caudal":{"min":1,"max":{n}}}"#),

    get("/api/v1/dashboard", Who::Member),
    get("/api/v1/dashboard/kpis", Who::Member),
    get("/api/v1/dashboard/trabajadores", Who::Supervisor),
    get("/api/v1/dashboard/sensor-data/{sensor}", Who::Sees),

    get("/api/v1/api-keys", Who::Admin),
    route("POST", "/api/v1/api-keys", Who::Admin, 201, r#"{"nombre":"K{n}","scopes":["lecturas:read"]}"#),
    route("DELETE", "/api/v1/api-keys/{llave}", Who::AdminOf, 204, ""),

    get("/api/v1/auditoria", Who::Admin),

    get("/api/v1/mqtt/clientes", Who::Operator),
    route("DELETE", "/api/v1/mqtt/clientes/{cliente}", Who::OperatorOf, 204, ""),
    get("/api/v1/sistema/log", Who::Installation),
    route("PUT", "/api/v1/sistema/log", Who::Installation, 200, r#"{"nivel":"info"}"#),
];
