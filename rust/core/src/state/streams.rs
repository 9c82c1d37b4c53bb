//! Which messages were used: a window of numbers behind the newest one of each live stream.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::Slot;
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;
use crate::limits::{REPLAY_WINDOW, STREAMS, STREAMS_PER_HOLDER};

/// Live streams below the holder of one first link: an eighth of all.
const STREAMS_PER_PRINCIPAL: usize = STREAMS / 8;
const WORDS: usize = REPLAY_WINDOW as usize / 64;

/// The numbers used at and below the newest: bit k of the window is `newest - k`.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) newest: u64,
    window: [u64; WORDS],
    pub(super) expires: u64,
    pub(super) principal: AgentId,
}

impl Stream {
    /// The window as hex digits, the lowest bit last and no zeros in front.
    pub(super) fn used_text(&self) -> String {
        let digits: String = self.window.iter().rev().map(|word| format!("{word:016x}")).collect();
        digits.trim_start_matches('0').to_owned()
    }

    /// What was written down of a stream.
    pub(super) fn restore(
        newest: u64,
        used: &str,
        expires: u64,
        principal: AgentId,
    ) -> Result<Self> {
        let wrong = || Error::malformed("the window of a stream does not read");
        let digits = format!("{used:0>width$}", width = WORDS * 16);
        let (mut window, mut bytes) = ([0; WORDS], [0_u8; WORDS * 8]);
        hex::decode_to_slice(&digits, &mut bytes).map_err(|_| wrong())?;
        for (word, eight) in window.iter_mut().rev().zip(bytes.as_chunks().0) {
            *word = u64::from_be_bytes(*eight);
        }
        Ok(Self { newest, window, expires, principal })
    }

    fn used(&self, number: u64) -> bool {
        match self.newest.checked_sub(number) {
            None => false,
            Some(behind) if behind >= REPLAY_WINDOW => true,
            Some(behind) => {
                let word = usize::try_from(behind / 64).ok().and_then(|at| self.window.get(at));
                word.is_none_or(|word| word >> (behind % 64) & 1 == 1)
            }
        }
    }

    fn take(&mut self, number: u64) {
        if number > self.newest {
            self.shift(number - self.newest);
            self.newest = number;
        }
        let behind = self.newest - number;
        let word = usize::try_from(behind / 64).ok().and_then(|at| self.window.get_mut(at));
        if let Some(word) = word {
            *word |= 1 << (behind % 64);
        }
    }

    /// Makes room for a newer number: every bit moves `by` places back.
    fn shift(&mut self, by: u64) {
        let (words, bits) = (usize::try_from(by / 64).unwrap_or(WORDS).min(WORDS), by % 64);
        self.window.rotate_right(words);
        self.window.iter_mut().take(words).for_each(|word| *word = 0);
        if bits > 0 {
            let mut carry = 0;
            for word in &mut self.window {
                let next = *word >> (64 - bits);
                *word = *word << bits | carry;
                carry = next;
            }
        }
    }
}

/// Every live stream, by holder.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    live: HashMap<String, HashMap<[u8; 16], Stream>>,
    count: usize,
    below: HashMap<AgentId, usize>,
    expiry: BinaryHeap<Reverse<(u64, String, [u8; 16])>>,
}

impl Streams {
    /// Refuses a used number, or a new stream where no room is left.
    pub(super) fn check(&self, at: &Slot<'_>) -> Result<()> {
        let mine = self.live.get(at.holder);
        if let Some(stream) = mine.and_then(|streams| streams.get(&at.stream)) {
            if stream.used(at.number) {
                let detail = "this message, or one far newer on its stream, was used before";
                return Err(Error::new(Reason::Replayed, detail));
            }
            return Ok(());
        }
        let held = mine.map_or(0, HashMap::len);
        let below = self.below.get(at.principal).copied().unwrap_or(0);
        if held >= STREAMS_PER_HOLDER || below >= STREAMS_PER_PRINCIPAL || self.count >= STREAMS {
            let detail = "no room for a new stream; go on with a live one (`Sender`), or wait \
                          until one has expired";
            return Err(Error::new(Reason::StreamsFull, detail));
        }
        Ok(())
    }

    /// Uses the number up, opening the stream if it is new.
    pub(super) fn take(&mut self, at: &Slot<'_>) -> Result<()> {
        let mine = self.live.get_mut(at.holder);
        if let Some(stream) = mine.and_then(|mine| mine.get_mut(&at.stream)) {
            if stream.used(at.number) {
                return Err(Error::malformed("the log decides one message twice"));
            }
            stream.take(at.number);
            stream.expires = stream.expires.max(at.expires);
            return Ok(());
        }
        let mut stream = Stream {
            newest: at.number,
            window: [0; WORDS],
            expires: at.expires,
            principal: *at.principal,
        };
        stream.take(at.number);
        self.put(at.holder, at.stream, stream);
        Ok(())
    }

    /// Puts in a stream that is new.
    pub(super) fn put(&mut self, holder: &str, id: [u8; 16], stream: Stream) {
        self.count += 1;
        *self.below.entry(stream.principal).or_insert(0) += 1;
        self.expiry.push(Reverse((stream.expires, holder.to_owned(), id)));
        self.live.entry(holder.to_owned()).or_default().insert(id, stream);
    }

    /// All of them, sorted by holder and id.
    pub(super) fn all(&self) -> Vec<(&str, &[u8; 16], &Stream)> {
        let mut all: Vec<_> = self
            .live
            .iter()
            .flat_map(|(holder, streams)| {
                streams.iter().map(move |(id, stream)| (holder.as_str(), id, stream))
            })
            .collect();
        all.sort_unstable_by_key(|(holder, id, _)| (*holder, **id));
        all
    }

