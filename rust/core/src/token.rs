//! A token: a chain of signed links, root first (spec/token.md).
//!
//! There is no unsigned token. Decoding checks form alone; [`Token::authenticate`] walks the
//! chain to a trusted root, and [`Token::narrowing`] compares every link with its parent.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::caveat::{Caveats, HostRule, Limits, Request, reach};
use crate::error::{Axis, Error, Reason, Result};
use crate::key::{AgentId, Hash256, Identity};
use crate::limits;
use crate::pattern::Resource;
use crate::wire::{Kind, Reader, Signed, Writer};

mod claims;

pub use claims::Claims;

/// What the text form starts with.
const PREFIX: &str = "moat1.";

/// One signed link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    bytes: Vec<u8>,
    signed: Signed,
    claims: Claims,
}

impl Link {
    /// Signs claims. That they are narrower is the caller's courtesy and the gate's duty.
    pub(crate) fn sign(signer: &Identity, claims: Claims) -> Result<Self> {
        let (signed, bytes) = Signed::seal(Kind::Link, signer, &claims.encode());
        if bytes.len() > limits::LINK_BYTES {
            return Err(too_large("the link", bytes.len(), limits::LINK_BYTES));
        }
        Ok(Self { bytes, signed, claims })
    }

    /// Reads one link and requires its only spelling.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::LINK_BYTES {
            return Err(too_large("a link", bytes.len(), limits::LINK_BYTES));
        }
        let signed = Signed::decode(Kind::Link, bytes)?;
        let claims = Claims::decode(signed.payload())?;
        Ok(Self { bytes: bytes.to_vec(), signed, claims })
    }

    /// The `COSE_Sign1` bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the `Sig_structure`.
    #[must_use]
    pub const fn id(&self) -> Hash256 {
        self.signed.id()
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// A chain of links, from a root's to the one whose holder may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    bytes: Vec<u8>,
    links: Vec<Link>,
}

/// What the first or a further link is to say beside its caveats.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Who may use it.
    pub holder: AgentId,
    /// The second it is made in.
    pub now: u64,
    /// 16 random bytes.
    pub nonce: [u8; 16],
}

impl Token {
    /// Signs a first link.
    pub fn issue(root: &Identity, stamp: Stamp, caveats: Caveats) -> Result<Self> {
        let claims = Claims {
            issuer: root.id(),
            holder: stamp.holder,
            issued: stamp.now,
            nonce: stamp.nonce,
            parent: None,
            index: 0,
            caveats,
        };
        Self::from_links(vec![Link::sign(root, claims)?])
    }

    /// Signs a further link, refusing early what every gate would refuse.
    pub fn attenuate(&self, issuer: &Identity, stamp: Stamp, caveats: Caveats) -> Result<Self> {
        let last = self.leaf()?;
        if issuer.id() != last.claims.holder {
            let detail = "only the token's holder may attenuate it";
            return Err(Error::new(Reason::WrongHolder, detail));
        }
        let at = self.links.len();
        last.claims.caveats.covers(&caveats).map_err(|error| error.at(at))?;
        let claims = Claims {
            issuer: issuer.id(),
            holder: stamp.holder,
            issued: stamp.now,
            nonce: stamp.nonce,
            parent: Some(last.id()),
            index: at as u64,
            caveats,
        };
        let mut links = self.links.clone();
        links.push(Link::sign(issuer, claims)?);
        Self::from_links(links)
    }

    pub(crate) fn from_links(links: Vec<Link>) -> Result<Self> {
        if links.len() > limits::CHAIN_LINKS {
            let detail = format!("{} links, at most {}", links.len(), limits::CHAIN_LINKS);
            return Err(Error::new(Reason::TooLarge, detail).on(Axis::Depth));
        }
        let bytes = encode(&links);
        if bytes.len() > limits::CHAIN_BYTES {
            return Err(too_large("the token", bytes.len(), limits::CHAIN_BYTES));
        }
        Ok(Self { bytes, links })
    }

