//! The alert rules: pure functions of a state and a reading. No I/O, no clock.
//!
//! One open alert per (sensor, variable): it opens outside the umbral, is raised in severity and
//! never duplicated, and closes itself after [`DENTRO_PARA_CERRAR`] readings inside.

mod texto;
pub mod umbrales;

use crate::domain::{Accion, Alerta, EstadoAlerta, Rango, SensorRef, Severidad, Timestamp, Variable};

pub use umbrales::Umbrales;

/// Readings inside, one after another, that close an open alert.
pub const DENTRO_PARA_CERRAR: u8 = 3;

/// The kind of alert that says that history goes before its time, for want of disk.
pub const ALMACENAMIENTO: &str = "almacenamiento";

/// An open alert and how many readings in a row have been back inside.
#[derive(Debug, Clone, PartialEq)]
pub struct Abierta {
    /// The alert; `id_alerta` is 0 until it is stored.
    pub alerta: Alerta,
    /// 0 … [`DENTRO_PARA_CERRAR`] − 1.
    pub dentro: u8,
}

/// What a reading does to the alert of its variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Paso {
    /// Nothing worth storing.
    Nada,
    /// The state changes and people are told.
    Cambia(Accion, Abierta),
    /// Only the count of readings inside changes; nobody is told.
    Cuenta(Abierta),
}

/// How bad `valor` is against `umbral`; `None` inside. Media up to 10 % of the range beyond the
/// bound, alta beyond that, critica beyond 25 %.
#[must_use]
pub fn severidad(umbral: Rango, valor: f64) -> Option<Severidad> {
    let exceso = (umbral.min - valor).max(valor - umbral.max);
    if exceso <= 0.0 {
        return None;
    }
    let fraccion = exceso / umbral.ancho();
    Some(if fraccion > 0.25 {
        Severidad::Critica
    } else if fraccion > 0.10 {
        Severidad::Alta
    } else {
        Severidad::Media
    })
}

/// One step of the state machine: a reading that is the sensor's newest.
#[must_use]
pub fn evalua(
    abierta: Option<&Abierta>,
    sensor: &SensorRef,
    variable: &Variable,
    umbral: Rango,
    valor: f64,
    ts: Timestamp,
) -> Paso {
    match (severidad(umbral, valor), abierta) {
        (None, None) => Paso::Nada,
        (Some(severidad), None) => {
            let alerta = nueva(sensor, variable, umbral, valor, ts, severidad);
            Paso::Cambia(Accion::Creada, Abierta { alerta, dentro: 0 })
        }
        (Some(severidad), Some(abierta)) if severidad > abierta.alerta.severidad => {
            let peor = nueva(sensor, variable, umbral, valor, ts, severidad);
            let mut alerta = abierta.alerta.clone();
            (alerta.severidad, alerta.titulo, alerta.mensaje) = (severidad, peor.titulo, peor.mensaje);
            (alerta.valor_actual, alerta.valor_umbral) = (peor.valor_actual, peor.valor_umbral);
            // What somebody looked at was less severe than this.
            alerta.vista = false;
            Paso::Cambia(Accion::Actualizada, Abierta { alerta, dentro: 0 })
        }
        (Some(_), Some(abierta)) if abierta.dentro > 0 => {
            Paso::Cuenta(Abierta { alerta: abierta.alerta.clone(), dentro: 0 })
        }
        (Some(_), Some(_)) => Paso::Nada,
        (None, Some(abierta)) if abierta.dentro + 1 >= DENTRO_PARA_CERRAR => {
            let mut alerta = abierta.alerta.clone();
            cierra(&mut alerta, ts);
            Paso::Cambia(Accion::Resuelta, Abierta { alerta, dentro: DENTRO_PARA_CERRAR })
        }
        (None, Some(abierta)) => {
            Paso::Cuenta(Abierta { alerta: abierta.alerta.clone(), dentro: abierta.dentro + 1 })
        }
    }
}

/// A new open alert.
#[must_use]
pub fn nueva(
    sensor: &SensorRef,
    variable: &Variable,
    umbral: Rango,
    valor: f64,
    ts: Timestamp,
    severidad: Severidad,
) -> Alerta {
    let (titulo, mensaje, cruzado) = texto::de(sensor, variable, umbral, valor);
    Alerta {
        id_alerta: 0,
        id_empresa: sensor.id_empresa,
        id_sensor: sensor.id_sensor,
        device_id: sensor.device_id.clone(),
        tipo_alerta: variable.as_str().to_owned(),
        severidad,
        titulo,
        mensaje,
        valor_actual: Some(valor),
        valor_umbral: Some(cruzado),
        unidad: variable.unidad().to_owned(),
        estado: EstadoAlerta::Pendiente,
        resuelta: false,
        vista: false,
        historica: false,
        fecha_creacion: ts,
        fecha_resolucion: None,
        resuelta_por: None,
        notas: None,
    }
}

