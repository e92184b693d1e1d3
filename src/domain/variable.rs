//! What a sensor measures: names, units, physical ranges (contract section 1.1).

use std::borrow::Cow;
use std::fmt;

/// A closed interval of finite numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rango {
    /// Smallest value inside.
    pub min: f64,
    /// Largest value inside.
    pub max: f64,
}

impl Rango {
    /// Whether `valor` lies inside, bounds included.
    #[must_use]
    pub fn contiene(&self, valor: f64) -> bool {
        (self.min..=self.max).contains(&valor)
    }

    /// `max − min`.
    #[must_use]
    pub fn ancho(&self) -> f64 {
        self.max - self.min
    }
}

/// What is known of a variable of the contract's table.
struct Conocida {
    nombre: &'static str,
    alias: Option<&'static str>,
    unidad: &'static str,
    /// How a person calls it, in Spanish.
    titulo: &'static str,
    rango: Rango,
}

const fn fila(
    nombre: &'static str,
    alias: Option<&'static str>,
    unidad: &'static str,
    titulo: &'static str,
    min: f64,
    max: f64,
) -> Conocida {
    Conocida { nombre, alias, unidad, titulo, rango: Rango { min, max } }
}

/// The table of contract section 1.1.
const CONOCIDAS: [Conocida; 12] = [
    fila("temperatura", None, "°C", "Temperatura", -60.0, 150.0),
    fila("humedad_aire", Some("humedad"), "%", "Humedad del aire", 0.0, 100.0),
    fila("humedad_suelo", None, "%", "Humedad del suelo", 0.0, 100.0),
    fila("ph_suelo", Some("ph"), "pH", "pH del suelo", 0.0, 14.0),
    fila("radiacion_solar", None, "W/m²", "Radiación solar", 0.0, 2_000.0),
    fila("conductividad", None, "µS/cm", "Conductividad", 0.0, 50_000.0),
    fila("nitrogeno", None, "mg/kg", "Nitrógeno", 0.0, 10_000.0),
    fila("fosforo", None, "mg/kg", "Fósforo", 0.0, 10_000.0),
    fila("potasio", None, "mg/kg", "Potasio", 0.0, 10_000.0),
    fila("co2", None, "ppm", "CO₂", 0.0, 100_000.0),
    fila("bateria", None, "%", "Batería", 0.0, 100.0),
    fila("senal", None, "dBm", "Señal", -150.0, 0.0),
];

/// The name of a measured quantity: one of the contract's table, or any other name that matches
/// `[a-z][a-z0-9_]{0,31}`. Aliases (`humedad`, `ph`) are resolved when it is made.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variable(Cow<'static, str>);

impl Variable {
    /// `temperatura`, °C.
    pub const TEMPERATURA: Self = Self(Cow::Borrowed("temperatura"));
    /// `humedad_aire`, %.
    pub const HUMEDAD_AIRE: Self = Self(Cow::Borrowed("humedad_aire"));
    /// `humedad_suelo`, %.
    pub const HUMEDAD_SUELO: Self = Self(Cow::Borrowed("humedad_suelo"));
    /// `ph_suelo`, pH.
    pub const PH_SUELO: Self = Self(Cow::Borrowed("ph_suelo"));
    /// `radiacion_solar`, W/m².
    pub const RADIACION_SOLAR: Self = Self(Cow::Borrowed("radiacion_solar"));

    /// `None` when `nombre` is not a name that the contract allows.
    #[must_use]
    pub fn new(nombre: &str) -> Option<Self> {
        if let Some(c) = conocida(nombre) {
            return Some(Self(Cow::Borrowed(c.nombre)));
        }
        let bytes = nombre.as_bytes();
        let valid = (1..=32).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_');
        valid.then(|| Self(Cow::Owned(nombre.to_owned())))
    }

    /// The canonical name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The physical range outside which a value is refused; `None` for names of the site's own.
    #[must_use]
    pub fn rango_fisico(&self) -> Option<Rango> {
        conocida(&self.0).map(|c| c.rango)
    }

    /// The unit, empty for names of the site's own.
    #[must_use]
    pub fn unidad(&self) -> &'static str {
        conocida(&self.0).map_or("", |c| c.unidad)
    }

    /// How a person calls it, in Spanish; the name itself for names of the site's own.
    #[must_use]
    pub fn titulo(&self) -> &str {
        conocida(&self.0).map_or(&self.0, |c| c.titulo)
    }

    /// The canonical names of the contract's table, in its order.
    pub fn conocidas() -> impl Iterator<Item = &'static str> {
        CONOCIDAS.iter().map(|c| c.nombre)
    }

    /// The other names that some of them go by.
    pub fn alias() -> impl Iterator<Item = &'static str> {
        CONOCIDAS.iter().filter_map(|c| c.alias)
    }
}

fn conocida(nombre: &str) -> Option<&'static Conocida> {
    CONOCIDAS.iter().find(|c| c.nombre == nombre || c.alias == Some(nombre))
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_resolved() {
        assert_eq!(Variable::new("humedad"), Some(Variable::HUMEDAD_AIRE));
        assert_eq!(Variable::new("ph"), Some(Variable::PH_SUELO));
    }

    #[test]
    fn other_names_follow_the_pattern() {
        assert!(Variable::new("caudal_2").is_some());
        for bad in ["", "Temp", "2x", "_x", "con espacio", "ñu", &"x".repeat(33)] {
            assert_eq!(Variable::new(bad), None, "{bad}");
        }
    }
}
