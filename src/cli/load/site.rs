//! The receiving side by its API: devices to send as, and what it stored of them.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::domain::Timestamp;

/// A device to send as.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) id_sensor: i64,
    pub(super) nombre: String,
    pub(super) token: Option<String>,
    pub(super) topic: String,
}

impl Device {
    /// For a broker that asks for nothing.
    pub(super) fn anonymous(n: usize, topic: &str) -> Self {
        let topic = topic.replace("{n}", &n.to_string());
        Self { id_sensor: 0, nombre: format!("load-{n:05}"), token: None, topic }
    }
}

/// An Alertrace that is being measured.
pub(super) struct Site {
    client: Client,
    api: String,
    token: String,
}

#[derive(Deserialize)]
struct Sensor {
    id_sensor: i64,
    device_id: String,
}

#[derive(Deserialize)]
struct Credenciales {
    token: String,
}

impl Site {
    pub(super) async fn sign_in(api: &str, email: &str, password: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Login {
            access_token: String,
        }
        let client = Client::new();
        let api = format!("{}/api/v1", api.trim_end_matches('/'));
        let login =
            client.post(format!("{api}/auth/login")).json(&json!({ "email": email, "password": password }));
        let login: Login = login.send().await?.error_for_status()?.json().await?;
        Ok(Self { client, api, token: login.access_token })
    }

    /// Where its WebSocket is.
    pub(super) fn live(&self, query: &str) -> String {
        format!("{}/sensores/live{query}", self.api.replacen("http", "ws", 1))
    }

    /// How this account signs in.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Asks, and again when it is told to wait.
    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        loop {
            let again = request.try_clone().context("a request with a body that is gone")?;
            let answer = again.send().await?;
            if answer.status() != StatusCode::TOO_MANY_REQUESTS {
                return Ok(answer);
            }
            let wait = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(wait.unwrap_or(1))).await;
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.api)).bearer_auth(&self.token)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.api)).bearer_auth(&self.token)
    }

    /// Registers a device, or gives one that is registered a new token.
    pub(super) async fn device(&self, device_id: &str) -> anyhow::Result<Device> {
        #[derive(Deserialize)]
        struct Creado {
            sensor: Sensor,
            credenciales: Credenciales,
        }
        #[derive(Deserialize)]
        struct Renovado {
            credenciales: Credenciales,
        }
        let nuevo = json!({ "device_id": device_id, "nombre": device_id, "tipo": "carga" });
        let answer = self.ask(self.post("/sensores").json(&nuevo)).await?;
        let (id_sensor, token) = if answer.status() == StatusCode::CONFLICT {
            let id_sensor = self.find(device_id).await?;
            let answer = self.ask(self.post(&format!("/sensores/{id_sensor}/credenciales"))).await?;
            let renovado: Renovado = answer.error_for_status()?.json().await?;
            (id_sensor, renovado.credenciales.token)
        } else {
            let creado: Creado = answer.error_for_status()?.json().await?;
            (creado.sensor.id_sensor, creado.credenciales.token)
        };
        let topic = format!("sensores/{device_id}/data");
        Ok(Device { id_sensor, nombre: device_id.to_owned(), token: Some(token), topic })
    }

    /// What temperature is still allowed.
    pub(super) async fn umbrales(&self, max: f64) -> anyhow::Result<()> {
        let request = self.client.put(format!("{}/umbrales", self.api)).bearer_auth(&self.token);
        let umbrales = json!({ "temperatura": { "min": -50, "max": max } });
        self.ask(request.json(&umbrales)).await?.error_for_status()?;
        Ok(())
    }

    async fn find(&self, device_id: &str) -> anyhow::Result<i64> {
        const PAGE: usize = 1_000;
        for page in 0.. {
            let path = format!("/sensores?limit={PAGE}&skip={}", page * PAGE);
            let sensores: Vec<Sensor> = self.ask(self.get(&path)).await?.error_for_status()?.json().await?;
            if let Some(hallado) = sensores.iter().find(|s| s.device_id == device_id) {
                return Ok(hallado.id_sensor);
            }
            if sensores.len() < PAGE {
                break;
            }
        }
        anyhow::bail!("{device_id} belongs to another empresa")
    }

    /// The moments of the readings stored from `desde` on, in microseconds.
    pub(super) async fn readings(&self, device: &Device, desde: i64) -> anyhow::Result<Vec<i64>> {
        #[derive(Deserialize)]
        struct Lectura {
            timestamp: Timestamp,
        }
        const PAGE: usize = 1_000;
        let (mut todas, mut desde) = (Vec::new(), desde);
        loop {
            let path = format!("/sensores/{}/lecturas", device.id_sensor);
            let moment = Timestamp::clamped(desde).to_string();
            let query = [("desde", moment.as_str()), ("orden", "asc"), ("limit", "1000")];
            let answer = self.ask(self.get(&path).query(&query)).await?.error_for_status()?;
            let pagina: Vec<Lectura> = answer.json().await?;
            let Some(ultima) = pagina.last() else { return Ok(todas) };
            desde = ultima.timestamp.next().micros();
            let completa = pagina.len() == PAGE;
            todas.extend(pagina.iter().map(|l| l.timestamp.micros()));
            if !completa {
                return Ok(todas);
            }
            anyhow::ensure!(todas.len() < 100_000_000, "more readings than a load can have sent");
        }
    }
}
