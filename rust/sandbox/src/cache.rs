//! What was made once is kept, by the SHA-256 of what it was made from and what it is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Meter;

/// The digest of the very bytes that a value is made from, no path, no name; and its [`Meter`].
pub(crate) type Key = (Meter, [u8; 32]);

/// A bounded cache that makes each value once, however many threads ask for it. What was used
/// longest ago goes first; whoever holds a value keeps it.
pub(crate) struct Cache<T> {
    most: Most,
    shelf: Mutex<Shelf<T>>,
}

/// Bounds on what is kept.
#[derive(Clone, Copy)]
pub(crate) struct Most {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl<T: Clone> Cache<T> {
    pub(crate) fn new(most: Most) -> Self {
        let shelf = Shelf { kept: HashMap::new(), bytes: 0, uses: 0 };
        Self { most, shelf: Mutex::new(shelf) }
    }

    /// The value of this key; made, with its size in bytes, where it is not kept. Threads that ask
    /// for the same key meanwhile wait. A failure is not kept: whoever waited tries again.
    pub(crate) fn get_or_make<E>(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<(T, usize), E>,
    ) -> Result<T, E> {
        let place = self.shelf().place(key);
        let mut held = lock(&place);
        if let Some(value) = &*held {
            return Ok(value.clone());
        }
        let made = make();
        // INVARIANT: the shelf is locked for moments only, and no place while it is.
        let dropped = match &made {
            Ok((value, bytes)) => {
                *held = Some(value.clone());
                self.shelf().keep(&key, &place, *bytes, self.most)
            }
            Err(_) => self.shelf().remove(&key, &place),
        };
        drop(held);
        drop(dropped);
        made.map(|(value, _)| value)
    }

    /// Values and bytes that are kept.
    #[cfg(test)]
    fn size(&self) -> (usize, usize) {
        let shelf = self.shelf();
        (shelf.kept.len(), shelf.bytes)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<T>> {
        lock(&self.shelf)
    }
}

/// A place for one value. Whoever holds its lock while it is empty makes the value.
type Place<T> = Arc<Mutex<Option<T>>>;

struct Shelf<T> {
    kept: HashMap<Key, Kept<T>>,
    bytes: usize,
    /// Counts up with every use.
    uses: u64,
}

struct Kept<T> {
    place: Place<T>,
    /// `None` while the value is being made.
    bytes: Option<usize>,
    used: u64,
}

impl<T> Shelf<T> {
    fn place(&mut self, key: Key) -> Place<T> {
        self.uses = self.uses.saturating_add(1);
        let fresh = || Kept { place: Arc::default(), bytes: None, used: 0 };
        let kept = self.kept.entry(key).or_insert_with(fresh);
        kept.used = self.uses;
        Arc::clone(&kept.place)
    }

