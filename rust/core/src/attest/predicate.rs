//! The predicates that are known: what is said of a digest, and when it was said.

use serde_json::{Map, Value};

use super::json::{self, wrong};
use super::skill;
use crate::error::{Error, Reason, Result};
use crate::key::Hash256;
use crate::limits;

/// What a digest is the digest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The bytes of code that runs.
    Code,
    /// The listing of a folder (`skill_digest`).
    Skill,
    /// The canonical JSON of a tool's description.
    Tool,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Code, Self::Skill, Self::Tool];

    /// The word on the wire and in the log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Skill => "skill",
            Self::Tool => "tool",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == word).ok_or_else(|| {
            let word = word.escape_debug();
            let detail = format!("`{word}` is none of the kinds `code`, `skill`, `tool`");
            Error::new(Reason::UnknownClaim, detail)
        })
    }
}

/// A predicate type that this version reads. What it cannot read, it cannot date, and so it
/// would satisfy nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Predicate {
    /// SLSA provenance v1: how code was built.
    Provenance,
    /// SLSA verification summary v1: that code passed somebody's policy.
    Summary,
    /// Moat's own: that somebody vouches for code, a skill or a tool's description.
    Manifest,
}

impl Predicate {
    /// Every predicate type, in the order of their URIs.
    pub const ALL: [Self; 3] = [Self::Provenance, Self::Summary, Self::Manifest];

    /// The type URI.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Provenance => "https://slsa.dev/provenance/v1",
            Self::Summary => "https://slsa.dev/verification_summary/v1",
            Self::Manifest => "urn:moat:manifest:v1",
        }
    }

    /// Reads the type URI; each has one spelling.
    pub fn parse(uri: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|known| known.uri() == uri).ok_or_else(|| {
            let uri = uri.escape_debug();
            let detail = format!(
                "the predicate type `{uri}` is not known to this version; use \
                 `urn:moat:manifest:v1` or a SLSA v1 one"
            );
            Error::new(Reason::UnknownClaim, detail)
        })
    }

    /// Whether it can say of what kind its subjects are. SLSA speaks of artifacts alone.
    #[must_use]
    pub const fn speaks_of(self, kind: Kind) -> bool {
        matches!(self, Self::Manifest) || matches!(kind, Kind::Code)
    }

    /// What it says of its subjects: their kind, and the second at which it was said.
    pub(super) fn read(
        self,
        predicate: &Map<String, Value>,
        subjects: &[Hash256],
    ) -> Result<(Kind, u64)> {
        match self {
            Self::Provenance => Ok((Kind::Code, provenance(predicate)?)),
            Self::Summary => Ok((Kind::Code, summary(predicate)?)),
            Self::Manifest => manifest(predicate, subjects),
        }
    }
}

/// The end of the build. Who the builder was is for the signer's key to say.
fn provenance(predicate: &Map<String, Value>) -> Result<u64> {
    let definition = json::member(predicate, "buildDefinition")?;
    json::text(definition, "buildType")?;
    json::member(definition, "externalParameters")?;
    let run = json::member(predicate, "runDetails")?;
    json::text(json::member(run, "builder")?, "id")?;
    timestamp(json::text(json::member(run, "metadata")?, "finishedOn")?)
}

/// The second of a check that was passed.
fn summary(predicate: &Map<String, Value>) -> Result<u64> {
    json::text(json::member(predicate, "verifier")?, "id")?;
    json::text(predicate, "resourceUri")?;
    json::member(predicate, "policy")?;
    json::array(predicate, "verifiedLevels")?;
    match json::text(predicate, "verificationResult")? {
        "PASSED" => timestamp(json::text(predicate, "timeVerified")?),
        _ => Err(Error::malformed("the verification summary says other than `PASSED`")),
    }
}

/// Moat's own predicate. Unlike the others it has no room for what is not known.
fn manifest(predicate: &Map<String, Value>, subjects: &[Hash256]) -> Result<(Kind, u64)> {
    let known = |name: &str| matches!(name, "kind" | "issued" | "files");
    if let Some(name) = predicate.keys().find(|name| !known(name)) {
        let detail = format!("`{}` of a manifest is not known", name.escape_debug());
        return Err(Error::new(Reason::UnknownClaim, detail));
    }
    let kind = Kind::parse(json::text(predicate, "kind")?)?;
    let issued = predicate.get("issued").and_then(Value::as_u64);
    let issued = issued.ok_or_else(|| wrong("issued", "a Unix second"))?;
    if issued > limits::TIME_MAX {
        return Err(Error::malformed("`issued` is after the year 9999"));
    }
    match (kind, predicate.get("files")) {
        (Kind::Skill, Some(_)) => {
            let files = skill::read(json::member(predicate, "files")?)?;
            if subjects != [skill::digest(&files)?] {
                let detail = "the subject is not the digest of the skill's `files`";
                return Err(Error::malformed(detail));
            }
        }
        (Kind::Skill, None) => return Err(wrong("files", "an object")),
        (Kind::Code | Kind::Tool, None) => {}
        (Kind::Code | Kind::Tool, Some(_)) => {
            return Err(Error::malformed("only the manifest of a skill has `files`"));
        }
    }
    Ok((kind, issued))
}

/// A time in UTC as in-toto writes it, `YYYY-MM-DDThh:mm:ss[.fraction]Z` (RFC 3339), in Unix
/// seconds, rounded down.
fn timestamp(text: &str) -> Result<u64> {
    parse_time(text).ok_or_else(|| {
        let text = text.chars().take(40).collect::<String>();
        let detail = format!("`{}` is not a time like 2026-01-31T12:00:00Z", text.escape_debug());
        Error::malformed(detail)
    })
}

fn parse_time(text: &str) -> Option<u64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(fraction) {
        return None;
    }
    let numbers = |text: &str, split: char, widths: [usize; 3]| -> Option<[u64; 3]> {
        let parts: Vec<_> = text.split(split).collect();
        let parts: [&str; 3] = parts.try_into().ok()?;
        let mut all = [0; 3];
        for ((slot, part), width) in all.iter_mut().zip(parts).zip(widths) {
            *slot = part.parse().ok().filter(|_| part.len() == width && digits(part))?;
        }
        Some(all)
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let every = |years: u64, year: u64| year.is_multiple_of(years);
    let leap = |year| every(4, year) && (!every(100, year) || every(400, year));
    let days = |month: u64| match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let fits = year >= 1970 && (1..=12).contains(&month) && (1..=days(month)).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let past: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let days = past + (1..month).map(days).sum::<u64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn a_time_in_utc_has_one_form() {
        for (text, second) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2025-06-15T15:06:40.999Z", 1_750_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse_time(text), Some(second), "{text}");
        }
        for bad in [
            "",
            "2025-06-15",
            "2025-06-15T15:06:40",
            "2025-06-15T15:06:40+00:00",
            "2025-06-15t15:06:40z",
            "2025-06-15 15:06:40Z",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-06-31T00:00:00Z",
            "2025-06-15T24:00:00Z",
            "2025-06-15T23:59:60Z",
            "2025-06-15T23:60:00Z",
            "2025-6-15T15:06:40Z",
            "+025-06-15T15:06:40Z",
            "2025-06-15T15:06:40.Z",
            "2025-06-15T15:06:40.5.5Z",
            "2025-06-15T15:06:40Z ",
            "1969-12-31T23:59:59Z",
            "٢٠٢٥-06-15T15:06:40Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
