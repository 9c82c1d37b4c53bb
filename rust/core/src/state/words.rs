//! What signers have said about digests: the newest word of each about each.

use std::collections::BTreeMap;

use crate::attest::{Kind, Predicate, Vouched};
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits;

type About = (Hash256, Kind, Predicate, AgentId);

/// One word for each digest, kind, predicate and signer.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(BTreeMap<About, (u64, Hash256)>);

impl Words {
    /// The newest word of a signer.
    pub(super) fn get(
        &self,
        subject: &Hash256,
        kind: Kind,
        predicate: Predicate,
        signer: &AgentId,
    ) -> Option<Vouched> {
        let about = (*subject, kind, predicate, *signer);
        self.0.get(&about).map(|word| vouched(&about, word))
    }

    /// Refuses words of which none is news.
    pub(super) fn check(&self, mut words: impl Iterator<Item = Vouched>) -> Result<()> {
        let newer = |word: &Vouched| {
            self.0.get(&about(word)).is_none_or(|(issued, _)| word.issued > *issued)
        };
        if words.any(|word| newer(&word)) {
            return Ok(());
        }
        let detail = "nothing in this statement is newer than what was taken up before";
        Err(Error::new(Reason::Replayed, detail))
    }

    /// Takes in words, unless newer ones of the same signers stand. Where there are too many, the
    /// oldest are forgotten: what they vouched for does not run any more.
    pub(super) fn add(&mut self, words: impl Iterator<Item = Vouched>) {
        for word in words {
            let said = (word.issued, word.statement);
            let kept = self.0.entry(about(&word)).or_insert(said);
            if word.issued > kept.0 {
                *kept = said;
            }
        }
        let excess = self.0.len().saturating_sub(limits::VOUCHED);
        if excess > 0 {
            let mut oldest: Vec<_> = self.0.iter().map(|(about, said)| (said.0, *about)).collect();
            oldest.sort_unstable();
            for (_, about) in oldest.iter().take(excess) {
                self.0.remove(about);
            }
        }
    }

    /// All of them, by digest.
    pub(super) fn all(&self) -> impl Iterator<Item = Vouched> {
        self.0.iter().map(|(about, word)| vouched(about, word))
    }
}

const fn about(word: &Vouched) -> About {
    (word.subject, word.kind, word.predicate, word.signer)
}

const fn vouched(about: &About, word: &(u64, Hash256)) -> Vouched {
    let (subject, kind, predicate, signer) = *about;
    Vouched { subject, kind, predicate, signer, issued: word.0, statement: word.1 }
}
