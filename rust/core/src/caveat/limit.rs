//! Limits of code: numbers that a child only lowers, sets that it only shrinks.

use std::fmt::Display;

use super::host::{self, HostRule};
use super::secret::{self, SecretRule};
use super::{more, too_many, widened};
use crate::error::{Axis, Error, Result};
use crate::limits;
use crate::pattern::Pattern;

/// What code run under a token may spend and reach. Zero and empty mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Instructions, in wasmtime fuel units; [`UNMETERED`] where they need not be counted.
    pub fuel: u64,
    /// Linear memory, in bytes.
    pub memory: u64,
    /// Wall-clock time, in milliseconds.
    pub time_ms: u64,
    /// Captured output, in bytes.
    pub output: u64,
    /// Requests that may be sent; sorted.
    pub hosts: Vec<HostRule>,
    /// Directory trees that may be read, as `file:///…/**` patterns; sorted.
    pub read: Vec<Pattern>,
    /// Directory trees that may be written, as `file:///…/**` patterns; sorted.
    pub write: Vec<Pattern>,
    /// Secrets that are filled into requests; sorted.
    pub secrets: Vec<SecretRule>,
}

/// Largest number on any axis, so that every language can hold it signed.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// Fuel for code that time alone bounds: the largest number, so that any other one is narrower.
pub const UNMETERED: u64 = NUMBER_MAX;

impl Limits {
    /// Sorts the sets, removes duplicates and refuses what the format does not hold.
    pub fn checked(mut self) -> Result<Self> {
        for (axis, number) in self.numbers() {
            check_number(axis, number)?;
        }
        for tree in self.read.iter().chain(&self.write) {
            if tree.tree().is_none() {
                return Err(Error::malformed(format!(
                    "`{tree}` is not a directory tree; write `file:///dir/**`"
                )));
            }
        }
        sort(&mut self.hosts, "host rules", limits::SCOPES)?;
        sort(&mut self.read, "paths", limits::SCOPES)?;
        sort(&mut self.write, "paths", limits::SCOPES)?;
        sort(&mut self.secrets, "secrets", limits::SECRETS)?;
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

    const fn trees(&self) -> [(Axis, &Vec<Pattern>); 2] {
        [(Axis::Read, &self.read), (Axis::Write, &self.write)]
    }

    /// Whether a child asks for no more on any axis.
    pub fn covers(&self, child: &Self) -> Result<()> {
        for ((axis, mine), (_, its)) in self.numbers().into_iter().zip(child.numbers()) {
            if its > mine {
                return Err(more(axis, its, mine));
            }
        }
        let hosts = (&*self.hosts, &*child.hosts);
        all_covered(Axis::Hosts, hosts, HostRule::covers, host::witness)?;
        for ((axis, mine), (_, its)) in self.trees().into_iter().zip(child.trees()) {
            all_covered(axis, (mine, its), Pattern::covers, outside)?;
        }
        let secrets = (&*self.secrets, &*child.secrets);
        all_covered(Axis::Secrets, secrets, SecretRule::covers, secret::witness)
    }

    /// What both allow: the smaller number, and the entries of either that the other covers.
    /// Never more, and less where two entries merely overlap, so that a request over the network
    /// is asked of every link instead ([`reach`](super::reach)). Where `self` covers `other` it
    /// is `other`.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            fuel: self.fuel.min(other.fuel),
            memory: self.memory.min(other.memory),
            time_ms: self.time_ms.min(other.time_ms),
            output: self.output.min(other.output),
            hosts: meet(&self.hosts, &other.hosts, HostRule::covers),
            read: meet(&self.read, &other.read, Pattern::covers),
            write: meet(&self.write, &other.write, Pattern::covers),
            secrets: meet(&self.secrets, &other.secrets, SecretRule::covers),
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

fn sort<T: Ord>(set: &mut Vec<T>, what: &str, most: usize) -> Result<()> {
    set.sort_unstable();
    set.dedup();
    if set.len() > most { Err(too_many(what, set.len(), most)) } else { Ok(()) }
}

/// Whether each entry of a child is covered by a single one of its parent. The witness of a refusal
/// is the entry itself where nothing better is found.
fn all_covered<T: Display>(
    axis: Axis,
    (mine, its): (&[T], &[T]),
    covers: fn(&T, &T) -> bool,
    witness: fn(&[T], &T) -> Option<String>,
) -> Result<()> {
    let covered = |entry: &&T| mine.iter().any(|one| covers(one, entry));
    match its.iter().find(|entry| !covered(entry)) {
        None => Ok(()),
        Some(wide) => {
            let detail = format!("`{wide}` is outside the parent's {}", axis.code());
            let witness = witness(mine, wide).unwrap_or_else(|| wide.to_string());
            Err(widened(axis, detail).seen(witness))
        }
    }
}

/// Something the entry reaches and nothing in the set does.
fn outside(set: &[Pattern], entry: &Pattern) -> Option<String> {
    let reached = |resource: &_| set.iter().any(|mine| mine.matches(resource));
    let apart = set.iter().filter_map(|mine| mine.witness(entry));
    let found = entry.example().into_iter().chain(apart).find(|resource| !reached(resource));
    found.map(|resource| resource.to_string())
}

/// The entries of `two` that `one` covers, and those of `one` that `two` covers and these do not.
fn meet<T: Clone + Ord>(one: &[T], two: &[T], covers: fn(&T, &T) -> bool) -> Vec<T> {
    let covered = |set: &[T], entry: &T| set.iter().any(|mine| covers(mine, entry));
    let mut both: Vec<_> = two.iter().filter(|entry| covered(one, entry)).cloned().collect();
    let rest = one.iter().filter(|entry| covered(two, entry) && !covered(&both, entry));
    both.extend(rest.cloned().collect::<Vec<_>>());
    both.sort_unstable();
    both
}
