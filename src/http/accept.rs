//! Accepts connections, with limits for each client: both servers face networks, and a client that
//! sends one byte of a header per minute, never reads its answer, or opens a thousand connections
//! must affect only itself. `axum::serve` sets no timer, so it would wait for such a client without
//! end.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Client, Proxies};
use crate::intervals::{
    HTTP_CONNECTION, HTTP_FULL_POLL, HTTP_HEAD, HTTP_LAST_CALL, HTTP_SHUTDOWN, HTTP_STREAM_END,
};

/// Maximum number of connections of the local API.
pub(crate) const CONNECTIONS: usize = 256;

/// Maximum number of connections per address, without those in a long poll: many routers may share one address.
/// Loopback and unix sockets are exempt: a reverse proxy connects from there.
const PER_ADDRESS: usize = 32;

/// Number of connections from which each is closed after its answer, except one in a long poll: an idle connection takes
/// sixteen kilobytes.
const CROWDED: usize = 2048;

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

/// The seats, shared by the accept loop and every connection.
#[derive(Clone)]
struct SharedSeats(Arc<Mutex<Seats>>);

impl SharedSeats {
    fn take(&self, address: Option<IpAddr>) -> Option<TakenSeat> {
        let (id, seat) = self.0.lock().take(address)?;
        let seats = self.clone();
        Some(TakenSeat { seats, id, seat })
    }
}

/// A connection's seat. Its drop releases the seat when the connection ends, also by a panic.
struct TakenSeat {
    seats: SharedSeats,
    id: u64,
    seat: Seat,
}

impl Drop for TakenSeat {
    fn drop(&mut self) {
        self.seats.0.lock().leave(self.id);
    }
}

/// The served connections.
struct Seats {
    most: usize,
    next: u64,
    taken: BTreeMap<u64, Seat>,
}

/// One connection, shared by its task, the handler of its request, and the accept loop.
#[derive(Clone)]
pub(crate) struct Seat {
    address: Option<IpAddr>,
    since: Instant,
    /// Milliseconds from `since` to the start of the wait for a complete head.
    waiting: Arc<AtomicU64>,
    /// Whether a request is being answered.
    busy: Arc<AtomicBool>,
    /// Whether the request is a long poll.
    in_long_poll: Arc<AtomicBool>,
    close: CancellationToken,
}

impl Seat {
    /// Start of the wait for a complete head; `None` while a request is answered.
    fn waits_since(&self) -> Option<Instant> {
        let waited = || Duration::from_millis(self.waiting.load(Ordering::Relaxed));
        (!self.busy.load(Ordering::Relaxed)).then(|| self.since + waited())
    }

    fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// Leaves this request out of the limit per address. The handler has its own limit, below that of the server.
    pub(crate) fn begin_long_poll(&self) {
        self.in_long_poll.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.waiting.store(passed, Ordering::Relaxed);
        self.in_long_poll.store(false, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }
}

impl Seats {
    fn new(most: usize) -> Self {
        Self {
            most,
            next: 0,
            taken: BTreeMap::new(),
        }
    }

    fn is_crowded(&self) -> bool {
        self.taken.len() >= CROWDED
    }

    /// Returns whether another connection fits, if necessary after closing the oldest one without a complete head.
    fn make_room(&mut self) -> bool {
        self.taken.len() < self.most || self.close_oldest(|_| true)
    }

    /// Takes a seat for a client. `None`: its address has the maximum number, and all of them answer requests.
    fn take(&mut self, address: Option<IpAddr>) -> Option<(u64, Seat)> {
        let same = |seat: &Seat| address.is_some() && seat.address == address;
        let is_counted = |seat: &&Seat| same(seat) && !seat.in_long_poll.load(Ordering::Relaxed);
        let count = self.taken.values().filter(is_counted).count();
        if count >= PER_ADDRESS && !self.close_oldest(same) {
            return None;
        }
        let seat = Seat {
            address,
            since: Instant::now(),
            waiting: Arc::default(),
            busy: Arc::default(),
            in_long_poll: Arc::default(),
            close: CancellationToken::new(),
        };
        self.next += 1;
        self.taken.insert(self.next, seat.clone());
        Some((self.next, seat))
    }

    /// Closes the connection that has waited longest for a complete head, among those that `kind` selects.
    fn close_oldest(&mut self, kind: impl Fn(&Seat) -> bool) -> bool {
        let waiting = self.taken.iter().filter(|(_, seat)| kind(seat));
        let oldest = waiting
            .filter_map(|(id, seat)| Some((seat.waits_since()?, *id)))
            .min();
        let Some(seat) = oldest.and_then(|(_, id)| self.taken.remove(&id)) else {
            return false;
        };
        seat.close.cancel();
        true
    }

