#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{is_global, is_never};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn hosts_on_the_internet_are_global() {
    let hosts = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
        128.0.0.0 140.82.121.4 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 \
        172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 \
        198.20.0.0 223.255.255.255 2001:200:: 2001:4860:4860::8888 2003:: 2600:: 2606:4700::1111 \
        2a00:1450::8a 2620:4f:7fff::1 2620:4f:8001::1 3ffd:: 3fff:1000::1";
    for host in hosts.split_whitespace() {
        assert!(is_global(address(host)), "{host}");
    }
}

/// The first and last address of everything that is no host on the internet.
#[test]
fn nothing_else_is_global() {
    let others = "0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 \
        100.127.255.255 127.0.0.0 127.0.0.1 127.255.255.255 168.63.129.16 169.254.0.0 \
        169.254.169.254 169.254.170.2 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 \
        192.0.0.9 192.0.0.192 192.0.0.255 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 \
        192.168.0.0 192.168.255.255 192.175.48.1 198.18.0.0 198.19.255.255 198.51.100.1 \
        203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.254 255.255.255.255";
    let others = others.split_whitespace().chain(
        ":: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::ffff:0:127.0.0.1 \
         64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::a00:1 64:ff9b:1:ffff::1 100::1 100:0:0:1::1 \
         1fff:ffff::1 2001:: 2001::1 2001:0:808:808:: 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 \
         2001:10::1 2001:1f::1 2001:20::1 2001:30::1 2001:1ff:: 2001:db8::1 2001:db8:ffff::1 \
         2002:: 2002:7f00:1::1 2002:a00:1:: 2002:808:808::1 2620:4f:8000::1 3ffe::1 3fff::1 \
         3fff:fff::1 4000::1 5f00::1 8000::1 c000::1 e000::1 fb00::1 fc00::1 fd00:ec2::254 \
         fd20:ce::254 fd00:c1::a9fe:a9fe fdff::1 fe00::1 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 \
         feff::1 ff00:: ff02::1 ff0e::1 2a00:1450::5efe:7f00:1 2a00:1450::200:5efe:a00:1 \
         2a00:1450::300:5efe:a00:1"
            .split_whitespace(),
    );
    for other in others {
        assert!(!is_global(address(other)), "{other}");
    }
}

#[test]
fn no_range_makes_up_for_an_address_of_no_host() {
    let never = "0.0.0.0 0.1.2.3 224.0.0.1 255.255.255.255 :: ff02::1 ::ffff:10.0.0.1 ::10.0.0.1";
    assert!(never.split_whitespace().all(|at| is_never(address(at))));
    let may = "127.0.0.1 10.0.0.1 169.254.1.1 ::1 fd00::1 fe80::1 2001:db8::1 240.0.0.1";
    assert!(may.split_whitespace().all(|at| !is_never(address(at))));
}

proptest! {
    /// An IPv6 address that only carries an IPv4 one is never global, whatever it carries.
    #[test]
    fn an_ipv4_address_in_disguise_is_not_global(bits: u32) {
        let [high, low] = [(bits >> 16) as u16, bits as u16];
        let disguised = [
            Ipv4Addr::from_bits(bits).to_ipv6_mapped(),
            Ipv4Addr::from_bits(bits).to_ipv6_compatible(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 0, !high, !low),
            Ipv6Addr::new(0x2a00, 1, 2, 3, 0, 0x5efe, high, low),
        ];
        for address in disguised {
            prop_assert!(!is_global(address.into()), "{}", address);
        }
    }

    /// What the standard library knows to be special is not global here.
    #[test]
    fn no_test_of_the_standard_library_disagrees(bits: u32, wide: u128) {
        let v4 = Ipv4Addr::from_bits(bits);
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local()
            || v4.is_broadcast() || v4.is_documentation() || v4.is_multicast();
        prop_assert!(!(special && is_global(v4.into())), "{}", v4);
        let v6 = Ipv6Addr::from_bits(wide);
        let special = v6.is_loopback() || v6.is_multicast() || v6.is_unique_local()
            || v6.is_unicast_link_local() || v6.is_unspecified();
        prop_assert!(!(special && is_global(v6.into())), "{}", v6);
    }
}
