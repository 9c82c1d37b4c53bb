//! A sum over the last so many seconds, in sixteen buckets: never less than what a list of all
//! times would say, and at most what fell into one bucket more.

use crate::limits::TIME_MAX;

/// Buckets of one window.
pub(super) const BUCKETS: u64 = 16;
/// No bucket holds more, so that sixteen of them can be added.
const FULL: u64 = 1 << 58;

/// The length of a window and of its buckets, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    window: u64,
    width: u64,
}

impl Span {
    /// A fifteenth of the window is one bucket, rounded up: windows up to 15 s are exact.
    pub(super) const fn new(window: u64) -> Self {
        Self { window, width: window.div_ceil(BUCKETS - 1) }
    }

    pub(super) const fn window(self) -> u64 {
        self.window
    }

    /// Which buckets count at a second.
    ///
    /// INVARIANT: they are at most sixteen, for the window is at most fifteen widths long; and
    /// the oldest of them is the one with the oldest second that is in the window.
    pub(super) fn at(self, time: u64) -> Live {
        let oldest = (time + 1).saturating_sub(self.window);
        Live { first: oldest / self.width, last: time / self.width }
    }

    /// The first second in which the bucket does not count any more.
    fn end(self, bucket: u64) -> u64 {
        (bucket + 1).saturating_mul(self.width).saturating_add(self.window - 1)
    }
}

/// The numbers of the oldest and the newest bucket that count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What was counted, by bucket: bucket n is at place n modulo sixteen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    buckets: [u64; BUCKETS as usize],
    sum: u64,
    /// Every bucket before this one is empty.
    first: u64,
    /// The newest bucket that is not empty, where one is.
    last: u64,
}

impl Window {
    /// What counts.
    pub(super) fn sum(&self, live: Live) -> u64 {
        if live.first > self.last {
            return 0;
        }
        (self.first..live.first).fold(self.sum, |sum, bucket| sum - self.get(bucket))
    }

    /// Counts more in the newest bucket that counts, and drops what does not count any more.
    pub(super) fn add(&mut self, live: Live, amount: u64) {
        self.drop_before(live.first);
        if amount == 0 {
            return;
        }
        let bucket = live.last.max(self.last);
        let before = self.get(bucket);
        let after = before.saturating_add(amount).min(FULL);
        if let Some(place) = self.buckets.get_mut((bucket % BUCKETS) as usize) {
            *place = after;
        }
        self.sum += after - before;
        self.last = bucket;
    }

    /// The first second in which nothing counts.
    pub(super) fn blank_at(&self, span: Span) -> u64 {
        if self.sum == 0 { 0 } else { span.end(self.last) }
    }

    /// Buckets that count and are not empty, oldest first.
    pub(super) fn filled(&self, live: Live) -> Vec<(u64, u64)> {
        let from = self.first.max(live.first);
        let all = (from..=self.last).map(|bucket| (bucket, self.get(bucket)));
        all.filter(|(_, amount)| *amount > 0).collect()
    }

    /// The window that `filled` has written; nothing where it cannot have.
    pub(super) fn from_filled(filled: &[(u64, u64)]) -> Option<Self> {
        let mut window = Self::default();
        let (oldest, _) = *filled.first()?;
        let mut next = oldest;
        for &(bucket, amount) in filled {
            let near = bucket >= next && bucket - oldest < BUCKETS && bucket <= TIME_MAX;
            if !near || amount == 0 || amount > FULL {
                return None;
            }
            window.add(Live { first: oldest, last: bucket }, amount);
            next = bucket + 1;
        }
        Some(window)
    }

    fn drop_before(&mut self, first: u64) {
        if first > self.last {
            *self = Self { first, last: first, ..Self::default() };
        }
        while self.first < first {
            self.sum -= self.get(self.first);
            if let Some(place) = self.buckets.get_mut((self.first % BUCKETS) as usize) {
                *place = 0;
            }
            self.first += 1;
        }
    }

    fn get(&self, bucket: u64) -> u64 {
        self.buckets.get((bucket % BUCKETS) as usize).copied().unwrap_or(0)
    }
}
