//! Limits of code: numbers that a child only lowers, sets that it only shrinks.

use super::{more, too_many, widened};
use crate::error::{Axis, Error, Result};
use crate::limits;
use crate::pattern::Pattern;

/// What code run under a token may spend and reach. Zero and empty mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Instructions, in wasmtime fuel units.
    pub fuel: u64,
    /// Linear memory, in bytes.
    pub memory: u64,
    /// Wall-clock time, in milliseconds.
    pub time_ms: u64,
    /// Captured output, in bytes.
    pub output: u64,
    /// Hosts, as `scheme://host[:port]` patterns; sorted.
    pub hosts: Vec<Pattern>,
    /// Directory trees that may be read, as `file:///…/**` patterns; sorted.
    pub read: Vec<Pattern>,
    /// Directory trees that may be written, as `file:///…/**` patterns; sorted.
    pub write: Vec<Pattern>,
}

/// Largest number on any axis, so that every language can hold it signed.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

impl Limits {
    /// Sorts the sets, removes duplicates and refuses what the format does not hold.
    pub fn checked(mut self) -> Result<Self> {
        for (axis, number) in self.numbers() {
            check_number(axis, number)?;
        }
        for host in &self.hosts {
            check_host(host)?;
        }
        for tree in self.read.iter().chain(&self.write) {
            if tree.tree().is_none() {
                return Err(Error::malformed(format!(
                    "`{tree}` is not a directory tree; write `file:///dir/**`"
                )));
            }
        }
        for set in [&mut self.hosts, &mut self.read, &mut self.write] {
            set.sort_unstable();
            set.dedup();
            if set.len() > limits::SCOPES {
                return Err(too_many("hosts or paths", set.len(), limits::SCOPES));
            }
        }
        Ok(self)
    }

    const fn numbers(&self) -> [(Axis, u64); 4] {
        [
            (Axis::Fuel, self.fuel),
            (Axis::Memory, self.memory),
            (Axis::Time, self.time_ms),
            (Axis::Output, self.output),
        ]
    }

    const fn sets(&self) -> [(Axis, &Vec<Pattern>); 3] {
        [(Axis::Hosts, &self.hosts), (Axis::Read, &self.read), (Axis::Write, &self.write)]
    }

    /// Whether a child asks for no more on any axis.
    pub fn covers(&self, child: &Self) -> Result<()> {
        for ((axis, mine), (_, its)) in self.numbers().into_iter().zip(child.numbers()) {
            if its > mine {
                return Err(more(axis, its, mine));
            }
        }
        for ((axis, mine), (_, its)) in self.sets().into_iter().zip(child.sets()) {
            if let Some(wide) = its.iter().find(|entry| !covered(mine, entry)) {
                let detail = format!("`{wide}` is outside the parent's {}", axis.code());
                return Err(widened(axis, detail).seen(outside(mine, wide)));
            }
        }
        Ok(())
    }

    /// What both allow: the smaller number, and the entries of either that the other covers.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            fuel: self.fuel.min(other.fuel),
            memory: self.memory.min(other.memory),
            time_ms: self.time_ms.min(other.time_ms),
            output: self.output.min(other.output),
            hosts: meet(&self.hosts, &other.hosts),
            read: meet(&self.read, &other.read),
            write: meet(&self.write, &other.write),
        }
    }
}

/// Refuses a number that does not fit 63 bits.
fn check_number(axis: Axis, number: u64) -> Result<()> {
    if number <= NUMBER_MAX {
        return Ok(());
    }
    Err(Error::malformed(format!("{} is 2^63 or more", axis.code())))
}

fn check_host(host: &Pattern) -> Result<()> {
    let fine = matches!(host.scheme(), "http" | "https" | "ws" | "wss");
    let rest = host.as_str().split_once("://").map_or("", |(_, rest)| rest);
    if fine && !rest.contains('/') {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "`{host}` is not a host; write `https://name`, `https://*.name` or `https://name:port`"
    )))
}

fn covered(set: &[Pattern], entry: &Pattern) -> bool {
    set.iter().any(|mine| mine.covers(entry))
}

/// Something the entry reaches and nothing in the set does; the entry itself where the set
/// reaches it piece by piece.
fn outside(set: &[Pattern], entry: &Pattern) -> String {
    let reached = |resource: &_| set.iter().any(|mine| mine.matches(resource));
    let example = entry.example().filter(|resource| !reached(resource));
    let witness = || set.iter().filter_map(|mine| mine.witness(entry)).find(|w| !reached(w));
    example.or_else(witness).map_or_else(|| entry.to_string(), |resource| resource.to_string())
}

fn meet(one: &[Pattern], two: &[Pattern]) -> Vec<Pattern> {
    let mut both: Vec<_> = one.iter().filter(|entry| covered(two, entry)).cloned().collect();
    both.extend(two.iter().filter(|entry| covered(one, entry)).cloned());
    both.sort_unstable();
    both.dedup();
    both
}
