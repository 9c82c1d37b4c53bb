//! Where instances live: in slots that are mapped once and cleared between guests, or, for what
//! does not fit there, each in memory of its own.

use std::sync::OnceLock;

use tokio::sync::Semaphore;
use wasmtime::{Config, Engine, PoolingAllocationConfig, ResourcesRequired};

use crate::artifact::{Artifact, environment};
use crate::disk::Name;
use crate::engine::{Clock, config};
use crate::module::{Linkers, Module, link};
use crate::shape::{INSTANCES, Kind};
use crate::{Meter, SandboxError, p2, wasi};

/// Slots. Each has a memory that can grow to 4 GiB and some tables: 4 TiB of addresses in all, and
/// no memory until a guest touches it.
pub(crate) const SLOTS: u32 = 1000;
/// Tables that go with one slot. Compilers make one.
const TABLES: u32 = 4;
/// Elements of one table; further growth fails. Browsers have the same bound.
pub(crate) const ELEMENTS: usize = 10_000_000;
/// Slots that one guest may take.
const MOST: u32 = 16;
/// Bytes of what the engine itself keeps for one instance; see [`crate::CODE_BYTES`].
const INSTANCE_BYTES: usize = 64 << 20;
/// Bytes of a memory and of a table that are cleared by writing zeros, and stay mapped: for a small
/// guest that is quicker than giving the pages back and being given them again.
const WARM: (usize, usize) = (64 << 10, 8 << 10);

/// Where code of one meter lives, and the clock that stops its runs.
pub(crate) struct Places {
    /// Where instances have slots, if there are any, and where they have none.
    pooled: Option<Place>,
    pub(crate) plain: Place,
    /// What says which machine code comes out.
    pub(crate) environment: [u8; 32],
    clock: OnceLock<Clock>,
}

impl Places {
    pub(crate) fn new(meter: Meter) -> Result<Self, SandboxError> {
        let plain = Place::plain(&config(meter))?;
        Ok(Self {
            environment: environment(&plain.wasm),
            pooled: Place::pooled(config(meter)),
            plain,
            clock: OnceLock::new(),
        })
    }

    /// The module, in a slot where it fits one, and the bytes of memory that it is.
    pub(crate) fn link(
        &self,
        artifact: &Artifact,
        kind: Kind,
        name: &Name,
    ) -> Result<(Module, usize), SandboxError> {
        let plain = || self.plain.link(artifact, kind, name);
        match self.pooled.as_ref().map(|place| place.link(artifact, kind, name)) {
            None | Some(Err(SandboxError::Internal(_))) => plain(),
            Some(done) => done,
        }
    }

    /// Where a module was loaded.
    ///
    /// # Errors
    /// [`SandboxError::Input`] where that was by another engine.
    pub(crate) fn of(&self, module: &Module) -> Result<&Place, SandboxError> {
        let found = self.all().find(|place| Engine::same(&place.wasm, module.engine()));
        let text = "the module was loaded by another engine";
        found.ok_or_else(|| SandboxError::Input(text.into()))
    }

    /// The running clock, started when first needed.
    pub(crate) fn clock(&self) -> Result<&Clock, SandboxError> {
        match self.clock.get() {
            Some(clock) => Ok(clock),
            None => {
                let clock = Clock::start(self.all().map(|place| place.wasm.weak()).collect())?;
                Ok(self.clock.get_or_init(|| clock))
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Place> {
        self.pooled.iter().chain([&self.plain])
    }
}

/// An engine with one way to allocate, and what guests may import there.
pub(crate) struct Place {
    pub(crate) wasm: Engine,
    linkers: OnceLock<Linkers>,
    /// Free slots, where there are slots.
    pub(crate) slots: Option<Semaphore>,
}

impl Place {
    /// With slots; `None` where the system has no room for so many addresses.
    fn pooled(mut config: Config) -> Option<Self> {
        let mut pool = PoolingAllocationConfig::new();
        let instances = u32::try_from(INSTANCES).unwrap_or(u32::MAX);
        pool.total_memories(SLOTS)
            .total_stacks(SLOTS)
            .total_tables(SLOTS.saturating_mul(TABLES))
            .total_core_instances(SLOTS.saturating_mul(instances))
            .total_component_instances(SLOTS)
            .max_tables_per_module(MOST.saturating_mul(TABLES))
            .max_core_instance_size(INSTANCE_BYTES)
            .max_component_instance_size(INSTANCE_BYTES)
            .table_elements(ELEMENTS)
            .linear_memory_keep_resident(WARM.0)
            .table_keep_resident(WARM.1);
        let wasm = Engine::new(config.allocation_strategy(pool)).ok()?;
        let free = usize::try_from(SLOTS).unwrap_or(usize::MAX);
        Some(Self { wasm, linkers: OnceLock::new(), slots: Some(Semaphore::new(free)) })
    }

    /// Without.
    fn plain(config: &Config) -> Result<Self, SandboxError> {
        let wasm = Engine::new(config).map_err(SandboxError::internal)?;
        Ok(Self { wasm, linkers: OnceLock::new(), slots: None })
    }

    /// The module, and the bytes of memory that it is.
    ///
    /// # Errors
    /// [`SandboxError::Internal`] where it does not fit, beside those of [`link`].
    fn link(
        &self,
        artifact: &Artifact,
        kind: Kind,
        name: &Name,
    ) -> Result<(Module, usize), SandboxError> {
        let made = link(&self.wasm, self.linkers()?, artifact, kind, name)?;
        if self.slots.is_some() && made.0.slots > MOST {
            return Err(SandboxError::Internal("it needs too many slots".into()));
        }
        Ok(made)
    }

    fn linkers(&self) -> Result<&Linkers, SandboxError> {
        if let Some(linkers) = self.linkers.get() {
            return Ok(linkers);
        }
        let linkers = Linkers {
            module: wasi::linker(&self.wasm).map_err(SandboxError::internal)?,
            component: p2::linker(&self.wasm).map_err(SandboxError::internal)?,
        };
        Ok(self.linkers.get_or_init(|| linkers))
    }
}

/// Slots that an instance takes; more than there are where that cannot be told.
pub(crate) fn slots(needs: Option<&ResourcesRequired>) -> u32 {
    needs.map_or(u32::MAX, |needs| needs.num_memories.max(needs.num_tables.div_ceil(TABLES)).max(1))
}
