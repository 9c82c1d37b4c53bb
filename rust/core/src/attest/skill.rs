//! A folder as one digest: that of a listing with every file in it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::json::wrong;
use crate::error::{Error, Reason, Result};
use crate::key::{Hash256, sha256};
use crate::limits;
use crate::pattern::Resource;

/// Files of a skill: a path below its folder, and SHA-256 of the bytes.
type Files = BTreeMap<String, Hash256>;

/// SHA-256 of the [`listing`]. A file more, one fewer or one that was renamed changes it.
pub fn digest(files: &Files) -> Result<Hash256> {
    Ok(sha256(&listing(files)?))
}

/// Every file of a skill as canonical JSON (RFC 8785): `{path: hex}`.
///
/// # Errors
/// `malformed` for no files, and for a path that is absolute, has `.`, `..` or an empty segment,
/// a space, an escape or anything else that no resource holds, or that differs from another in
/// case alone; `too_large` for more than 256 files.
pub fn listing(files: &Files) -> Result<Vec<u8>> {
    check(files)?;
    let listed: Map<_, _> =
        files.iter().map(|(path, hash)| (path.clone(), hex::encode(hash).into())).collect();
    serde_json_canonicalizer::to_vec(&Value::Object(listed))
        .map_err(|_| Error::malformed("the files have no canonical JSON (RFC 8785)"))
}

/// Reads the listing in a manifest.
pub(super) fn read(listed: &Map<String, Value>) -> Result<Files> {
    let file = |(path, hash): (&String, &Value)| {
        let hash = hash.as_str().and_then(hash_of);
        Ok((path.clone(), hash.ok_or_else(|| wrong("files", "SHA-256 digests in hex"))?))
    };
    listed.iter().map(file).collect()
}

/// A digest in lower-case hex.
pub(super) fn hash_of(text: &str) -> Option<Hash256> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    (hex::encode(hash) == text).then_some(hash)
}

fn check(files: &Files) -> Result<()> {
    if files.is_empty() {
        return Err(Error::malformed("a skill has at least one file"));
    }
    if files.len() > limits::SKILL_FILES {
        let detail = format!("{} files in a skill, at most {}", files.len(), limits::SKILL_FILES);
        return Err(Error::new(Reason::TooLarge, detail));
    }
    let mut folded = BTreeMap::new();
    for path in files.keys() {
        let plain = !path.starts_with('/') && !path.contains('%');
        if !plain || Resource::parse(&format!("file:///{path}")).is_err() {
            let path = path.chars().take(128).collect::<String>();
            return Err(Error::malformed(format!(
                "`{}` is no name for a file of a skill; rename it",
                path.escape_debug()
            )));
        }
        if let Some(other) = folded.insert(path.to_lowercase(), path) {
            return Err(Error::malformed(format!(
                "`{other}` and `{path}` are one file where case does not count; rename one"
            )));
        }
    }
    Ok(())
}
