//! Base58 in Bitcoin's alphabet, of the one length that a `did:key` of an Ed25519 key has.
//!
//! Every link names its issuer so, hence five digits at a time and nothing allocated. The length
//! is fixed, so a value has one spelling: no leading digit can be added or left out.

/// A multicodec prefix of two bytes and a key.
pub(super) const BYTES: usize = 34;
/// Its digits, for 58^46 < 0xed01 * 256^32 and 0xed02 * 256^32 < 58^47.
pub(super) const DIGITS: usize = 47;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// What five digits count to.
const FIVE: u64 = 58 * 58 * 58 * 58 * 58;
/// 32-bit limbs that hold the bytes, the largest first, and what they have in excess.
const LIMBS: usize = 9;
const SPARE_BYTES: usize = LIMBS * 4 - BYTES;
/// Digits that ten groups of five have in excess: zeros.
const SPARE_DIGITS: usize = 50 - DIGITS;

/// The digits of bytes that start with the prefix of an Ed25519 key.
pub(super) fn encode(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    let mut wide = [0; LIMBS * 4];
    for (place, byte) in wide.iter_mut().skip(SPARE_BYTES).zip(bytes) {
        *place = *byte;
    }
    let (words, _) = wide.as_chunks::<4>();
    let mut limbs = [0_u64; LIMBS];
    for (limb, word) in limbs.iter_mut().zip(words) {
        *limb = u32::from_be_bytes(*word).into();
    }
    let mut digits = [0; SPARE_DIGITS + DIGITS];
    for group in digits.as_chunks_mut::<5>().0.iter_mut().rev() {
        let mut rest = 0;
        for limb in &mut limbs {
            let value = rest << 32 | *limb;
            (*limb, rest) = (value / FIVE, value % FIVE);
        }
        for digit in group.iter_mut().rev() {
            let at = usize::try_from(rest % 58).unwrap_or_default();
            *digit = ALPHABET.get(at).copied().unwrap_or_default();
            rest /= 58;
        }
    }
    let [_, _, _, digits @ ..] = digits;
    digits
}

/// The bytes of so many digits; nothing for anything else.
pub(super) fn decode(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != DIGITS {
        return None;
    }
    let mut digits = [b'1'; SPARE_DIGITS + DIGITS];
    for (place, digit) in digits.iter_mut().skip(SPARE_DIGITS).zip(text.bytes()) {
        *place = digit;
    }
    let mut limbs = [0_u64; LIMBS];
    for group in digits.as_chunks::<5>().0 {
        let mut carry = 0;
        for digit in group {
            carry = carry * 58 + value(*digit)?;
        }
        for limb in limbs.iter_mut().rev() {
            let value = *limb * FIVE + carry;
            (*limb, carry) = (value & 0xffff_ffff, value >> 32);
        }
        if carry > 0 {
            return None;
        }
    }
    let mut wide = [0; LIMBS * 4];
    for (place, limb) in wide.as_chunks_mut::<4>().0.iter_mut().zip(limbs) {
        let [_, _, _, _, low @ ..] = limb.to_be_bytes();
        *place = low;
    }
    let [0, 0, bytes @ ..] = wide else { return None };
    Some(bytes)
}

/// What a digit counts.
fn value(digit: u8) -> Option<u64> {
    let value = match digit {
        b'1'..=b'9' => digit - b'1',
        b'A'..=b'H' => digit - b'A' + 9,
        b'J'..=b'N' => digit - b'J' + 17,
        b'P'..=b'Z' => digit - b'P' + 22,
        b'a'..=b'k' => digit - b'a' + 33,
        b'm'..=b'z' => digit - b'm' + 44,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_another_implementation(key in any::<[u8; 32]>(), low in any::<bool>()) {
            let mut bytes = [0; BYTES];
            bytes[..2].copy_from_slice(&[0xed, 0x01]);
            bytes[2..].copy_from_slice(if low { &[0; 32] } else { &key });
            let text = bs58::encode(bytes).into_string();
            prop_assert_eq!(&encode(&bytes)[..], text.as_bytes());
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn what_it_reads_is_what_another_reads(text in "[1-9A-HJ-NP-Za-km-z]{47}") {
            let theirs = bs58::decode(&text).into_vec().ok();
            let fits = |bytes: &Vec<u8>| bytes.iter().skip_while(|byte| **byte == 0).count() <= BYTES;
            let theirs = theirs.filter(fits).map(|bytes| {
                let mut wide = [0; BYTES];
                for (place, byte) in wide.iter_mut().rev().zip(bytes.iter().rev()) {
                    *place = *byte;
                }
                wide
            });
            prop_assert_eq!(decode(&text), theirs);
        }

        #[test]
        fn one_changed_character_is_refused_or_another_value(
            key in any::<[u8; 32]>(), at in 0..DIGITS, other in 0x20_u8..0x7f
        ) {
            let mut bytes = [7; BYTES];
            bytes[..2].copy_from_slice(&[0xed, 0x01]);
            bytes[2..].copy_from_slice(&key);
            let mut text = encode(&bytes);
            prop_assume!(text[at] != other);
            text[at] = other;
            let text = String::from_utf8_lossy(&text).into_owned();
            prop_assert_ne!(decode(&text), Some(bytes));
        }
    }

    #[test]
    fn other_lengths_and_characters_are_refused() {
        let zeros = "1".repeat(DIGITS);
        assert_eq!(decode(&zeros), Some([0; BYTES]));
        for bad in [&zeros[1..], &format!("1{zeros}"), "", &zeros.replacen('1', "0", 1)] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode(&"z".repeat(DIGITS)), None, "58^47 - 1 has more than 34 bytes");
    }
}
