//! What the fuzz targets share: who is who, and how bytes get past the signatures.
//!
//! A mutated signature never verifies, so behind it nothing would be reached. Each target takes
//! its input twice: as received bytes, and as a *draft*, the same object without its envelopes,
//! which is signed here by whoever it names. In a draft [`BLANK`] stands for a hash of bytes that
//! are known only once they are signed.

use std::sync::OnceLock;

use minicbor::{Decoder, Encoder};
use moat_core::entry::Record;
use moat_core::guard::{Guard, Setup};
use moat_core::key::{AgentId, Hash256, Identity, sha256};
use moat_core::monitor::Rules;
use moat_core::policy::Policy;
use moat_core::state::State;
use moat_core::token::Token;
use moat_core::wire::{Kind, Signed};
use serde_json::Value;

/// The second at which everything is asked: that of most vectors.
pub const NOW: u64 = 1_750_000_000;
/// Stands in a draft for the hash of what comes before it.
pub const BLANK: Hash256 = [0xAA; 32];

/// The keys that the vectors were made with, and what each of them is.
pub struct World {
    keys: Vec<Identity>,
    /// The gate's own key.
    pub gate: Identity,
    /// The key of the gate whose log the vectors hold.
    pub log: Identity,
    root: Identity,
    operator: Identity,
}

/// Read once from the vectors.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let file = json(include_str!("../../spec/vectors/control.json"));
        let log = json(include_str!("../../spec/vectors/audit.json"));
        let known = file["keys"].as_object().expect("the vectors have keys");
        let role = |value: &Value| key(&known[value.as_str().expect("a role has a name")]);
        World {
            keys: known.values().map(key).collect(),
            gate: role(&file["gate"]),
            log: key(&log["gate"]),
            root: role(&file["roots"][0]),
            operator: role(&file["operators"][0]),
        }
    })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn key(of: &Value) -> Identity {
    let mut seed = [0; 32];
    let digits = of["seed"].as_str().expect("a key has a seed");
    hex::decode_to_slice(digits, &mut seed).expect("a seed is 32 bytes");
    Identity::from_seed("fuzz", &seed).expect("a seed makes a key")
}

impl World {
    /// A gate that has seen nothing.
    pub fn guard(&self) -> Guard {
        Guard::new(Setup {
            gate: self.gate.id(),
            roots: vec![self.root.id()],
            operators: vec![self.operator.id()],
            policy: Policy::CHAIN_ONLY,
            monitor: Rules::default(),
        })
    }

    /// The trusted roots.
    pub fn roots(&self) -> [AgentId; 1] {
        [self.root.id()]
    }

    /// Every key that there is, each once.
    pub fn ids(&self) -> Vec<AgentId> {
        let mut ids: Vec<_> =
            self.keys.iter().chain([&self.gate, &self.log]).map(Identity::id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whose key this is, if it is one of ours.
    fn holding(&self, id: AgentId) -> Option<&Identity> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// Every key that is named, as text or as bytes.
    pub fn named<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a Identity> {
        self.keys.iter().filter(|key| {
            find(bytes, key.id().as_bytes()).is_some()
                || find(bytes, key.id().to_string().as_bytes()).is_some()
        })
    }

    /// Signs the links of a draft, an array of claims: each by the first key that its text
    /// names as the issuer.
    pub fn sign_token(&self, draft: &[u8]) -> Option<Vec<u8>> {
        let (mut links, mut before) = (Vec::new(), BLANK);
        for claims in byte_strings(draft)? {
            let claims = fill(claims, before);
            let issuer = self
                .keys
                .iter()
                .find(|key| find(&claims, key.id().to_string().as_bytes()).is_some());
            let (signed, link) = Signed::seal(Kind::Link, issuer.unwrap_or(&self.root), &claims);
            before = signed.id();
            links.push(link);
        }
        Some(array(&links))
    }

    /// Signs a draft of a message, `[token, request]`, as the holder of the token's last link.
    /// The token may be a draft too.
    pub fn sign_message(&self, draft: &[u8]) -> Option<Vec<u8>> {
        let parts = byte_strings(draft)?;
        let [token, request] = parts.as_slice() else { return None };
        let ready = Token::decode(token).is_ok();
        let token = if ready { token.to_vec() } else { self.sign_token(token)? };
        let holder = Token::decode(&token).ok()?.leaf().ok()?.claims().holder;
        let sender = self.holding(holder).unwrap_or(&self.root);
        let request = fill(request, sha256(&token));
        let (_, request) = Signed::seal(Kind::Message, sender, &request);
        Some(array(&[token, request]))
    }
}

/// What is logged can be read again: every line is taken in by the state it was made for, which
/// is then the same as one that was told what the line says.
pub fn take_in(state: &mut State, lines: &[Record]) {
    let mut told = state.clone();
    for (index, record) in (0..).zip(lines) {
        let (kind, body) = (record.kind(), record.body());
        let read = state.apply(index, NOW, kind, body);
        assert!(read.is_ok(), "a `{kind}` line that the gate wrote is refused: {read:?}");
        assert_eq!(told.take(index, NOW, record), Ok(()));
    }
    assert_eq!(told.snapshot(), state.snapshot(), "told and read are not the same");
}

fn byte_strings(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut decoder = Decoder::new(bytes);
    // One more than the most links, so that this bound is reached as well.
    let size = decoder.array().ok()?.filter(|size| *size <= 17)?;
    (0..size).map(|_| decoder.bytes().ok()).collect()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.array(items.len() as u64).expect("a vector takes all");
    for item in items {
        encoder.bytes(item).expect("a vector takes all");
    }
    encoder.into_writer()
}

/// Puts a hash where the first [`BLANK`] is.
fn fill(draft: &[u8], hash: Hash256) -> Vec<u8> {
    let mut filled = draft.to_vec();
    if let Some(at) = find(draft, &BLANK) {
        filled[at..at + hash.len()].copy_from_slice(&hash);
    }
    filled
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
