//! Which part of a list is asked for. Every list is in the order of its key, so that a part of it is found
//! by key however far in it is.

/// What comes after `despues` (in the order of the list), past `skip`, at most `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hoja {
    /// The key that the part before ended with.
    pub despues: Option<i64>,
    /// Left out first.
    pub skip: i64,
    /// At most so many.
    pub limit: i64,
}

impl Hoja {
    /// The whole list.
    pub const TODO: Self = Self::primeras(i64::MAX);

    /// Its beginning.
    #[must_use]
    pub const fn primeras(limit: i64) -> Self {
        Self { despues: None, skip: 0, limit }
    }

    /// The bound of an ascending list: `key > $n`.
    pub(super) fn sobre(&self) -> i64 {
        self.despues.unwrap_or(i64::MIN)
    }

    /// The bound of a descending list: `key < $n`.
    pub(super) fn bajo(&self) -> i64 {
        self.despues.unwrap_or(i64::MAX)
    }

    /// How many rows to read: one more than asked for says that there is more.
    pub(super) const fn pide(&self) -> i64 {
        self.limit.saturating_add(1)
    }
}
