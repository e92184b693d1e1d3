//! The bounds that a reading is held against.

use std::collections::HashMap;

use crate::domain::{Rango, Variable};

/// The bounds of an empresa that set none.
const DEFAULTS: [(Variable, Rango); 5] = [
    (Variable::TEMPERATURA, Rango { min: 10.0, max: 35.0 }),
    (Variable::HUMEDAD_AIRE, Rango { min: 40.0, max: 90.0 }),
    (Variable::HUMEDAD_SUELO, Rango { min: 30.0, max: 80.0 }),
    (Variable::PH_SUELO, Rango { min: 6.0, max: 7.5 }),
    (Variable::RADIACION_SOLAR, Rango { min: 0.0, max: 1000.0 }),
];

/// The bounds of an empresa that set none, in the contract's order.
#[must_use]
pub fn defaults() -> &'static [(Variable, Rango)] {
    &DEFAULTS
}

/// The bounds in force for some sensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Umbrales(HashMap<Variable, Rango>);

impl Default for Umbrales {
    fn default() -> Self {
        Self(DEFAULTS.into_iter().collect())
    }
}

impl Umbrales {
    /// The defaults with what the empresa set in their place.
    #[must_use]
    pub fn with(propios: impl IntoIterator<Item = (Variable, Rango)>) -> Self {
        let mut umbrales = Self::default();
        umbrales.0.extend(propios);
        umbrales
    }

    /// These with what was set closer to a sensor in their place.
    #[must_use]
    pub fn sobre(&self, propios: impl IntoIterator<Item = (Variable, Rango)>) -> Self {
        let mut umbrales = self.clone();
        umbrales.0.extend(propios);
        umbrales
    }

    /// The bounds of `variable`; `None` = it has none.
    #[must_use]
    pub fn de(&self, variable: &Variable) -> Option<Rango> {
        self.0.get(variable).copied()
    }

    /// All of them, by name of the variable.
    #[must_use]
    pub fn todos(&self) -> Vec<(&Variable, Rango)> {
        let mut todos: Vec<_> = self.0.iter().map(|(v, r)| (v, *r)).collect();
        todos.sort_by_key(|(v, _)| *v);
        todos
    }
}
