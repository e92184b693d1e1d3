//! A payload of contract section 1.1, decoded once, straight into typed readings.
//!
//! Whatever cannot be stored is answered as a refusal with its reason; nothing here fails.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::{DeviceId, Lectura, Motivo, Rechazo, Timestamp, Valores, Variable};

/// Readings in one message.
pub const MAX_LECTURAS: usize = 1_000;
/// Variables in one reading.
pub const MAX_VARIABLES: usize = 32;

/// The window of moments that are accepted.
#[derive(Debug, Clone, Copy)]
pub struct Limites {
    /// How far ahead of the server a reading may be.
    pub adelanto: Duration,
    /// How old it may be.
    pub retencion: Duration,
}

/// A decoded payload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decodificado {
    /// What can be stored, in the order of the message.
    pub lecturas: Vec<Lectura>,
    /// What cannot.
    pub rechazos: Vec<Rechazo>,
}

/// Decodes the payload of a message that `device_id` sent and that arrived at `ahora`.
#[must_use]
pub fn decode(payload: &[u8], device_id: &DeviceId, ahora: Timestamp, limites: &Limites) -> Decodificado {
    let reglas = Reglas { device_id, ahora, limites };
    let mut salida = Decodificado::default();
    let mut json = serde_json::Deserializer::from_slice(payload);
    let leido =
        json.deserialize_any(Mensaje { reglas: &reglas, salida: &mut salida }).and_then(|()| json.end());
    if let Err(e) = leido {
        let motivo = if e.to_string().starts_with(DEMASIADAS) {
            Motivo::DemasiadasLecturas
        } else {
            Motivo::Malformado
        };
        let rechazo = Rechazo::new(motivo, None, None, &String::from_utf8_lossy(payload));
        // Half an understood message is not understood: nothing of it is kept.
        return Decodificado { lecturas: Vec::new(), rechazos: vec![rechazo] };
    }
    if salida.lecturas.is_empty() && salida.rechazos.is_empty() {
        // `[]`
        salida.rechazos.push(Rechazo::new(Motivo::SinValores, None, None, &String::from_utf8_lossy(payload)));
    }
    salida
}

/// How the visitor tells "too many" from "not JSON" through serde's error.
const DEMASIADAS: &str = "too many readings";

struct Reglas<'a> {
    device_id: &'a DeviceId,
    ahora: Timestamp,
    limites: &'a Limites,
}

/// The whole message: an object, or an array of them.
struct Mensaje<'a> {
    reglas: &'a Reglas<'a>,
    salida: &'a mut Decodificado,
}

