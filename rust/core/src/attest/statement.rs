//! In-toto statements v1: subjects by digest, and a predicate about them.

use serde_json::{Map, Value, json};

use super::json::{self, wrong};
use super::skill::{self, hash_of};
use super::{Kind, Predicate, Said};
use crate::args;
use crate::error::{Error, Reason, Result};
use crate::key::{Hash256, sha256};
use crate::limits;

/// The one type of statement that is known.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Reads a statement whose bytes were verified. Members that are not known are ignored, as
/// in-toto asks for: they may say more, and nothing less.
pub(super) fn read(payload: &[u8]) -> Result<Said> {
    let statement = json::object(payload, "the statement")?;
    let found = json::text(&statement, "_type")?;
    if found != STATEMENT {
        let detail = format!("the statement is a `{}`, not an in-toto v1", found.escape_debug());
        return Err(Error::new(Reason::WrongType, detail));
    }
    let predicate = Predicate::parse(json::text(&statement, "predicateType")?)?;
    let subjects = subjects(json::array(&statement, "subject")?)?;
    let (kind, issued) = predicate.read(json::member(&statement, "predicate")?, &subjects)?;
    Ok(Said { subjects, kind, predicate, issued })
}

/// The SHA-256 digests of the subjects. Under another name a digest is that of something else.
fn subjects(listed: &[Value]) -> Result<Vec<Hash256>> {
    if listed.len() > limits::SUBJECT_DIGESTS {
        let detail = format!(
            "{} subjects in a statement, at most {}",
            listed.len(),
            limits::SUBJECT_DIGESTS
        );
        return Err(Error::new(Reason::TooLarge, detail));
    }
    let mut all = Vec::with_capacity(listed.len());
    for subject in listed {
        let subject = subject.as_object().ok_or_else(|| wrong("subject", "of objects"))?;
        let digest = json::member(subject, "digest")?;
        if !digest.contains_key("sha256") {
            continue;
        }
        let hash = json::text(digest, "sha256").ok().and_then(hash_of);
        all.push(hash.ok_or_else(|| wrong("sha256", "64 digits of lower-case hex"))?);
    }
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return Err(Error::malformed("the statement names no subject by SHA-256"));
    }
    Ok(all)
}

/// A manifest to be signed.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// For people: what the subject is called.
    pub name: &'a str,
    /// What is vouched for.
    pub subject: Subject<'a>,
    /// The second at which.
    pub issued: u64,
}

/// What a manifest vouches for.
#[derive(Clone, Debug)]
pub enum Subject<'a> {
    /// The digest of code.
    Code(Hash256),
    /// The digest of a tool's description.
    Tool(Hash256),
    /// The files of a skill.
    Skill(&'a std::collections::BTreeMap<String, Hash256>),
}

impl Draft<'_> {
    /// The bytes of the statement.
    pub fn to_payload(&self) -> Result<Vec<u8>> {
        let mut predicate = Map::from_iter([("issued".to_owned(), self.issued.into())]);
        let (kind, digest) = match &self.subject {
            Subject::Code(digest) => (Kind::Code, *digest),
            Subject::Tool(digest) => (Kind::Tool, *digest),
            Subject::Skill(files) => {
                let hashes =
                    files.iter().map(|(path, hash)| (path.clone(), hex::encode(hash).into()));
                predicate.insert("files".to_owned(), Value::Object(hashes.collect()));
                (Kind::Skill, skill::digest(files)?)
            }
        };
        predicate.insert("kind".to_owned(), kind.code().into());
        let statement = json!({
            "_type": STATEMENT,
            "subject": [{ "name": self.name, "digest": { "sha256": hex::encode(digest) } }],
            "predicateType": Predicate::Manifest.uri(),
            "predicate": predicate,
        });
        Ok(statement.to_string().into_bytes())
    }
}

/// SHA-256 of the canonical JSON (RFC 8785) of a tool's description, an object in any spelling.
pub fn tool_digest(description: &[u8]) -> Result<Hash256> {
    let object = json::object(description, "the description")?;
    let canonical = args::encode(&Value::Object(object)).map_err(|error| {
        let detail = "the description has no canonical JSON (RFC 8785) of at most 32 KiB";
        Error::new(error.reason, detail)
    });
    Ok(sha256(&canonical?))
}
