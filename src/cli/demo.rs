//! `alertrace demo`: everything, in a temporary directory, with an empresa and simulated sensors.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::devices::{self, Caracter, Device};
use crate::app::{self, Running};
use crate::config::{Address, Config, MailTransport};
use crate::domain::{Clock, DeviceId, SensorRef, SystemClock};
use crate::identity::cuentas::NuevaEmpresa;
use crate::identity::dispositivo;
use crate::store::sensores::Nuevo;
use crate::{lifecycle, store, telemetry};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stop after this many seconds (default: on Ctrl-C).
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

pub(super) const EMAIL: &str = "demo@alertrace.example";

/// The sensors of the demo: device id, name, place, character.
const SENSORES: [(&str, &str, &str, Caracter); 6] = [
    ("demo-invernadero-1", "Invernadero 1", "Invernadero", Caracter::Fiable),
    ("demo-invernadero-2", "Invernadero 2", "Invernadero", Caracter::Deriva),
    ("demo-lote-norte", "Lote norte", "Campo", Caracter::Fiable),
    ("demo-lote-sur", "Lote sur", "Campo", Caracter::Intermitente),
    ("demo-camara-fria", "Cámara fría", "Almacén", Caracter::Fiable),
    ("demo-vivero", "Vivero", "Vivero", Caracter::Fiable),
];

/// Runs the demo until Ctrl-C.
pub(super) async fn run(args: &Args, mut config: Config) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    dir.path().clone_into(&mut config.data_dir);
    config.tls.dir = dir.path().join("certs");
    // The lines to paste say http.
    config.http.tls = false;
    config.database.address = Address::Sqlite(None);
    // Its accounts are its own.
    config.identity.supabase = None;
    // Its messages are written where whoever tries it looks.
    config.mail.transport = MailTransport::Log;
    // The demo talks in text on a terminal; what the server logs would drown it.
    if std::env::var_os("LOG_LEVEL").is_none() && std::env::var_os("ALERTRACE__LOG__LEVEL").is_none() {
        config.log.level = "warn".into();
    }
    let metrics = telemetry::init(&config.log)?;
    let asked = lifecycle::asked_to_stop().context("signals cannot be heard")?;
    free_ports(&mut config).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let running = app::start(&config, clock.clone(), metrics).await?;
    let mqtt = running.mqtt.context("the demo needs mqtt.listen: unset it, or give it an address")?;

    let password = dispositivo::genera().map_err(anyhow::Error::msg)?.texto;
    let password = format!("demo-{}", &password[..10]);
    let id_empresa = make_empresa(&running, &password).await?;
    let mut made = Vec::new();
    for (n, (device_id, nombre, ubicacion, caracter)) in (0u8..).zip(SENSORES) {
        let token = make_sensor(&running, id_empresa, device_id, nombre, ubicacion, clock.as_ref()).await?;
        made.push(Device { device_id: device_id.into(), token, caracter, fase: f64::from(n) });
    }
    // One more that nobody simulates, for whoever tries it by hand.
    let token =
        make_sensor(&running, id_empresa, "demo-mano", "Tu sensor", "Tu mesa", clock.as_ref()).await?;

    let mut simulated = tokio::task::JoinSet::new();
    for device in made {
        simulated.spawn(devices::run(device, mqtt.ip().to_string(), mqtt.port()));
    }
    print_welcome(running.http, mqtt, &password, &token);
    if let Some(mqtts) = running.mqtts {
        print_tls(mqtts, &config.tls.dir.join("ca.pem"), &token);
    }
    let stop = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(std::time::Duration::from_secs(seconds)).await,
            None => asked.await,
        }
    };
    let ended = running.run(stop).await;
    simulated.shutdown().await;
    ended.context("the demo ended")
}

/// Takes other ports where the configured ones are in use: the demo has to run beside anything.
async fn free_ports(config: &mut Config) {
    async fn free(address: &mut SocketAddr) {
        if tokio::net::TcpListener::bind(*address).await.is_err() {
            address.set_port(0);
        }
    }
    free(&mut config.http.listen).await;
    if let Some(address) = &mut config.mqtt.listen {
        free(address).await;
    }
    if let Some(address) = &mut config.mqtt.tls_listen {
        // The default is every address; a demo is for this machine.
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        free(address).await;
    }
}