impl<'de> Visitor<'de> for Mensaje<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a reading or an array of readings")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        objeto(map)?.juzga(self.reglas, self.salida);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut cuantas = 0;
        while let Some(elemento) = seq.next_element::<Elemento>()? {
            cuantas += 1;
            if cuantas > MAX_LECTURAS {
                return Err(serde::de::Error::custom(DEMASIADAS));
            }
            match elemento {
                Elemento::Objeto(crudo) => crudo.juzga(self.reglas, self.salida),
                Elemento::Otro => {
                    self.salida.rechazos.push(Rechazo::new(
                        Motivo::Malformado,
                        None,
                        None,
                        "(no es un objeto)",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// An element of an array, which stands alone: one that is no object refuses itself only.
enum Elemento {
    Objeto(Crudo),
    Otro,
}

impl<'de> serde::Deserialize<'de> for Elemento {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Elemento;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a reading")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Elemento, A::Error> {
                objeto(map).map(Elemento::Objeto)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Elemento, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| Elemento::Otro)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Elemento, E> {
                Ok(Elemento::Otro)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Elemento, E> {
                Ok(Elemento::Otro)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Elemento, E> {
                Ok(Elemento::Otro)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Elemento, E> {
                Ok(Elemento::Otro)
            }

            fn visit_str<E>(self, _: &str) -> Result<Elemento, E> {
                Ok(Elemento::Otro)
            }

            fn visit_unit<E>(self) -> Result<Elemento, E> {
                Ok(Elemento::Otro)
            }
        }
        d.deserialize_any(V)
    }
}

/// An object as it was read, before it is judged.
#[derive(Default)]
struct Crudo {
    valores: Valores,
    timestamp: Option<Marca>,
    device_id: Option<String>,
    rechazos: Vec<(Motivo, String, String)>,
    variables: usize,
}

/// What `timestamp` held.
enum Marca {
    Legible(Timestamp),
    Ilegible(String),
}

fn objeto<'de, A: MapAccess<'de>>(mut map: A) -> Result<Crudo, A::Error> {
    let mut crudo = Crudo::default();
    while let Some(nombre) = map.next_key::<Cow<'de, str>>()? {
        let valor: Escalar = map.next_value()?;
        match &*nombre {
            "timestamp" => {
                crudo.timestamp = match valor {
                    Escalar::Nulo => None,
                    Escalar::Numero(n) => Some(marca(Timestamp::from_epoch(n), || n.to_string())),
                    Escalar::Texto(t) => Some(marca(Timestamp::parse(&t), || t)),
                    otro => Some(Marca::Ilegible(otro.como_texto())),
                };
            }
            "device_id" => {
                crudo.device_id = match valor {
                    Escalar::Nulo => None,
                    otro => Some(otro.como_texto()),
                };
            }
            _ => crudo.toma(&nombre, valor),
        }
    }
    Ok(crudo)
}

fn marca(leida: Option<Timestamp>, texto: impl FnOnce() -> String) -> Marca {
    leida.map_or_else(|| Marca::Ilegible(texto()), Marca::Legible)
}

impl Crudo {
    /// One variable of the message.
    fn toma(&mut self, nombre: &str, valor: Escalar) {
        if matches!(valor, Escalar::Nulo) {
            return;
        }
        self.variables += 1;
        if self.variables > MAX_VARIABLES {
            return;
        }
        let Some(variable) = Variable::new(nombre) else {
            self.rechazos.push((Motivo::NombreInvalido, nombre.to_owned(), valor.como_texto()));
            return;
        };
        let Escalar::Numero(n) = valor else {
            self.rechazos.push((Motivo::NoNumerico, nombre.to_owned(), valor.como_texto()));
            return;
        };
        if variable.rango_fisico().is_some_and(|r| !r.contiene(n)) {
            self.rechazos.push((Motivo::FueraDeRango, variable.as_str().to_owned(), n.to_string()));
            return;
        }
        self.valores.set(variable, n);
    }

    /// Turns what was read into a reading, refusals, or both.
    fn juzga(self, reglas: &Reglas<'_>, salida: &mut Decodificado) {
        let ts = match &self.timestamp {
            Some(Marca::Legible(ts)) => Some(*ts),
            _ => None,
        };
        let entero = |motivo, detalle: &str| Rechazo::new(motivo, None, ts, detalle);
        let contenido = || self.valores.to_json();
        if let Some(otro) = self.device_id.as_deref().filter(|d| *d != reglas.device_id.as_str()) {
            salida.rechazos.push(entero(Motivo::DeviceIdDistinto, otro));
            return;
        }
        if let Some(Marca::Ilegible(texto)) = &self.timestamp {
            salida.rechazos.push(entero(Motivo::TimestampInvalido, texto));
            return;
        }
        if self.variables > MAX_VARIABLES {
            salida.rechazos.push(entero(Motivo::DemasiadasVariables, &contenido()));
            return;
        }
        if ts.is_some_and(|ts| ts > reglas.ahora.plus(reglas.limites.adelanto)) {
            salida.rechazos.push(entero(Motivo::TimestampFuturo, &contenido()));
            return;
        }
        if ts.is_some_and(|ts| ts < reglas.ahora.minus(reglas.limites.retencion)) {
            salida.rechazos.push(entero(Motivo::TimestampAntiguo, &contenido()));
            return;
        }
        let sin_valores = self.valores.is_empty() && self.rechazos.is_empty();
        let por_variable = self.rechazos.into_iter();
        salida
            .rechazos
            .extend(por_variable.map(|(m, nombre, texto)| Rechazo::new(m, Some(&nombre), ts, &texto)));
        if sin_valores {
            salida.rechazos.push(entero(Motivo::SinValores, "{}"));
        } else if !self.valores.is_empty() {
            // Written here, where there are many, and not by the one writer.
            let _ = self.valores.json();
            salida.lecturas.push(Lectura { ts, valores: self.valores });
        }
    }
}

/// A value as far as a reading can use it; arrays and objects are read past.
enum Escalar {
    Nulo,
    Numero(f64),
    Texto(String),
    Booleano(bool),
    Compuesto,
}

impl Escalar {
    fn como_texto(self) -> String {
        match self {
            Self::Nulo => "null".to_owned(),
            Self::Numero(n) => n.to_string(),
            Self::Texto(t) => t,
            Self::Booleano(b) => b.to_string(),
            Self::Compuesto => "(objeto o lista)".to_owned(),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Escalar {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Escalar;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Escalar, E> {
                Ok(Escalar::Nulo)
            }

            fn visit_bool<E>(self, b: bool) -> Result<Escalar, E> {
                Ok(Escalar::Booleano(b))
            }

            #[expect(clippy::cast_precision_loss, reason = "a measurement is a double")]
            fn visit_i64<E>(self, n: i64) -> Result<Escalar, E> {
                Ok(Escalar::Numero(n as f64))
            }

            #[expect(clippy::cast_precision_loss, reason = "a measurement is a double")]
            fn visit_u64<E>(self, n: u64) -> Result<Escalar, E> {
                Ok(Escalar::Numero(n as f64))
            }

            fn visit_f64<E>(self, n: f64) -> Result<Escalar, E> {
                Ok(Escalar::Numero(n))
            }

            fn visit_str<E>(self, t: &str) -> Result<Escalar, E> {
                Ok(Escalar::Texto(t.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Escalar, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| Escalar::Compuesto)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Escalar, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Escalar::Compuesto)
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITES: Limites =
        Limites { adelanto: Duration::from_secs(300), retencion: Duration::from_secs(86_400 * 730) };

    fn lee(payload: &str) -> Decodificado {
        let ahora = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
        decode(payload.as_bytes(), &DeviceId::new("s1").unwrap(), ahora, &LIMITES)
    }

    fn motivos(payload: &str) -> Vec<Motivo> {
        let d = lee(payload);
        assert!(d.lecturas.is_empty(), "{payload}: {d:?}");
        d.rechazos.iter().map(|r| r.motivo).collect()
    }

    #[test]
    fn what_is_not_a_reading_is_refused_whole() {
        for payload in
            ["", "x", "{", "null", "1", "\"a\"", "{\"temperatura\":1}x", "{\"temperatura\":1e999}", "[{]"]
        {
            assert_eq!(motivos(payload), [Motivo::Malformado], "{payload}");
        }
        assert_eq!(motivos("\u{0}"), [Motivo::Malformado]);
        assert_eq!(motivos("{}"), [Motivo::SinValores]);
        assert_eq!(motivos("[]"), [Motivo::SinValores]);
        assert_eq!(motivos("{\"temperatura\":null}"), [Motivo::SinValores]);
        assert_eq!(motivos(&"[".repeat(100_000)), [Motivo::Malformado]);
        let muchas = format!("[{}]", vec!["{\"a\":1}"; 1001].join(","));
        assert_eq!(motivos(&muchas), [Motivo::DemasiadasLecturas]);
        let anchas: Vec<_> = (0..33).map(|i| format!("\"v{i}\":1")).collect();
        assert_eq!(motivos(&format!("{{{}}}", anchas.join(","))), [Motivo::DemasiadasVariables]);
        assert_eq!(motivos("{\"device_id\":\"s2\",\"temperatura\":1}"), [Motivo::DeviceIdDistinto]);
    }

    #[test]
    fn moments_outside_the_window_are_refused() {
        assert_eq!(
            motivos(r#"{"temperatura":1,"timestamp":"2026-11-24T12:05:01Z"}"#),
            [Motivo::TimestampFuturo]
        );
        assert_eq!(motivos(r#"{"temperatura":1,"timestamp":0}"#), [Motivo::TimestampAntiguo]);
        assert_eq!(motivos(r#"{"temperatura":1,"timestamp":"ayer"}"#), [Motivo::TimestampInvalido]);
        assert_eq!(motivos(r#"{"temperatura":1,"timestamp":[1]}"#), [Motivo::TimestampInvalido]);
        assert_eq!(lee(r#"{"temperatura":1,"timestamp":"2026-11-24T12:05:00Z"}"#).lecturas.len(), 1);
    }

    #[test]
    fn a_bad_value_is_left_out_and_the_rest_kept() {
        let d =
            lee(r#"{"temperatura":-127,"humedad":55.5,"nota":"hola","Malo":1,"x":true,"device_id":"s1"}"#);
        assert_eq!(d.lecturas.len(), 1);
        assert_eq!(d.lecturas[0].valores.to_json(), r#"{"humedad_aire":55.5}"#);
        let motivos: Vec<_> = d.rechazos.iter().map(|r| (r.motivo, r.variable.as_deref().unwrap())).collect();
        assert_eq!(
            motivos,
            [
                (Motivo::FueraDeRango, "temperatura"),
                (Motivo::NoNumerico, "nota"),
                (Motivo::NombreInvalido, "Malo"),
                (Motivo::NoNumerico, "x")
            ]
        );
    }

    #[test]
    fn elements_of_an_array_stand_alone() {
        let d = lee(
            r#"[{"temperatura":1,"timestamp":1795521500},7,[1],{"temperatura":2,"timestamp":"x"},{"ph":7}]"#,
        );
        assert_eq!(d.lecturas.len(), 2);
        let motivos: Vec<_> = d.rechazos.iter().map(|r| r.motivo).collect();
        assert_eq!(motivos, [Motivo::Malformado, Motivo::Malformado, Motivo::TimestampInvalido]);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let ahora = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
            let d = decode(&bytes, &DeviceId::new("s1").unwrap(), ahora, &LIMITES);
            proptest::prop_assert!(!d.lecturas.is_empty() || !d.rechazos.is_empty());
        }
    }
}
