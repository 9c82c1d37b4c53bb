//! Runs that can be repeated: clocks that move only when they are looked at, waits that are over
//! at once, and random bytes from a seed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moat_core::key::sha256;
use rand_core::TryRng;
use wasmtime::component::{HasData, Resource};
use wasmtime::{Caller, Linker};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::clocks::{HostMonotonicClock, HostWallClock, WasiClocksCtxView};
use wasmtime_wasi::p1::types::{
    Clockid, Errno, Subclockflags, Subscription, SubscriptionClock, SubscriptionU,
};
use wasmtime_wasi::p1::wasi_snapshot_preview1 as p1;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wiggle::{GuestMemory, GuestPtr};

use crate::wasi::{State, WASI, parts};
use crate::{Bounds, SandboxError};

/// When every such run begins: 2000-01-01 00:00:00 UTC.
const BEGIN: Duration = Duration::from_secs(946_684_800);
/// By how much a look at a clock moves both, in nanoseconds.
const TICK: u64 = 1_000;
/// Where both stop, in nanoseconds: after 146 years, so that no sum of times overflows.
const END: u64 = 1 << 62;
/// Bytes of a `subscription` in a guest's memory.
const SUBSCRIPTION: u32 = 48;
/// More than the host has room for (`wasi.rs`).
const SUBSCRIPTIONS: i32 = 128;

impl Bounds {
    /// Refuses bounds under which the same code does not do the same with the same input: what
    /// is in a directory may have changed.
    ///
    /// # Errors
    /// [`SandboxError::Input`].
    pub(crate) fn repeatable(&self) -> Result<(), SandboxError> {
        match self.dirs.first() {
            None => Ok(()),
            Some(dir) => Err(SandboxError::Input(format!(
                "a deterministic run reaches no files, and its token names `{}`; give it a token \
                 without directories",
                dir.path.display()
            ))),
        }
    }
}

/// Gives a guest the clocks and random bytes that a seed means.
pub(crate) fn seeded(wasi: &mut WasiCtxBuilder, seed: &[u8; 32]) -> Time {
    let time = Time::default();
    let of = |part: &[u8]| Bytes::new(sha256(&[part, seed].concat()));
    let mut first = [0; 16];
    let _never = of(b"seed").try_fill_bytes(&mut first);
    wasi.wall_clock(time.clone())
        .monotonic_clock(time.clone())
        .secure_random(of(b"random"))
        .insecure_random(of(b"insecure"))
        .insecure_random_seed(u128::from_le_bytes(first));
    time
}

/// The clocks of one run: nanoseconds since it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    fn look(&self) -> u64 {
        let now = self.now();
        self.reach(now.saturating_add(TICK));
        now
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reach(&self, then: u64) {
        self.0.fetch_max(then.min(END), Ordering::Relaxed);
    }
}

impl HostWallClock for Time {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(TICK)
    }

    fn now(&self) -> Duration {
        BEGIN + Duration::from_nanos(self.look())
    }
}

impl HostMonotonicClock for Time {
    fn resolution(&self) -> u64 {
        TICK
    }

    fn now(&self) -> u64 {
        self.look()
    }
}

/// SHA-256 of a key and a counter (8 bytes, little endian), block after block.
struct Bytes {
    key: [u8; 32],
    count: u64,
    block: std::array::IntoIter<u8, 32>,
}

impl Bytes {
    fn new(key: [u8; 32]) -> Self {
        let block = block(&key, 0);
        Self { key, count: 0, block }
    }

    fn next(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.block.next() {
                return byte;
            }
            self.count = self.count.wrapping_add(1);
            self.block = block(&self.key, self.count);
        }
    }
}

fn block(key: &[u8; 32], count: u64) -> std::array::IntoIter<u8, 32> {
    sha256(&[&key[..], &count.to_le_bytes()].concat()).into_iter()
}

impl TryRng for Bytes {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.fill_with(|| self.next());
        Ok(())
    }
}

