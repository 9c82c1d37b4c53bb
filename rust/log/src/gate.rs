//! The gate: verification, judgement and the log as one, and the only maker of a [`Permit`].

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use moat_core::audit::{Checkpoint, ConsistencyProof, Former, InclusionProof};
use moat_core::entry::{Entry, Record, Recovered, Summary, Unused};
use moat_core::guard::{Guard, Ruling, Setup, Verified, effective};
use moat_core::key::{AgentId, Identity};
use moat_core::monitor::{Alert, Rules, Then};
use moat_core::policy::Policy;
use moat_core::state::{State, check_rules};
use moat_core::{Error, Reason, Result};

use crate::parallel;
use crate::permit::{Permit, Stop};
use crate::{Committed, Fold, LogError, Opened, Options, Pending, Pruned, Store};

impl Fold for State {
    fn apply(&mut self, index: u64, time: u64, kind: &str, body: &[u8]) -> Result<()> {
        Self::apply(self, index, time, kind, body)
    }

    fn take(&mut self, index: u64, time: u64, record: &Record) -> Result<()> {
        Self::take(self, index, time, record)
    }

    fn advance(&mut self, now: u64) -> u64 {
        Self::advance(self, now)
    }

    fn snapshot(&self) -> Result<Vec<Vec<u8>>> {
        Self::snapshot(self)
    }

    fn restore(&mut self, item: &[u8]) -> Result<()> {
        Self::restore(self, item)
    }

    fn check_whole(&self) -> Result<()> {
        Self::check_whole(self)
    }

    fn is_over(&self) -> bool {
        self.successor().is_some()
    }

    fn former(&self) -> Option<Former> {
        Self::former(self).copied()
    }
}

/// What can fail because of the log.
pub(crate) type Outcome<T> = std::result::Result<T, LogError>;

/// Seconds between two summary lines.
const SUMMARY_SECONDS: u64 = 60;
/// Indices in one `recovered` or `unused` line.
const INDICES: usize = 2_000;

/// What a gate answered.
#[derive(Debug)]
pub struct Decision {
    /// The decision's index in the log; none for what is only counted.
    pub entry: Option<u64>,
    /// Why not; none for a yes.
    pub error: Option<Error>,
    /// The message, once it is known to be authentic.
    pub verified: Option<Verified>,
    /// Leave to act; only with a yes.
    pub permit: Option<Permit>,
    /// What the monitor tells about it; each is a line of the log.
    pub alerts: Vec<Alert>,
}

impl Decision {
    fn refused(error: Error) -> Self {
        Self { entry: None, error: Some(error), verified: None, permit: None, alerts: Vec::new() }
    }
}

/// Refusals that leave no line of their own.
#[derive(Debug, Default)]
struct Counts {
    since: u64,
    by_reason: BTreeMap<&'static str, u64>,
}

pub(crate) struct Inner {
    id: AgentId,
    pub(crate) store: Store<State>,
    guard: RwLock<Guard>,
    counts: Mutex<Counts>,
    /// Decisions whose permits died unopened, not in the log yet.
    unused: Mutex<Vec<u64>>,
    /// Effects under way that want to be told when they must stop, by the number of their watch:
    /// one permit may have several.
    running: Mutex<BTreeMap<u64, (Verified, Stop)>>,
    watches: AtomicU64,
    pending: Vec<u64>,
}

/// One gate over one log directory; cheap to clone, safe across threads.
#[derive(Clone)]
pub struct Gate(pub(crate) Arc<Inner>);

/// One message on its way through a batch.
enum Step {
    Done(Decision),
    Waiting(Pending<Judged>, Verified),
}

/// What was decided and is not on the disk yet.
struct Judged {
    verdict: Result<()>,
    /// The second that counts.
    at: u64,
    /// Lines before the decision's.
    before: u64,
    alerts: Vec<Alert>,
}

