//! Signed statements that give a key a name, or a name its next key (spec/registry.md).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::entry::Registered;
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Identity, check_name};
use crate::limits;
use crate::message::check_fresh;
use crate::wire::{Kind, Reader, Signed, Writer, once, required, same_bytes};

/// What a key is for. It is part of what is signed: a proof for one role is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Holds tokens and sends messages.
    Agent,
    /// Issues first links.
    Root,
    /// Signs a log.
    Gate,
}

impl Role {
    /// The word on the wire and in the log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Root => "root",
            Self::Gate => "gate",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "agent" => Ok(Self::Agent),
            "root" => Ok(Self::Root),
            "gate" => Ok(Self::Gate),
            _ => Err(Error::malformed(format!(
                "`{}` is not `agent`, `root` or `gate`",
                word.escape_debug()
            ))),
        }
    }
}

/// What is said about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the key is for.
    pub role: Role,
    /// 1 to 63 of `a-z 0-9 . _ -`, letter or digit first.
    pub name: String,
    /// The gate it is for.
    pub gate: AgentId,
    /// The new key.
    pub key: AgentId,
    /// The key that it replaces; none where the name is new.
    pub previous: Option<AgentId>,
    /// 16 random bytes.
    pub nonce: [u8; 16],
    /// The second it was signed in.
    pub issued: u64,
    /// First second in which it is stale.
    pub expires: u64,
}

impl Registration {
    /// Signs it with one of its keys, which proves possession of that key.
    pub fn sign(signer: &Identity, registration: &Self) -> Result<Vec<u8>> {
        registration.check()?;
        if !registration.signers().any(|key| key == signer.id()) {
            return Err(Error::malformed("the registration names neither this key as new nor old"));
        }
        Ok(Signed::seal(Kind::Registration, signer, &registration.encode()).1)
    }

    /// Refuses one that is too old, too long-lived or from the future.
    pub fn check_times(&self, now: u64) -> Result<()> {
        check_fresh(self.issued, self.expires, limits::CONTROL_SECONDS, now)
    }

    /// Refuses a key that is not what it is registered as: a root is one that this gate trusts,
    /// a gate is this one, and an agent is neither. A rotation stands on the key it replaces.
    /// That the gate is this one was verified.
    pub fn check_role(&self, roots: &[AgentId]) -> Result<()> {
        let key = self.previous.unwrap_or(self.key);
        let (is_root, is_gate) = (roots.contains(&key), key == self.gate);
        let detail = match self.role {
            Role::Root if !is_root => "the key is no root that this gate trusts",
            Role::Gate if !is_gate => "the key is not the one that signs this gate's log",
            Role::Agent if is_root || is_gate => {
                "a root and a gate are no agents; make another key for it"
            }
            _ => return Ok(()),
        };
        Err(Error::new(Reason::NoStanding, detail))
    }

    /// Who signs, in the order of the proof: the new key, then the one it replaces.
    fn signers(&self) -> impl Iterator<Item = AgentId> {
        std::iter::once(self.key).chain(self.previous)
    }

    fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        if self.previous == Some(self.key) {
            return Err(Error::malformed("a key does not replace itself; generate a new one"));
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(256);
        out.map(7 + usize::from(self.previous.is_some()));
        out.int(1).text(self.role.code()).int(2).text(&self.name);
        out.int(3).bytes(self.gate.as_bytes()).int(4).bytes(self.key.as_bytes());
        if let Some(previous) = &self.previous {
            out.int(5).bytes(previous.as_bytes());
        }
        out.int(6).bytes(&self.nonce).int(7).uint(self.issued).int(8).uint(self.expires);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (mut role, mut name, mut gate, mut key) = (None, None, None, None);
        let (mut previous, mut nonce, mut issued, mut expires) = (None, None, None, None);
        for _ in 0..reader.map(8, "the registration")? {
            match reader.int("a registration's key")? {
                1 => once(&mut role, Role::parse(reader.text("role")?)?, "role")?,
                2 => once(&mut name, reader.text("name")?.to_owned(), "name")?,
                3 => once(&mut gate, AgentId::from_bytes(reader.fixed("gate")?)?, "gate")?,
                4 => once(&mut key, AgentId::from_bytes(reader.fixed("key")?)?, "key")?,
                5 => {
                    let id = AgentId::from_bytes(reader.fixed("previous")?)?;
                    once(&mut previous, id, "previous")?;
                }
                6 => once(&mut nonce, reader.fixed("nonce")?, "nonce")?,
                7 => once(&mut issued, reader.uint("iat")?, "iat")?,
                8 => once(&mut expires, reader.uint("exp")?, "exp")?,
                other => {
                    let detail = format!("key {other} of the registration is not known");
                    return Err(Error::new(Reason::UnknownClaim, detail));
                }
            }
        }
        reader.end()?;
        let registration = Self {
            role: required(role, "role")?,
            name: required(name, "name")?,
            gate: required(gate, "gate")?,
            key: required(key, "key")?,
            previous,
            nonce: required(nonce, "nonce")?,
            issued: required(issued, "iat")?,
            expires: required(expires, "exp")?,
        };
        registration.check()?;
        same_bytes(&registration.encode(), bytes)?;
        Ok(registration)
    }
}

