//! What is refused before any network is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use proptest::prelude::*;

use super::super::address::non_public_kind;
use super::super::{Refusal, parse_uri};
use super::peer::{egress, no_lookup};
use crate::config::EgressAllow;

/// As a person writes it and as other code hands it over: neither way in may let it pass.
fn verdict(text: &str, allow: Vec<EgressAllow>, local: bool) -> Result<(), Refusal> {
    let egress = egress(allow, local, no_lookup());
    let written = parse_uri(text).and_then(|uri| egress.check(&uri));
    if let Ok(uri) = text.parse::<Uri>() {
        let handed_over = egress.check(&uri);
        assert_eq!(written.is_ok(), handed_over.is_ok(), "{text}: {written:?}, {handed_over:?}");
    }
    written
}

fn refusal(text: &str) -> Refusal {
    verdict(text, vec![], false).expect_err(text)
}

fn rule(host: Option<&str>, cidr: Option<&str>, ports: &[u16]) -> Vec<EgressAllow> {
    let (host, cidr) = (host.map(ToOwned::to_owned), cidr.map(|cidr| cidr.parse().unwrap()));
    vec![EgressAllow { host, cidr, ports: ports.to_vec() }]
}

#[test]
fn every_spelling_of_an_address_that_is_not_public_is_refused() {
    let hosts = [
        // this machine
        "127.0.0.1 127.1 127.0.1 127.255.255.254 2130706433 017700000001 0x7f000001 0x7F.1 0177.0.0.1 \
        0x7f.0x0.0x0.0x1 127.0.0.1. 127.1. 00000177.0.0.01 0 0.0.0.0 0x0 [::1] [0:0:0:0:0:0:0:1] \
        [0000::0001] [::] [::127.0.0.1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:7F00:0001] \
        [0:0:0:0:0:ffff:7f00:1] [::ffff:0:127.0.0.1] localhost LOCALHOST localhost. LocalHost. \
        a.localhost a.b.localhost.",
        // the neighbours
        "10.0.0.1 10.1 167772161 0xa000001 012.0.0.1 172.16.0.1 172.31.255.255 0xac.16.1 192.168.0.1 \
        192.168.1 3232235521 0xc0a80001 0300.0250.0.1 100.64.0.1 100.127.255.255 [fc00::1] \
        [fd12:3456::1] [fec0::1] [::ffff:10.0.0.1] [::ffff:192.168.0.1] [::a00:1]",
        // clouds serve credentials here
        "169.254.169.254 2852039166 0xa9fea9fe 0xA9.0xFE.0xA9.0xFE 0251.0376.0251.0376 169.254.43518 \
        [::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [fe80::1] [fd00:ec2::254] \
        [64:ff9b::169.254.169.254] [64:ff9b::a9fe:a9fe] [64:ff9b:1::a9fe:a9fe] [2002:a9fe:a9fe::1]",
        // tunnels, also to what would be public
        "[64:ff9b::8.8.8.8] [64:ff9b:1::1] [2002:808:808::1] [2002:7f00:1::] [2001::1] \
        [2001:0:4136:e378:8000:63bf:3fff:fdd2] [::ffff:8.8.8.8] [::8.8.8.8] \
        [2606:4700::5efe:10.0.0.1] [2606:4700::200:5efe:127.0.0.1]",
        // special purposes
        "0.1.2.3 192.0.0.1 192.0.0.170 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 \
        192.88.99.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 4294967295 0xffffffff \
        [100::1] [2001:db8::1] [2001:2::1] [2001:10::1] [2001:20::1] [3fff::1] [5f00::1] [ff02::1] \
        [ff0e::1] [4000::1] [1::1]",
    ];
    for host in hosts.iter().flat_map(|group| group.split_whitespace()) {
        let seen = refusal(&format!("https://{host}/mcp"));
        assert!(matches!(seen, Refusal::NotPublic { .. }), "{host}: {seen}");
    }
}

