//! The width of a bucket, as people write it.

use super::Rango;
use crate::domain::Timestamp;

const MINUTO: i64 = 60_000_000;
const DIA: i64 = 24 * Timestamp::HORA;

/// Every width there is, each a part of the next day or week, so that buckets have round beginnings.
const TODOS: [(&str, i64); 13] = [
    ("1m", MINUTO),
    ("5m", 5 * MINUTO),
    ("10m", 10 * MINUTO),
    ("15m", 15 * MINUTO),
    ("30m", 30 * MINUTO),
    ("1h", Timestamp::HORA),
    ("2h", 2 * Timestamp::HORA),
    ("3h", 3 * Timestamp::HORA),
    ("6h", 6 * Timestamp::HORA),
    ("8h", 8 * Timestamp::HORA),
    ("12h", 12 * Timestamp::HORA),
    ("1d", DIA),
    ("7d", 7 * DIA),
];

/// The width of a bucket. Buckets are counted in UTC: a day from midnight, a week from Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervalo(i64);

impl Intervalo {
    /// One of [`Self::nombres`].
    #[must_use]
    pub fn parse(texto: &str) -> Option<Self> {
        TODOS.iter().find(|(nombre, _)| *nombre == texto).map(|(_, ancho)| Self(*ancho))
    }

    /// What it may be.
    #[must_use]
    pub fn nombres() -> String {
        TODOS.map(|(nombre, _)| nombre).join(", ")
    }

    /// Microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole hours, which are kept summed.
    #[must_use]
    pub const fn de_horas(self) -> bool {
        self.0 >= Timestamp::HORA
    }

    /// Where the counting begins: 1970 began on a Thursday, weeks begin on a Monday.
    pub(super) const fn origen(self) -> i64 {
        if self.0 == 7 * DIA { 4 * DIA - 7 * DIA } else { 0 }
    }

    /// The bucket that a moment belongs to, by its number.
    pub(super) const fn numero(self, ts: Timestamp) -> i64 {
        (ts.micros() - self.origen()).div_euclid(self.0)
    }

    /// Where a bucket begins; the first week of all begins with 1970.
    pub(super) fn inicio(self, numero: i64) -> Timestamp {
        Timestamp::clamped(numero.saturating_mul(self.0).saturating_add(self.origen()))
    }

    /// The whole buckets that have a part in `rango`, and how many they are.
    #[must_use]
    pub fn cubre(self, rango: Rango) -> (Rango, i64) {
        if rango.vacio() {
            return (Rango { desde: rango.desde, antes_de: rango.desde }, 0);
        }
        let ultimo = Timestamp::clamped(rango.antes_de.micros() - 1);
        let (a, b) = (self.numero(rango.desde), self.numero(ultimo) + 1);
        (Rango { desde: self.inicio(a), antes_de: self.inicio(b) }, b - a)
    }

    /// The newest `cuantos` buckets that end with the one of `ultimo`.
    #[must_use]
    pub fn ultimos(self, ultimo: Timestamp, cuantos: i64) -> Timestamp {
        self.inicio(self.numero(ultimo) - cuantos + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(texto: &str) -> Timestamp {
        Timestamp::parse(texto).unwrap()
    }

    #[test]
    fn buckets_begin_where_people_expect_them_to() {
        for (intervalo, inicio) in [
            ("5m", "2026-11-24T10:15:00Z"),
            ("1h", "2026-11-24T10:00:00Z"),
            ("6h", "2026-11-24T06:00:00Z"),
            ("1d", "2026-11-24T00:00:00Z"),
            ("7d", "2026-11-23T00:00:00Z"), // a Monday
        ] {
            let i = Intervalo::parse(intervalo).unwrap();
            assert_eq!(i.inicio(i.numero(ts("2026-11-24T10:17:31Z"))), ts(inicio), "{intervalo}");
            assert_eq!(i.inicio(i.numero(ts(inicio))), ts(inicio), "{intervalo}");
        }
        let semana = Intervalo::parse("7d").unwrap();
        assert_eq!(semana.inicio(semana.numero(Timestamp::MIN)), Timestamp::MIN);
    }

    #[test]
    fn other_widths_are_refused() {
        for texto in ["", "1", "h", "0h", "7m", "1H", "1w", "-1h", "99999999999999999999d"] {
            assert_eq!(Intervalo::parse(texto), None, "{texto}");
        }
    }

    #[test]
    fn a_range_is_covered_by_whole_buckets() {
        let hora = Intervalo::parse("1h").unwrap();
        let rango = Rango { desde: ts("2026-11-24T10:17:00Z"), antes_de: ts("2026-11-24T12:00:00Z") };
        let (cubierto, cuantos) = hora.cubre(rango);
        assert_eq!((cubierto.desde, cubierto.antes_de), (ts("2026-11-24T10:00:00Z"), rango.antes_de));
        assert_eq!(cuantos, 2);
        assert_eq!(hora.cubre(Rango { desde: rango.desde, antes_de: rango.desde }).1, 0);
        assert_eq!(hora.ultimos(ts("2026-11-24T12:30:00Z"), 3), ts("2026-11-24T10:00:00Z"));
    }
}
