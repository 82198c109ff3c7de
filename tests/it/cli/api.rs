//! Calls of the local API.

use super::*;

#[test]
fn the_local_api_is_called_with_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Router::listening(&format!(
        "0.0.0.0:{}",
        listener.local_addr().unwrap().port()
    ));
    let server = answer_once(
        listener.try_clone().unwrap(),
        "200 OK",
        r#"{"status":"ok","version":"1","commit":"c","uptime":5,"node":{"id":1,"name":"jp1","region":null},
            "sessions":{"total":3,"active":2,"error":1,"pending":0},"circuitBreaker":"closed"}"#,
    );
    router
        .call(&["status"])
        .says(0, "3 total, 2 active, 1 in error");
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /status HTTP/1.1"), "{request}");
    assert!(request.contains("authorization: Bearer t0ken"), "{request}");
    let server = answer_once(
        listener,
        "404 Not Found",
        r#"{"error":"no such interface","code":"X"}"#,
    );
    let answer = router.call(&["restart", "wg_1"]);
    answer.says(1, "no such interface");
    assert!(server.join().unwrap().contains(r#"{"interface":"wg_1"}"#));
    Router::new()
        .call(&["sync"])
        .says(1, "no daemon answers on 127.0.0.1:1");
}

#[test]
fn the_local_api_is_called_over_a_unix_socket() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let length = stream.read(&mut [0; 4096]).unwrap();
        let body = r#"{"enabled":true,"since":"2026-11-23T00:00:00Z"}"#;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        length
    });
    let router = Router::listening(&format!("unix:{}", path.display()));
    router
        .call(&["maintenance"])
        .says(0, "drained since 2026-11-23T00:00:00Z");
    assert!(server.join().unwrap() > 0);
}
