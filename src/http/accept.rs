//! Accepts connections, with limits for each client: both servers face networks, and a client that
//! sends one byte of a header per minute, never reads its answer, or opens a thousand connections
//! must affect only itself. `axum::serve` sets no timer, so it would wait for such a client without
//! end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::long_poll::{Begun, LongPoll, Stream, Wait};
use super::seats::{Seats, SharedSeats, TakenSeat};
use super::{Client, Proxies};
use crate::intervals::{
    HTTP_CONNECTION, HTTP_FULL_POLL, HTTP_HEAD, HTTP_LAST_CALL, HTTP_SHUTDOWN, HTTP_STREAM_END,
};

/// Size limit of the head of a request, in bytes.
const HEAD_MAX: usize = 32 * 1024;

/// A client's address, if it has one.
pub(crate) trait ClientAddress {
    /// Returns the address by which connections are counted.
    fn counted(&self) -> Option<IpAddr>;
}

impl ClientAddress for SocketAddr {
    fn counted(&self) -> Option<IpAddr> {
        let address = self.ip().to_canonical();
        (!address.is_loopback()).then_some(address)
    }
}

impl ClientAddress for tokio::net::unix::SocketAddr {
    fn counted(&self) -> Option<IpAddr> {
        None
    }
}

/// Serves until the shutdown, and gives calls in progress a limited time to end. At most `connections` are served at
/// once; the next one waits. Each may take `HEAD_MAX` of memory and a file descriptor, which the kernel's and BIRD's
/// sockets need too. Connections of a proxy are not counted by its address.
pub(crate) async fn run<L>(
    mut listener: L,
    app: Router,
    proxies: &Proxies,
    connections: usize,
    shutdown: impl Future<Output = ()>,
) where
    L: Listener<Addr: ClientAddress>,
{
    let stop = CancellationToken::new();
    let mut served = JoinSet::new();
    let seats = SharedSeats(Arc::new(Mutex::new(Seats::new(connections))));
    tokio::pin!(shutdown);
    loop {
        let free = seats.0.lock().make_room();
        tokio::select! {
            () = &mut shutdown => break,
            // The connection has released its seat.
            Some(_) = served.join_next() => {}
            (io, client) = listener.accept(), if free => {
                let client = client.counted();
                let counted = client.filter(|_| !proxies.has(client));
                if let Some(taken) = seats.take(counted) {
                    let connection = converse(io, app.clone(), client.into(), taken, stop.clone());
                    served.spawn(connection);
                }
            }
            () = sleep(HTTP_FULL_POLL), if !free => {}
        }
    }
    drop(listener);
    stop.cancel();
    // The remaining connections end when the set is dropped.
    let _ = timeout(HTTP_SHUTDOWN, async {
        while served.join_next().await.is_some() {}
    })
    .await;
}

/// Serves one connection, from its first byte to its end. Its failure concerns only the client.
async fn converse<I>(io: I, app: Router, client: Client, taken: TakenSeat, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let visit = Visit {
        app: TowerToHyperService::new(app),
        client,
        taken,
        stop,
        last_request: Instant::now() + HTTP_CONNECTION,
        begun: Begun::default(),
    };
    let mut next = (None, Stream::new(io));
    // In a box, whose memory a wait does not hold.
    while let Some((wait, stream)) = Box::pin(visit.serve(next)).await {
        let Some((answer, stream)) = wait.ended(stream).await else {
            return;
        };
        next = (Some(answer), stream);
    }
}

/// A connection of a client.
struct Visit {
    app: TowerToHyperService<Router>,
    client: Client,
    taken: TakenSeat,
    stop: CancellationToken,
    last_request: Instant,
    begun: Begun,
}

