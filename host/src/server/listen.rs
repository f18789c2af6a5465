//! The listening socket, and whether it may be open to others.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::failure::{Exit, Failure, OrFail, Result};

/// Refuses to send passwords readable over a network unless somebody said so.
pub(crate) fn check_exposure(listen: SocketAddr, insecure_http: bool) -> Result<()> {
    if listen.ip().is_loopback() || insecure_http {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Invalid,
        format!("{listen} can be reached from other machines, and this server speaks plain HTTP"),
    )
    .hint("listen on 127.0.0.1 behind a proxy that does TLS, or pass --insecure-http if the network is private"))
}

/// Binds the address.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .or_fail(Exit::Broken, || format!("cannot listen on {listen}"))
        .map_err(|failure| {
            failure.hint("another program may use the port: choose one with --listen, port 0 takes any that is free")
        })
}

/// The URL of a bound address as a browser on this machine can open it.
pub(crate) fn url(bound: SocketAddr) -> String {
    let mut shown = bound;
    if bound.ip().is_unspecified() {
        shown.set_ip(match bound {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine_unless_allowed() {
        for (listen, insecure, allowed) in [
            ("127.0.0.1:80", false, true),
            ("[::1]:80", false, true),
            ("0.0.0.0:80", false, false),
            ("192.168.0.1:80", false, false),
            ("[::]:80", false, false),
            ("0.0.0.0:80", true, true),
        ] {
            assert_eq!(
                check_exposure(listen.parse().unwrap(), insecure).is_ok(),
                allowed,
                "{listen} {insecure}"
            );
        }
    }

    #[test]
    fn shown_urls_can_be_opened() {
        assert_eq!(url("0.0.0.0:81".parse().unwrap()), "http://127.0.0.1:81");
        assert_eq!(url("[::]:81".parse().unwrap()), "http://[::1]:81");
        assert_eq!(url("127.0.0.2:81".parse().unwrap()), "http://127.0.0.2:81");
    }
}
