//! Which IP addresses are public. Pure; says nothing about names or rules.
//!
//! IPv4 is everything but the special-purpose blocks; IPv6 is only the global unicast block `2000::/3`
//! without its special-purpose parts, so that a block nobody has thought of is refused.
//! Source: the IANA special-purpose address registries (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PRIVATE: &str = "a private address";
const SHARED: &str = "a carrier-internal address";
const UNIQUE_LOCAL: &str = "a unique-local address";

/// First octets, prefix length and what to call it.
const V4: [([u8; 4], u32, &str); 16] = [
    ([0, 0, 0, 0], 8, "an unspecified address"),
    ([10, 0, 0, 0], 8, PRIVATE),
    ([100, 64, 0, 0], 10, SHARED),
    ([127, 0, 0, 0], 8, "a loopback address"),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, PRIVATE),
    ([192, 0, 0, 0], 24, "a reserved address"),
    ([192, 0, 2, 0], 24, "a documentation address"),
    ([192, 88, 99, 0], 24, "a 6to4 relay address"),
    ([192, 168, 0, 0], 16, PRIVATE),
    ([198, 18, 0, 0], 15, "a benchmarking address"),
    ([198, 51, 100, 0], 24, "a documentation address"),
    ([203, 0, 113, 0], 24, "a documentation address"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([255, 255, 255, 255], 32, "the broadcast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

/// First segments, prefix length and what to call it. What is in no row and outside `2000::/3` is reserved.
const V6: [([u16; 6], u32, &str); 16] = [
    ([0, 0, 0, 0, 0, 0xffff], 96, "an IPv4-mapped address"),
    ([0, 0, 0, 0, 0xffff, 0], 96, "an IPv4-translated address"),
    ([0, 0, 0, 0, 0, 0], 96, "an IPv4-compatible address"),
    ([0x64, 0xff9b, 0, 0, 0, 0], 96, "a NAT64 address"),
    ([0x64, 0xff9b, 1, 0, 0, 0], 48, "a NAT64 address"),
    ([0x100, 0, 0, 0, 0, 0], 64, "a discard-only address"),
    ([0x2001, 0, 0, 0, 0, 0], 32, "a Teredo address"),
    ([0x2001, 0, 0, 0, 0, 0], 23, "a reserved address"),
    ([0x2001, 0xdb8, 0, 0, 0, 0], 32, "a documentation address"),
    ([0x2002, 0, 0, 0, 0, 0], 16, "a 6to4 address"),
    ([0x3fff, 0, 0, 0, 0, 0], 20, "a documentation address"),
    ([0x3ffe, 0, 0, 0, 0, 0], 16, "a reserved address"),
    ([0xfc00, 0, 0, 0, 0, 0], 7, UNIQUE_LOCAL),
    ([0xfe80, 0, 0, 0, 0, 0], 10, "a link-local address"),
    ([0xfec0, 0, 0, 0, 0, 0], 10, "a site-local address"),
    ([0xff00, 0, 0, 0, 0, 0], 8, "a multicast address"),
];

/// What an address is that nobody on the public internet answers at; `None` for a public one.
pub(super) fn non_public_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => non_public_v4(v4),
        IpAddr::V6(v6) => non_public_v6(v6),
    }
}

/// Whether it is an address of an ordinary internal network: neither public nor this machine, nor the
/// link-local range in which clouds serve their credentials.
pub(super) fn is_intranet(address: IpAddr) -> bool {
    matches!(non_public_kind(address), Some(PRIVATE | SHARED | UNIQUE_LOCAL)) && address != AWS_METADATA_V6
}

/// A unique-local address at which a cloud serves credentials to the machines on it.
const AWS_METADATA_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));

fn non_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = u32::from(address);
    V4.iter()
        .find(|(base, prefix, _)| (bits ^ u32::from_be_bytes(*base)) >> (32 - prefix) == 0)
        .map(|(_, _, kind)| *kind)
}

fn non_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_unspecified() {
        return Some("an unspecified address");
    }
    let bits = u128::from(address);
    let listed = V6.iter().find(|(base, prefix, _)| {
        let [a, b, c, d, e, f] = *base;
        let base = u128::from(Ipv6Addr::new(a, b, c, d, e, f, 0, 0));
        (bits ^ base) >> (128 - prefix) == 0
    });
    if let Some((_, _, kind)) = listed {
        return Some(kind);
    }
    let [first, _, _, _, isatap_flags, isatap, _, _] = address.segments();
    // RFC 5214 §6.1: the last 32 bits are an IPv4 address that a router on the way unpacks.
    if isatap == 0x5efe && isatap_flags & !0x0300 == 0 {
        return Some("an ISATAP address");
    }
    if first & 0xe000 == 0x2000 { None } else { Some("a reserved address") }
}