/// The record of an excursion that came to light late: closed from the start, notifies nobody.
/// `None` when `valor` is inside.
#[must_use]
pub fn historica(
    sensor: &SensorRef,
    variable: &Variable,
    umbral: Rango,
    valor: f64,
    ts: Timestamp,
) -> Option<Alerta> {
    let mut alerta = nueva(sensor, variable, umbral, valor, ts, severidad(umbral, valor)?);
    alerta.historica = true;
    cierra(&mut alerta, ts);
    Some(alerta)
}

/// History of an empresa goes before its time. It is the empresa's matter and no sensor's; an alert being
/// a sensor's, it is that of the sensor whose history is the oldest, and so goes first.
#[must_use]
pub fn almacenamiento(sensor: &SensorRef, usado: u64, maximo: u64, ts: Timestamp) -> Alerta {
    let (titulo, mensaje, porcentaje, umbral) = texto::almacenamiento(usado, maximo);
    Alerta {
        id_alerta: 0,
        id_empresa: sensor.id_empresa,
        id_sensor: sensor.id_sensor,
        device_id: sensor.device_id.clone(),
        tipo_alerta: ALMACENAMIENTO.to_owned(),
        severidad: Severidad::Media,
        titulo,
        mensaje,
        valor_actual: Some(porcentaje),
        valor_umbral: Some(umbral),
        unidad: "%".to_owned(),
        estado: EstadoAlerta::Pendiente,
        resuelta: false,
        vista: false,
        historica: false,
        fecha_creacion: ts,
        fecha_resolucion: None,
        resuelta_por: None,
        notas: None,
    }
}

/// Closes an alert at `ts`.
pub fn cierra(alerta: &mut Alerta, ts: Timestamp) {
    alerta.estado = EstadoAlerta::Resuelta;
    alerta.resuelta = true;
    alerta.fecha_resolucion = Some(ts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;

    const UMBRAL: Rango = Rango { min: 10.0, max: 35.0 };

    fn sensor() -> SensorRef {
        SensorRef { id_sensor: 1, id_empresa: 1, device_id: DeviceId::new("s1").unwrap() }
    }

    /// Plays readings one second apart; answers what people were told.
    fn juega(valores: &[f64]) -> Vec<(Accion, Severidad)> {
        let (mut abierta, mut dichos): (Option<Abierta>, _) = (None, Vec::new());
        for (i, valor) in valores.iter().enumerate() {
            let ts = Timestamp::clamped(i64::try_from(i).unwrap() * 1_000_000);
            match evalua(abierta.as_ref(), &sensor(), &Variable::TEMPERATURA, UMBRAL, *valor, ts) {
                Paso::Nada => {}
                Paso::Cuenta(a) => abierta = Some(a),
                Paso::Cambia(accion, a) => {
                    dichos.push((accion, a.alerta.severidad));
                    abierta = (accion != Accion::Resuelta).then_some(a);
                }
            }
        }
        dichos
    }

    #[test]
    fn severity_grows_with_the_distance_from_the_bound() {
        // The range is 25 wide: 10 % = 2.5, 25 % = 6.25.
        for (valor, esperada) in [
            (10.0, None),
            (35.0, None),
            (35.1, Some(Severidad::Media)),
            (37.5, Some(Severidad::Media)),
            (37.6, Some(Severidad::Alta)),
            (41.25, Some(Severidad::Alta)),
            (41.3, Some(Severidad::Critica)),
            (9.9, Some(Severidad::Media)),
            (3.0, Some(Severidad::Critica)),
        ] {
            assert_eq!(severidad(UMBRAL, valor), esperada, "{valor}");
        }
    }

    #[test]
    fn an_alert_opens_rises_and_closes_once() {
        use Accion::{Actualizada, Creada, Resuelta};
        use Severidad::{Critica, Media};
        let dichos = juega(&[20.0, 36.0, 36.5, 45.0, 36.0, 20.0, 20.0, 20.0, 20.0]);
        assert_eq!(dichos, [(Creada, Media), (Actualizada, Critica), (Resuelta, Critica)]);
    }

    #[test]
    fn a_reading_outside_starts_the_count_again() {
        let dichos = juega(&[36.0, 20.0, 20.0, 36.0, 20.0, 20.0]);
        assert_eq!(dichos, [(Accion::Creada, Severidad::Media)]);
    }

    #[test]
    fn history_is_closed_from_the_start() {
        let ts = Timestamp::clamped(5);
        let a = historica(&sensor(), &Variable::TEMPERATURA, UMBRAL, 45.0, ts).unwrap();
        assert!(a.historica && a.resuelta && !a.estado.abierta());
        assert_eq!(historica(&sensor(), &Variable::TEMPERATURA, UMBRAL, 20.0, ts), None);
    }
}
