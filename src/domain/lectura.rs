//! A reading, and the record of one that was refused.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Timestamp, Variable};

/// The values of one reading, ordered by variable name, each name once, all finite.
/// Written as a JSON object of numbers, which is also how `lecturas.valores` keeps it. Cheap to clone: a
/// reading is held by the row, by the newest values of its sensor and by whoever hears of it.
#[derive(Clone, Default)]
pub struct Valores(Arc<Dentro>);

#[derive(Default)]
struct Dentro {
    pares: Vec<(Variable, f64)>,
    /// Written once, whoever asks first.
    json: OnceLock<Arc<str>>,
}

/// Values of most readings (contract section 1.1 has eight variables of its own), for which there is room at once.
const HABITUALES: usize = 8;

impl Clone for Dentro {
    /// To be changed: what is written of it will not be true any more.
    fn clone(&self) -> Self {
        Self { pares: self.pares.clone(), json: OnceLock::new() }
    }
}

impl PartialEq for Valores {
    fn eq(&self, other: &Self) -> bool {
        self.0.pares == other.0.pares
    }
}

impl fmt::Debug for Valores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Valores {
    /// No value.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `variable`; a later value for the same name replaces the earlier one.
    pub fn set(&mut self, variable: Variable, valor: f64) {
        let Dentro { pares, json } = Arc::make_mut(&mut self.0);
        json.take();
        match pares.binary_search_by(|(v, _)| v.cmp(&variable)) {
            Ok(i) => pares[i].1 = valor,
            Err(i) => {
                if pares.capacity() == 0 {
                    pares.reserve_exact(HABITUALES);
                }
                pares.insert(i, (variable, valor));
            }
        }
    }

    /// The value of `variable`.
    #[must_use]
    pub fn get(&self, variable: &Variable) -> Option<f64> {
        self.0.pares.binary_search_by(|(v, _)| v.cmp(variable)).ok().map(|i| self.0.pares[i].1)
    }

    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Variable, f64)> {
        self.0.pares.iter().map(|(v, x)| (v, *x))
    }

    /// Whether there is no value at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.pares.is_empty()
    }

    /// How many values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.pares.len()
    }

    /// Every value of `newer` in place of ours.
    pub fn overlay(&mut self, newer: &Self) {
        for (variable, valor) in newer.iter() {
            self.set(variable.clone(), valor);
        }
    }

    /// As [`Self::overlay`], but a name that is new to us and not one of contract section 1.1 only while
    /// there are fewer than `max`: what a device invents does not grow without end.
    pub fn overlay_bounded(&mut self, newer: &Self, max: usize) {
        if self.len() == newer.len() && self.iter().zip(newer.iter()).all(|((a, _), (b, _))| a == b) {
            // A device says the same names each time.
            self.clone_from(newer);
            return;
        }
        for (variable, valor) in newer.iter() {
            if self.len() < max || self.get(variable).is_some() || variable.rango_fisico().is_some() {
                self.set(variable.clone(), valor);
            }
        }
    }

    /// The JSON text that the store keeps.
    #[must_use]
    pub fn json(&self) -> Arc<str> {
        self.0.json.get_or_init(|| self.to_json().into()).clone()
    }

    /// As [`Self::json`], of one's own.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| String::from("{}"))
    }

    /// From the store's JSON text. `None` when it is not an object of numbers.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Serialize for Valores {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.len()))?;
        for (variable, valor) in self.iter() {
            map.serialize_entry(variable.as_str(), &valor)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Valores {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Valores;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Valores, A::Error> {
                let mut valores = Valores::new();
                while let Some((nombre, valor)) = map.next_entry::<std::borrow::Cow<'de, str>, f64>()? {
                    if let Some(variable) = Variable::new(&nombre) {
                        valores.set(variable, valor);
                    }
                }
                Ok(valores)
            }
        }
        d.deserialize_map(V)
    }
}

impl utoipa::PartialSchema for Valores {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::ObjectBuilder;
        use utoipa::openapi::schema::{AdditionalProperties, Type};
        let number = || ObjectBuilder::new().schema_type(Type::Number).build();
        Variable::conocidas()
            .fold(ObjectBuilder::new(), |object, nombre| object.property(nombre, number()))
            // Numbers under other names; said of all, it would be said of the fields beside them too.
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some("Values by variable name; a device may have variables of its own"))
            .build()
            .into()
    }
}

impl utoipa::ToSchema for Valores {}

