//! How often: so many a while for each key, in a bounded memory.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Keys that are known at a time; some 100 bytes each.
const MAX_KEYS: usize = 65_536;
/// How often keys that have not been seen for a while are forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// And how often at most when there are too many.
const FORGET_SOONER: Duration = Duration::from_secs(1);

/// So many a while from each key, some of them at once.
#[derive(Debug)]
pub struct Rate<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<Slot<K>>,
    forgotten: Mutex<Instant>,
    max_keys: usize,
}

/// What is counted by itself, and what is not while there are too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Slot<K> {
    Own(K),
    Rest,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// At most `n` in each `per`, of which `burst` may come at once; `None` when `n` is 0: no limit.
    #[must_use]
    pub fn new(n: u32, per: Duration, burst: u32) -> Option<Self> {
        let n = NonZeroU32::new(n)?;
        let quota = Quota::with_period(per / n.get())?.allow_burst(NonZeroU32::new(burst).unwrap_or(n));
        let limiter = RateLimiter::keyed(quota);
        Some(Self { limiter, forgotten: Mutex::new(Instant::now()), max_keys: MAX_KEYS })
    }

    /// Counts one of `key`.
    ///
    /// # Errors
    /// How long to wait, when it is one too many.
    pub fn check(&self, key: K) -> Result<(), Duration> {
        let slot = if self.has_room() { Slot::Own(key) } else { Slot::Rest };
        self.limiter.check_key(&slot).map_err(|not| not.wait_time_from(DefaultClock::default().now()))
    }

    /// Whether a key more can be known. Those that are at rest are forgotten now and then: they would be
    /// answered the same if they were new.
    fn has_room(&self) -> bool {
        let full = self.limiter.len() >= self.max_keys;
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        if forgotten.elapsed() < if full { FORGET_SOONER } else { FORGET } {
            return !full;
        }
        *forgotten = Instant::now();
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.limiter.len() < self.max_keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_count_and_is_told_how_long_to_wait() {
        let rate = Rate::new(60, Duration::from_secs(60), 2).unwrap();
        for key in ["a", "b"] {
            assert_eq!((rate.check(key), rate.check(key)), (Ok(()), Ok(())));
            let wait = rate.check(key).unwrap_err();
            assert!(wait <= Duration::from_secs(1), "{wait:?}");
        }
        assert!(Rate::<u8>::new(0, Duration::from_secs(1), 5).is_none(), "0 = no limit");
    }

    #[test]
    fn however_many_keys_come_memory_is_bounded_and_strangers_share_what_is_left() {
        let mut rate = Rate::new(1, Duration::from_secs(60), 1).unwrap();
        rate.max_keys = 10;
        let let_in = (0..1_000).filter(|key| rate.check(*key).is_ok()).count();
        assert_eq!(rate.limiter.len(), 11);
        assert_eq!(let_in, 11, "ten, and one for all others");
    }
}