    /// Reads a token; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::CHAIN_BYTES {
            return Err(too_large("the token", bytes.len(), limits::CHAIN_BYTES));
        }
        let mut reader = Reader::new(bytes);
        let size = reader.array(limits::CHAIN_LINKS, "the token")?;
        if size == 0 {
            return Err(Error::malformed("the token has no links"));
        }
        let mut links = Vec::with_capacity(size);
        for at in 0..size {
            let link = reader.bytes("a link").and_then(Link::decode);
            links.push(link.map_err(|error| error.at(at))?);
        }
        reader.end()?;
        crate::wire::same_bytes(&encode(&links), bytes)?;
        Ok(Self { bytes: bytes.to_vec(), links })
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::malformed("not a token: expected `moat1.` and base64url");
        let body = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        if body.len() > limits::CHAIN_BYTES * 2 {
            return Err(too_large("the token", body.len(), limits::CHAIN_BYTES));
        }
        Self::decode(&URL_SAFE_NO_PAD.decode(body).map_err(|_| wrong())?)
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&self.bytes))
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The links, root's first; never empty.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The last link, whose holder may use the token.
    pub fn leaf(&self) -> Result<&Link> {
        self.links.last().ok_or_else(|| Error::new(Reason::Internal, "a token without links"))
    }

    /// Refuses a chain that a stranger began, before anything costly is done for it.
    pub fn check_root(&self, roots: &[AgentId]) -> Result<()> {
        match self.links.first() {
            Some(first) => first.claims.follows(None, 0, roots).map_err(|error| error.at(0)),
            None => Err(Error::malformed("the token has no links")),
        }
    }

    /// Walks the chain to a trusted root: order, parents, then signatures, root first.
    pub fn authenticate(&self, roots: &[AgentId]) -> Result<()> {
        let mut before: Option<&Link> = None;
        for (at, link) in self.links.iter().enumerate() {
            link.claims.follows(before, at, roots).map_err(|error| error.at(at))?;
            before = Some(link);
        }
        for (at, link) in self.links.iter().enumerate() {
            link.signed.verify(&link.claims.issuer).map_err(|error| error.at(at))?;
        }
        Ok(())
    }

    /// Times of every link, asked anew each time: no skew for an expiry.
    pub fn check_times(&self, now: u64) -> Result<()> {
        for (at, link) in self.links.iter().enumerate() {
            link.claims.check_times(now).map_err(|error| error.at(at))?;
        }
        Ok(())
    }

    /// Whether every link that is bound to a gate is bound to this one.
    pub fn check_audience(&self, gate: &AgentId) -> Result<()> {
        let other = |link: &Link| link.claims.caveats.audience.is_some_and(|bound| bound != *gate);
        match self.links.iter().position(other) {
            None => Ok(()),
            Some(at) => {
                let detail = "the token is bound to another gate";
                Err(Error::new(Reason::WrongGate, detail).at(at).on(Axis::Audience))
            }
        }
    }

    /// Compares every link with its parent.
    pub fn narrowing(&self) -> Result<()> {
        for (at, pair) in (1..).zip(self.links.windows(2)) {
            if let [parent, child] = pair {
                let covered = parent.claims.caveats.covers(&child.claims.caveats);
                covered.map_err(|error| error.at(at))?;
            }
        }
        Ok(())
    }

    /// All that a gate asks of a token alone, in a gate's order.
    pub fn verify(&self, roots: &[AgentId], gate: Option<&AgentId>, now: u64) -> Result<()> {
        self.check_root(roots)?;
        self.check_times(now)?;
        gate.map_or(Ok(()), |gate| self.check_audience(gate))?;
        self.authenticate(roots)?;
        self.narrowing()
    }

    /// Authority is the conjunction of every link, compared with its parent or not.
    pub fn permits(&self, request: &Request<'_>) -> Result<()> {
        for (at, link) in self.links.iter().enumerate() {
            link.claims.caveats.permits(request).map_err(|error| error.at(at))?;
        }
        Ok(())
    }

    /// The meet of all links' limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let mut all = self.links.iter().map(|link| &link.claims.caveats.limits);
        let first = all.next().cloned().unwrap_or_default();
        all.fold(first, |meet, limits| meet.meet(limits))
    }

    /// The host rules that permit this method of this URL, link by link, root's first; no link
    /// without one. A connection may go to an address where every link has a rule that
    /// [admits](HostRule::admits) it.
    pub fn reach(&self, method: &str, url: &Resource) -> Result<Vec<Vec<&HostRule>>> {
        let links = self.links.iter().map(|link| &link.claims.caveats.limits.hosts).enumerate();
        links.map(|(at, rules)| reach(rules, method, url).map_err(|e| e.at(at))).collect()
    }

    /// The first second at which some link is dead.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.links.iter().map(|link| link.claims.caveats.expires).min().unwrap_or(0)
    }
}

fn encode(links: &[Link]) -> Vec<u8> {
    let size = links.iter().map(|link| link.bytes.len() + 3).sum::<usize>();
    let mut out = Writer::with_capacity(size + 1);
    out.array(links.len());
    for link in links {
        out.bytes(&link.bytes);
    }
    out.finish()
}

fn too_large(what: &str, size: usize, most: usize) -> Error {
    Error::new(Reason::TooLarge, format!("{what} has {size} bytes, at most {most}"))
}

#[cfg(test)]
mod tests;