/// One reading of one sensor. Identified by (sensor, `ts`).
#[derive(Debug, Clone, PartialEq)]
pub struct Lectura {
    /// When it was measured; `None` when the message did not say, which the writer settles.
    pub ts: Option<Timestamp>,
    /// At least one value.
    pub valores: Valores,
}

/// Why a reading, or a value of one, was refused. The text is stored, sent to the device on
/// `errores` and counted, so it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Motivo {
    /// Not JSON, or not an object or array of objects.
    Malformado,
    /// An array of more than 1,000 readings.
    DemasiadasLecturas,
    /// More than 32 variables.
    DemasiadasVariables,
    /// A name that the contract does not allow.
    NombreInvalido,
    /// A value that is not a number.
    NoNumerico,
    /// A value outside the variable's physical range.
    FueraDeRango,
    /// `device_id` in the payload is not the topic's.
    DeviceIdDistinto,
    /// `timestamp` cannot be read.
    TimestampInvalido,
    /// More than five minutes ahead of the server.
    TimestampFuturo,
    /// Older than the retention.
    TimestampAntiguo,
    /// Nothing to store.
    SinValores,
    /// Same sensor, timestamp and variable, another value: the first stands.
    Conflicto,
    /// The sensor is gone or inactive.
    SensorInactivo,
    /// The database refused the row for its content.
    Almacen,
}

impl Motivo {
    /// Stable text, as stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformado => "malformado",
            Self::DemasiadasLecturas => "demasiadas_lecturas",
            Self::DemasiadasVariables => "demasiadas_variables",
            Self::NombreInvalido => "nombre_invalido",
            Self::NoNumerico => "no_numerico",
            Self::FueraDeRango => "fuera_de_rango",
            Self::DeviceIdDistinto => "device_id_distinto",
            Self::TimestampInvalido => "timestamp_invalido",
            Self::TimestampFuturo => "timestamp_futuro",
            Self::TimestampAntiguo => "timestamp_antiguo",
            Self::SinValores => "sin_valores",
            Self::Conflicto => "conflicto",
            Self::SensorInactivo => "sensor_inactivo",
            Self::Almacen => "almacen",
        }
    }
}

/// A refusal, as `lecturas_rechazadas` records it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rechazo {
    /// Why.
    pub motivo: Motivo,
    /// The variable, when one value was refused and not the whole reading.
    pub variable: Option<String>,
    /// The moment that the message gave, when it gave a readable one.
    pub ts: Option<Timestamp>,
    /// What was refused, shortened to [`Rechazo::MAX_CONTENIDO`] bytes.
    pub contenido: String,
}

impl Rechazo {
    /// How much of a refused message is kept, in bytes.
    pub const MAX_CONTENIDO: usize = 512;

    /// A refusal of `contenido`, shortened at a character boundary; NUL, which PostgreSQL cannot
    /// store in text, becomes U+FFFD.
    #[must_use]
    pub fn new(motivo: Motivo, variable: Option<&str>, ts: Option<Timestamp>, contenido: &str) -> Self {
        let recorta = |t: &str| {
            let t = &t[..t.floor_char_boundary(Self::MAX_CONTENIDO)];
            t.replace('\0', "\u{fffd}")
        };
        Self { motivo, variable: variable.map(recorta), ts, contenido: recorta(contenido) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_and_unique() {
        let mut v = Valores::new();
        v.set(Variable::TEMPERATURA, 1.0);
        v.set(Variable::HUMEDAD_AIRE, 2.5);
        v.set(Variable::TEMPERATURA, 3.0);
        assert_eq!(v.to_json(), r#"{"humedad_aire":2.5,"temperatura":3.0}"#);
        assert_eq!(Valores::from_json(&v.to_json()), Some(v));
    }

    proptest::proptest! {
        /// Else a reading that is sent again would not be the one that is stored.
        #[test]
        fn a_value_is_read_back_to_the_last_bit(valor in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let mut v = Valores::new();
            v.set(Variable::TEMPERATURA, valor);
            let leido = Valores::from_json(&v.json()).unwrap();
            proptest::prop_assert_eq!(leido.get(&Variable::TEMPERATURA).unwrap().to_bits(), valor.to_bits());
        }
    }

    #[test]
    fn refused_content_is_shortened_between_characters() {
        let r = Rechazo::new(Motivo::Malformado, None, None, &"ñ".repeat(400));
        assert_eq!(r.contenido.len(), Rechazo::MAX_CONTENIDO);
        assert_eq!(Rechazo::new(Motivo::Malformado, None, None, "a\0b").contenido, "a\u{fffd}b");
    }
}
