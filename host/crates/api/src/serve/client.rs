//! Who the client is: the other end of the connection, or whom a proxy that is trusted speaks for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Whoever has one IPv6 address has 2^64 of them: those count as one.
pub(crate) fn subnet(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// The client's address. Each proxy appends whom it speaks for, so that the header is read from its end, for as long as the one
/// that says it is trusted. What a client wrote into it itself comes before that.
pub(super) fn client_of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let hops = values
        .iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    for hop in hops {
        if !proxies.contains(&client) {
            break;
        }
        let Some(address) = address_of(hop.trim()) else { break };
        client = address.to_canonical();
    }
    client
}

fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .ok()
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = [ip("127.0.0.1"), ip("10.0.0.1")];
        let client = |peer: &str, headers: &[&str]| {
            let mut map = HeaderMap::new();
            for header in headers {
                map.append(FORWARDED_FOR, header.parse().unwrap());
            }
            client_of(ip(peer), &map, &proxies)
        };
        assert_eq!(client("9.9.9.9", &["1.2.3.4"]), ip("9.9.9.9"), "not a proxy");
        assert_eq!(client("127.0.0.1", &[]), ip("127.0.0.1"));
        assert_eq!(client("127.0.0.1", &["1.2.3.4"]), ip("1.2.3.4"));
        assert_eq!(client("::ffff:127.0.0.1", &["1.2.3.4"]), ip("1.2.3.4"));
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 1.2.3.4"]),
            ip("1.2.3.4"),
            "the client wrote the first"
        );
        assert_eq!(client("127.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.1"]), ip("1.2.3.4"));
        assert_eq!(client("127.0.0.1", &["6.6.6.6", "1.2.3.4:80"]), ip("1.2.3.4"));
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:80"]), ip("2001:db8::1"));
        assert_eq!(client("127.0.0.1", &["1.2.3.4, unknown"]), ip("127.0.0.1"));
    }
}
