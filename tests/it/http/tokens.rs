//! Limits of wrong tokens.

use super::*;

async fn status_of(bench: &Bench, client: &str, request: axum::http::request::Builder) -> u16 {
    use tower::ServiceExt as _;
    let request = request.header("x-forwarded-for", client);
    let request = request.body(Body::from("token=wrong")).unwrap();
    let response = bench.app.clone().oneshot(request).await.unwrap();
    response.status().as_u16()
}

fn with(token: &str) -> axum::http::request::Builder {
    Request::get("/status").header("authorization", format!("Bearer {token}"))
}

#[tokio::test(start_paused = true)]
async fn guesses_lock_out_their_client_only() {
    let bench = bench_with(Some("s3cret"));
    let (guesser, other) = ("192.0.2.1", "192.0.2.1, 192.0.2.2");
    for _ in 0..5 {
        assert_eq!(status_of(&bench, guesser, with("wrong")).await, 401);
        let login = Request::post("/login");
        assert_eq!(status_of(&bench, guesser, login).await, 401);
        // No guess.
        let absent = Request::get("/status");
        assert_eq!(status_of(&bench, guesser, absent).await, 401);
    }
    // The right one too: otherwise a guess beyond the limit would still tell that it is right.
    for token in ["wrong", "s3cret"] {
        assert_eq!(
            status_of(&bench, guesser, with(token)).await,
            429,
            "{token}"
        );
    }
    for open in ["/healthz", "/readyz"] {
        assert_eq!(status_of(&bench, guesser, Request::get(open)).await, 200);
    }
    assert_eq!(status_of(&bench, other, with("s3cret")).await, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status_of(&bench, guesser, with("s3cret")).await, 200);
}