#[test]
fn what_only_looks_like_an_address_is_refused() {
    let texts = [
        "https://127.0.0.1../",
        "https://1.2.3.4.5/",
        "https://256.0.0.1/",
        "https://1.2.3.999/",
        "https://4294967296/",
        "https://0x1ffffffff/",
        "https://127.0.0.0x/x:",
        "https://08.0.0.1/",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::ffff:127.1]/",
        "https://[1.2.3.4]/",
        "https://[v1.fe80]/",
        "https:///mcp",
        "https:////example.com/",
        "https:example.com",
        "https:/example.com",
        "https://",
        "https://./",
        "https://../",
        "https://a..b/",
        "https://.a/",
        "https://a../",
        "https://:443/",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:x/",
        "https://example.com:+443/",
        "https://exa mple.com/",
        "https://example.com\\@127.0.0.1/",
        "https://exa\tmple.com/",
        "https://example.com\n/",
        "https://ex%00ample.com/",
        "https://ex%2fample.com/",
        "https://a*b.com/",
        "https://$(x).com/",
        "https://xn--/",
        "https://xn--a/",
        "example.com",
        "//example.com/",
        "/mcp",
        "",
    ];
    for text in texts {
        let refused = verdict(text, vec![], false);
        assert!(refused.is_err(), "{text:?} passed");
    }
    let long = format!("https://{}.com/", "a".repeat(64));
    assert!(matches!(refusal(&long), Refusal::Malformed(_)));
    let long = format!("https://{}com/", "a.".repeat(130));
    assert!(matches!(refusal(&long), Refusal::Malformed(_)));
    let long = format!("https://example.com/{}", "a".repeat(9000));
    assert!(matches!(parse_uri(&long), Err(Refusal::Malformed(_))));
}

#[test]
fn letters_that_fold_to_digits_and_dots_are_the_address_they_fold_to() {
    for text in [
        "https://１２７.０.０.１/",
        "https://127。0。0。1/",
        "https://①②⑦.⓪.⓪.①/",
        "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        "https://%31%32%37.0.0.1/",
        "https://%6c%6fcalhost/",
        "https://loc\u{ad}alhost/",
        "https://localhost。/",
        "https://𝟏𝟐𝟕.𝟎.𝟎.𝟏/",
        "https://0𝔵7f.1/",
    ] {
        let seen = parse_uri(text).and_then(|uri| egress(vec![], false, no_lookup()).check(&uri));
        assert!(matches!(seen, Err(Refusal::NotPublic { .. })), "{text}: {seen:?}");
    }
}

#[test]
fn other_schemes_ports_and_credentials_are_refused_with_their_reason() {
    for text in ["ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "ws://example.com/"] {
        assert!(matches!(refusal(text), Refusal::Scheme(_)), "{text}");
    }
    for text in ["https://a@example.com/", "https://a:b@example.com/", "https://:b@example.com/"] {
        assert_eq!(refusal(text), Refusal::Credentials, "{text}");
    }
    for text in ["http://example.com/", "http://example.com:443/", "http://8.8.8.8/"] {
        assert!(matches!(refusal(text), Refusal::PlainHttp(_)), "{text}");
    }
    for port in [1, 22, 80, 6379, 8443, 65535] {
        let refused = refusal(&format!("https://example.com:{port}/"));
        assert_eq!(refused, Refusal::Port { host: "example.com".to_owned(), port });
        assert!(refused.to_string().contains(&format!("ports = [{port}]")), "{refused}");
    }
}

