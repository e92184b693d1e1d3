//! Which part of a range its hours answer for, and which its readings.

use super::{Rango, siguiente};
use crate::domain::Timestamp;
use crate::store::horas::Historia;

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuente {
    /// From summed hours.
    Horas,
    /// From readings.
    Lecturas,
    /// From both, added: the hours stand for readings that are gone, and what is still there came later.
    Ambas,
}

/// A part of a range, whole hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tramo {
    pub(super) rango: Rango,
    pub(super) fuente: Fuente,
}

/// Splits a range of whole hours. `pendientes` are the hours in it that are to be summed, in order.
pub(super) fn tramos(rango: Rango, historia: &Historia, pendientes: &[Timestamp]) -> Vec<Tramo> {
    let mut tramos = Vec::new();
    let mut agrega = |desde: Timestamp, antes_de: Timestamp, fuente| {
        if desde < antes_de {
            tramos.push(Tramo { rango: Rango { desde, antes_de }, fuente });
        }
    };
    // What was purged is never summed again, whatever is marked in it.
    let zona = historia.zona().clamp(rango.desde, rango.antes_de.max(rango.desde));
    agrega(rango.desde, zona, Fuente::Ambas);
    let mut aqui = zona;
    for (desde, antes_de) in sin_sumar(historia, pendientes) {
        let (desde, antes_de) = (desde.max(aqui), antes_de.min(rango.antes_de));
        if desde < antes_de {
            agrega(aqui, desde, Fuente::Horas);
            agrega(desde, antes_de, Fuente::Lecturas);
            aqui = antes_de;
        }
    }
    agrega(aqui, rango.antes_de, Fuente::Horas);
    tramos
}

/// Runs of hours that are not summed, in order, none touching the next.
fn sin_sumar(historia: &Historia, pendientes: &[Timestamp]) -> Vec<(Timestamp, Timestamp)> {
    let mut corridas: Vec<(Timestamp, Timestamp)> =
        pendientes.iter().map(|hora| (*hora, siguiente(*hora))).chain(historia.relleno).collect();
    corridas.sort_unstable();
    let mut unidas: Vec<(Timestamp, Timestamp)> = Vec::new();
    for (desde, antes_de) in corridas {
        match unidas.last_mut() {
            Some((_, fin)) if desde <= *fin => *fin = (*fin).max(antes_de),
            _ => unidas.push((desde, antes_de)),
        }
    }
    unidas
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hora(n: i64) -> Timestamp {
        Timestamp::clamped(n * Timestamp::HORA)
    }

    proptest! {
        /// Each hour of the range is answered for once, and by what can.
        #[test]
        fn every_hour_has_its_source(
            desde in 0_i64..30, horas in 0_i64..30, purgada in 0_i64..40, relleno in proptest::option::of((0_i64..40, 0_i64..20)),
            pendientes in proptest::collection::btree_set(0_i64..60, 0..10), media in any::<bool>(),
        ) {
            let rango = Rango { desde: hora(desde), antes_de: hora(desde + horas) };
            // In the middle of an hour as well as at its beginning.
            let purgada = Timestamp::clamped(hora(purgada).micros() + i64::from(media && purgada > 0));
            let historia = Historia { purgada, relleno: relleno.map(|(a, n)| (hora(a), hora(a + n))) };
            let marcadas: Vec<Timestamp> =
                pendientes.iter().copied().filter(|h| (desde..desde + horas).contains(h)).map(hora).collect();
            let tramos = tramos(rango, &historia, &marcadas);
            let mut esperada = rango.desde;
            for t in &tramos {
                prop_assert_eq!(t.rango.desde, esperada);
                prop_assert!(!t.rango.vacio());
                esperada = t.rango.antes_de;
            }
            prop_assert_eq!(esperada, rango.antes_de);
            for n in desde..desde + horas {
                let h = hora(n);
                let suyo = tramos.iter().find(|t| t.rango.desde <= h && h < t.rango.antes_de).unwrap();
                let sin_sumar = marcadas.contains(&h) || historia.relleno.is_some_and(|(a, b)| a <= h && h < b);
                let esperada = match (h < purgada, sin_sumar) {
                    (true, _) => Fuente::Ambas,
                    (false, true) => Fuente::Lecturas,
                    (false, false) => Fuente::Horas,
                };
                prop_assert_eq!(suyo.fuente, esperada, "hour {}", n);
            }
        }
    }
}
