//! What a guest may spend and reach, and what it is given.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moat_core::caveat::Limits;
use moat_core::pattern::Pattern;

use crate::{Host, Outgoing, SandboxError, dirs};

/// Limits of one run. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Executed WebAssembly operators, in wasmtime fuel units; `UNMETERED` where time alone
    /// bounds them.
    pub fuel: u64,
    /// Bytes of linear memory and tables, together.
    pub memory: u64,
    /// Wall-clock time from the call of `run` to its end.
    pub time: Duration,
    /// Bytes of standard output and error, together.
    pub output: u64,
    /// Directories the guest finds preopened, under their own paths.
    pub dirs: Vec<Dir>,
}

/// One directory tree. A tree with neither right is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// Absolute path on the host, without symbolic links; the guest sees the same path.
    pub path: PathBuf,
    /// Files may be read and directories listed.
    pub read: bool,
    /// Files and directories may be made, changed and removed. Without `read`, names can still be
    /// looked up (`stat`), but nothing can be listed, read, renamed or linked.
    pub write: bool,
}

impl Bounds {
    /// The bounds that a token's limits mean. A tree below a readable one is readable too, and so
    /// for writing.
    ///
    /// # Errors
    /// [`SandboxError::Input`] when a path pattern is not a whole tree (`file:///dir/**`).
    pub fn from_limits(limits: &Limits) -> Result<Self, SandboxError> {
        let (read, write) = (trees(&limits.read)?, trees(&limits.write)?);
        let dirs = read.union(&write).map(|path| Dir {
            path: path.clone(),
            read: read.iter().any(|tree| path.starts_with(tree)),
            write: write.iter().any(|tree| path.starts_with(tree)),
        });
        Ok(Self {
            fuel: limits.fuel,
            memory: limits.memory,
            time: Duration::from_millis(limits.time_ms),
            output: limits.output,
            dirs: dirs.collect(),
        })
    }

    /// Refuses a directory that holds one of these folders or lies in one, by whatever path:
    /// symbolic links are followed and files compared by device and number. A folder is not seen
    /// behind a mount or a hard link *below* a directory. `/proc` is always one of them: it shows,
    /// as plain files, the memory of the process that holds the keys.
    ///
    /// # Errors
    /// [`SandboxError::Exposed`]; [`SandboxError::Directory`] where either cannot be looked at.
    pub fn keep_apart(&self, folders: &[PathBuf]) -> Result<(), SandboxError> {
        for Dir { path, .. } in &self.dirs {
            for folder in folders.iter().map(PathBuf::as_path).chain([Path::new("/proc")]) {
                if !dirs::apart(path, folder)? {
                    let (path, folder) = (path.clone(), folder.to_owned());
                    return Err(SandboxError::Exposed { path, folder });
                }
            }
        }
        Ok(())
    }
}

fn trees(patterns: &[Pattern]) -> Result<BTreeSet<PathBuf>, SandboxError> {
    let tree = |pattern: &Pattern| match pattern.tree() {
        Some(path) if Path::new(path).is_absolute() => Ok(PathBuf::from(path)),
        _ => Err(SandboxError::Input(format!(
            "`{pattern}` is not a directory tree; write it as `file:///dir/**`"
        ))),
    };
    patterns.iter().map(tree).collect()
}

/// What a guest is given. Nothing else reaches it.
#[derive(Clone, Default)]
pub struct Input {
    /// All of standard input.
    pub stdin: Vec<u8>,
    /// The whole argument vector; by custom the first is the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Who sends the requests of `wasi:http`; left out, every one is refused.
    pub outgoing: Option<Arc<dyn Outgoing>>,
    /// Who makes the calls of tools; left out, every one is refused.
    pub host: Option<Arc<dyn Host>>,
    /// Makes the run deterministic: its clocks begin at 2000-01-01 and move by a microsecond at
    /// each look and to the end of each wait, which is over at once; its random bytes follow from
    /// these. The same code with the same input ends the same way and uses the same fuel, unless
    /// the time or an interrupt ends it. It has no directories and sends nothing.
    pub seed: Option<[u8; 32]>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stdin, args, env, outgoing, host, seed } = self;
        f.debug_struct("Input")
            .field("stdin", &stdin.len())
            .field("args", args)
            .field("env", env)
            .field("outgoing", &outgoing.is_some())
            .field("host", &host.is_some())
            .field("seed", &seed.is_some())
            .finish()
    }
}

impl Input {
    /// Refuses what cannot be given.
    ///
    /// # Errors
    /// [`SandboxError::Input`].
    pub fn check(&self) -> Result<(), SandboxError> {
        if self.seed.is_some() && (self.outgoing.is_some() || self.host.is_some()) {
            let text = "a deterministic run sends nothing and calls no tools";
            return Err(SandboxError::Input(text.to_owned()));
        }
        let nul = |text: &String| text.contains('\0');
        if let Some(arg) = self.args.iter().find(|arg| nul(arg)) {
            let text = format!("argument `{}` holds a zero byte; remove it", arg.escape_debug());
            return Err(SandboxError::Input(text));
        }
        let bad = |(name, value): &&(String, String)| {
            name.is_empty() || name.contains('=') || nul(name) || nul(value)
        };
        if let Some((name, _)) = self.env.iter().find(bad) {
            return Err(SandboxError::Input(format!(
                "environment variable `{}` cannot be passed; names are not empty and hold no `=`, \
                 and nothing holds a zero byte",
                name.escape_debug()
            )));
        }
        Ok(())
    }
}
