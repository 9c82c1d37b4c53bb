//! The same work on every item of a batch, on all cores.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::{Builder, available_parallelism, scope};

/// Items that pay for a thread of their own.
const SHARE: usize = 8;

/// Asked once: the answer is in files.
static CORES: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, NonZero::get));

/// What `work` gives for each item, in their order. Where there is no thread to be had, or one
/// has panicked, its share is done here.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_on(*CORES, items, &work)
}

fn map_on<T: Sync, R: Send>(cores: usize, items: &[T], work: &(impl Fn(&T) -> R + Sync)) -> Vec<R> {
    let all = |some: &[T]| some.iter().map(work).collect::<Vec<_>>();
    let share = items.len().div_ceil(cores).max(SHARE);
    let Some((mine, rest)) = items.split_at_checked(share) else { return all(items) };
    scope(|scope| {
        let start = |some| (some, Builder::new().spawn_scoped(scope, move || all(some)).ok());
        let others: Vec<_> = rest.chunks(share).map(start).collect();
        let mut done = all(mine);
        for (some, thread) in others {
            let there = thread.and_then(|thread| thread.join().ok());
            done.extend(there.unwrap_or_else(|| all(some)));
        }
        done
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use std::sync::Mutex;
    use std::thread::current;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_however_many_there_are() {
        for (cores, count) in [(1, 100), (2, 0), (2, 1), (2, 8), (2, 9), (3, 64), (8, 65), (64, 7)]
        {
            let items: Vec<u32> = (0..count).collect();
            let doubled: Vec<_> = items.iter().map(|n| n * 2).collect();
            assert_eq!(map_on(cores, &items, &|n| n * 2), doubled, "{cores} {count}");
        }
    }

    #[test]
    fn no_more_threads_than_cores_take_part() {
        let seen = Mutex::new(std::collections::HashSet::new());
        let note = |_: &u32| seen.lock().map(|mut seen| seen.insert(current().id())).is_ok();
        assert!(map_on(4, &[0; 1000], &note).into_iter().all(|noted| noted));
        assert_eq!(seen.lock().map(|seen| seen.len()).ok(), Some(4));
    }

    #[test]
    fn the_share_of_a_thread_that_panicked_is_done_here() {
        let here = current().id();
        let items: Vec<u32> = (0..16).collect();
        let elsewhere = |n: &u32| if current().id() == here { *n } else { panic!("elsewhere") };
        assert_eq!(map_on(2, &items, &elsewhere), items);
    }
}
