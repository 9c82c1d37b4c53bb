//! A log as a gate with many agents writes it, in as little time as that takes: the first answer
//! to each agent is a real one, those after it repeat it under new numbers.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use moat_core::audit::Line;
use moat_core::entry::{Decision, Entry, Outcome};
use moat_core::key::Identity;
use moat_core::pattern::Resource;
use moat_core::policy::Policy;
use moat_core::state::State;
use moat_log::{End, Gate, Options, Record, SEGMENT_BYTES, Store};

use crate::world::{NOW, chain_of, heir, identity, seal_by, twenty_rules};

/// Agents, each at the end of a chain of its own.
const AGENTS: u64 = 1000;
/// Links of a chain.
const LINKS: u64 = 3;
/// Decisions of one commit.
const TOGETHER: usize = 500;
/// Decisions within a second: the fewest with which the chains outlive ten million entries.
const A_SECOND: usize = 2000;

/// The log and what its next lines repeat.
pub(crate) struct History {
    options: Options,
    repeated: RefCell<Repeated>,
}

/// The newest decision about each agent, and how many there were since the first ones.
#[derive(Default)]
struct Repeated {
    decisions: Vec<Decision>,
    made: usize,
}

impl History {
    /// A gate with twenty rules answers one message of each agent.
    pub(crate) fn begin(log: PathBuf, gate: Identity) -> Self {
        let options = Options {
            anchor: Some(log.with_file_name("anchor")),
            folder: log,
            gate,
            now: NOW,
            accept_restored: false,
            segment_bytes: SEGMENT_BYTES,
        };
        let history = Self { options, repeated: RefCell::default() };
        let gate = history.gate();
        let [(_, rules), _] = twenty_rules();
        gate.arm(Policy::CHAIN_ONLY, vec![identity(0).id()], Vec::new(), rules, NOW).unwrap();
        let answers = (0..AGENTS).map(|agent| {
            let heirs: Vec<_> = (0..LINKS).map(|n| heir(agent * LINKS + n)).collect();
            let wire = seal_by(heirs.last().unwrap(), &gate.id(), &chain_of(&heirs), 0);
            let permit = gate.decide(&wire, NOW).permit.unwrap();
            permit.open(NOW).unwrap();
            let (status, result) = ("ok".to_owned(), Some([7; 32]));
            let (fuel, detail) = (Some(12_345), None);
            permit.close(End { status, result, fuel, detail, deterministic: false }, NOW).unwrap();
            let line = gate.read(permit.entry()).unwrap();
            Decision::from_body(Line::parse(&line).unwrap().body).unwrap()
        });
        history.repeated.borrow_mut().decisions = answers.collect();
        gate.close(NOW).unwrap();
        history
    }

    fn gate(&self) -> Gate {
        let Options { folder, gate, anchor, .. } = &self.options;
        let now = self.repeated.borrow().now();
        Gate::open(folder, gate, anchor.as_deref(), false, SEGMENT_BYTES, now).unwrap()
    }

    /// Goes on, agent after agent, until there are so many entries; every decision has its outcome.
    pub(crate) fn grow(&self, entries: u64) {
        let mut repeated = self.repeated.borrow_mut();
        let options = Options { now: repeated.now(), ..self.options.clone() };
        let store = Store::open(options, State::default()).unwrap();
        let mut outcomes = Vec::new();
        while store.position().unwrap().0 < entries {
            let before = outcomes.len() as u64;
            let now = repeated.now();
            let more = (0..TOGETHER).map(|_| repeated.next());
            let done = store.commit(now, |_, out| out.extend(outcomes.drain(..).chain(more)));
            let first = done.unwrap().first + before;
            outcomes.extend((first..first + TOGETHER as u64).map(outcome));
        }
        store.commit(repeated.now(), |_, out| out.extend(outcomes)).unwrap();
        store.close().unwrap();
    }

    /// Nanoseconds until a gate has its state again.
    pub(crate) fn open(&self) -> f64 {
        let start = Instant::now();
        let gate = self.gate();
        let taken = start.elapsed().as_secs_f64() * 1e9;
        gate.close(self.repeated.borrow().now()).unwrap();
        taken
    }
}

impl Repeated {
    /// The second that it is by now.
    fn now(&self) -> u64 {
        NOW + (self.made / A_SECOND) as u64
    }

    /// The next decision, about the agent whose turn it is.
    fn next(&mut self) -> Record {
        let (turn, expires) = (self.made % self.decisions.len(), self.now() + 60);
        self.made += 1;
        let decision = &mut self.decisions[turn];
        decision.number += 1;
        decision.message = format!("{:064x}", self.made);
        decision.expires = expires;
        let resource = Resource::parse(&decision.resource).unwrap();
        Record::decision(decision.clone(), &resource).unwrap()
    }
}

fn outcome(decision: u64) -> Record {
    let (status, result) = ("ok".to_owned(), Some(hex::encode([7; 32])));
    let (fuel, detail) = (Some(12_345), None);
    let outcome = Outcome { decision, status, result, fuel, detail, deterministic: false };
    Record::of(&outcome).unwrap()
}
