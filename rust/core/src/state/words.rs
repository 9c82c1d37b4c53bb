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

    /// Refuses words of which none is news, and more than there is room for.
    pub(super) fn check(&self, words: impl Iterator<Item = Vouched>) -> Result<()> {
        let (mut news, mut more) = (false, 0);
        for word in words {
            let known = self.0.get(&about(&word));
            news |= known.is_none_or(|(issued, _)| word.issued > *issued);
            more += usize::from(known.is_none());
        }
        if !news {
            let detail = "nothing in this statement is newer than what was taken up before";
            return Err(Error::new(Reason::Replayed, detail));
        }
        if self.0.len() + more > limits::VOUCHED {
            let detail = format!(
                "there is no room for {more} more words about digests, at most {} are kept",
                limits::VOUCHED
            );
            return Err(Error::new(Reason::TooLarge, detail));
        }
        Ok(())
    }

    /// Takes in a word, unless a newer one of the same signer stands.
    pub(super) fn add(&mut self, word: &Vouched) {
        let said = (word.issued, word.statement);
        let kept = self.0.entry(about(word)).or_insert(said);
        if word.issued > kept.0 {
            *kept = said;
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