/// An empresa and its administrator.
pub(super) async fn make_empresa(running: &Running, password: &str) -> anyhow::Result<i64> {
    let nueva = NuevaEmpresa {
        email: EMAIL.into(),
        password: password.into(),
        nombre: "Demo".into(),
        apellido: "Alertrace".into(),
        dni: None,
        telefono: None,
        ruc: "20123456789".into(),
        razon_social: "Fundo Demo S.A.C.".into(),
        empresa_email: None,
    };
    let made = running.cuentas.create_admin(nueva).await?;
    let perfil = running.cuentas.perfil(&made.user_id).await?;
    perfil.id_empresa.context("an administrator has an empresa")
}

/// A sensor; answers its token.
pub(super) async fn make_sensor(
    running: &Running,
    id_empresa: i64,
    device_id: &str,
    nombre: &str,
    ubicacion: &str,
    clock: &dyn Clock,
) -> anyhow::Result<String> {
    let token = dispositivo::genera().map_err(anyhow::Error::msg)?;
    let device_id = DeviceId::new(device_id)?;
    let nuevo = Nuevo {
        id_empresa,
        device_id: &device_id,
        nombre,
        tipo: "multiparametro",
        id_cultivo: None,
        intervalo_lectura: 2,
        ubicacion_sensor: Some(ubicacion),
        coordenadas_lat: None,
        coordenadas_lng: None,
        credencial: &token.hash,
    };
    let mut tx = running.store.write().await?;
    let id_sensor = store::sensores::create(&mut tx, &nuevo, clock.now()).await?;
    tx.commit().await?;
    running.directorio.alta(SensorRef { id_sensor, id_empresa, device_id });
    Ok(token.texto)
}

fn print_welcome(http: SocketAddr, mqtt: SocketAddr, password: &str, token: &str) {
    let (ip, port) = (mqtt.ip(), mqtt.port());
    println!(
        "
Alertrace demo: six simulated sensors are sending. Stop it with Ctrl-C; nothing is kept.

  API         http://{http}/docs        (Authorize with the login below)
  WebSocket   ws://{http}/api/v1/sensores/live
  MQTT        {mqtt}  (3.1.1 and 5.0)

  Login       {EMAIL}
  Password    {password}

  A device    demo-mano
  Its token   {token}

Send a reading:
  mosquitto_pub -h {ip} -p {port} -V 5 -q 1 -i demo-mano -u demo-mano -P {token} \\
    -t sensores/demo-mano/data -m '{{\"temperatura\": 41.5, \"humedad_aire\": 60}}'

Sign in, then see it, and the alert that it raised:
  TOKEN=$(curl -s http://{http}/api/v1/auth/login -H 'Content-Type: application/json' \\
    -d '{{\"email\":\"{EMAIL}\",\"password\":\"{password}\"}}' | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"access_token\"])')
  curl -s http://{http}/api/v1/sensores/with-readings -H \"Authorization: Bearer $TOKEN\"
  curl -s http://{http}/api/v1/alertas -H \"Authorization: Bearer $TOKEN\"

Hear everything as it happens:
  mosquitto_sub -h {ip} -p {port} -V 5 -u jwt -P \"$TOKEN\" -t 'sensores/+/data' -t 'alertas/#' -v
"
    );
}

fn print_tls(mqtts: SocketAddr, ca: &Path, token: &str) {
    let (port, ca) = (mqtts.port(), ca.display());
    println!(
        "The same over TLS ({mqtts}), checked by the demo's own authority:
  mosquitto_pub --cafile {ca} -h localhost -p {port} -V 5 -q 1 -i demo-mano -u demo-mano -P {token} \\
    -t sensores/demo-mano/data -m '{{\"temperatura\": 22.5}}'
"
    );
}
