//! Which characters a segment may hold, and in which one spelling (`spec/pattern.md`, Segments).

use std::borrow::Cow;

use unicode_normalization::is_nfc;

/// Why a text is refused: lower case, says what to write instead.
pub(super) type Fault = &'static str;

/// Inclusive ranges of characters that no resource holds, sorted: controls, formats (bidi,
/// zero width, tags), spaces and separators, default ignorables, private use, noncharacters,
/// and characters that Unicode folds to, or people read as, `. / \ % * ? # ;`. The last two
/// code points of every plane are refused as well.
const REFUSED: &[(u32, u32)] = &[
    (0x0080, 0x00A0),
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2000, 0x200F),
    (0x2024, 0x2026),
    (0x2028, 0x202F),
    (0x2044, 0x2044),
    (0x2047, 0x2049),
    (0x205F, 0x206F),
    (0x2100, 0x2101),
    (0x2105, 0x2106),
    (0x2215, 0x2216),
    (0x29F5, 0x29F5),
    (0x29F8, 0x29F9),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xD800, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE1F),
    (0xFE30, 0xFE30),
    (0xFE50, 0xFE6F),
    (0xFEFF, 0xFEFF),
    (0xFF03, 0xFF03),
    (0xFF05, 0xFF05),
    (0xFF0A, 0xFF0A),
    (0xFF0E, 0xFF0F),
    (0xFF1B, 0xFF1B),
    (0xFF1F, 0xFF1F),
    (0xFF3C, 0xFF3C),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0x10FFFF),
];

/// What a refused escape is told.
const ESCAPE: Fault = "a percent escape is `%20 %22 %23 %3C %3E %3F %5B %5D %5E %60 %7B %7C` or \
     `%7D`; write every other character plainly, and name nothing that holds `/ \\ % * ;` or a \
     control character";

/// Whether a printable ASCII byte stands for itself in a segment: RFC 3986 `pchar` without `%`,
/// `*` (a wildcard) and `;` (a path parameter, which many servers drop).
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'+' | b','
        )
        || matches!(byte, b'=' | b':' | b'@')
}

/// Whether a byte is written as a percent escape, and only so.
fn is_escaped(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'"' | b'#' | b'<' | b'>' | b'?' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}'
    )
}

/// Checks one segment; `stars` lets `*` stand. `**` is the caller's affair.
///
/// # Errors
/// What to write instead.
pub(super) fn check_segment(segment: &[u8], stars: bool) -> Result<(), Fault> {
    if segment.is_empty() {
        return Err("a segment is empty; drop the extra `/`");
    }
    if matches!(segment, b"." | b"..") {
        return Err("`.` and `..` are not segments; write the path they lead to");
    }
    // Most segments are plain: one look each, and the reasons are left for the others.
    if segment.iter().all(|byte| is_plain(*byte)) {
        return Ok(());
    }
    let mut bytes = segment.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => check_escape(bytes.next(), bytes.next())?,
            b'*' if stars => {}
            b'*' => return Err("a resource has no `*`; name one thing, or parse it as a pattern"),
            b'?' | b'#' => {
                return Err("a query or fragment is no part of a resource; pass it as an argument");
            }
            b'\\' => return Err("`\\` separates nothing; write `/`"),
            b';' => return Err("`;` starts a path parameter, a second spelling; leave it out"),
            0..=0x1F | 0x7F => return Err("a control character is refused; leave it out"),
            byte if is_plain(byte) || !byte.is_ascii() => {}
            _ => return Err("a space or one of `\"<>[]^`{|}` stands plainly; percent-escape it"),
        }
    }
    Ok(())
}

/// Checks the two digits after a `%`: upper case, and of a character that needs them.
fn check_escape(high: Option<u8>, low: Option<u8>) -> Result<(), Fault> {
    match unescape(high, low) {
        Some(byte) if is_escaped(byte) => Ok(()),
        _ => Err(ESCAPE),
    }
}

fn unescape(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| match byte? {
        byte @ b'0'..=b'9' => Some(byte - b'0'),
        byte @ b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// Checks what concerns the whole text: its characters beyond ASCII, and normal form C (UAX #15),
/// both as it is spelled and as it reads once its escapes are decoded.
///
/// # Errors
/// What to write instead.
pub(super) fn check_unicode(text: &str) -> Result<(), Fault> {
    if text.is_ascii() {
        return Ok(());
    }
    if text.chars().any(is_refused) {
        return Err("an invisible, control, bidi, private or look-alike character; leave it out");
    }
    if !is_nfc(text) || !is_nfc(&decode(text)) {
        return Err("not in Unicode normal form C; normalise it");
    }
    Ok(())
}

fn is_refused(character: char) -> bool {
    let code = u32::from(character);
    let within = |&(low, high): &(u32, u32)| low <= code && code <= high;
    code & 0xFFFE == 0xFFFE || REFUSED.iter().any(within)
}

/// The text with its escapes decoded. Only for text that was checked: what is no escape of
/// `is_escaped` stays as it is.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('%');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let mut bytes = part.bytes();
        match unescape(bytes.next(), bytes.next()).filter(|&byte| is_escaped(byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
}

/// A text from outside, made fit for an error: escaped and cut to 120 characters.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown: String = text.escape_debug().take(121).collect();
    if let Some((cut, _)) = shown.char_indices().nth(120) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}
