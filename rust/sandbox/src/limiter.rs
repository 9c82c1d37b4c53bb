//! One budget of bytes over all memories and tables of a run.

use wasmtime::ResourceLimiter;

use crate::pool::ELEMENTS;
use crate::shape::INSTANCES;

/// How many of a kind one run may have; their bytes are counted together.
#[derive(Clone, Copy)]
pub(crate) struct Most {
    instances: usize,
    tables: usize,
    memories: usize,
}

impl Most {
    /// Compilers make one table.
    pub(crate) const MODULE: Self = Self { instances: 1, tables: 8, memories: 1 };
    /// Programs that load libraries have one instance for each.
    pub(crate) const COMPONENT: Self = Self { instances: INSTANCES, tables: 64, memories: 16 };
}

pub(crate) struct Limiter {
    budget: u64,
    used: u64,
    peak: u64,
    refused: bool,
    most: Most,
}

impl Limiter {
    pub(crate) fn new(budget: u64, most: Most) -> Self {
        Self { budget, used: 0, peak: 0, refused: false, most }
    }

    /// The most bytes that were in use at once.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether the budget ever said no.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// INVARIANT: `used` never exceeds `budget`.
    fn grow(&mut self, current: usize, desired: usize, unit: usize) -> bool {
        let more = u64::try_from(desired.saturating_sub(current).saturating_mul(unit));
        let total = more.ok().and_then(|more| self.used.checked_add(more));
        match total.filter(|total| *total <= self.budget) {
            Some(total) => {
                self.used = total;
                self.peak = self.peak.max(total);
                true
            }
            None => {
                self.refused = true;
                false
            }
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Over the module's own maximum the growth fails by itself, and is not ours to grade.
        Ok(maximum.is_none_or(|most| desired <= most) && self.grow(current, desired, 1))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The bound of a slot holds without slots too: a run ends the same way in either.
        let unit = size_of::<usize>();
        let fits = desired <= ELEMENTS && maximum.is_none_or(|most| desired <= most);
        Ok(fits && self.grow(current, desired, unit))
    }

    fn instances(&self) -> usize {
        self.most.instances
    }

    fn tables(&self) -> usize {
        self.most.tables
    }

    fn memories(&self) -> usize {
        self.most.memories
    }
}
