//! From where a request comes: what can be counted of callers who show nothing that costs them anything.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;

/// From which address a connection comes; the server puts it on requests.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Whose request it is, as far as limits go.
    ///
    /// Only a connection from this machine or a private network can be a proxy's, so only there is the last entry of
    /// `X-Forwarded-For` believed: the one that the proxy itself wrote. A proxy on this machine that writes none stands for
    /// nobody, since all people would share its number. An IPv6 network of 64 bits is one place.
    pub fn place(self, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = self.0.to_canonical();
        let forwarded = || {
            let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
            address_of(last.rsplit(',').next()?.trim())
        };
        let address = match (peer.is_loopback(), self.may_be_proxy()) {
            (true, _) => forwarded()?,
            (false, true) => forwarded().unwrap_or(peer),
            (false, false) => peer,
        };
        Some(Peer(address).network())
    }

    /// Whether the connection may be a proxy's, which stands for many people.
    pub fn may_be_proxy(self) -> bool {
        match self.0.to_canonical() {
            IpAddr::V4(address) => address.is_loopback() || address.is_private(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
        }
    }

    /// The address, or the IPv6 network of 64 bits that it is in.
    pub fn network(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address @ IpAddr::V4(_) => address,
        }
    }
}

/// The address in an entry of `X-Forwarded-For`; some proxies add the port.
fn address_of(entry: &str) -> Option<IpAddr> {
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    entry.parse().ok().or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    fn address(peer: &str, pairs: &[(&'static str, &'static str)]) -> Option<String> {
        Peer(peer.parse().unwrap()).place(&headers(pairs)).map(|address| address.to_string())
    }

    #[test]
    fn only_what_a_proxy_nearby_wrote_itself_is_believed() {
        let forged = [("x-forwarded-for", "198.51.100.1")];
        assert_eq!(address("203.0.113.7", &forged).as_deref(), Some("203.0.113.7"), "nobody's proxy");
        assert_eq!(address("::ffff:203.0.113.7", &forged).as_deref(), Some("203.0.113.7"));
        let passed_on = [("x-forwarded-for", "198.51.100.1, 203.0.113.7")];
        let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7")];
        for peer in ["127.0.0.1", "::1", "10.0.0.2", "192.168.1.1", "fd00::2"] {
            assert_eq!(address(peer, &passed_on).as_deref(), Some("203.0.113.7"), "{peer}");
            assert_eq!(address(peer, &lines).as_deref(), Some("203.0.113.7"), "{peer}");
        }
        assert_eq!(address("127.0.0.1", &[]), None);
        for (entry, known) in [
            ("203.0.113.7:5678", Some("203.0.113.7")),
            ("[2001:db8::1]:443", Some("2001:db8::")),
            ("[2001:db8::1]", Some("2001:db8::")),
            ("203.0.113.7:", None),
            ("somewhere", None),
        ] {
            assert_eq!(address("127.0.0.1", &[("x-forwarded-for", entry)]).as_deref(), known, "{entry}");
        }
        assert_eq!(address("127.0.0.1", &[("x-forwarded-for", "unknown")]), None);
        assert_eq!(address("10.0.0.2", &[]).as_deref(), Some("10.0.0.2"));
        assert_eq!(address("2001:db8:1:2:3:4:5:6", &[]).as_deref(), Some("2001:db8:1:2::"));
        assert_eq!(address("2001:db8:1:2:ffff::", &[]).as_deref(), Some("2001:db8:1:2::"), "one network");
    }
}
