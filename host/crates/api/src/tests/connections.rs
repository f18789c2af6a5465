//! Over real sockets: what the server does about clients that are slow, silent or too many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::{ConnectionLimits, serve};

struct Listening {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    server: Server,
}

async fn listen(limits: ConnectionLimits) -> Listening {
    let server = Server::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = server.shutdown.clone();
    let served = tokio::spawn(serve(listener, server.router.clone(), limits, shutdown.clone()));
    Listening {
        address,
        shutdown,
        served,
        server,
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        connections: 2,
        per_address: 2,
        proxies: Arc::from([]),
        head_timeout: Duration::from_millis(200),
        head_bytes: 8 << 10,
        headers: 32,
        stall_timeout: Duration::from_millis(200),
        drain: Duration::from_millis(500),
    }
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

const HEALTH: &str = "GET /api/v2/monitor/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_client_that_never_ends_its_head_is_cut_off_and_frees_its_slot() {
    let listening = listen(limits()).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(listening.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        silent.push(stream);
    }
    // All slots are taken; this one is served once they time out.
    let answer = exchange(listening.address, HEALTH).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_says_that_the_connection_ends() {
    let listening = listen(limits()).await;
    let head = "POST /auth/token HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\ncontent-type: text/plain\r\n\r\n";
    let answer = exchange(listening.address, &format!("{head}{{}}")).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");

    // Where the body was read, the next request goes over the same connection.
    let wrong = r#"{"username": "admin", "password": "wrong"}"#;
    let head = format!(
        "POST /auth/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        wrong.len()
    );
    let answer = exchange(listening.address, &format!("{head}{wrong}{HEALTH}")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_silent_client_is_cut_off_whether_it_asked_before_or_not() {
    let listening = listen(limits()).await;
    let mut never = TcpStream::connect(listening.address).await.unwrap();
    let mut once = TcpStream::connect(listening.address).await.unwrap();
    once.write_all(b"GET /api/v2/version HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = exchange(listening.address, HEALTH).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Both end, after an answer or a refusal at the most.
    for stream in [&mut never, &mut once] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let listening = listen(limits()).await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "x".repeat(70 << 10));
    let answer = exchange(listening.address, &large).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let many: String = (0..64).map(|index| format!("h{index}: x\r\n")).collect();
    let answer = exchange(listening.address, &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn shutdown_ends_streams_and_idle_connections() {
    let listening = listen(limits()).await;
    let token = &listening.server.token;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    let request = format!("GET /api/v2/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    listening.shutdown.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    listening.served.await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let listening = listen(limits()).await;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    // Pipelined requests whose answers fill every buffer in between, and nobody reads.
    let one = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let sent = async {
        loop {
            if stream.write_all(one.repeat(100).as_bytes()).await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sent)
        .await
        .expect("the server closes the connection");
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_reads_why() {
    let listening = listen(limits()).await;
    let token = &listening.server.token;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    let body = vec![b' '; 32 << 20];
    let head = format!(
        "POST /api/v2/dags/etl/dagRuns HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The refusal comes before the body does. Clients that send everything first must not be reset over it.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 413"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    stream.write_all(&body).await.unwrap();
}

#[tokio::test]
async fn idle_connections_make_room_at_once() {
    let patient = ConnectionLimits {
        connections: 16,
        head_timeout: Duration::from_secs(3_600),
        ..limits()
    };
    let listening = listen(patient).await;
    // Some say nothing, some a part of a head, some have asked before: none of them would end by itself within this test.
    let mut idle = Vec::new();
    for number in 0..48 {
        let mut stream = TcpStream::connect(listening.address).await.unwrap();
        if number % 3 == 1 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        } else if number % 3 == 2 {
            stream
                .write_all(b"GET /api/v2/version HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
        }
        idle.push(stream);
    }
    for _ in 0..20 {
        let answer = exchange(listening.address, HEALTH).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // The first ones were closed: they read their end.
    let mut rest = Vec::new();
    let _ = idle[0].read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_connection_at_work_is_not_closed_for_another() {
    let patient = ConnectionLimits {
        head_timeout: Duration::from_secs(3_600),
        ..limits()
    };
    let listening = listen(patient).await;
    let token = &listening.server.token;
    let mut following = TcpStream::connect(listening.address).await.unwrap();
    let request = format!("GET /api/v2/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    following.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    following.read_exact(&mut start).await.unwrap();
    for _ in 0..10 {
        let answer = exchange(listening.address, HEALTH).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // The stream goes on: its heartbeats still come.
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("heartbeat") {
        assert!(following.read_buf(&mut seen).await.unwrap() > 0, "the stream was cut");
    }
}

#[tokio::test]
async fn a_request_names_one_host() {
    let listening = listen(limits()).await;
    let ask = |version: &str, hosts: &str| {
        format!("GET /api/v2/version HTTP/{version}\r\n{hosts}x-request-id: mine-3\r\nconnection: close\r\n\r\n")
    };
    for hosts in ["", "host: a\r\nhost: a\r\n", "host: a\r\nHost: b\r\n", "host: a b\r\n"] {
        let answer = exchange(listening.address, &ask("1.1", hosts)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{hosts:?}: {answer}");
        assert!(
            answer.contains("\"code\":\"invalid_host\"") && answer.contains("\"request_id\":\"mine-3\""),
            "{answer}"
        );
    }
    for (version, hosts) in [
        ("1.1", "host: a:8080\r\n"),
        ("1.1", "host: [::1]:80\r\n"),
        ("1.1", "host:\r\n"),
        ("1.0", ""),
    ] {
        let answer = exchange(listening.address, &ask(version, hosts)).await;
        assert!(answer.contains(" 200 OK"), "{version} {hosts:?}: {answer}");
    }
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    for trusted in [true, false] {
        let proxies = if trusted {
            vec!["127.0.0.1".parse().unwrap()]
        } else {
            Vec::new()
        };
        let listening = listen(ConnectionLimits {
            proxies: proxies.into(),
            ..limits()
        })
        .await;
        let log_in = |client: &str, password: &str| {
            let body = format!(r#"{{"username": "admin", "password": "{password}"}}"#);
            format!(
                "POST /auth/token HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\ncontent-type: application/json\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        for _ in 0..11 {
            let answer = exchange(listening.address, &log_in("6.6.6.6", "wrong")).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        }
        let answer = exchange(listening.address, &log_in("6.6.6.6", super::PASSWORD)).await;
        assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
        let answer = exchange(listening.address, &log_in("1.2.3.4", super::PASSWORD)).await;
        let expected = if trusted { "HTTP/1.1 201" } else { "HTTP/1.1 429" };
        assert!(answer.starts_with(expected), "{answer}");
    }
}
