//! URLs of webhooks: a URL that is accepted without permission for private addresses names no such address, as a
//! browser's URL parser would understand it, and the guard agrees about the address itself (threat T19).

use std::net::{IpAddr, Ipv4Addr};

use relay::app::outgoing_url::Reach;
use relay::app::outgoing_url::address::is_public;
use relay::app::webhook::NewWebhook;
use relay::outgoing::guard::may_reach;
use relay::store::check_webhook;

use crate::input::Input;

/// P-HOOK-9, threats T19, T24.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let style = input.byte();
    check_address(input);
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let url = match style % 4 {
        0 => text.to_owned(),
        1 => format!("https://{text}"),
        2 => format!("https://{text}/path?query"),
        _ => format!("http://{text}:8080/"),
    };
    check_url(&url);
}

fn check_url(url: &str) {
    let accepted = |reach, allowed: &[&str]| {
        let allowed: Vec<_> = allowed.iter().map(|network| network.parse().expect("a network")).collect();
        check_webhook(&NewWebhook { url: url.to_owned(), reach, ..NewWebhook::default() }, &allowed).is_ok()
    };
    let (public, anywhere) = (accepted(Reach::Public, &[]), accepted(Reach::Anywhere, &[]));
    let allowed = accepted(Reach::Public, &["10.0.0.0/8"]);
    assert!(!public || (anywhere && allowed), "{url:?}: leave for more takes nothing away");
    if !anywhere {
        assert!(!public && !allowed);
        return;
    }
    assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "threat T24: {url:?}");
    assert!(url.len() <= 2_048 && !url.contains('#'), "{url:?}");
    let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("{url:?} has no scheme"));
    assert!(matches!(&*scheme.to_ascii_lowercase(), "http" | "https"), "{url:?}");
    let authority = &rest[..rest.find(['/', '?', '\\']).unwrap_or(rest.len())];
    assert!(!authority.contains('@') && !authority.is_empty(), "{url:?} names a user, or no host");
    assert!(!public || scheme.eq_ignore_ascii_case("https"), "{url:?} is not over TLS");
    if let Some(address) = literal_host(authority) {
        assert!(!public || reference_is_public(address), "{url:?} names {address}");
    }
}

/// The address that a host is written as. Other spellings of one (`0x7f.1`) are names, which the guard checks once they
/// are resolved.
fn literal_host(authority: &str) -> Option<IpAddr> {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').and_then(|(host, _)| host.parse().ok()).map(IpAddr::V6);
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// The guard checks every address that a name resolves to; all three functions agree on one.
fn check_address(mut input: Input<'_>) {
    let is_v4 = input.below(2) == 0;
    let mut octets = [0; 16];
    octets.fill_with(|| input.byte());
    let short: [u8; 4] = octets[..4].try_into().expect("four bytes");
    let address: IpAddr = if is_v4 { short.into() } else { octets.into() };
    let public = reference_is_public(address);
    assert_eq!(is_public(address), public, "{address}");
    for (scheme, reach, wanted) in [
        ("https", Reach::Public, public),
        ("http", Reach::Public, false),
        ("https", Reach::Anywhere, true),
        ("http", Reach::Anywhere, true),
    ] {
        assert_eq!(may_reach(scheme, address, reach, Vec::new()), wanted, "{scheme} {address}");
    }
    let own = vec![ipnet_of(address)];
    assert!(may_reach("http", address, Reach::Public, own), "{address} was allowed");
}

fn ipnet_of(address: IpAddr) -> ipnet::IpNet {
    ipnet::IpNet::from(address.to_canonical())
}

/// RFC 6890 and its successors, written as text, independent of the server's table.
fn reference_is_public(address: IpAddr) -> bool {
    let within = |networks: &str, address: IpAddr| {
        networks.split(' ').any(|network| network.parse::<ipnet::IpNet>().expect("a network").contains(&address))
    };
    let v4 = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 \
              192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4";
    match address {
        IpAddr::V4(_) => !within(v4, address),
        IpAddr::V6(long) => match long.to_ipv4_mapped() {
            Some(short) => !within(v4, IpAddr::V4(short)),
            None => within("2000::/3", address) && !within("2001::/23 2001:db8::/32 2002::/16 3fff::/20", address),
        },
    }
}
