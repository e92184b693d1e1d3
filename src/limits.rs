//! Places by address: how many of something one address may have at a time. How often: [`rate`].

pub mod rate;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module; cheap to clone.
#[derive(Debug, Clone)]
pub struct ByAddress {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

impl ByAddress {
    /// At most `max` an address.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// A place for one more from `ip`, until what is answered is dropped.
    #[must_use]
    pub fn enter(&self, ip: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(ip).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place { taken: self.taken.clone(), ip })
    }
}

/// One place of an address, given back when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_nothing_is_left_behind() {
        let places = ByAddress::new(2);
        let [one, other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let first = places.enter(one).unwrap();
        let _second = places.enter(one).unwrap();
        assert!(places.enter(one).is_none());
        assert!(places.enter(other).is_some());
        drop(first);
        assert!(places.enter(one).is_some());
        assert_eq!(places.taken.lock().unwrap().len(), 1);
    }
}