impl Gate {
    /// Opens or creates a log directory and folds what it says. Until [`Gate::arm`] no root is
    /// trusted. Decisions without an outcome are listed in a line. A gate that has handed over
    /// opens, writes nothing and denies everything.
    pub fn open(
        dir: &Path,
        signer: &Identity,
        anchor: Option<&Path>,
        accept_restored: bool,
        segment_bytes: u64,
        now: u64,
    ) -> Outcome<Self> {
        let options = Options {
            folder: dir.to_owned(),
            gate: signer.clone(),
            anchor: anchor.map(Path::to_owned),
            now,
            accept_restored,
            segment_bytes,
        };
        let store = Store::open(options, State::default())?;
        let pending: Vec<_> = store.with(|state| state.pending().collect())?;
        let setup = Setup {
            gate: signer.id(),
            roots: Vec::new(),
            operators: Vec::new(),
            policy: Policy::CHAIN_ONLY,
            monitor: Rules::default(),
        };
        let inner = Inner {
            id: signer.id(),
            store,
            guard: RwLock::new(Guard::new(setup)),
            counts: Mutex::default(),
            unused: Mutex::default(),
            running: Mutex::default(),
            watches: AtomicU64::new(0),
            pending,
        };
        let gate = Self(Arc::new(inner));
        if gate.successor()?.is_none() {
            for some in gate.0.pending.chunks(INDICES) {
                gate.append(now, &Recovered { pending: some.to_vec() })?;
            }
        }
        Ok(gate)
    }

    /// Sets what is enforced; a change of it is a line before it counts, and no decision under
    /// the old rules comes after that line.
    pub fn arm(
        &self,
        policy: Policy,
        roots: Vec<AgentId>,
        operators: Vec<AgentId>,
        monitor: Rules,
        now: u64,
    ) -> Outcome<()> {
        self.0.store.health.check()?;
        self.enforce(|_| Setup { gate: self.0.id, roots, operators, policy, monitor }, now)
    }

    /// Changes what is enforced; keys that came after a trusted root's are trusted as it is.
    pub(crate) fn enforce(&self, change: impl FnOnce(Setup) -> Setup, now: u64) -> Outcome<()> {
        let mut guard = self.0.guard.write().unwrap_or_else(PoisonError::into_inner);
        let mut setup = change(guard.setup().clone());
        setup.roots = self.0.store.with(|state| state.registry().roots(&setup.roots))?;
        let rules = setup.rules();
        check_rules(&rules).map_err(LogError::Entry)?;
        let told = |state: &State| state.rules() == Some(&rules) || state.successor().is_some();
        if !self.0.store.with(told)? {
            self.append(now, &rules)?;
        }
        *guard = Guard::new(setup);
        Ok(())
    }

    /// The gate's key.
    #[must_use]
    pub fn id(&self) -> AgentId {
        self.0.id
    }

    /// What is enforced now.
    #[must_use]
    pub fn setup(&self) -> Setup {
        self.guard().setup().clone()
    }

    pub(crate) fn guard(&self) -> RwLockReadGuard<'_, Guard> {
        self.0.guard.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decisions without an outcome, found when the log was opened.
    #[must_use]
    pub fn pending(&self) -> &[u64] {
        &self.0.pending
    }

