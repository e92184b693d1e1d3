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
    /// Their sum, as far as [`Agregado::MAX_SUMA`].
    pub suma: f64,
}

impl Agregado {
    /// No sum goes beyond this, in either direction: those of a million hours can be added up, by the
    /// databases too, and the result is a number (the largest double is 1.8e308). A mean of what lies
    /// beyond is off; it still lies between the extremes.
    pub const MAX_SUMA: f64 = 1e302;

    /// The mean.
    #[must_use]
    pub fn media(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count is far below 2^52")]
        let n = self.n.max(1) as f64;
        // The sum may have been cut off; the mean lies between the values all the same.
        (self.suma / n).clamp(self.min, self.max)
    }

    /// Takes in what `otro` stands for.
    pub fn junta(&mut self, otro: &Self) {
        self.n += otro.n;
        self.min = self.min.min(otro.min);
        self.max = self.max.max(otro.max);
        self.suma = (self.suma + otro.suma).clamp(-Self::MAX_SUMA, Self::MAX_SUMA);
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
    fn figures_of_the_largest_numbers_are_numbers() {
        let de = |valor| Resumen::uno(Timestamp::MIN, valor).total;
        // Each way round: a half of it would be infinite, and the other half minus that.
        for signo in [1.0, -1.0] {
            let (mut a, mut b) = (de(signo * f64::MAX), de(-signo * f64::MAX));
            a.junta(&de(signo * f64::MAX));
            b.junta(&de(-signo * f64::MAX));
            assert!(a.suma.is_finite(), "{a:?}");
            assert_eq!(a.media().to_bits(), (signo * f64::MAX).to_bits(), "{a:?}");
            a.junta(&b);
            assert!(a.suma.is_finite() && a.media().is_finite(), "{a:?}");
        }
    }
}