    fn leave(&mut self, id: u64) {
        self.taken.remove(&id);
    }
}

/// Serves one connection, from its first byte to its end. Its failure concerns only the client.
async fn converse<I>(io: I, app: Router, client: Client, taken: TakenSeat, stop: CancellationToken)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (seat, seats) = (taken.seat.clone(), taken.seats.clone());
    let (close, is_busy) = (seat.close.clone(), Arc::clone(&seat.busy));
    let inner = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let (seat, seats) = (seat.clone(), seats.clone());
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(seat.clone());
        seat.begin();
        let answer = inner.call(request);
        async move {
            let mut answer = answer.await;
            if let Ok(answer) = &mut answer
                && !seat.in_long_poll.load(Ordering::Relaxed)
                && seats.0.lock().is_crowded()
            {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            seat.end();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEAD)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = close.cancelled() => return,
        () = stop.cancelled() => {}
        () = sleep(HTTP_CONNECTION) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Streams of events have no end of their own.
    let limit = match stop.is_cancelled() && !is_busy.load(Ordering::Relaxed) {
        true => HTTP_STREAM_END,
        false => HTTP_LAST_CALL,
    };
    let _ = timeout(limit, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const STRANGER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_every_seat() {
        let mut seats = Seats::new(CONNECTIONS);
        let mut first = None;
        for _ in 0..1000 {
            assert!(seats.make_room());
            let taken = seats.take(STRANGER);
            first.get_or_insert(taken.unwrap().1);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(seats.taken.len(), PER_ADDRESS);
        assert!(first.unwrap().close.is_cancelled(), "the oldest is closed");
        assert!(seats.take(ROUTER).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_closes_the_oldest_waiting_connection() {
        let mut seats = Seats::new(CONNECTIONS);
        let (_, working) = seats.take(ROUTER).unwrap();
        working.begin();
        for n in 1..CONNECTIONS {
            tokio::time::advance(Duration::from_millis(1)).await;
            let address = IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]);
            seats.take(Some(address)).unwrap();
        }
        assert_eq!(seats.taken.len(), CONNECTIONS);
        assert!(seats.make_room());
        assert_eq!(seats.taken.len(), CONNECTIONS - 1);
        assert!(!working.close.is_cancelled(), "a request is never cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_at_work_keep_their_seats() {
        let mut seats = Seats::new(CONNECTIONS);
        for _ in 0..PER_ADDRESS {
            seats.take(STRANGER).unwrap().1.begin();
        }
        assert!(seats.take(STRANGER).is_none());
        for _ in 0..CONNECTIONS {
            if seats.make_room() {
                seats.take(None).unwrap().1.begin();
            }
        }
        assert!(!seats.make_room());
    }

    #[tokio::test(start_paused = true)]
    async fn long_polls_do_not_lock_their_address_out() {
        let mut seats = Seats::new(CONNECTIONS);
        let mut waiting = Vec::new();
        for _ in 0..2 * PER_ADDRESS {
            let seat = seats.take(STRANGER).unwrap().1;
            seat.begin();
            seat.begin_long_poll();
            waiting.push(seat);
        }
        for _ in 0..PER_ADDRESS {
            seats.take(STRANGER).unwrap().1.begin();
        }
        assert!(seats.take(STRANGER).is_none());
        waiting.iter().for_each(Seat::end);
        assert!(seats.take(STRANGER).is_some());
        assert!(waiting[0].close.is_cancelled(), "it is idle after its wait");
    }

    #[tokio::test]
    async fn handler_that_panics_gives_its_seat_back() {
        let handler = axum::routing::get(|| async {
            if std::hint::black_box(true) {
                panic!("a fault of the handler");
            }
        });
        let app = Router::new().route("/", handler);
        let seats = SharedSeats(Arc::new(Mutex::new(Seats::new(CONNECTIONS))));
        let (mut client, server) = tokio::io::duplex(1024);
        let taken = seats.take(ROUTER).unwrap();
        let stop = CancellationToken::new();
        let connection = tokio::spawn(converse(server, app, ROUTER.into(), taken, stop));
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, request)
            .await
            .unwrap();
        assert!(connection.await.unwrap_err().is_panic());
        assert!(seats.0.lock().taken.is_empty());
    }

    #[tokio::test]
    async fn crowded_server_closes_after_each_answer() {
        let app = Router::new().route("/", axum::routing::get(|| async { "answer" }));
        let seats = SharedSeats(Arc::new(Mutex::new(Seats::new(2 * CROWDED))));
        let others: Vec<_> = (1..CROWDED).map(|_| seats.take(None).unwrap()).collect();
        let (mut client, server) = tokio::io::duplex(1024);
        let (taken, stop) = (seats.take(None).unwrap(), CancellationToken::new());
        tokio::spawn(converse(server, app, ROUTER.into(), taken, stop));
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, request)
            .await
            .unwrap();
        let mut answer = String::new();
        let read = tokio::io::AsyncReadExt::read_to_string(&mut client, &mut answer);
        read.await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        drop(others);
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_not_counted() {
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(local.counted(), None);
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:1".parse().unwrap();
        assert_eq!(mapped.counted(), ROUTER);
    }
}
