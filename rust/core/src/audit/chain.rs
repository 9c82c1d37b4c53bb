//! The chain: which line may come next, whether it is being read or written.

use super::line::{Parts, seal};
use super::{Line, MacKey, Tree, genesis, hex, origin};
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256};

/// The kind of the first line of every log.
pub const OPEN: &str = "open";
/// The kind of a line that records bytes of an unfinished write, cut when the log was opened.
pub const TORN: &str = "torn";
/// The kind of a line that records that a log older than its anchor was accepted.
pub const RESTORED: &str = "restored";
/// The kind of the first lines of a segment: all of what the lines before add up to.
pub const SNAPSHOT: &str = "snapshot";
/// The kind of a line that records that the entries before one may be missing from now on.
pub const PRUNED: &str = "pruned";
/// The kinds that the log keeps for itself.
pub const RESERVED: [&str; 5] = [OPEN, TORN, RESTORED, SNAPSHOT, PRUNED];

/// The end of a log: everything that must be known to read or write its next line.
#[derive(Clone, Debug)]
pub struct Chain {
    origin: String,
    head: [u8; 64],
    time: u64,
    tree: Tree,
}

impl Chain {
    /// The end of the empty log of a gate.
    #[must_use]
    pub fn new(log: &AgentId) -> Self {
        let origin = origin(log);
        let head = hex(&genesis(&origin));
        Self { origin, head, time: 0, tree: Tree::default() }
    }

    /// The end of a log just before a line, for reading from that line on. What `tree` and the
    /// line's `prev` say of the lines before is believed; the first line's time is as well.
    ///
    /// Errors: `broken_chain` when the tree has another size than there are lines before.
    pub fn before(log: &AgentId, line: &Line<'_>, tree: Tree) -> Result<Self> {
        if tree.size() != line.index {
            let detail = format!("a tree of {} before line {}", tree.size(), line.index);
            return Err(broken(detail));
        }
        let mut head = [0; 64];
        head.copy_from_slice(line.prev);
        Ok(Self { origin: origin(log), head, time: 0, tree })
    }

    /// The log's name, `moat.log/<did:key>`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of lines.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The time of the last line; no line is older than the one before it.
    #[must_use]
    pub const fn time(&self) -> u64 {
        self.time
    }

    /// The root of the Merkle tree.
    #[must_use]
    pub fn root(&self) -> Hash256 {
        self.tree.root()
    }

    /// The body of the first line.
    #[must_use]
    pub fn open_body(&self) -> String {
        // A `did:key` holds letters, digits and colons alone: nothing to escape.
        format!("{{\"origin\":\"{}\",\"version\":1}}", self.origin)
    }

    /// Reads the next line, with its MAC when there is a key to check it, and reports the nodes
    /// that its leaf completes (see [`Tree::append`]).
    ///
    /// Errors: `malformed` or `too_large` for bytes that are no line, `bad_signature` for a MAC
    /// of another key, `broken_chain` for a line that does not come next. After an error the
    /// chain is as before.
    pub fn push<'a>(
        &mut self,
        bytes: &'a [u8],
        key: Option<&MacKey>,
        completed: impl FnMut(u32, &Hash256),
    ) -> Result<Line<'a>> {
        let line = Line::parse(bytes)?;
        let leaf = match key {
            Some(key) => line.leaf_with(key)?,
            None => line.leaf(),
        };
        if line.index != self.size() {
            return Err(broken(format!(
                "line {} stands where {} belongs",
                line.index,
                self.size()
            )));
        }
        if line.prev != self.head {
            return Err(broken(match line.index {
                0 => format!("`prev` is not that of the first line of `{}`", self.origin),
                _ => "`prev` is not the hash of the line before".to_owned(),
            }));
        }
        if line.time < self.time {
            return Err(broken("the line is older than the line before".to_owned()));
        }
        let first = line.kind == OPEN && line.body == self.open_body().as_bytes();
        if (line.index == 0) != (line.kind == OPEN) || (line.index == 0 && !first) {
            return Err(broken("an `open` line comes first, for this gate, and only there".into()));
        }
        self.advance(leaf, line.time, completed);
        Ok(line)
    }

    /// Writes the next line and a newline to the end of `out`. A time before the last line's is
    /// replaced by that: time does not go back. Gives the time that was written.
    ///
    /// Errors: `malformed` or `too_large` for a kind, time or body that a line cannot hold.
    /// After an error `out` and the chain are as before.
    pub fn append(
        &mut self,
        out: &mut Vec<u8>,
        key: &MacKey,
        (time, kind, body): (u64, &str, &[u8]),
        completed: impl FnMut(u32, &Hash256),
    ) -> Result<u64> {
        let opening = kind == OPEN && body == self.open_body().as_bytes();
        if (self.size() == 0) != opening || (kind == OPEN && !opening) {
            return Err(Error::malformed("an `open` line comes first and only there"));
        }
        let time = time.max(self.time);
        let parts = Parts { index: self.size(), time, prev: &self.head, kind, body };
        let leaf = seal(out, key, &parts)?;
        out.push(b'\n');
        self.advance(leaf, time, completed);
        Ok(time)
    }

    fn advance(&mut self, leaf: Hash256, time: u64, completed: impl FnMut(u32, &Hash256)) {
        self.head = hex(&leaf);
        self.time = time;
        self.tree.append(leaf, completed);
    }
}

fn broken(detail: String) -> Error {
    Error::new(Reason::BrokenChain, detail)
}
