//! `spec/vectors/pattern.json`, and inputs that others collected: path traversals, URLs, names.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

use std::fs;
use std::path::PathBuf;

use moat_core::pattern::{Pattern, Resource, canonicalize};
use serde_json::Value;
use url::Url;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the external vectors as text; `None`, saying so, where the folder is absent.
fn external(name: &str) -> Option<String> {
    let path = root().join("../shared/vectors").join(name);
    if !path.exists() {
        eprintln!("skipped: the external vectors `{name}` are absent");
        return None;
    }
    Some(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
}

fn verdict<T>(result: Result<T, moat_core::Error>) -> Result<T, &'static str> {
    result.map_err(|error| error.reason.code())
}

#[test]
fn every_vector_holds() {
    let text = fs::read_to_string(root().join("spec/vectors/pattern.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 300);
    for case in &cases {
        let field = |name: &str| case[name].as_str().unwrap_or_else(|| panic!("{name} of {case}"));
        let pattern = |name: &str| Pattern::parse(field(name)).unwrap();
        match field("kind") {
            "parse" => {
                let text = field("text");
                let found = match field("as") {
                    "pattern" => verdict(Pattern::parse(text)).map(|p| p.as_str().to_owned()),
                    "resource" => verdict(Resource::parse(text)).map(|r| r.as_str().to_owned()),
                    other => panic!("{other} of {case}"),
                };
                match case["ok"].as_bool() {
                    Some(true) => assert_eq!(found.as_deref(), Ok(text), "{case}"),
                    _ => assert_eq!(found.as_deref(), Err(&field("reason")), "{case}"),
                }
            }
            "match" => {
                let resource = Resource::parse(field("resource")).unwrap();
                let found = pattern("pattern").matches(&resource);
                assert_eq!(found, case["matches"].as_bool().unwrap(), "{case}");
            }
            "covers" => {
                let (parent, child) = (pattern("parent"), pattern("child"));
                assert_eq!(parent.covers(&child), case["covers"].as_bool().unwrap(), "{case}");
                let proof = parent.witness(&child);
                assert_eq!(proof.is_none(), parent.covers(&child), "{case}");
                assert!(proof.is_none_or(|r| child.matches(&r) && !parent.matches(&r)), "{case}");
            }
            "canonicalize" => {
                let found = verdict(canonicalize(field("text")));
                match case["canonical"].as_str() {
                    Some(wanted) => assert_eq!(found.as_deref(), Ok(wanted), "{case}"),
                    None => assert_eq!(found.as_deref(), Err(&field("reason")), "{case}"),
                }
            }
            other => panic!("{other} of {case}"),
        }
    }
}

/// Decodes every percent escape once, whatever it stands for.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Below `file:///data`, however often somebody decodes the rest.
fn assert_confined(resource: &Resource, line: &str) {
    assert!(Pattern::parse("file:///data/**").unwrap().matches(resource), "{line}");
    let mut text = resource.as_str().to_owned();
    for _ in 0..4 {
        assert!(text.starts_with("file:///data/"), "{line} became {text}");
        let outside = |segment: &str| matches!(segment, "" | "." | "..");
        let below = text.strip_prefix("file:///").unwrap();
        assert!(!below.split(['/', '\\']).any(outside), "{line} became {text}");
        assert!(!text.contains('\0'), "{line} became {text}");
        text = percent_decode(&text);
    }
}

#[test]
fn every_path_traversal_is_refused_or_stays_confined() {
    let files = [
        "deep_traversal.txt",
        "directory_traversal.txt",
        "dotdotpwn.txt",
        "traversals-8-deep-exotic-encoding.txt",
    ];
    let (mut lines, mut confined, mut repaired) = (0, 0, 0);
    for file in files {
        let Some(text) = external(&format!("path-traversal/{file}")) else {
            return;
        };
        for line in text.lines() {
            lines += 1;
            for tail in [line, line.trim_start_matches('/')] {
                let text = format!("file:///data/{tail}");
                if let Ok(resource) = Resource::parse(&text) {
                    confined += 1;
                    assert_confined(&resource, line);
                }
                // A repair may follow dot segments out of the folder, and then shows it.
                if let Ok(canonical) = canonicalize(&text) {
                    repaired += 1;
                    let resource = Resource::parse(&canonical).unwrap();
                    if canonical.starts_with("file:///data/") {
                        assert_confined(&resource, line);
                    } else {
                        assert!(!Pattern::parse("file:///data/*").unwrap().matches(&resource));
                    }
                }
            }
        }
    }
    assert!(lines > 23_000, "{lines} lines");
    eprintln!("{lines} lines: {confined} confined, the rest refused; {repaired} repaired");
}

/// Scheme, host, port and path of a text, as Moat reads it and as a WHATWG parser does.
fn assert_same_reading(resource: &Resource, url: &Url) {
    let text = resource.as_str();
    let tail = text.split_once("://").unwrap().1;
    let (authority, path) = tail.split_once('/').unwrap_or((tail, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    assert_eq!(resource.scheme(), url.scheme(), "{text}");
    assert_eq!(host, url.host_str().unwrap_or_default(), "{text}");
    assert_eq!(port, url.port(), "{text}");
    let theirs = url.path().strip_prefix('/').unwrap_or_default();
    assert_eq!(percent_decode(path), percent_decode(theirs), "{text}");
    assert_eq!((url.query(), url.fragment()), (None, None), "{text}");
    assert_eq!((url.username(), url.password()), ("", None), "{text}");
}

/// Whether a text was taken; if so, both readings agree. The same for its repair.
fn taken(text: &str) -> (bool, bool) {
    let parsed = Resource::parse(text);
    if let Ok(resource) = &parsed {
        let url = Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_same_reading(resource, &url);
        assert_eq!(canonicalize(text).as_deref(), Ok(text));
    }
    let repaired = canonicalize(text);
    if let Ok(canonical) = &repaired {
        let resource = Resource::parse(canonical).unwrap();
        assert_same_reading(&resource, &Url::parse(canonical).unwrap());
        let special = ["http", "https", "ws", "wss", "ftp"].contains(&resource.scheme());
        if special {
            let before = Url::parse(text.trim()).unwrap();
            let after = Url::parse(canonical).unwrap();
            assert_eq!(before.origin(), after.origin(), "{text}");
        }
    }
    (parsed.is_ok(), repaired.is_ok())
}

#[test]
fn every_url_is_refused_or_read_as_a_url_parser_reads_it() {
    let Some(text) = external("whatwg-url/urltestdata.json") else {
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut texts = Vec::new();
    for case in &cases {
        texts.extend(case["input"].as_str().map(str::to_owned));
        texts.extend(case["href"].as_str().map(str::to_owned));
        texts.extend(case["href"].as_str().map(|href| href.trim_end_matches('/').to_owned()));
    }
    assert!(texts.len() > 1500, "{} texts", texts.len());
    let all: Vec<_> = texts.iter().map(|text| taken(text)).collect();
    let accepted = all.iter().filter(|(parsed, _)| *parsed).count();
    let repaired = all.iter().filter(|(_, repaired)| *repaired).count();
    assert!(accepted > 100 && repaired > accepted, "{accepted} accepted, {repaired} repaired");
    eprintln!("{} texts: {accepted} accepted, {repaired} repaired", texts.len());
}

#[test]
fn every_name_is_refused_or_read_as_a_url_parser_reads_it() {
    let Some(text) = external("whatwg-url/IdnaTestV2.txt") else {
        return;
    };
    let mut names = Vec::new();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default()) {
        let columns: Vec<&str> = line.split(';').map(str::trim).collect();
        if columns.len() > 5 {
            names.extend([columns[0], columns[1], columns[3], columns[5]].map(str::to_owned));
        }
    }
    assert!(names.len() > 20_000, "{} names", names.len());
    let all = names.iter().map(|name| taken(&format!("https://{name}/a")));
    let accepted = all.filter(|(parsed, _)| *parsed).count();
    assert!(accepted > 100, "{accepted} accepted");
    eprintln!("{} names: {accepted} accepted", names.len());
}
