//! The connections that a server serves, with limits for all and for each client.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bucket::network;

/// Maximum number of connections of the local API.
pub(crate) const CONNECTIONS: usize = 256;

/// Maximum number of connections per IPv4 address or /64, without those in a long poll: many routers may share one.
/// Loopback and unix sockets are exempt: a reverse proxy connects from there.
const PER_ADDRESS: usize = 32;

/// Number of connections from which each is closed after its answer, except one in a long poll: an idle connection takes
/// sixteen kilobytes.
pub(super) const CROWDED: usize = 2048;

/// The seats, shared by the accept loop and every connection.
#[derive(Clone)]
pub(super) struct SharedSeats(pub(super) Arc<Mutex<Seats>>);

impl SharedSeats {
    pub(super) fn take(&self, address: Option<IpAddr>) -> Option<TakenSeat> {
        let (id, seat) = self.0.lock().take(address)?;
        let seats = self.clone();
        Some(TakenSeat { seats, id, seat })
    }
}

/// A connection's seat. Its drop releases the seat when the connection ends, also by a panic.
pub(super) struct TakenSeat {
    pub(super) seats: SharedSeats,
    id: u64,
    pub(super) seat: Seat,
}

impl Drop for TakenSeat {
    fn drop(&mut self) {
        self.seats.0.lock().leave(self.id);
    }
}

/// The served connections.
pub(super) struct Seats {
    most: usize,
    next: u64,
    pub(super) taken: BTreeMap<u64, Seat>,
    /// The seats of each IPv4 address or /64, so that a new connection costs no look at all others.
    of_address: HashMap<IpAddr, BTreeSet<u64>>,
}

/// One connection, shared by its task, the handler of its request, and the accept loop.
#[derive(Clone)]
pub(super) struct Seat {
    address: Option<IpAddr>,
    since: Instant,
    /// Milliseconds from `since` to the start of the wait for a complete head.
    waiting: Arc<AtomicU64>,
    /// Whether a request is being answered.
    pub(super) busy: Arc<AtomicBool>,
    /// Whether the request is a long poll.
    pub(super) in_long_poll: Arc<AtomicBool>,
    pub(super) close: CancellationToken,
}

impl Seat {
    /// Start of the wait for a complete head; `None` while a request is answered.
    fn waits_since(&self) -> Option<Instant> {
        let waited = || Duration::from_millis(self.waiting.load(Ordering::Relaxed));
        (!self.busy.load(Ordering::Relaxed)).then(|| self.since + waited())
    }

    pub(super) fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// Leaves this request out of the limit per address. The handler has its own limit, below that of the server.
    pub(super) fn begin_long_poll(&self) {
        self.in_long_poll.store(true, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        let elapsed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.waiting.store(elapsed, Ordering::Relaxed);
        self.in_long_poll.store(false, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            next: 0,
            taken: BTreeMap::new(),
            of_address: HashMap::new(),
        }
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.taken.len() >= CROWDED
    }

    /// Returns whether another connection fits, if necessary after closing the oldest one without a complete head.
    pub(super) fn make_room(&mut self) -> bool {
        self.taken.len() < self.most || {
            let oldest = oldest(self.taken.iter());
            self.close(oldest)
        }
    }

    /// Takes a seat for a client. `None`: its network has the maximum number, and all of them answer requests.
    fn take(&mut self, address: Option<IpAddr>) -> Option<(u64, Seat)> {
        let address = address.map(network);
        let others = address.and_then(|address| self.of_address.get(&address));
        let others = others.into_iter().flatten();
        let others = others.filter_map(|id| self.taken.get_key_value(id));
        let is_counted = |(_, seat): &(_, &Seat)| !seat.in_long_poll.load(Ordering::Relaxed);
        if others.clone().filter(is_counted).count() >= PER_ADDRESS {
            let oldest = oldest(others);
            if !self.close(oldest) {
                return None;
            }
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
        if let Some(address) = address {
            self.of_address
                .entry(address)
                .or_default()
                .insert(self.next);
        }
        Some((self.next, seat))
    }

    fn close(&mut self, id: Option<u64>) -> bool {
        let seat = id.and_then(|id| self.leave(id));
        let closed = seat.map(|seat| seat.close.cancel());
        closed.is_some()
    }

    fn leave(&mut self, id: u64) -> Option<Seat> {
        let seat = self.taken.remove(&id)?;
        if let Some(address) = seat.address
            && let Some(seats) = self.of_address.get_mut(&address)
        {
            seats.remove(&id);
            if seats.is_empty() {
                self.of_address.remove(&address);
            }
        }
        Some(seat)
    }
}

/// Returns the connection that has waited longest for a complete head.
fn oldest<'s>(seats: impl Iterator<Item = (&'s u64, &'s Seat)>) -> Option<u64> {
    let waiting = seats.filter_map(|(id, seat)| Some((seat.waits_since()?, *id)));
    waiting.min().map(|(_, id)| id)
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
    async fn one_network_cannot_take_every_seat() {
        let mut seats = Seats::new(CONNECTIONS);
        let address = |text: String| Some(text.parse::<IpAddr>().unwrap());
        for host in 0..PER_ADDRESS {
            let seat = seats.take(address(format!("2001:db8::{host:x}")));
            seat.unwrap().1.begin();
        }
        assert!(seats.take(address("2001:db8::ffff".to_owned())).is_none());
        assert!(seats.take(address("2001:db8:0:1::1".to_owned())).is_some());
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
        let all: Vec<u64> = seats.taken.keys().copied().collect();
        assert_eq!(seats.of_address[&STRANGER.unwrap()].len(), all.len());
        all.into_iter().for_each(|id| drop(seats.leave(id)));
        assert!(seats.of_address.is_empty());
    }
}