    /// What was found and done when the log was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        self.0.store.opened()
    }

    /// Answers one message. An internal fault is a denial.
    #[must_use]
    pub fn decide(&self, wire: &[u8], now: u64) -> Decision {
        guarded(|| {
            let step = self.begin(wire, now);
            self.finish(step)
        })
    }

    /// Answers a batch in order, with one sync. Its messages are verified on all cores.
    #[must_use]
    pub fn decide_many(&self, wires: &[&[u8]], now: u64) -> Vec<Decision> {
        let ready = self.0.store.health.check().and_then(|()| self.settle_unused(now, INDICES));
        if let Err(error) = ready {
            return wires.iter().map(|_| Decision::refused(unavailable(&error))).collect();
        }
        let guard = self.guard();
        let verify = |wire: &&[u8]| {
            catch_unwind(AssertUnwindSafe(|| guard.verify(wire, now)))
                .unwrap_or_else(|_| Err(fault()))
        };
        let judge = |verified| {
            catch_unwind(AssertUnwindSafe(|| self.judge(&guard, verified, now)))
                .unwrap_or_else(|_| Step::Done(Decision::refused(fault())))
        };
        // All are judged, in their order, before the first is waited for: one sync serves them.
        let steps: Vec<_> = parallel::map(wires, verify).into_iter().map(judge).collect();
        drop(guard);
        steps.into_iter().map(|step| guarded(|| self.finish(step))).collect()
    }

    fn begin(&self, wire: &[u8], now: u64) -> Step {
        let ready = self.0.store.health.check().and_then(|()| self.settle_unused(now, INDICES));
        if let Err(error) = ready {
            return Step::Done(Decision::refused(unavailable(&error)));
        }
        let guard = self.guard();
        self.judge(&guard, guard.verify(wire, now), now)
    }

    /// Judges what was verified and queues the lines; nothing is answered yet.
    fn judge(&self, guard: &Guard, verified: Result<Verified>, now: u64) -> Step {
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => return Step::Done(self.count(error, None, now)),
        };
        let mut counted = None;
        let queued = self.0.store.commit_nowait(now, |state, out| {
            let at = state.time();
            match guard.rule(&verified, state, now) {
                Ruling::Counted(error) => {
                    counted = Some(error.clone());
                    Judged { verdict: Err(error), at, before: 0, alerts: Vec::new() }
                }
                Ruling::Logged(lines, verdict, alerts) => {
                    let before = lines.len() - alerts.len() - 1;
                    out.extend(lines);
                    Judged { verdict, at, before: before as u64, alerts }
                }
            }
        });
        match (queued, counted) {
            (Err(error), _) => Step::Done(Decision::refused(unavailable(&error))),
            (Ok(_), Some(error)) => Step::Done(self.count(error, Some(verified), now)),
            (Ok(pending), None) => Step::Waiting(pending, verified),
        }
    }

    /// Waits for the shared sync; only then is there an answer.
    fn finish(&self, step: Step) -> Decision {
        let (pending, verified) = match step {
            Step::Done(decision) => return decision,
            Step::Waiting(pending, verified) => (pending, verified),
        };
        let committed = match pending.wait() {
            Ok(committed) => committed,
            Err(error) => return Decision::refused(unavailable(&error)),
        };
        let Judged { verdict, at, before, alerts } = committed.value;
        let entry = committed.first + before;
        if alerts.iter().any(|alert| alert.then == Then::Suspend)
            && let Err(error) = self.0.stop_withdrawn()
        {
            return Decision::refused(unavailable(&error));
        }
        // INVARIANT: a permit is made here and nowhere else, after the sync of its line.
        let permit =
            verdict.is_ok().then(|| Permit::new(Arc::clone(&self.0), verified.clone(), entry, at));
        Decision {
            entry: Some(entry),
            error: verdict.err(),
            verified: Some(verified),
            permit,
            alerts,
        }
    }

    /// Counts a refusal that leaves no line; once a minute the counts are a line.
    fn count(&self, error: Error, verified: Option<Verified>, now: u64) -> Decision {
        let due = {
            let mut counts = lock(&self.0.counts);
            if counts.by_reason.is_empty() {
                counts.since = now;
            }
            *counts.by_reason.entry(error.reason.code()).or_insert(0) += 1;
            now.saturating_sub(counts.since) >= SUMMARY_SECONDS
        };
        // A summary that cannot be written poisons the log; this answer is a refusal anyway.
        let _denied_either_way = if due { self.summarise(now) } else { Ok(()) };
        Decision { verified, ..Decision::refused(error) }
    }

    fn summarise(&self, now: u64) -> Outcome<()> {
        let counts = {
            let mut counts = lock(&self.0.counts);
            std::mem::take(&mut *counts)
        };
        if counts.by_reason.is_empty() || self.successor()?.is_some() {
            return Ok(());
        }
        let named = counts.by_reason.into_iter().map(|(reason, n)| (reason.to_owned(), n));
        self.append(now, &Summary { since: counts.since, counts: named.collect() }).map(drop)
    }

    /// Writes down the permits that died unopened, once there are so many.
    fn settle_unused(&self, now: u64, least: usize) -> Outcome<()> {
        let mut decisions = {
            let mut unused = lock(&self.0.unused);
            if unused.len() < least || self.successor()?.is_some() {
                return Ok(());
            }
            std::mem::take(&mut *unused)
        };
        decisions.sort_unstable();
        for some in decisions.chunks(INDICES) {
            self.append(now, &Unused { decisions: some.to_vec() })?;
        }
        Ok(())
    }

    fn append<E: Entry>(&self, now: u64, entry: &E) -> Outcome<u64> {
        self.0.append(now, Record::of(entry).map_err(LogError::Entry)?)
    }

    /// Signs the log as it is now.
    pub fn checkpoint(&self) -> Outcome<Checkpoint> {
        self.0.store.checkpoint()
    }

    /// Proves that an entry is in the log of a size; left out, of the newest.
    pub fn prove(&self, entry: u64, size: Option<u64>) -> Outcome<InclusionProof> {
        self.0.store.prove(entry, size)
    }

    /// The same for a line that somebody kept, also after its segment was removed.
    pub fn prove_line(&self, line: &[u8], size: Option<u64>) -> Outcome<InclusionProof> {
        self.0.store.prove_line(line, size)
    }

    /// Removes old segments, or tells which would go ([`Store::prune`]).
    pub fn prune(&self, before: u64, dry_run: bool, now: u64) -> Outcome<Pruned> {
        if dry_run {
            return self.0.store.prunable(before);
        }
        self.0.store.with(State::check_succeeded)?.map_err(LogError::Entry)?;
        self.0.store.prune(before, now)
    }

    /// Proves that a smaller log is the beginning of a larger one.
    pub fn consistency(&self, old: u64, new: Option<u64>) -> Outcome<ConsistencyProof> {
        let new = new.map_or_else(|| self.size(), Ok)?;
        self.0.store.consistency(old, new)
    }

    /// The bytes of one line.
    pub fn read(&self, entry: u64) -> Outcome<Vec<u8>> {
        self.0.store.read(entry)
    }

    /// Lines in the log.
    pub fn size(&self) -> Outcome<u64> {
        self.0.store.position().map(|(size, _)| size)
    }

    /// Writes what is counted, signs a last checkpoint and releases the directory.
    pub fn close(&self, now: u64) -> Outcome<()> {
        self.0.store.health.check_process()?;
        let told = match self.0.store.health.check() {
            Ok(()) => self.summarise(now).and(self.settle_unused(now, 1)),
            Err(_) => Ok(()), // closed before, or failed: the store says which
        };
        self.0.store.close().and(told)
    }
}

