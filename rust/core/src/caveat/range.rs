//! Ranges of addresses in CIDR notation (RFC 4632, RFC 4291 §2.3), each in its one spelling.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};
use crate::limits;

use super::too_many;

/// Addresses that share their first bits, such as `10.0.0.0/8` or `fd00::/8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    text: Box<str>,
    six: bool,
    first: u128,
    last: u128,
}

impl Range {
    /// Parses an address and the number of its leading bits that count.
    ///
    /// # Errors
    /// `malformed` where the address or the number has another spelling, a bit beyond the number
    /// is set, or the range is one of IPv4-mapped addresses: write the IPv4 range.
    pub fn parse(text: &str) -> Result<Self> {
        let (base, bits) = text.split_once('/').ok_or_else(|| refused(text))?;
        let address: IpAddr = base.parse().map_err(|_| refused(text))?;
        let width: u32 = if address.is_ipv6() { 128 } else { 32 };
        let prefix: u32 = bits.parse().map_err(|_| refused(text))?;
        if prefix > width || bits != prefix.to_string() || base != address.to_string() {
            return Err(refused(text));
        }
        let free = u128::MAX.checked_shr(128 - width + prefix).unwrap_or(0);
        let first = number(address);
        if first & free != 0 || (prefix >= 96 && is_mapped(address)) {
            return Err(refused(text));
        }
        Ok(Self { text: text.into(), six: address.is_ipv6(), first, last: first | free })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the address lies in it. An IPv4-mapped address, the second spelling of an IPv4
    /// address, lies in none.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        address.is_ipv6() == self.six
            && (self.first..=self.last).contains(&number)
            && !is_mapped(address)
    }

    /// Whether every address of the other lies in it.
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.six == other.six && self.first <= other.first && other.last <= self.last
    }

    /// What both hold: two ranges are apart, or one lies in the other.
    pub(super) fn both<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        let inner = if self.covers(other) { other } else { self };
        (self.covers(inner) && other.covers(inner)).then_some(inner)
    }

    /// The first address of this range that lies in none of those.
    pub(super) fn gap(&self, those: &[&Self]) -> Option<IpAddr> {
        let mut inside: Vec<_> = those.iter().filter_map(|range| self.both(range)).collect();
        inside.sort_unstable_by_key(|range| range.first);
        let mut next = self.first;
        for range in inside {
            if range.first <= next {
                next = next.max(range.last.checked_add(1)?);
            }
        }
        (next <= self.last).then(|| self.address(next)).filter(|address| self.contains(*address))
    }

    fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if !self.six => IpAddr::V4(Ipv4Addr::from_bits(number)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Ranges of one rule: sorted, at most 8, none within another.
pub(super) fn ranges(mut given: Vec<Range>) -> Result<Vec<Range>> {
    given.sort_unstable();
    given.dedup();
    if given.len() > limits::RANGES {
        return Err(too_many("address ranges", given.len(), limits::RANGES));
    }
    let inner = |one: &Range| given.iter().any(|other| other != one && other.covers(one));
    Ok(given.iter().filter(|one| !inner(one)).cloned().collect())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => four.to_bits().into(),
        IpAddr::V6(six) => six.to_bits(),
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some())
}

fn refused(text: &str) -> Error {
    Error::malformed(format!(
        "`{}` is not an address range; write one as `10.0.0.0/8` or `fd00::/8`, the bits behind \
         the prefix zero",
        text.escape_debug()
    ))
}
