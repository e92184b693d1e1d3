//! A moment, as the store keeps it.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since the Unix epoch, UTC. Written as RFC 3339 with the fewest digits that keep it
/// exact (`2026-11-24T04:04:05Z`, `2026-11-24T04:04:05.123456Z`).
///
/// One integer in both databases: exact to what identifies a reading, eight bytes in the key of
/// `lecturas`, and compared the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first moment that is accepted anywhere (1970-01-01) and the last (9999-12-31): outside
    /// them RFC 3339 has no way to write a moment down.
    pub const MIN: Self = Self(0);
    /// See [`Timestamp::MIN`].
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// An hour, in microseconds.
    pub const HORA: i64 = 3_600_000_000;

    /// `None` outside 1970 … 9999.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    /// As [`Self::from_micros`], with what lies outside moved to the nearest bound. For values that
    /// this program wrote itself.
    #[must_use]
    pub fn clamped(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// From whole seconds that are known to lie inside the bounds, at compile time.
    pub(super) const fn from_secs_const(secs: i64) -> Self {
        assert!(secs >= 0 && secs < Self::MAX.0 / 1_000_000);
        Self(secs * 1_000_000)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// RFC 3339; without a zone the text is taken as UTC (contract section 1.1). A space may stand
    /// for the `T`, and a date alone is its midnight.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        read(text).and_then(Self::from_micros)
    }

    /// As [`Self::parse`], for a bound of a range: what lies before or after all moments is the first or the last.
    #[must_use]
    pub fn parse_bound(text: &str) -> Option<Self> {
        read(text).map(Self::clamped)
    }

    /// A number as devices send it: epoch seconds, or milliseconds when it is too large to be
    /// seconds (1e11 s is the year 5138; 1e11 ms is March 1973).
    #[must_use]
    pub fn from_epoch(number: f64) -> Option<Self> {
        if !number.is_finite() || number < 0.0 {
            return None;
        }
        let micros = if number < 1e11 { number * 1e6 } else { number * 1e3 };
        if micros > 9.0e18 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
        Self::from_micros(micros.round() as i64)
    }

    /// Later by `by`; stays at the last moment.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::clamped(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `by`; stays at the epoch.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::clamped(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The hour (UTC) that this lies in, by its first moment.
    #[must_use]
    pub const fn hora(self) -> Self {
        Self(self.0 - self.0.rem_euclid(Self::HORA))
    }

    /// The first whole hour that begins at this moment or after it.
    #[must_use]
    pub fn techo_hora(self) -> Self {
        Self::clamped(self.0 + Self::HORA - 1).hora()
    }

    /// The next microsecond.
    #[must_use]
    pub fn next(self) -> Self {
        Self::clamped(self.0 + 1)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(value: DateTime<Utc>) -> Self {
        Self::clamped(value.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = DateTime::<Utc>::from_timestamp_micros(self.0).unwrap_or_default();
        f.write_str(&t.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 timestamp"))
    }
}

/// A date and a time, or a date, as people and programs write them; in microseconds.
fn read(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(t) = DateTime::parse_from_rfc3339(text) {
        return Some(t.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(t) = chrono::NaiveDateTime::parse_from_str(text, format) {
            return Some(t.and_utc().timestamp_micros());
        }
    }
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime)))
            .description(Some("RFC 3339, UTC, up to microseconds"))
            .build()
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_a_zone_is_utc() {
        let with = Timestamp::parse("2026-11-24T04:04:05.5Z").unwrap();
        assert_eq!(Timestamp::parse("2026-11-24T04:04:05.5"), Some(with));
        assert_eq!(Timestamp::parse("2026-11-24T05:04:05.5+01:00"), Some(with));
        assert_eq!(with.to_string(), "2026-11-24T04:04:05.500Z");
    }

    #[test]
    fn numbers_are_seconds_or_milliseconds() {
        let t = Timestamp::parse("2026-11-24T00:00:00Z").unwrap();
        assert_eq!(Timestamp::from_epoch(1_795_478_400.0), Some(t));
        assert_eq!(Timestamp::from_epoch(1_795_478_400_000.0), Some(t));
        assert_eq!(Timestamp::from_epoch(-1.0), None);
        assert_eq!(Timestamp::from_epoch(f64::NAN), None);
        assert_eq!(Timestamp::from_epoch(1e300), None);
    }

    #[test]
    fn a_bound_may_lie_before_or_after_all_moments() {
        assert_eq!(Timestamp::parse("1066-10-14T00:00:00Z"), None);
        assert_eq!(Timestamp::parse_bound("1066-10-14T00:00:00Z"), Some(Timestamp::MIN));
        assert_eq!(Timestamp::parse_bound("ayer"), None);
    }

    #[test]
    fn garbage_is_not_a_moment() {
        for text in ["", "ayer", "2026-13-01", "2026-11-24T25:00:00", "99999999999"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
