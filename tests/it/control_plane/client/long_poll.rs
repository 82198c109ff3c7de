//! Waits for a change, and compressed answers.

use tower_http::compression::CompressionLayer;

use super::*;

fn offered(seconds: &str) -> Answer {
    let header = ("moenet-long-poll", seconds.to_owned());
    (200, vec![header], LIST.to_owned())
}

#[tokio::test]
async fn revision_is_asked_only_after_an_offer() {
    let revision = answer(200, r#"{"revision": "7"}"#);
    let (url, script) = server(vec![answer(200, LIST), offered("600"), revision]).await;
    let client = client(&url, 0);
    client.fetch_sessions().await.unwrap();
    let unasked = client.next_revision(None);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), unasked)
            .await
            .is_err()
    );
    client.fetch_sessions().await.unwrap();
    assert_eq!(client.next_revision(Some("6")).await.unwrap(), "7");
    let script = script.lock().unwrap();
    let (_, path, token) = script.seen.last().unwrap();
    assert_eq!(path, "/agent/jp1/revision");
    assert_eq!(token.as_deref(), Some("Bearer s3cret-token"));
    // At most a minute, whatever is offered.
    assert_eq!(
        script.queries.last().unwrap().as_deref(),
        Some("wait=60&revision=6")
    );
}

#[tokio::test]
async fn refused_revision_ends_the_offer_and_fails_no_list() {
    for bad in [answer(404, "{}"), answer(200, "<html>"), answer(200, "{}")] {
        let (url, _) = server(vec![offered("60"), bad]).await;
        let client = client(&url, 3);
        client.fetch_sessions().await.unwrap();
        client.next_revision(None).await.unwrap_err();
        let next = client.next_revision(None);
        let next = tokio::time::timeout(Duration::from_millis(100), next).await;
        assert!(next.is_err(), "asked again without an offer");
        assert_eq!(client.breaker(), Breaker::Closed);
        assert_eq!(count(&client, "ok"), 1);
    }
}

#[tokio::test]
async fn idle_wait_may_take_longer_than_a_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let wait = async |request: Request<Body>| {
        if request.uri().path().ends_with("revision") {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            return Response::new(Body::from(r#"{"revision": "7"}"#));
        }
        let offer = Response::builder().header("moenet-long-poll", "1");
        offer.body(Body::from(LIST)).unwrap()
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(wait)).await });
    let client = Client::new(ClientOptions {
        request_timeout: Duration::from_secs(1),
        ..options(&url, 0)
    });
    let client = client.unwrap();
    client.fetch_sessions().await.unwrap();
    assert_eq!(client.next_revision(Some("7")).await.unwrap(), "7");
    assert_eq!(client.breaker(), Breaker::Closed);
}

#[tokio::test]
async fn compressed_answer_is_bounded_by_its_whole_size() {
    for (blanks, fits) in [(1 << 20, true), (17 << 20, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let list = async move || format!("{}{LIST}", " ".repeat(blanks));
        let app = Router::new().fallback(list);
        let app = app.layer(CompressionLayer::new());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let fetched = client(&url, 0).fetch_sessions().await;
        match fetched {
            Ok(list) => assert!(fits && list.items.is_empty()),
            Err(error) => assert!(matches!(error.failure, Failure::TooLarge(_)) && !fits),
        }
    }
}
