//! Simulated devices: MQTT clients like any other, with credentials of their own.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};

/// What a simulated device does besides sending plausible readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caracter {
    /// Nothing.
    Fiable,
    /// Leaves its umbral for a while about once a minute.
    Deriva,
    /// Drops off and returns.
    Intermitente,
}

/// A device and how it signs in.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) device_id: String,
    pub(super) token: String,
    pub(super) caracter: Caracter,
    /// Shifts its curve, so that no two say the same.
    pub(super) fase: f64,
}

/// One reading every this long.
const CADA: Duration = Duration::from_secs(2);
/// Seconds of the drift's cycle: most of it inside, then out and far out, then back.
const CICLO_DERIVA: f64 = 60.0;
/// Seconds that an intermittent device is there, and away.
const PRESENTE: f64 = 40.0;
const AUSENTE: f64 = 15.0;

/// Runs a device for ever: connects, sends, reconnects.
pub(super) async fn run(device: Device, host: String, port: u16) {
    let inicio = tokio::time::Instant::now();
    loop {
        let mut options = MqttOptions::new(&device.device_id, &host, port);
        options.set_credentials(&device.device_id, &device.token);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut eventos) = AsyncClient::new(options, 16);
        let mut cada = tokio::time::interval(CADA);
        loop {
            tokio::select! {
                evento = eventos.poll() => match evento {
                    Ok(Event::Incoming(Incoming::Disconnect)) | Err(_) => break,
                    Ok(_) => {}
                },
                _ = cada.tick() => {
                    let t = inicio.elapsed().as_secs_f64() + device.fase * 10.0;
                    if device.caracter == Caracter::Intermitente && t % (PRESENTE + AUSENTE) > PRESENTE {
                        // Pulls its own plug: no DISCONNECT.
                        break;
                    }
                    let topic = format!("sensores/{}/data", device.device_id);
                    if client.try_publish(topic, QoS::AtLeastOnce, false, lectura(&device, t)).is_err() {
                        break;
                    }
                }
            }
        }
        drop((client, eventos));
        let espera = if device.caracter == Caracter::Intermitente { AUSENTE } else { 1.0 };
        tokio::time::sleep(Duration::from_secs_f64(espera)).await;
    }
}

/// A reading at second `t`: a slow day (ten minutes long), a little noise, and the device's ways.
fn lectura(device: &Device, t: f64) -> String {
    let dia = (t / 600.0 * std::f64::consts::TAU + device.fase).sin();
    let ruido = ((t * 7.3 + device.fase * 31.0).sin() + (t * 3.1).cos()) * 0.3;
    let mut temperatura = 22.0 + 5.0 * dia + ruido;
    if device.caracter == Caracter::Deriva {
        let en_ciclo = t % CICLO_DERIVA;
        // 25 s inside, 10 s a little out, 10 s far out, 15 s inside again.
        temperatura = match en_ciclo {
            s if s < 25.0 => 28.0 + ruido,
            s if s < 35.0 => 36.5 + ruido * 0.2,
            s if s < 45.0 => 43.0 + ruido,
            _ => 27.0 + ruido,
        };
    }
    serde_json::json!({
        "temperatura": redondea(temperatura, 2),
        "humedad_aire": redondea(65.0 - 12.0 * dia + ruido, 1),
        "humedad_suelo": redondea(55.0 + 6.0 * (t / 900.0).cos() + ruido, 1),
        "ph_suelo": redondea(6.7 + 0.2 * dia, 2),
        "radiacion_solar": redondea((450.0 + 400.0 * dia).max(0.0), 0),
        "bateria": redondea((100.0 - t / 360.0).max(20.0), 1),
    })
    .to_string()
}

fn redondea(x: f64, decimales: i32) -> f64 {
    let factor = 10f64.powi(decimales);
    (x * factor).round() / factor
}
