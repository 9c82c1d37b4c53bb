//! The states of a machine, by number.

use super::ready::{Matcher, check_name, wrong};
use super::rule::{Machine, Transition};
use crate::error::Result;
use crate::limits;

/// States, the initial one first, and the transitions between them.
#[derive(Clone, Debug)]
pub(super) struct States {
    names: Vec<String>,
    /// Which transitions leave a state, a bit for each.
    from: Vec<u64>,
    transitions: Vec<(Matcher, usize)>,
}

impl States {
    pub(super) fn new(machine: &mut Machine) -> Result<Self> {
        let Machine { initial, transitions } = machine;
        let count = transitions.len();
        if count == 0 || count > limits::RULE_TRANSITIONS {
            let text = format!("there are {count}, not 1 to {}", limits::RULE_TRANSITIONS);
            return wrong("machine.transitions", &text);
        }
        check_name("machine.initial", initial)?;
        let mut states =
            Self { names: vec![initial.clone()], from: vec![0], transitions: Vec::new() };
        for transition in transitions.iter() {
            states.name(transition)?;
        }
        for (at, transition) in transitions.iter_mut().enumerate() {
            states.add(at, transition)?;
        }
        Ok(states)
    }

    /// Every state that is reached has a number; one that is only left is a slip of the pen.
    fn name(&mut self, Transition { to, .. }: &Transition) -> Result<()> {
        check_name("machine.transitions.to", to)?;
        if self.named(to).is_none() {
            self.names.push(to.clone());
            self.from.push(0);
        }
        Ok(())
    }

    fn add(&mut self, at: usize, transition: &mut Transition) -> Result<()> {
        let key = format!("machine.transitions[{at}].match");
        if transition.on.verdict.denied() {
            return wrong(&format!("{key}.verdict"), "a machine moves by what is allowed");
        }
        check_name("machine.transitions.from", &transition.from)?;
        let (from, to) = (self.named(&transition.from), self.named(&transition.to));
        let (Some((_, from)), Some(to)) =
            (from.and_then(|n| self.from.get_mut(n).map(|f| (n, f))), to)
        else {
            let text = format!("no transition reaches `{}`", transition.from);
            return wrong("machine.transitions.from", &text);
        };
        *from |= 1 << at;
        self.transitions.push((Matcher::new(&mut transition.on, &key)?, to));
        Ok(())
    }

    pub(super) fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.transitions.iter().map(|(matcher, _)| matcher)
    }

    /// The state after a request that took these transitions' matches; none where there is none.
    pub(super) fn next(&self, state: usize, word: u64) -> Option<usize> {
        let open = word & self.from.get(state)?;
        let first = open.trailing_zeros() as usize;
        self.transitions.get(first).map(|(_, to)| *to)
    }

    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|one| one == name)
    }

    pub(super) fn name_of(&self, state: usize) -> &str {
        self.names.get(state).map_or("", String::as_str)
    }
}
