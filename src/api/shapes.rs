//! Shapes that several resources answer with (contract section 2.1).

use serde::Serialize;

use crate::domain::{Conexion, EstadoSensor, Timestamp, Valores, Variable};
use crate::realtime::Presencia;
use crate::store::sensores::Sensor;

/// A sensor with its newest values beside its own fields; a value that is not known is null.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Sensor)]
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

/// The fields of [`SensorBody`] that a device's own variable could be called after: there ours stands
/// alone, or a device would say whose it is. The value itself is among the readings.
pub(super) const DE_UN_SENSOR: [&str; 16] = [
    "id_sensor",
    "nombre",
    "tipo",
    "id_empresa",
    "id_cultivo",
    "activo",
    "estado",
    "conexion",
    "intervalo_lectura",
    "ultima_lectura",
    "bateria_nivel",
    "ubicacion_sensor",
    "coordenadas_lat",
    "coordenadas_lng",
    "fecha_instalacion",
    "timestamp_lectura",
];

/// Every variable of the contract's table, null where there is no value, and the site's own.
#[derive(Debug, Clone)]
struct Completos(Valores);

impl utoipa::PartialSchema for Completos {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::ObjectBuilder;
        use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
        let or_null = || SchemaType::from_iter([Type::Number, Type::Null]);
        let value = || ObjectBuilder::new().schema_type(or_null()).build();
        Variable::conocidas()
            .fold(ObjectBuilder::new(), |object, nombre| object.property(nombre, value()).required(nombre))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some("The newest value of each variable; a device may have variables of its own"))
            .build()
            .into()
    }
}

impl utoipa::ToSchema for Completos {
    fn name() -> std::borrow::Cow<'static, str> {
        "ValoresRecientes".into()
    }
}

impl Serialize for Completos {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = s.serialize_map(None)?;
        for nombre in Variable::conocidas() {
            map.serialize_entry(nombre, &Variable::new(nombre).and_then(|v| self.0.get(&v)))?;
        }
        let propia = |v: &Variable| {
            !Variable::conocidas().any(|c| c == v.as_str()) && !DE_UN_SENSOR.contains(&v.as_str())
        };
        for (variable, valor) in self.0.iter().filter(|(v, _)| propia(v)) {
            map.serialize_entry(variable.as_str(), &valor)?;
        }
        map.end()
    }
}

/// A reading.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Lectura, example = json!({ "id_sensor": 7, "timestamp": "2026-11-24T10:00:00Z", "temperatura": 21.5, "humedad_aire": 60.0 }))]
pub(super) struct LecturaBody {
    pub(super) id_sensor: i64,
    pub(super) timestamp: Timestamp,
    /// Values by variable name.
    #[serde(flatten, serialize_with = "sin_id_sensor")]
    #[schema(value_type = Valores)]
    pub(super) valores: Valores,
}

/// The one name of ours that a device's own variable could have here (`timestamp` never is one).
fn sin_id_sensor<S: serde::Serializer>(valores: &Valores, s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(valores.iter().filter(|(v, _)| v.as_str() != "id_sensor").map(|(v, x)| (v.as_str(), x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DeviceId, SensorRef};

    fn body(valores: Valores) -> SensorBody {
        let quien = SensorRef { id_sensor: 1, id_empresa: 1, device_id: DeviceId::new("s").unwrap() };
        let sensor = Sensor {
            quien,
            nombre: "S".into(),
            tipo: "t".into(),
            id_cultivo: None,
            estado: EstadoSensor::Activo,
            intervalo_lectura: 300,
            ubicacion_sensor: None,
            coordenadas_lat: None,
            coordenadas_lng: None,
            fecha_instalacion: Timestamp::MIN,
            ultima: Some((Timestamp::MIN, valores)),
        };
        SensorBody::new(sensor, &Presencia::default())
    }

    #[test]
    fn no_variable_of_a_device_takes_the_place_of_a_field() {
        let ours = serde_json::to_value(body(Valores::new())).unwrap();
        let mut hostile = Valores::new();
        for field in ours.as_object().unwrap().keys() {
            // What decoding never takes for a variable.
            if field != "device_id" {
                hostile.set(Variable::new(field).unwrap(), 7.0);
            }
        }
        hostile.set(Variable::new("caudal").unwrap(), 3.5);
        let text = serde_json::to_string(&body(hostile.clone())).unwrap();
        for field in ours.as_object().unwrap().keys() {
            assert_eq!(text.matches(&format!("\"{field}\":")).count(), 1, "{field} in {text}");
        }
        assert!(text.contains("\"caudal\":3.5") && text.contains("\"estado\":\"activo\""), "{text}");
        let lectura = LecturaBody { id_sensor: 1, timestamp: Timestamp::MIN, valores: hostile };
        let text = serde_json::to_string(&lectura).unwrap();
        assert!(
            text.starts_with("{\"id_sensor\":1,") && text.matches("\"id_sensor\":").count() == 1,
            "{text}"
        );
    }
}