/// The monotonic clock of a component, whose waits are over at once where a seed was given: to
/// ask for one moves the clocks to its end.
pub(crate) struct Waits<'a> {
    pub(crate) clocks: WasiClocksCtxView<'a>,
    pub(crate) time: Option<Time>,
}

pub(crate) struct Waiting;

impl HasData for Waiting {
    type Data<'a> = Waits<'a>;
}

impl monotonic_clock::Host for Waits<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.clocks.now()
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.clocks.resolution()
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let Some(time) = &self.time else {
            return self.clocks.subscribe_instant(when);
        };
        time.reach(when);
        self.clocks.subscribe_duration(0)
    }

    fn subscribe_duration(&mut self, long: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let Some(time) = &self.time else {
            return self.clocks.subscribe_duration(long);
        };
        time.reach(time.now().saturating_add(long));
        self.clocks.subscribe_duration(0)
    }
}

/// `poll_oneoff` of a core module, with the same clocks: where nothing else is waited for, they
/// move to the first of its times.
pub(crate) fn polling(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        WASI,
        "poll_oneoff",
        |mut guest: Caller<'_, State>, (subs, events, count, out): (i32, i32, i32, i32)| {
            Box::new(async move {
                let (mut memory, state) = parts(&mut guest)?;
                let asked = match state.time.clone() {
                    None => Vec::new(),
                    Some(_) if count > SUBSCRIPTIONS => return Ok(Errno::Inval as i32),
                    Some(time) => quicken(&time, &mut memory, subs, count)?,
                };
                let wasi = &mut state.wasi;
                let code = p1::poll_oneoff(wasi, &mut memory, subs, events, count, out).await;
                for (at, sub) in asked {
                    memory.write(at, sub)?;
                }
                code
            })
        },
    )?;
    Ok(())
}

type Asked = Vec<(GuestPtr<Subscription>, Subscription)>;

/// Moves the clocks, and rewrites waits to "now" or "never" while the host looks at them; gives
/// what they were. What the host will refuse is left as it is.
fn quicken(
    time: &Time,
    memory: &mut GuestMemory<'_>,
    subs: i32,
    count: i32,
) -> wasmtime::Result<Asked> {
    let (mut waits, mut others) = (Vec::new(), false);
    for index in 0..count.cast_unsigned() {
        let at = index.checked_mul(SUBSCRIPTION).and_then(|n| subs.cast_unsigned().checked_add(n));
        let Some(Ok((at, sub))) = at.map(|at| {
            let at = GuestPtr::<Subscription>::new(at);
            memory.read(at).map(|sub| (at, sub))
        }) else {
            return Ok(Vec::new());
        };
        match &sub.u {
            SubscriptionU::Clock(clock) => match until(clock, time.now()) {
                Some(until) => waits.push((at, sub, until)),
                None => return Ok(Vec::new()),
            },
            _ => others = true,
        }
    }
    let first = waits.iter().map(|(_, _, until)| *until).min().unwrap_or(u64::MAX);
    if !others && !waits.is_empty() {
        time.reach(first);
    }
    let due = first <= time.now();
    let mut asked = Vec::new();
    for (at, sub, until) in waits {
        let timeout = if due && until == first { 0 } else { u64::MAX };
        let (id, precision, flags) = (Clockid::Monotonic, 0, Subclockflags::empty());
        let clock = SubscriptionClock { id, timeout, precision, flags };
        memory
            .write(at, Subscription { userdata: sub.userdata, u: SubscriptionU::Clock(clock) })?;
        asked.push((at, sub));
    }
    Ok(asked)
}

/// The end of a wait, in nanoseconds since the run began; `None` for a clock that cannot be
/// waited for.
fn until(clock: &SubscriptionClock, now: u64) -> Option<u64> {
    let absolute = clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME);
    let begin = u64::try_from(BEGIN.as_nanos()).unwrap_or(u64::MAX);
    let until = match clock.id {
        Clockid::Monotonic | Clockid::Realtime if !absolute => now.saturating_add(clock.timeout),
        Clockid::Monotonic => clock.timeout,
        Clockid::Realtime => clock.timeout.saturating_sub(begin),
        _ => return None,
    };
    Some(until.min(END))
}
