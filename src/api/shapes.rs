//! Shapes that several resources answer with (contract section 2.1).

use serde::Serialize;

use crate::domain::{Conexion, EstadoSensor, Timestamp, Valores, Variable};
use crate::realtime::Presencia;
use crate::store::sensores::Sensor;

/// A sensor with its newest values beside its own fields; a value that is not known is null.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct SensorBody {
    pub(super) id_sensor: i64,
    device_id: String,
    nombre: String,
    tipo: String,
    id_empresa: i64,
    id_cultivo: Option<i64>,
    /// `estado` is not `inactivo`.
    activo: bool,
    estado: EstadoSensor,
    conexion: Conexion,
    /// Seconds between readings.
    intervalo_lectura: i64,
    /// When it last said something.
    ultima_lectura: Option<Timestamp>,
    /// Percent.
    bateria_nivel: Option<f64>,
    ubicacion_sensor: Option<String>,
    coordenadas_lat: Option<f64>,
    coordenadas_lng: Option<f64>,
    fecha_instalacion: Timestamp,
    /// The moment of the newest values.
    timestamp_lectura: Option<Timestamp>,
    /// `ph_suelo` again, as the front end reads it.
    ph: Option<f64>,
    /// The newest value of each variable, under its name.
    #[serde(flatten)]
    #[schema(value_type = std::collections::HashMap<String, Option<f64>>)]
    valores: Completos,
}

impl SensorBody {
    /// As people see it now.
    pub(super) fn new(sensor: Sensor, presencia: &Presencia) -> Self {
        let (ts, valores) = match sensor.ultima {
            Some((ts, valores)) => (Some(ts), valores),
            None => (None, Valores::new()),
        };
        let de = |nombre| Variable::new(nombre).and_then(|v| valores.get(&v));
        Self {
            id_sensor: sensor.quien.id_sensor,
            device_id: sensor.quien.device_id.to_string(),
            nombre: sensor.nombre,
            tipo: sensor.tipo,
            id_empresa: sensor.quien.id_empresa,
            id_cultivo: sensor.id_cultivo,
            activo: sensor.estado != EstadoSensor::Inactivo,
            estado: sensor.estado,
            conexion: presencia.conexion(sensor.quien.id_sensor),
            intervalo_lectura: sensor.intervalo_lectura,
            ultima_lectura: ts,
            bateria_nivel: de("bateria"),
            ubicacion_sensor: sensor.ubicacion_sensor,
            coordenadas_lat: sensor.coordenadas_lat,
            coordenadas_lng: sensor.coordenadas_lng,
            fecha_instalacion: sensor.fecha_instalacion,
            timestamp_lectura: ts,
            ph: de("ph"),
            valores: Completos(valores),
        }
    }
}

/// Every variable of the contract's table, null where there is no value, and the site's own.
#[derive(Debug, Clone)]
struct Completos(Valores);

impl Serialize for Completos {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = s.serialize_map(None)?;
        for nombre in Variable::conocidas() {
            map.serialize_entry(nombre, &Variable::new(nombre).and_then(|v| self.0.get(&v)))?;
        }
        let propia = |v: &Variable| !Variable::conocidas().any(|c| c == v.as_str());
        for (variable, valor) in self.0.iter().filter(|(v, _)| propia(v)) {
            map.serialize_entry(variable.as_str(), &valor)?;
        }
        map.end()
    }
}

/// A reading.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct LecturaBody {
    pub(super) id_sensor: i64,
    pub(super) timestamp: Timestamp,
    /// Values by variable name.
    #[serde(flatten)]
    pub(super) valores: Valores,
}