/// Index of a commit's last line.
pub(crate) const fn last<R>(committed: &Committed<R>) -> u64 {
    (committed.first + committed.entries).saturating_sub(1)
}

impl Inner {
    pub(crate) fn append(&self, now: u64, record: Record) -> Outcome<u64> {
        let done = self
            .store
            .commit(now, |state, out| state.check_succeeded().map(|()| out.push(record)))?;
        let index = last(&done);
        done.value.map(|()| index).map_err(LogError::Entry)
    }

    /// The second that counts for a permit, and a chain that is still trusted then.
    pub(crate) fn check_alive(&self, verified: &Verified, now: u64) -> Outcome<Result<u64>> {
        self.store.with(|state| {
            state.check_succeeded()?;
            let now = effective(state, now)?;
            verified.chain().token().check_times(now)?;
            verified.message().check_times(now)?;
            state.check_withdrawn(verified.chain().token())?;
            verified.check_attested(state, now)?;
            Ok(now)
        })
    }

    /// Whether trust in the chain stands.
    pub(crate) fn check_trusted(&self, verified: &Verified) -> Outcome<Result<()>> {
        self.store.with(|state| {
            state.check_succeeded()?;
            state.check_withdrawn(verified.chain().token())
        })
    }

    /// The number of a new watch.
    pub(crate) fn next_watch(&self) -> u64 {
        self.watches.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn running(&self) -> MutexGuard<'_, BTreeMap<u64, (Verified, Stop)>> {
        lock(&self.running)
    }

    pub(crate) fn never_used(&self, decision: u64) {
        lock(&self.unused).push(decision);
    }
}

/// A lock over something that is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn guarded(answer: impl FnOnce() -> Decision) -> Decision {
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| Decision::refused(fault()))
}

fn fault() -> Error {
    Error::new(Reason::Internal, "a fault inside the gate; nothing was allowed")
}

pub(crate) fn unavailable(error: &LogError) -> Error {
    Error::new(Reason::LogUnavailable, error.to_string())
}
