//! Addresses: an allow test for global unicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 within `1.0.0.0` to `223.255.255.255` that is no host on the internet: every entry of the
/// IANA IPv4 Special-Purpose Address Registry there, those that are globally reachable included
/// (none is a server that anybody means), and the address of one cloud's machine agent, which is
/// routed nowhere else.
const SPECIAL_V4: &[([u8; 4], u8)] = &[
    ([10, 0, 0, 0], 8),       // private (RFC 1918)
    ([100, 64, 0, 0], 10),    // shared, carrier-grade NAT (RFC 6598)
    ([127, 0, 0, 0], 8),      // loopback (RFC 1122)
    ([169, 254, 0, 0], 16),   // link-local, cloud metadata (RFC 3927)
    ([172, 16, 0, 0], 12),    // private (RFC 1918)
    ([192, 0, 0, 0], 24),     // protocol assignments (RFC 6890)
    ([192, 0, 2, 0], 24),     // documentation (RFC 5737)
    ([192, 31, 196, 0], 24),  // AS112 (RFC 7535)
    ([192, 52, 193, 0], 24),  // AMT (RFC 7450)
    ([192, 88, 99, 0], 24),   // 6to4 relays (RFC 7526)
    ([192, 168, 0, 0], 16),   // private (RFC 1918)
    ([192, 175, 48, 0], 24),  // AS112 (RFC 7534)
    ([198, 18, 0, 0], 15),    // benchmarking (RFC 2544)
    ([198, 51, 100, 0], 24),  // documentation (RFC 5737)
    ([203, 0, 113, 0], 24),   // documentation (RFC 5737)
    ([168, 63, 129, 16], 32), // Azure's machine agent and metadata
];

/// IPv6 within `2000::/3` that is no host on the internet, or that carries an IPv4 address
/// (IANA IPv6 Special-Purpose Address Registry).
const SPECIAL_V6: &[([u16; 3], u8)] = &[
    ([0x2001, 0, 0], 23), // protocol assignments: Teredo, benchmarking, ORCHID, AMT (RFC 2928)
    ([0x2001, 0xdb8, 0], 32), // documentation (RFC 3849)
    ([0x2002, 0, 0], 16), // 6to4 (RFC 3056)
    ([0x2620, 0x4f, 0x8000], 48), // AS112 (RFC 7534)
    ([0x3ffe, 0, 0], 16), // 6bone, given back (RFC 3701)
    ([0x3fff, 0, 0], 20), // documentation (RFC 9637)
];

/// Whether the address is global unicast: one that belongs to a host on the internet.
///
/// This is an allow test. IPv6 outside `2000::/3` and IPv4 outside `1.0.0.0` to `223.255.255.255`
/// fail it whatever they are (loopback, unique local, link-local, multicast, NAT64, IPv4-mapped
/// and -compatible, reserved, broadcast), and so does what is special within.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let special = |(net, bits): &([u8; 4], u8)| {
                let differing = Ipv4Addr::from(*net).to_bits() ^ v4.to_bits();
                differing >> (32 - bits) == 0
            };
            (1..=223).contains(&v4.octets()[0]) && !SPECIAL_V4.iter().any(special)
        }
        IpAddr::V6(v6) => {
            let special = |([a, b, c], bits): &([u16; 3], u8)| {
                let base = Ipv6Addr::new(*a, *b, *c, 0, 0, 0, 0, 0);
                (base.to_bits() ^ v6.to_bits()) >> (128 - bits) == 0
            };
            v6.segments()[0] & 0xe000 == 0x2000 && !SPECIAL_V6.iter().any(special) && !is_isatap(v6)
        }
    }
}

/// Whether the low half is `0:5efe:v4`, two flags aside: an IPv4 address tunnelled within a site
/// (RFC 5214).
fn is_isatap(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    segments[4] & 0xfcff == 0 && segments[5] == 0x5efe
}

/// Whether no range makes up for it: an address of no single host, or a second spelling of an
/// IPv4 address, whose range would be another.
pub(crate) fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            let embedded = v6.segments()[..5] == [0; 5] && !v6.is_loopback();
            v6.is_unspecified() || v6.is_multicast() || embedded
        }
    }
}

#[cfg(test)]
#[path = "tests/address.rs"]
mod tests;
