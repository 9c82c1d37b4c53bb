//! Keeping secrets out of what comes back: each value is replaced by the text of its handle.

use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

/// Values and what stands in their place.
pub(crate) struct Scrubber {
    /// The longest value first, so that none hides in a longer one.
    words: Vec<(Zeroizing<Vec<u8>>, Box<str>)>,
    starts: [bool; 256],
}

impl Scrubber {
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = (&'a [u8], &'a str)>) -> Self {
        let word = |(value, handle): (&[u8], &str)| (Zeroizing::new(value.to_vec()), handle.into());
        let mut words: Vec<(Zeroizing<Vec<u8>>, Box<str>)> = secrets.map(word).collect();
        words.retain(|(value, _)| !value.is_empty());
        words.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        let mut starts = [false; 256];
        for first in words.iter().filter_map(|(value, _)| value.first()) {
            if let Some(start) = starts.get_mut(usize::from(*first)) {
                *start = true;
            }
        }
        Self { words, starts }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.words.is_empty()
    }

    /// The bytes without any value.
    pub(crate) fn clean(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        self.pass(bytes, true, &mut out);
        out
    }

    /// Whether a value is in the bytes.
    pub(crate) fn finds(&self, bytes: &[u8]) -> bool {
        self.words.iter().any(|(value, _)| bytes.windows(value.len()).any(|part| part == &***value))
    }

    /// Copies what is sure to hold no value; how much of `input` is settled. What is left may be
    /// the start of a value, unless this is the `last` of it.
    fn pass(&self, input: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        'bytes: while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let begins = |byte: &u8| self.starts.get(usize::from(*byte)) == Some(&true);
            let clear = rest.iter().position(begins).unwrap_or(rest.len());
            if clear > 0 {
                out.extend(rest.iter().take(clear));
                at += clear;
                continue;
            }
            for (value, handle) in &self.words {
                if rest.starts_with(value) {
                    out.extend_from_slice(handle.as_bytes());
                    at += value.len();
                    continue 'bytes;
                }
                if !last && value.starts_with(rest) {
                    return at;
                }
            }
            out.extend(rest.first());
            at += 1;
        }
        at
    }
}

/// The same over pieces, wherever they are cut.
pub(crate) struct Stream {
    scrubber: Arc<Scrubber>,
    held: Zeroizing<Vec<u8>>,
}

impl Stream {
    pub(crate) fn new(scrubber: Arc<Scrubber>) -> Self {
        Self { scrubber, held: Zeroizing::default() }
    }

    /// What can be passed on after this piece. Held back is at most the start of a value.
    pub(crate) fn push(&mut self, piece: Bytes) -> Bytes {
        if self.scrubber.is_idle() {
            return piece;
        }
        let mut input = Zeroizing::new(Vec::with_capacity(self.held.len() + piece.len()));
        input.extend_from_slice(&self.held);
        input.extend_from_slice(&piece);
        let mut out = Vec::with_capacity(input.len());
        let settled = self.scrubber.pass(&input, false, &mut out);
        self.held = Zeroizing::new(input.get(settled..).unwrap_or_default().to_vec());
        out.into()
    }

    /// What was held back, once nothing follows.
    pub(crate) fn finish(&mut self) -> Bytes {
        let held = std::mem::take(&mut self.held);
        self.scrubber.clean(&held).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrubber(values: &[&str]) -> Arc<Scrubber> {
        Arc::new(Scrubber::new(values.iter().map(|value| (value.as_bytes(), "secret://a"))))
    }

    fn through(scrubber: &Arc<Scrubber>, text: &[u8], piece: usize) -> Vec<u8> {
        let mut stream = Stream::new(Arc::clone(scrubber));
        let pieces = text.chunks(piece.max(1));
        let mut out: Vec<u8> =
            pieces.flat_map(|piece| stream.push(Bytes::copy_from_slice(piece))).collect();
        out.extend(stream.finish());
        out
    }

    #[test]
    fn a_value_is_found_wherever_the_pieces_are_cut() {
        let scrubber = scrubber(&["hunter2-hunter2"]);
        for piece in 1..60 {
            let text = b"[hunter2-hunter2] hunter2-hunterhunter2-hunter2hunter2-hunt";
            let want = "[secret://a] hunter2-huntersecret://ahunter2-hunt";
            assert_eq!(through(&scrubber, text, piece), want.as_bytes(), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_value_within_a_longer_one_does_not_save_its_rest() {
        let scrubber = scrubber(&["abcdefgh", "abcdefghijkl"]);
        for piece in 1..20 {
            assert_eq!(through(&scrubber, b"abcdefghijkl", piece), b"secret://a");
            assert_eq!(through(&scrubber, b"abcdefghijk", piece), b"secret://aijk");
        }
    }

    #[test]
    fn nothing_is_held_back_that_starts_no_value() {
        let mut stream = Stream::new(scrubber(&["hunter2-hunter2"]));
        assert_eq!(stream.push(Bytes::from_static(b"data: 1\n\n")), "data: 1\n\n");
        assert_eq!(stream.push(Bytes::from_static(b"data: hunt")), "data: ");
        assert_eq!(stream.push(Bytes::from_static(b"ing\n\n")), "hunting\n\n");
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(
            text in proptest::collection::vec(0u8..4, 0..200),
            values in proptest::collection::vec(proptest::collection::vec(0u8..4, 1..6), 1..4),
            piece in 1usize..20,
        ) {
            let pairs = values.iter().map(|value| (value.as_slice(), "#"));
            let scrubber = Arc::new(Scrubber::new(pairs));
            let whole = scrubber.clean(&text);
            prop_assert_eq!(&through(&scrubber, &text, piece), &whole);
            // The handle's text holds none of the bytes, so no value is made by putting it in.
            prop_assert!(!scrubber.finds(&whole));
        }
    }
}
