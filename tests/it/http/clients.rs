//! Clients that hang, flood or never end.

use super::*;

/// The API on a port of its own, until the test ends.
async fn listening() -> std::net::SocketAddr {
    let server = Server::bind(&bench().options).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    address
}

/// Reads until the server hangs up; how long that took.
async fn hung_up(stream: &mut tokio::net::TcpStream) -> Duration {
    let begun = tokio::time::Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(600), stream.read_to_end(&mut rest)).await;
    // A reset is as good as an end.
    assert!(ended.is_ok(), "the server does not hang up");
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn endless_request_is_disconnected() {
    let address = listening().await;
    for said in [
        "",
        "GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        "\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        assert!(
            hung_up(&mut stream).await < Duration::from_secs(15),
            "{said:?}"
        );
    }
    // A byte now and then does not help.
    let (mut reader, mut writer) = tokio::net::TcpStream::connect(address)
        .await
        .unwrap()
        .into_split();
    let drip = async {
        while writer.write_all(b"X").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (begun, mut rest) = (tokio::time::Instant::now(), Vec::new());
    tokio::select! {
        _ = reader.read_to_end(&mut rest) => {}
        () = drip => {}
        () = tokio::time::sleep(Duration::from_secs(600)) => panic!("it still listens"),
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn endless_client_is_disconnected_and_may_reconnect() {
    let mut stream = tokio::net::TcpStream::connect(listening().await)
        .await
        .unwrap();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(600) {
        let asked = stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let mut answer = [0; 4096];
        match (asked, stream.read(&mut answer).await) {
            (Ok(()), Ok(length)) if length > 0 => assert!(answer.starts_with(b"HTTP/1.1 200")),
            _ => break,
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(90),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn idle_clients_take_no_more_than_their_share() {
    let address = listening().await;
    let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = sockets();
    let mut idle = Vec::new();
    for _ in 0..350 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Both ends are ours here; other tests open some beside us.
    let served = sockets() - before - idle.len();
    assert!((200..300).contains(&served), "{served}");
    drop(idle);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_beyond_all_measure_is_refused() {
    let mut stream = tokio::net::TcpStream::connect(listening().await)
        .await
        .unwrap();
    let head = format!(
        "GET /status HTTP/1.1\r\nHost: localhost\r\nX: {}",
        "x".repeat(1 << 20)
    );
    // It may stop reading before we stop writing.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
