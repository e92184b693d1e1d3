//! Where time comes from.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::Timestamp;

/// When this binary was built: a clock that shows an earlier moment is wrong (a Pi without a
/// battery-backed clock after a power cut).
pub const BUILD_DATE: Timestamp = match i64::from_str_radix(env!("ALERTRACE_BUILD_EPOCH"), 10) {
    Ok(secs) => Timestamp::from_secs_const(secs),
    Err(_) => panic!("build.rs sets ALERTRACE_BUILD_EPOCH to whole seconds"),
};

/// The only source of the current time outside this module (`clippy.toml` bans the others).
pub trait Clock: Send + Sync + 'static {
    /// The current moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        chrono::Utc::now().into()
    }
}

/// A clock that stands until it is moved: for tests, and for nothing else.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.micros()))
    }

    /// Moves forward by `by`.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }

    /// Moves to `to`, backwards too.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.micros(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::clamped(self.0.load(Ordering::SeqCst))
    }
}
