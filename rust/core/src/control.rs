//! Signed statements that withdraw trust or pause it, and take that back (spec/message.md).

use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256, Identity};
use crate::limits;
use crate::message::check_fresh;
use crate::wire::{Kind, Reader, Signed, Writer, once, required, same_bytes};

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Withdraw trust.
    Revoke,
    /// Take a revocation back.
    Restore,
    /// Pause.
    Suspend,
    /// Take a suspension back.
    Resume,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 4] = [Self::Revoke, Self::Restore, Self::Suspend, Self::Resume];

    /// The word on the wire and in the log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Restore => "restore",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|verb| verb.code() == word).ok_or_else(|| {
            let word = word.escape_debug();
            Error::malformed(format!("`{word}` is not `revoke`, `restore`, `suspend` or `resume`"))
        })
    }
}

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every chain in which this agent holds or issued a link.
    Agent(AgentId),
    /// Every chain with this link.
    Link(Hash256),
}

/// One statement as received: shape-checked, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    signed: Signed,
    bytes: Vec<u8>,
    statement: Statement,
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What to do.
    pub verb: Verb,
    /// About what.
    pub target: Target,
    /// The gate it is for.
    pub gate: AgentId,
    /// Who says so.
    pub signer: AgentId,
    /// 16 random bytes; a statement counts once.
    pub nonce: [u8; 16],
    /// The second it was signed in.
    pub issued: u64,
    /// First second in which it is stale.
    pub expires: u64,
}

impl Control {
    /// Signs a statement in the name of `signer`.
    pub fn sign(signer: &Identity, statement: &Statement) -> Result<Vec<u8>> {
        if statement.signer != signer.id() {
            return Err(Error::malformed("the statement names another signer"));
        }
        Ok(Signed::seal(Kind::Control, signer, &statement.encode()).1)
    }

    /// Reads a statement; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::CONTROL_BYTES {
            let detail = format!("the statement has {} bytes, at most 1 KiB", bytes.len());
            return Err(Error::new(Reason::TooLarge, detail));
        }
        let signed = Signed::decode(Kind::Control, bytes)?;
        let statement = Statement::decode(signed.payload())?;
        Ok(Self { signed, bytes: bytes.to_vec(), statement })
    }

    /// What it says.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The bytes as received.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks gate, times and signature. Standing is the state's to know.
    pub fn verify(&self, gate: &AgentId, now: u64) -> Result<()> {
        let it = &self.statement;
        if it.gate != *gate {
            return Err(Error::new(Reason::WrongGate, "the statement is for another gate"));
        }
        self.check_times(now)?;
        self.signed.verify(&it.signer)
    }

    /// Refuses a statement that is too old, too long-lived or from the future.
    pub fn check_times(&self, now: u64) -> Result<()> {
        let it = &self.statement;
        check_fresh(it.issued, it.expires, limits::CONTROL_SECONDS, now)
    }
}

impl Statement {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(256);
        out.map(7).int(1).text(self.verb.code()).int(2).array(2);
        match &self.target {
            Target::Agent(id) => out.uint(0).bytes(id.as_bytes()),
            Target::Link(id) => out.uint(1).bytes(id),
        };
        out.int(3).bytes(self.gate.as_bytes()).int(4).bytes(self.signer.as_bytes());
        out.int(5).bytes(&self.nonce).int(6).uint(self.issued).int(7).uint(self.expires);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (mut verb, mut target, mut gate, mut signer) = (None, None, None, None);
        let (mut nonce, mut issued, mut expires) = (None, None, None);
        for _ in 0..reader.map(7, "the statement")? {
            match reader.int("a statement's key")? {
                1 => once(&mut verb, Verb::parse(reader.text("verb")?)?, "verb")?,
                2 => once(&mut target, Target::read(&mut reader)?, "target")?,
                3 => once(&mut gate, AgentId::from_bytes(reader.fixed("gate")?)?, "gate")?,
                4 => once(&mut signer, AgentId::from_bytes(reader.fixed("signer")?)?, "signer")?,
                5 => once(&mut nonce, reader.fixed("nonce")?, "nonce")?,
                6 => once(&mut issued, reader.uint("iat")?, "iat")?,
                7 => once(&mut expires, reader.uint("exp")?, "exp")?,
                other => {
                    let detail = format!("key {other} of the statement is not known");
                    return Err(Error::new(Reason::UnknownClaim, detail));
                }
            }
        }
        reader.end()?;
        let statement = Self {
            verb: required(verb, "verb")?,
            target: required(target, "target")?,
            gate: required(gate, "gate")?,
            signer: required(signer, "signer")?,
            nonce: required(nonce, "nonce")?,
            issued: required(issued, "iat")?,
            expires: required(expires, "exp")?,
        };
        same_bytes(&statement.encode(), bytes)?;
        Ok(statement)
    }
}

impl Target {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(2, "target")?;
        match reader.uint("target")? {
            0 => Ok(Self::Agent(AgentId::from_bytes(reader.fixed("target")?)?)),
            1 => Ok(Self::Link(reader.fixed("target")?)),
            _ => Err(Error::malformed("the target is neither an agent nor a link")),
        }
    }
}
