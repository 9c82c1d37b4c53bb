//! What is said to a gate besides messages: registrations, attestations, and words that withdraw
//! trust, pause it or take that back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use moat_core::Result;
use moat_core::audit::Former;
use moat_core::control::Target;
use moat_core::key::AgentId;
use moat_core::registration::Role;
use moat_core::registry::Agent;
use moat_core::state::State;
use moat_core::token::Token;

use crate::gate::{Gate, Inner, Outcome, last};

impl Gate {
    /// Takes up a control statement; the index of its line. After a fault inside the gate, here
    /// and below, nothing is accepted any more.
    pub fn control(&self, bytes: &[u8], now: u64) -> Outcome<Result<u64>> {
        self.guarded(|| self.take_control(bytes, now))
    }

    fn take_control(&self, bytes: &[u8], now: u64) -> Outcome<Result<u64>> {
        self.0.store.health.check()?;
        let guard = self.guard();
        let control = match guard.verify_control(bytes, now) {
            Ok(control) => control,
            Err(error) => return Ok(Err(error)),
        };
        let ruled = self.0.store.commit(now, |state, out| {
            let line = guard.rule_control(&control, state, now);
            line.map(|line| out.push(line))
        })?;
        let index = last(&ruled);
        self.0.stop_withdrawn()?;
        Ok(ruled.value.map(|()| index))
    }

    /// Whether any standing revocation names the target.
    pub fn is_revoked(&self, target: &Target) -> Outcome<bool> {
        self.0.store.with(|state| state.is_revoked(target))
    }

    /// Whether any standing suspension names the target.
    pub fn is_suspended(&self, target: &Target) -> Outcome<bool> {
        self.0.store.with(|state| state.is_suspended(target))
    }

    /// Refuses a token with a revoked or suspended agent or link, as a decision would.
    pub fn check_withdrawn(&self, token: &Token) -> Outcome<Result<()>> {
        self.0.store.with(|state| state.check_withdrawn(token))
    }

    /// Takes up a registration or a rotation of a key; the index of its line. The new key of a
    /// root is trusted from then on beside the one it comes after. With the new key of the gate
    /// itself it has handed over: it writes and allows nothing any more ([`crate::hand_on`]).
    pub fn register(&self, bytes: &[u8], now: u64) -> Outcome<Result<u64>> {
        self.guarded(|| self.take_registration(bytes, now))
    }

    fn take_registration(&self, bytes: &[u8], now: u64) -> Outcome<Result<u64>> {
        self.0.store.health.check()?;
        let guard = self.guard();
        let genuine = match guard.verify_registration(bytes, now) {
            Ok(genuine) => genuine,
            Err(error) => return Ok(Err(error)),
        };
        let ruled = self.0.store.commit(now, |state, out| {
            let line = guard.rule_registration(&genuine, state, now);
            line.map(|line| out.push(line))
        })?;
        drop(guard);
        let index = last(&ruled);
        match (&ruled.value, genuine.registration().role) {
            (Ok(()), Role::Root) => self.enforce(|setup| setup, now)?,
            // It may have handed over: what it permitted ends with it.
            (Ok(()), Role::Gate) => self.0.stop_withdrawn()?,
            _ => (),
        }
        Ok(ruled.value.map(|()| index))
    }

    /// Who goes on in the place of this gate, once it has handed over.
    pub fn successor(&self) -> Outcome<Option<AgentId>> {
        self.0.store.with(State::successor)
    }

    /// The log that this one goes on after.
    pub fn former(&self) -> Outcome<Option<Former>> {
        self.0.store.with(|state| state.former().copied())
    }

    /// Takes up a statement that somebody vouches for something, as far as these keys have
    /// signed it; the index of its line.
    pub fn attest(&self, envelope: &[u8], keys: &[AgentId], now: u64) -> Outcome<Result<u64>> {
        self.guarded(|| self.take_attestation(envelope, keys, now))
    }

    fn take_attestation(
        &self,
        envelope: &[u8],
        keys: &[AgentId],
        now: u64,
    ) -> Outcome<Result<u64>> {
        self.0.store.health.check()?;
        let guard = self.guard();
        let attestation = match guard.verify_attestation(envelope, keys, now) {
            Ok(attestation) => attestation,
            Err(error) => return Ok(Err(error)),
        };
        let ruled = self.0.store.commit(now, |state, out| {
            let line = guard.rule_attestation(&attestation, state, now);
            line.map(|record| out.push(record))
        })?;
        let index = last(&ruled);
        Ok(ruled.value.map(|()| index))
    }

    /// Does what was said; after a fault nothing is accepted any more, and what runs is stopped.
    fn guarded<T>(&self, told: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        catch_unwind(AssertUnwindSafe(told)).unwrap_or_else(|_| {
            let error = self.0.store.health.fail("a fault happened inside the gate");
            self.0.stop_withdrawn().and(Err(error))
        })
    }

    /// Everybody who is registered, by name.
    pub fn agents(&self) -> Outcome<Vec<Agent>> {
        self.0.store.with(|state| state.registry().list().cloned().collect())
    }

    /// Who has this key now; none for a former key and for one that is not registered.
    pub fn agent(&self, key: &AgentId) -> Outcome<Option<String>> {
        self.0.store.with(|state| {
            let agent = state.registry().agent_of(key).filter(|agent| agent.current() == *key);
            agent.map(|agent| agent.name().to_owned())
        })
    }

    /// The present key of a name.
    pub fn named(&self, name: &str) -> Outcome<Option<AgentId>> {
        self.0.store.with(|state| state.registry().current(name))
    }
}

impl Inner {
    /// Tells effects under way that trust in them was withdrawn or paused, or cannot be asked
    /// about any more. Where one cannot be told, nothing is accepted from then on.
    pub(crate) fn stop_withdrawn(&self) -> Outcome<()> {
        let mut told = Ok(());
        for (verified, stop) in self.running().values() {
            if matches!(self.check_trusted(verified), Ok(Ok(()))) {
                continue;
            }
            if catch_unwind(AssertUnwindSafe(|| stop())).is_err() {
                told = Err(self.store.health.fail("what runs could not be told to stop"));
            }
        }
        told
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use moat_core::Reason;
    use moat_core::key::Identity;

    use super::*;
    use crate::{LogError, SEGMENT_BYTES};

    #[test]
    fn a_fault_while_something_is_said_to_the_gate_unwinds_no_further_and_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let key = Identity::from_seed("gate", &[1; 32]).unwrap();
        let log = folder.path().join("log");
        let gate = Gate::open(&log, &key, None, false, SEGMENT_BYTES, 1_800_000_000).unwrap();
        let fault = gate.guarded::<()>(|| {
            gate.0.store.commit(1_800_000_000, |_, _| panic!("in a ruling"))?;
            Ok(())
        });
        assert!(matches!(fault, Err(LogError::Unavailable { .. })), "{fault:?}");
        let denied = gate.decide(b"", 1_800_000_000).error.unwrap();
        assert_eq!(denied.reason, Reason::LogUnavailable);
        for said in [
            gate.control(b"", 1_800_000_000),
            gate.register(b"", 1_800_000_000),
            gate.attest(b"", &[], 1_800_000_000),
        ] {
            assert!(matches!(said, Err(LogError::Unavailable { .. })), "{said:?}");
        }
    }
}
