//! Two pieces of work timed side by side: what is ours and the primitive below it.
//!
//! Why not criterion: it runs one group after the other, and on a machine shared with others the
//! quotient of two such groups measures the neighbours. Here short batches of both alternate,
//! every round gives one ratio, and the median over many rounds is what counts. The minimum of
//! either is printed beside it: the figure of a round that nobody disturbed.
//!
//! Where the stack happens to lie changes a signature's time by up to a tenth (loads and stores
//! 4 KiB apart get into each other's way), and it stays there for the life of a process. So each
//! batch runs at another depth of the stack, ours and the primitive independently.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds; odd, so that the median is one of them.
pub(crate) const ROUNDS: usize = 401;
/// Depths of the stack; prime to what the rounds are multiplied by.
const DEPTHS: usize = 64;
/// About how long one batch takes: far less than a time slice of the scheduler.
const BATCH: Duration = Duration::from_micros(250);

/// What came out, in nanoseconds for one call.
pub(crate) struct Pair {
    ours: Vec<f64>,
    raw: Vec<f64>,
}

/// Times both in alternating batches, each of as many calls as fill [`BATCH`].
pub(crate) fn pair<A, B>(ours: impl FnMut() -> A, raw: impl FnMut() -> B) -> Pair {
    let (mut ours, mut raw) = (calibrated(ours), calibrated(raw));
    rounds(ROUNDS, &mut *ours, &mut *raw)
}

/// Alternates two batches that time themselves; which one starts alternates too.
pub(crate) fn rounds(
    rounds: usize,
    ours: &mut dyn FnMut() -> f64,
    raw: &mut dyn FnMut() -> f64,
) -> Pair {
    let mut pair = Pair { ours: Vec::new(), raw: Vec::new() };
    for round in 0..rounds {
        let (one, two) = (round * 37 % DEPTHS, (round * 53 + 11) % DEPTHS);
        if round % 2 == 0 {
            pair.ours.push(deeper(one, ours));
            pair.raw.push(deeper(two, raw));
        } else {
            pair.raw.push(deeper(two, raw));
            pair.ours.push(deeper(one, ours));
        }
    }
    pair
}

/// Runs a batch that many frames below: together they are more than a page apart.
#[inline(never)]
fn deeper(levels: usize, work: &mut dyn FnMut() -> f64) -> f64 {
    let room = black_box([0_u8; 48]);
    let time = if levels == 0 { work() } else { deeper(levels - 1, work) };
    black_box(&room);
    time
}

/// Nanoseconds of one call, over so many.
pub(crate) fn batch<T>(calls: u32, mut work: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(work());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn calibrated<'a, T>(mut work: impl FnMut() -> T + 'a) -> Box<dyn FnMut() -> f64 + 'a> {
    let mut calls = 1;
    while batch(calls, &mut work) * f64::from(calls) < BATCH.as_secs_f64() * 1e9 / 2.0 {
        calls *= 2;
    }
    Box::new(move || batch(calls, &mut work))
}

impl Pair {
    /// Prints one JSON line.
    pub(crate) fn print(&self, name: &str) {
        let each = || self.ours.iter().zip(&self.raw);
        let line = serde_json::json!({
            "name": name,
            "ours_ns": least(&self.ours),
            "raw_ns": least(&self.raw),
            "ours_median_ns": median(self.ours.clone()),
            "raw_median_ns": median(self.raw.clone()),
            "ratio": median(each().map(|(ours, raw)| ours / raw).collect()),
            "difference_ns": median(each().map(|(ours, raw)| ours - raw).collect()),
        });
        println!("{line}");
    }
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