    /// Drops streams whose newest expiry has passed: all on them is stale.
    pub(super) fn forget(&mut self, time: u64) {
        while self.expiry.peek().is_some_and(|Reverse((expires, ..))| *expires <= time) {
            let Some(Reverse((_, holder, id))) = self.expiry.pop() else { return };
            let Some(mine) = self.live.get_mut(&holder) else { continue };
            let Some(stream) = mine.get(&id) else { continue };
            if stream.expires > time {
                self.expiry.push(Reverse((stream.expires, holder, id)));
                continue;
            }
            let principal = stream.principal;
            mine.remove(&id);
            if mine.is_empty() {
                self.live.remove(&holder);
            }
            self.count = self.count.saturating_sub(1);
            if let Some(below) = self.below.get_mut(&principal) {
                *below = below.saturating_sub(1);
                if *below == 0 {
                    self.below.remove(&principal);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::key::Identity;

    fn agent(n: u8) -> AgentId {
        Identity::from_seed("a", &[n; 32]).unwrap().id()
    }

    fn slot(principal: &AgentId, stream: u8, number: u64) -> Slot<'_> {
        Slot { holder: "did", principal, stream: [stream; 16], number, expires: 100 }
    }

    #[test]
    fn the_largest_number_is_a_number() {
        let (mut streams, id) = (Streams::default(), agent(1));
        streams.take(&slot(&id, 0, u64::MAX)).unwrap();
        assert!(streams.check(&slot(&id, 0, u64::MAX)).is_err());
        assert!(streams.check(&slot(&id, 0, u64::MAX - 1023)).is_ok());
        assert!(streams.check(&slot(&id, 0, u64::MAX - 1024)).is_err());
        assert!(streams.check(&slot(&id, 0, 0)).is_err());
    }

    #[test]
    fn a_ninth_stream_waits_for_one_to_expire() {
        let (mut streams, id) = (Streams::default(), agent(1));
        for stream in 0..8 {
            streams.check(&slot(&id, stream, 0)).unwrap();
            streams.take(&slot(&id, stream, 0)).unwrap();
        }
        let full = streams.check(&slot(&id, 9, 0)).unwrap_err();
        assert_eq!(full.reason, Reason::StreamsFull);
        assert!(streams.check(&slot(&id, 3, 1)).is_ok(), "live streams go on");
        streams.forget(99);
        assert!(streams.check(&slot(&id, 9, 0)).is_err());
        streams.forget(100);
        assert!(streams.check(&slot(&id, 9, 0)).is_ok());
        assert_eq!((streams.count, streams.live.len(), streams.below.len()), (0, 0, 0));
    }

    #[test]
    fn expired_streams_of_others_are_in_nobodys_way() {
        let (mut streams, id) = (Streams::default(), agent(1));
        let holders: Vec<_> = (0..STREAMS_PER_PRINCIPAL).map(|n| n.to_string()).collect();
        for holder in &holders {
            streams.take(&Slot { holder, ..slot(&id, 0, 0) }).unwrap();
        }
        assert!(streams.check(&slot(&id, 0, 0)).is_err());
        assert!(streams.check(&slot(&agent(2), 0, 0)).is_ok());
        streams.forget(100);
        assert!(streams.check(&slot(&id, 0, 0)).is_ok());
    }

    #[test]
    fn what_is_left_of_a_principals_streams_still_counts() {
        let (mut streams, id) = (Streams::default(), agent(1));
        for (stream, expires) in [(0, 100), (1, 200), (2, 200)] {
            streams.take(&Slot { expires, ..slot(&id, stream, 0) }).unwrap();
        }
        streams.forget(100);
        assert_eq!((streams.count, streams.below.get(&id)), (2, Some(&2)));
        streams.forget(200);
        assert_eq!((streams.count, streams.below.get(&id)), (0, None));
    }

    #[test]
    fn a_gate_has_room_for_so_many_streams_whoever_they_are_of() {
        let (mut streams, agents) = (Streams::default(), [1, 2, 3, 4, 5, 6, 7, 8, 9].map(agent));
        for n in 0..STREAMS {
            let (holder, id) = (n.to_string(), &agents[n % 8]);
            streams.take(&Slot { holder: &holder, ..slot(id, 0, 0) }).unwrap();
        }
        let full = streams.check(&slot(&agents[8], 0, 0)).unwrap_err();
        assert_eq!(full.reason, Reason::StreamsFull);
        streams.forget(100);
        assert!(streams.check(&slot(&agents[8], 0, 0)).is_ok());
    }

    #[test]
    fn streams_are_listed_by_holder_and_then_by_id() {
        let (mut streams, id) = (Streams::default(), agent(1));
        for (holder, stream) in [("b", 1), ("a", 2), ("b", 0), ("a", 1)] {
            streams.take(&Slot { holder, ..slot(&id, stream, 0) }).unwrap();
        }
        let listed: Vec<_> = streams.all().iter().map(|(holder, at, _)| (*holder, at[0])).collect();
        assert_eq!(listed, [("a", 1), ("a", 2), ("b", 0), ("b", 1)]);
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(steps in prop::collection::vec(0_u64..5_000, 1..300)) {
            let (mut streams, id) = (Streams::default(), agent(1));
            let (mut used, mut newest) = (HashSet::new(), 0);
            for number in steps {
                let old = number + REPLAY_WINDOW <= newest && !used.is_empty();
                let expected = !used.contains(&number) && !old;
                prop_assert_eq!(streams.check(&slot(&id, 0, number)).is_ok(), expected);
                if expected {
                    streams.take(&slot(&id, 0, number)).unwrap();
                    used.insert(number);
                    newest = newest.max(number);
                }
            }
        }
    }
}
