//! What many values come to.

use super::Timestamp;

/// How many, the smallest, the largest, and their sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agregado {
    /// How many values.
    pub n: i64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their sum.
    pub suma: f64,
}

impl Agregado {
    /// The mean.
    #[must_use]
    pub fn media(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count is far below 2^52")]
        let n = self.n.max(1) as f64;
        // A sum of finite values need not be finite; their mean lies between them all the same.
        (self.suma / n).clamp(self.min, self.max)
    }

    /// Takes in what `otro` stands for.
    pub fn junta(&mut self, otro: &Self) {
        self.n += otro.n;
        self.min = self.min.min(otro.min);
        self.max = self.max.max(otro.max);
        self.suma += otro.suma;
    }
}

/// An [`Agregado`], and the readings that its extremes come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resumen {
    /// The figures.
    pub total: Agregado,
    /// The first reading that had the smallest value.
    pub min_ts: Timestamp,
    /// The first reading that had the largest.
    pub max_ts: Timestamp,
}

impl Resumen {
    /// Of one value.
    #[must_use]
    pub const fn uno(ts: Timestamp, valor: f64) -> Self {
        let total = Agregado { n: 1, min: valor, max: valor, suma: valor };
        Self { total, min_ts: ts, max_ts: ts }
    }

    /// Takes in what `otro` stands for.
    pub fn junta(&mut self, otro: &Self) {
        let (mio, suyo) = (&self.total, &otro.total);
        #[expect(clippy::float_cmp, reason = "the very same double is the same value")]
        if suyo.min < mio.min || (suyo.min == mio.min && otro.min_ts < self.min_ts) {
            self.min_ts = otro.min_ts;
        }
        #[expect(clippy::float_cmp, reason = "the very same double is the same value")]
        if suyo.max > mio.max || (suyo.max == mio.max && otro.max_ts < self.max_ts) {
            self.max_ts = otro.max_ts;
        }
        self.total.junta(&otro.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_keep_the_first_reading_that_had_them() {
        let de = |ts, valor| Resumen::uno(Timestamp::clamped(ts), valor);
        let mut r = de(5, 1.0);
        for otro in [de(3, 1.0), de(9, 4.0), de(7, 4.0), de(8, 2.0)] {
            r.junta(&otro);
        }
        assert_eq!((r.min_ts.micros(), r.max_ts.micros()), (3, 7));
        assert_eq!(r.total, Agregado { n: 5, min: 1.0, max: 4.0, suma: 12.0 });
        assert!((r.total.media() - 2.4).abs() < 1e-12);
    }

    #[test]
    fn a_mean_is_finite_where_the_sum_is_not() {
        let mut r = Resumen::uno(Timestamp::MIN, f64::MAX);
        r.junta(&Resumen::uno(Timestamp::MIN, f64::MAX));
        assert!(r.total.media().is_finite());
    }
}