impl Visit {
    /// Serves a stream until its end, or until a request begins to wait. A wait that has ended has the first answer.
    async fn serve<I>(
        &self,
        (first, stream): (Option<Response>, Stream<I>),
    ) -> Option<(Wait, Stream<I>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let first = Mutex::new(first);
        let service = service_fn(|request| self.answer(first.lock().take(), request));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP_HEAD)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream.whole()), service);
        let wait = tokio::select! {
            biased;
            () = self.taken.seat.close.cancelled() => None,
            // Before the end of the connection: its first poll gives the answer of a wait that has ended.
            wait = self.wait_of(&mut connection) => wait,
            () = self.last_call() => {
                Pin::new(&mut connection).graceful_shutdown();
                let last = timeout(self.limit(), self.wait_of(&mut connection));
                last.await.ok().flatten()
            }
        }?;
        let Parts { io, read_buf, .. } = connection.into_parts();
        Some((wait, Stream::rest(&read_buf, io.into_inner())))
    }

    /// Returns the wait that a request of the connection begins; `None` at its end.
    async fn wait_of<C: Future + Unpin>(&self, connection: &mut C) -> Option<Wait> {
        poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => match self.begun.lock().take() {
                Some(wait) => Poll::Ready(Some(wait)),
                None => Poll::Pending,
            },
        })
        .await
    }

    /// Ends when the connection serves no further request.
    async fn last_call(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep_until(self.last_request) => {}
        }
    }

    /// Returns the time for the call in progress. Streams of events have no end of their own.
    fn limit(&self) -> Duration {
        let is_busy = self.taken.seat.busy.load(Ordering::Relaxed);
        match self.stop.is_cancelled() && !is_busy {
            true => HTTP_STREAM_END,
            false => HTTP_LAST_CALL,
        }
    }

    async fn answer(
        &self,
        known: Option<Response>,
        request: Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let mut answer = match known {
            Some(answer) => answer,
            None => self.call(request).await?,
        };
        let TakenSeat { seat, seats, .. } = &self.taken;
        let is_in_long_poll = seat.in_long_poll.load(Ordering::Relaxed);
        let is_last = self.stop.is_cancelled() || Instant::now() >= self.last_request;
        if is_last || !is_in_long_poll && seats.0.lock().is_crowded() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        seat.end();
        Ok(answer)
    }

    fn call(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> {
        let seat = &self.taken.seat;
        let long_poll = LongPoll::of(&request, seat, &self.begun);
        request.extensions_mut().insert(self.client);
        request.extensions_mut().insert(long_poll);
        seat.begin();
        self.app.call(request)
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::watch;
    use tokio::task::JoinHandle;

    use super::super::seats::{CONNECTIONS, CROWDED};
    use super::*;

    const ROUTER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    /// Serves a client, and returns its end of the connection.
    fn visited(app: Router, seats: &SharedSeats) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(1024);
        let (taken, stop) = (seats.take(ROUTER).unwrap(), CancellationToken::new());
        let served = tokio::spawn(converse(server, app, ROUTER.into(), taken, stop));
        (client, served)
    }

    fn seats(most: usize) -> SharedSeats {
        SharedSeats(Arc::new(Mutex::new(Seats::new(most))))
    }

    #[tokio::test]
    async fn handler_that_panics_gives_its_seat_back() {
        let handler = get(|| async {
            if std::hint::black_box(true) {
                panic!("a fault of the handler");
            }
        });
        let seats = seats(CONNECTIONS);
        let (mut client, served) = visited(Router::new().route("/", handler), &seats);
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        assert!(served.await.unwrap_err().is_panic());
        assert!(seats.0.lock().taken.is_empty());
    }

    #[tokio::test]
    async fn crowded_server_closes_after_each_answer() {
        let app = Router::new().route("/", get(|| async { "answer" }));
        let seats = seats(2 * CROWDED);
        let others: Vec<_> = (1..CROWDED).map(|_| seats.take(None).unwrap()).collect();
        let (mut client, _served) = visited(app, &seats);
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        drop(others);
    }

    /// Returns a service with a wait, which ends when its receiver hears something.
    fn with_wait() -> (Router, watch::Sender<bool>) {
        let change = watch::Sender::new(false);
        let waits = change.clone();
        let wait = |Extension(connection): Extension<LongPoll>| async move {
            let mut changed = waits.subscribe();
            let answer = async move {
                let _ = changed.wait_for(|changed| *changed).await;
                "changed".into_response()
            };
            connection.answer(answer).await
        };
        let app = Router::new()
            .route("/wait", get(wait))
            .route("/next", get(|| async { "next" }));
        (app, change)
    }

    /// Returns the bodies of all answers until the end of the connection.
    async fn bodies(mut client: DuplexStream) -> Vec<String> {
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        let bodies = all.split("HTTP/1.1 200 OK").skip(1);
        let body = |answer: &str| answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
        bodies.map(body).collect()
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn connection_goes_on_after_a_wait() {
        let next = "GET /next HTTP/1.1\r\nconnection: close\r\n\r\n";
        for (body, early) in [("", ""), ("", next), ("body", ""), ("body", next)] {
            let (seats, (app, change)) = (seats(CONNECTIONS), with_wait());
            let (mut client, _served) = visited(app, &seats);
            let length = body.len();
            let first = format!("GET /wait HTTP/1.1\r\ncontent-length: {length}\r\n\r\n");
            client.write_all(first.as_bytes()).await.unwrap();
            until(|| change.receiver_count() == 1).await;
            // They arrive during the wait.
            for part in [body, early] {
                client.write_all(part.as_bytes()).await.unwrap();
                sleep(Duration::from_millis(10)).await;
            }
            change.send_replace(true);
            if early.is_empty() {
                client.write_all(next.as_bytes()).await.unwrap();
            }
            let bodies = bodies(client).await;
            // hyper ends a connection of which a body was not read.
            match body.is_empty() {
                true => assert_eq!(bodies, ["changed", "next"], "{early}"),
                false => assert_eq!(bodies, ["changed"], "{early}"),
            }
        }
    }

    #[tokio::test]
    async fn several_waits_of_one_connection_and_requests_behind_them() {
        let (seats, (app, change)) = (seats(CONNECTIONS), with_wait());
        let (mut client, _served) = visited(app, &seats);
        let wait = "GET /wait HTTP/1.1\r\n\r\n";
        let last = "GET /wait HTTP/1.1\r\nconnection: close\r\n\r\n";
        let all = [wait, "GET /next HTTP/1.1\r\n\r\n", wait, last].concat();
        client.write_all(all.as_bytes()).await.unwrap();
        until(|| change.receiver_count() == 1).await;
        change.send_replace(true);
        let expected = ["changed", "next", "changed", "changed"];
        assert_eq!(bodies(client).await, expected);
    }

    #[tokio::test]
    async fn slow_reader_gets_the_whole_answer_before_a_wait() {
        let (seats, (app, change)) = (seats(CONNECTIONS), with_wait());
        let long = "x".repeat(100_000);
        let answer = long.clone();
        let app = app.route("/long", get(|| async { answer }));
        let (mut client, _served) = visited(app, &seats);
        let wait = "GET /wait HTTP/1.1\r\nconnection: close\r\n\r\n";
        let both = format!("GET /long HTTP/1.1\r\n\r\n{wait}");
        client.write_all(both.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(10)).await;
        // hyper reads a request once the answer to the one before is sent.
        assert_eq!(change.receiver_count(), 0);
        change.send_replace(true);
        let bodies = bodies(client).await;
        assert!(bodies == [&*long, "changed"], "{} answers", bodies.len());
    }

    #[tokio::test(start_paused = true)]
    async fn wait_is_answered_at_the_end_of_its_connection() {
        // The order in which the end and the answer are looked at must not matter.
        for stops in [false, true].repeat(20) {
            let (seats, (app, change)) = (seats(CONNECTIONS), with_wait());
            let (mut client, server) = tokio::io::duplex(1024);
            let (taken, stop) = (seats.take(ROUTER).unwrap(), CancellationToken::new());
            tokio::spawn(converse(server, app, ROUTER.into(), taken, stop.clone()));
            client
                .write_all(b"GET /wait HTTP/1.1\r\n\r\n")
                .await
                .unwrap();
            until(|| change.receiver_count() == 1).await;
            match stops {
                true => stop.cancel(),
                false => sleep(HTTP_CONNECTION + Duration::from_secs(1)).await,
            }
            change.send_replace(true);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("changed"), "{stops}: {answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }

    #[tokio::test]
    async fn wait_ends_with_its_client() {
        let (seats, (app, change)) = (seats(CONNECTIONS), with_wait());
        let (mut client, served) = visited(app, &seats);
        let wait = b"GET /wait HTTP/1.1\r\n\r\n";
        client.write_all(wait).await.unwrap();
        until(|| change.receiver_count() == 1).await;
        let is_in_long_poll = |seats: &SharedSeats| {
            let seats = seats.0.lock();
            let seat = seats.taken.values().next().unwrap();
            seat.in_long_poll.load(Ordering::Relaxed)
        };
        assert!(is_in_long_poll(&seats));
        drop(client);
        served.await.unwrap();
        assert_eq!(change.receiver_count(), 0);
        assert!(seats.0.lock().taken.is_empty());
    }

    #[tokio::test]
    async fn connection_in_a_wait_takes_little_memory() {
        let (seats, (app, _change)) = (seats(CONNECTIONS), with_wait());
        let (_client, server) = tokio::io::duplex(1024);
        let (taken, stop) = (seats.take(ROUTER).unwrap(), CancellationToken::new());
        let task = converse(server, app, ROUTER.into(), taken, stop);
        assert!(size_of_val(&task) <= 1024, "{}", size_of_val(&task));
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_not_counted() {
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(local.counted(), None);
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:1".parse().unwrap();
        assert_eq!(mapped.counted(), ROUTER);
    }
}