#[test]
fn no_refusal_repeats_a_password() {
    for text in
        ["https://me:hunter2@example.com/", "https://me:hunter2@", "x://me:hunter2@[/", "me:hunter2@h"]
    {
        let refused = parse_uri(text).unwrap_err().to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn public_hosts_pass_and_are_written_one_way() {
    for (text, uri) in [
        ("https://example.com", "https://example.com/"),
        ("https://EXAMPLE.com:443/Mcp?A=b#c", "https://example.com/Mcp?A=b"),
        ("https://example.com./", "https://example.com/"),
        ("https://mcp.corp.internal/", "https://mcp.corp.internal/"),
        ("https://printer.local/", "https://printer.local/"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("https://0x08080808/", "https://8.8.8.8/"),
        ("https://[2606:4700:0:0::1111]/", "https://[2606:4700::1111]/"),
        ("https://_dmarc.a-b.example/", "https://_dmarc.a-b.example/"),
        ("https://notlocalhost/", "https://notlocalhost/"),
    ] {
        assert_eq!(parse_uri(text).unwrap().to_string(), uri);
        assert_eq!(verdict(text, vec![], false), Ok(()), "{text}");
    }
}

#[test]
fn local_mode_opens_this_machine_and_nothing_else() {
    for open in [
        "http://127.0.0.1:3000/mcp",
        "http://127.1:3000/",
        "https://127.0.0.1:8443/",
        "http://[::1]:9/",
        "http://localhost:3000/",
        "http://LOCALHOST.:3000/",
        "http://app.localhost/",
        "https://example.com/",
    ] {
        assert_eq!(verdict(open, vec![], true), Ok(()), "{open}");
    }
    for closed in [
        "http://example.com/",
        "https://example.com:8443/",
        "http://10.0.0.1/",
        "http://192.168.1.1:3000/",
        "http://169.254.169.254/",
        "http://0.0.0.0:3000/",
        "http://[::]:3000/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://localhost.example.com/",
        "http://notlocalhost:3000/",
    ] {
        assert!(verdict(closed, vec![], true).is_err(), "{closed}");
    }
}

#[test]
fn rules_open_what_they_name() {
    type Case<'a> = (Option<&'a str>, Option<&'a str>, &'a [u16], &'a str, bool);
    let cases: [Case<'_>; 26] = [
        (Some("mcp.corp"), None, &[], "http://mcp.corp:8080/", true),
        (Some("MCP.corp."), None, &[], "http://mcp.corp:8080/", true),
        (Some("mcp.corp"), None, &[8080], "http://mcp.corp:8081/", false),
        (Some("mcp.corp"), None, &[], "http://x.mcp.corp/", false),
        (Some("*.corp"), None, &[], "http://mcp.corp/", true),
        (Some("*.corp"), None, &[], "http://a.mcp.corp/", true),
        (Some("*.corp"), None, &[], "http://corp/", false),
        (Some("*.corp"), None, &[], "http://evilcorp/", false),
        (Some("*.corp"), None, &[], "http://mcp.corp.evil.com/", false),
        (Some("10.0.0.5"), None, &[], "http://10.0.0.5/", true),
        (Some("10.0.0.5"), None, &[], "http://0xa000005/", true),
        (Some("10.0.0.5"), None, &[], "http://10.0.0.6/", false),
        (Some("fd00::5"), None, &[], "http://[fd00::5]/", true),
        (Some("fd00:ec2::254"), None, &[], "http://[fd00:ec2::254]/", false),
        (Some("169.254.169.254"), None, &[], "http://169.254.169.254/", false),
        (Some("127.0.0.1"), None, &[], "http://127.0.0.1/", false),
        (Some("localhost"), Some("127.0.0.0/8"), &[], "http://localhost:1/", true),
        (None, Some("10.0.0.0/8"), &[], "http://10.1.2.3:9000/", true),
        (None, Some("10.0.0.0/8"), &[9000], "http://10.1.2.3:9001/", false),
        (None, Some("10.0.0.0/8"), &[], "http://11.0.0.1/", false),
        (None, Some("10.0.0.0/8"), &[], "http://[::ffff:10.0.0.1]/", false),
        (None, Some("169.254.169.254/32"), &[], "http://169.254.169.254/", true),
        (Some("a.corp"), Some("10.0.0.0/8"), &[], "http://10.0.0.1/", false),
        (None, None, &[8443], "https://example.com:8443/", true),
        (None, None, &[8443], "https://10.0.0.1:8443/", false),
        (None, None, &[], "http://127.0.0.1/", false),
    ];
    for (host, cidr, ports, uri, open) in cases {
        let seen = verdict(uri, rule(host, cidr, ports), false);
        assert_eq!(seen.is_ok(), open, "{host:?} {cidr:?} {ports:?} {uri}: {seen:?}");
    }
}

fn forbidden_v4() -> impl Strategy<Value = Ipv4Addr> {
    let blocks: Vec<(u32, u32)> = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ]
    .iter()
    .map(|block| {
        let block: ipnet::Ipv4Net = block.parse().unwrap();
        (block.network().into(), block.broadcast().into())
    })
    .collect();
    proptest::sample::select(blocks).prop_flat_map(|(low, high)| low..=high).prop_map(Ipv4Addr::from)
}

/// Ways to write an IPv4 address into an IPv6 one that something on the way takes out again.
fn embeddings(v4: Ipv4Addr, noise: u128) -> [Ipv6Addr; 9] {
    let bits = u128::from(u32::from(v4));
    let low = noise & 0xffff_ffff_ffff_ffff;
    let global = 0x2606_4700_u128 << 96;
    [
        bits,
        0xffff_0000_0000 | bits,
        0xffff_0000_0000_0000 | bits,
        (0x64_ff9b_u128 << 96) | bits,
        (0x64_ff9b_0001_u128 << 80) | (noise & ((1 << 80) - 1)),
        (0x2002_u128 << 112) | (bits << 80) | (noise & ((1 << 80) - 1)),
        (0x2001_0000_u128 << 96) | (low << 32) | (!bits & 0xffff_ffff),
        global | (0x5efe << 32) | bits,
        global | (0x0200_5efe << 32) | bits,
    ]
    .map(Ipv6Addr::from)
}

proptest! {
    #[test]
    fn no_forbidden_ipv4_address_passes_in_any_spelling_or_embedding(v4 in forbidden_v4(), noise: u128) {
        prop_assert!(non_public_kind(IpAddr::V4(v4)).is_some());
        for v6 in embeddings(v4, noise) {
            prop_assert!(non_public_kind(IpAddr::V6(v6)).is_some(), "{}", v6);
            let refused = refusal(&format!("https://[{v6}]/"));
            prop_assert!(matches!(refused, Refusal::NotPublic { .. }), "{}", refused);
        }
        let [a, b, c, d] = v4.octets();
        let number = u32::from(v4);
        for text in [
            format!("{a}.{b}.{c}.{d}"),
            format!("{number}"),
            format!("{number:#x}"),
            format!("0{number:o}"),
            format!("{a:#x}.0{b:o}.{}", u32::from(c) << 8 | u32::from(d)),
            format!("0{a:o}.{}", number & 0xff_ffff),
            format!("{a}.{b}.{c}.{d}."),
        ] {
            let refused = refusal(&format!("https://{text}/"));
            prop_assert!(matches!(refused, Refusal::NotPublic { .. }), "{}: {}", text, refused);
        }
    }

    #[test]
    fn no_ipv6_address_outside_global_unicast_passes(bits: u128) {
        let v6 = Ipv6Addr::from(bits);
        if v6.segments()[0] & 0xe000 != 0x2000 {
            prop_assert!(non_public_kind(IpAddr::V6(v6)).is_some());
        }
    }

    #[test]
    fn no_text_breaks_the_reading_and_every_uri_read_is_read_the_same_again(text in "\\PC{0,60}") {
        let _ = parse_uri(&text);
        if let Ok(uri) = parse_uri(&format!("https://{text}")) {
            prop_assert_eq!(parse_uri(&uri.to_string()).unwrap(), uri);
        }
    }
}