/// A registration with a signature by each of its keys, as received: shape-checked, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    registration: Registration,
    /// One for each of the signers, in their order, over one payload.
    statements: Vec<(Signed, Vec<u8>)>,
}

impl Proof {
    /// Signs with the new key and, for a rotation, with the one it replaces; gives the bytes.
    pub fn sign(
        registration: &Registration,
        key: &Identity,
        previous: Option<&Identity>,
    ) -> Result<Vec<u8>> {
        let signed = std::iter::once(key).chain(previous);
        let statements = signed.map(|by| Registration::sign(by, registration));
        Self::join(&statements.collect::<Result<Vec<_>>>()?)
    }

    /// Puts statements that were signed apart into one proof; gives the bytes.
    pub fn join<T: AsRef<[u8]>>(statements: &[T]) -> Result<Vec<u8>> {
        let bytes = encode(statements);
        Self::decode(&bytes)?;
        Ok(bytes)
    }

    /// Reads a proof; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::REGISTRATION_BYTES {
            let detail = format!("the registration has {} bytes, at most 2 KiB", bytes.len());
            return Err(Error::new(Reason::TooLarge, detail));
        }
        let mut reader = Reader::new(bytes);
        let mut received = Vec::with_capacity(2);
        for _ in 0..reader.array(2, "the registration")? {
            received.push(reader.bytes("a statement")?);
        }
        reader.end()?;
        same_bytes(&encode(&received), bytes)?;
        Self::from_statements(&received)
    }

    /// What it says.
    #[must_use]
    pub const fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Checks gate, times and every signature. Whether name and key are free is the registry's
    /// to know.
    pub fn verify(self, gate: &AgentId, now: u64) -> Result<Genuine> {
        let it = &self.registration;
        if it.gate != *gate {
            return Err(Error::new(Reason::WrongGate, "the registration is for another gate"));
        }
        it.check_times(now)?;
        for (key, (signed, _)) in it.signers().zip(&self.statements) {
            signed.verify(&key)?;
        }
        Ok(Genuine(self))
    }

    // INVARIANT: there are as many statements as signers, so that `verify` leaves out neither.
    fn from_statements<T: AsRef<[u8]>>(received: &[T]) -> Result<Self> {
        let mut statements = Vec::with_capacity(received.len());
        for bytes in received {
            let bytes = bytes.as_ref();
            statements.push((Signed::decode(Kind::Registration, bytes)?, bytes.to_vec()));
        }
        let (first, rest) =
            statements.split_first().ok_or_else(|| Error::malformed("nobody has signed it"))?;
        let registration = Registration::decode(first.0.payload())?;
        if rest.iter().any(|(signed, _)| signed.payload() != first.0.payload()) {
            return Err(Error::malformed("the two keys have not signed the same registration"));
        }
        if registration.signers().count() != statements.len() {
            let detail = "a first registration is signed by its key, a rotation by the new key \
                          and then by the one it replaces";
            return Err(Error::malformed(detail));
        }
        Ok(Self { registration, statements })
    }
}

/// A registration that every one of its keys has signed.
#[derive(Debug)]
pub struct Genuine(Proof);

impl Genuine {
    /// What it says.
    #[must_use]
    pub const fn registration(&self) -> &Registration {
        &self.0.registration
    }

    /// The body of its line in the log.
    #[must_use]
    pub fn entry(&self) -> Registered {
        let it = &self.0.registration;
        let text = |(_, bytes): &(Signed, Vec<u8>)| URL_SAFE_NO_PAD.encode(bytes);
        Registered {
            role: it.role.code().to_owned(),
            name: it.name.clone(),
            key: it.key.to_string(),
            previous: it.previous.map(|key| key.to_string()),
            nonce: hex::encode(it.nonce),
            expires: it.expires,
            statements: self.0.statements.iter().map(text).collect(),
        }
    }
}

impl Registered {
    /// The registration that the line is about; refuses a line that says otherwise than the
    /// statements in it. Signatures were checked before the line was written.
    pub fn registration(&self) -> Result<Registration> {
        let wrong = |_| Error::malformed("a registration in the log is not base64url");
        let bytes = self.statements.iter().map(|text| URL_SAFE_NO_PAD.decode(text).map_err(wrong));
        let proof = Proof::from_statements(&bytes.collect::<Result<Vec<_>>>()?)?;
        let genuine = Genuine(proof);
        if genuine.entry() != *self {
            return Err(Error::malformed("a registration in the log differs from its statements"));
        }
        Ok(genuine.0.registration)
    }
}

fn encode<T: AsRef<[u8]>>(statements: &[T]) -> Vec<u8> {
    let mut out = Writer::with_capacity(1024);
    out.array(statements.len());
    for statement in statements {
        out.bytes(statement.as_ref());
    }
    out.finish()
}