    /// Notes what was made, and gives back what has to go for it, perhaps itself.
    fn keep(&mut self, key: &Key, place: &Place<T>, bytes: usize, most: Most) -> Vec<Place<T>> {
        if bytes > most.bytes {
            return self.remove(key, place);
        }
        // Whoever failed before may have taken the place out.
        let again = || Kept { place: Arc::clone(place), bytes: None, used: self.uses };
        let kept = self.kept.entry(*key).or_insert_with(again);
        if Arc::ptr_eq(&kept.place, place) {
            kept.bytes = Some(bytes);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        let mut gone = Vec::new();
        while self.bytes > most.bytes || self.made().count() > most.entries {
            let oldest = self.made().min_by_key(|(_, kept)| kept.used);
            let Some((key, place)) = oldest.map(|(key, kept)| (*key, Arc::clone(&kept.place)))
            else {
                break;
            };
            gone.extend(self.remove(&key, &place));
        }
        gone
    }

    fn made(&self) -> impl Iterator<Item = (&Key, &Kept<T>)> {
        self.kept.iter().filter(|(_, kept)| kept.bytes.is_some())
    }

    /// Takes out this very place: another of the same key may have come instead.
    fn remove(&mut self, key: &Key, place: &Place<T>) -> Vec<Place<T>> {
        if !self.kept.get(key).is_some_and(|kept| Arc::ptr_eq(&kept.place, place)) {
            return Vec::new();
        }
        let kept = self.kept.remove(key);
        let bytes = kept.as_ref().and_then(|kept| kept.bytes).unwrap_or(0);
        self.bytes = self.bytes.saturating_sub(bytes);
        kept.into_iter().map(|kept| kept.place).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const MOST: Most = Most { entries: 3, bytes: 100 };

    fn at(key: u8) -> Key {
        (Meter::Fuel, [key; 32])
    }

    /// Asks for a value of this size; whether it had to be made.
    fn ask(cache: &Cache<u8>, key: u8, bytes: usize) -> bool {
        let mut made = false;
        let value = cache.get_or_make(at(key), || {
            made = true;
            Ok::<_, ()>((key, bytes))
        });
        assert_eq!(value, Ok(key));
        made
    }

    #[test]
    fn a_value_is_made_once() {
        let cache = Cache::new(MOST);
        assert!(ask(&cache, 1, 10));
        assert!(!ask(&cache, 1, 10));
        assert_eq!(cache.size(), (1, 10));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let cache = Cache::new(MOST);
        for key in [1, 2, 3, 1, 4] {
            ask(&cache, key, 10);
        }
        assert_eq!(cache.size(), (3, 30));
        assert!(!ask(&cache, 1, 10) && !ask(&cache, 3, 10) && !ask(&cache, 4, 10));
        assert!(ask(&cache, 2, 10));
    }

    #[test]
    fn bytes_are_bounded_and_what_is_too_big_pushes_nothing_out() {
        let cache = Cache::new(MOST);
        assert!(ask(&cache, 1, 60) && ask(&cache, 2, 40));
        assert_eq!(cache.size(), (2, 100));
        assert!(ask(&cache, 3, 41));
        assert_eq!(cache.size(), (2, 81));
        for _ in 0..3 {
            assert!(ask(&cache, 4, 101));
            assert_eq!(cache.size(), (2, 81));
        }
        assert!(!ask(&cache, 2, 40) && !ask(&cache, 3, 41));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = Cache::<u8>::new(MOST);
        for _ in 0..5 {
            assert_eq!(cache.get_or_make(at(1), || Err("no")), Err("no"));
            assert_eq!(cache.size(), (0, 0));
        }
        assert!(ask(&cache, 1, 1));
    }

    #[test]
    fn threads_that_ask_at_once_make_it_once() {
        const THREADS: usize = 8;
        let (cache, made, start) = (Cache::new(MOST), AtomicUsize::new(0), Barrier::new(THREADS));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    let slow = || {
                        thread::yield_now();
                        Ok::<_, ()>((made.fetch_add(1, Ordering::SeqCst), 1))
                    };
                    assert_eq!(cache.get_or_make(at(1), slow), Ok(0));
                });
            }
        });
        assert_eq!((made.into_inner(), cache.size()), (1, (1, 1)));
    }

    #[test]
    fn threads_that_ask_for_different_things_do_not_wait_for_one_another() {
        let (cache, both) = (Cache::new(MOST), Barrier::new(2));
        thread::scope(|scope| {
            for key in [1, 2] {
                let (cache, both) = (&cache, &both);
                scope.spawn(move || {
                    cache.get_or_make(at(key), || {
                        both.wait();
                        Ok::<_, ()>((key, 1))
                    })
                });
            }
        });
        assert_eq!(cache.size(), (2, 2));
    }

    #[test]
    fn who_waited_for_a_failure_tries_again_and_what_it_makes_is_kept() {
        let (cache, begun) = (Cache::new(MOST), Barrier::new(2));
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                cache.get_or_make(at(1), || {
                    begun.wait();
                    thread::sleep(Duration::from_millis(20));
                    Err::<(u8, usize), _>("no")
                })
            });
            begun.wait();
            assert_eq!(cache.get_or_make(at(1), || Ok::<_, ()>((7, 1))), Ok(7));
            assert_eq!(first.join().unwrap(), Err("no"));
        });
        assert_eq!(cache.get_or_make(at(1), || Err("not made again")), Ok(7));
        assert_eq!(cache.size(), (1, 1));
    }

    #[test]
    fn many_threads_over_few_places_keep_the_bounds() {
        let cache = Cache::new(MOST);
        thread::scope(|scope| {
            for start in 0..8_u8 {
                let cache = &cache;
                scope.spawn(move || {
                    for step in 0..500_u16 {
                        let key = u8::try_from(step.wrapping_mul(31) % 7).unwrap() ^ (start & 3);
                        let size = usize::from(key) * 9;
                        let value = cache.get_or_make(at(key), || Ok::<_, ()>((key, size)));
                        assert_eq!(value, Ok(key));
                    }
                });
            }
        });
        let (entries, bytes) = cache.size();
        assert!(entries <= MOST.entries && bytes <= MOST.bytes, "{entries} {bytes}");
        let shelf = cache.shelf();
        assert_eq!(bytes, shelf.kept.values().map(|kept| kept.bytes.unwrap()).sum::<usize>());
    }
}
