//! A gate that goes on under another key: its log begins with what the former one added up to.

use std::ops::ControlFlow;
use std::path::Path;

use moat_core::audit::{Former, INHERITED, inherited_parts};
use moat_core::key::{AgentId, Identity};
use moat_core::state::State;

use crate::verify::{Progress, Report, Trust, Unchecked, read, verify, walk};
use crate::{LogError, Options, Record, SEGMENT_BYTES, Store};

/// Makes the log of the gate that comes after another, in a new folder, and closes it. All of the
/// former log is read and verified, to its end, which has to be signed.
///
/// No anchor is made: until somebody opens the log where it belongs, it counts for nothing.
///
/// Errors: those of [`verify`] for the former log; `Untrusted` where it has not handed over to
/// this gate or its end is not signed, or where the new folder holds a log; `Unavailable`, `Io`.
pub fn hand_on(
    former: &Path,
    gate: &AgentId,
    folder: &Path,
    heir: &Identity,
    now: u64,
) -> Result<Former, LogError> {
    let (last, state) = end(former, gate)?;
    if state.successor() != Some(heir.id()) {
        let why = format!("has not handed over to `{}`; register that key first", heir.id());
        return Err(LogError::Untrusted { path: former.to_owned(), why });
    }
    // Lines never go back in time, over the two logs as within one.
    let heirloom = state.bequest(now);
    let now = now.max(heirloom.time());
    let bodies = heirloom.snapshot().and_then(|items| inherited_parts(&last, &items));
    let bodies = bodies.map_err(LogError::Entry)?;
    let options = Options {
        folder: folder.to_owned(),
        gate: heir.clone(),
        anchor: None,
        now,
        accept_restored: false,
        segment_bytes: SEGMENT_BYTES,
    };
    let store = Store::open(options, State::default())?;
    if store.opened().entries > 0 {
        let why = "holds a log already; give a new folder".to_owned();
        return Err(LogError::Untrusted { path: folder.to_owned(), why });
    }
    let entry = |body| Record::new(INHERITED, body);
    store.commit(now, |_, out| out.extend(bodies.into_iter().map(entry)))?;
    store.close()?;
    Ok(last)
}

/// Checks a log and compares what it inherited with the log before it, which is read to its end
/// and verified but for its anchor ([`verify`]). Where the entries that say what was inherited
/// were removed, only the size and the root of the former log are compared.
///
/// Errors: those of [`verify`] for either log; `InheritedDiffers` where they do not fit together.
pub fn verify_after(
    former: &Path,
    folder: &Path,
    trust: &Trust,
    progress: impl FnMut(Progress),
) -> Result<Report, LogError> {
    let mut report = verify(folder, trust, State::default, progress)?;
    let Some(known) = report.former else {
        return Err(differs(1, "it inherited nothing, and there is a log before it"));
    };
    let (last, state) = end(former, &known.gate)?;
    if last != known {
        let told = (known.entries, last.entries);
        return Err(differs(
            1,
            &match told.0 == told.1 {
                true => "the former log has another root".to_owned(),
                false => format!("it was of {} entries, and the former log has {}", told.0, told.1),
            },
        ));
    }
    if state.successor() != Some(trust.log) {
        return Err(differs(1, "the former log does not hand over to this gate"));
    }
    if compare(folder, &trust.log, &last, &state)? {
        report.unchecked.retain(|one| !matches!(one, Unchecked::Inherited(_)));
    }
    Ok(report)
}

/// A log to its end, and what it adds up to there.
fn end(folder: &Path, gate: &AgentId) -> Result<(Former, State), LogError> {
    let trust = Trust { log: *gate, anchor: None, key: None };
    let (report, state) = read(folder, &trust, State::default, true, |_| ())?;
    let (entries, root) = (report.entries, report.root);
    if report.signed != Some(entries) {
        let why = "has entries that its gate has not signed; open and close the gate once";
        return Err(LogError::Untrusted { path: folder.to_owned(), why: why.to_owned() });
    }
    Ok((Former { gate: *gate, entries, root }, state.unwrap_or_default()))
}

/// Compares the lines that say what was inherited; false where they were removed.
fn compare(folder: &Path, log: &AgentId, former: &Former, state: &State) -> Result<bool, LogError> {
    let (mut expected, mut found) = (None, Ok(false));
    walk(folder, log, |line| {
        if line.index == 0 {
            return ControlFlow::Continue(());
        }
        if line.kind != INHERITED {
            return ControlFlow::Break(());
        }
        let bodies = expected.get_or_insert_with(|| {
            let items = state.bequest(line.time).snapshot();
            items.and_then(|items| inherited_parts(former, &items)).map(Vec::into_iter)
        });
        let body = match bodies {
            Ok(bodies) => bodies.next(),
            Err(why) => {
                found = Err(LogError::Entry(why.clone()));
                return ControlFlow::Break(());
            }
        };
        if body.as_deref() == Some(line.body) {
            found = Ok(true);
            return ControlFlow::Continue(());
        }
        let why = "this part is not what the former log adds up to";
        found = Err(differs(line.index, why));
        ControlFlow::Break(())
    })?;
    let left = expected.and_then(Result::ok).is_some_and(|mut bodies| bodies.next().is_some());
    match found {
        Ok(true) if left => Err(differs(1, "parts of it are missing at its end")),
        found => found,
    }
}

fn differs(index: u64, what: &(impl ToString + ?Sized)) -> LogError {
    LogError::InheritedDiffers { index, what: what.to_string() }
}
