use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::Client;

/// Maximum number of clients with a bucket of their own.
const CLIENTS: usize = 1024;

/// A token bucket: limits the calls per second, and the calls at once. Time is an input, counted from any fixed moment.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: per_second.max(0.001),
            burst,
            tokens: burst,
            last: Duration::ZERO,
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The bucket is empty; the value is the time until the next token.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / self.per_second,
        ))
    }

    fn is_full(&self, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.tokens + elapsed * self.per_second >= self.burst
    }
}

/// Limits guesses of a token, for each client on its own: a stranger must not lock an operator out. All local clients share a
/// bucket. Unnamed clients, and all new ones while too many guess, share another.
pub(super) struct Guesses {
    full: TokenBucket,
    local: TokenBucket,
    others: TokenBucket,
    clients: HashMap<IpAddr, TokenBucket>,
}

impl Guesses {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        let full = TokenBucket::new(per_second, burst);
        Self {
            local: full.clone(),
            others: full.clone(),
            clients: HashMap::new(),
            full,
        }
    }

    /// Counts a wrong token. A right one is not counted, but refused like a wrong one while the limit is reached, if it is
    /// short: otherwise guesses beyond the limit would still tell which is right. A long one cannot be guessed at any rate,
    /// and its owner is not kept out by those who share the address.
    ///
    /// # Errors
    /// The limit is reached; the value is the time until the next guess.
    pub(super) fn check(
        &mut self,
        client: Client,
        is_right: bool,
        now: Duration,
    ) -> Result<(), Duration> {
        let bucket = self.bucket(client, now);
        let before = bucket.clone();
        bucket.take(now)?;
        if is_right {
            *bucket = before;
        }
        Ok(())
    }

    fn bucket(&mut self, client: Client, now: Duration) -> &mut TokenBucket {
        let client = match client {
            Client::Local => return &mut self.local,
            Client::Unnamed => return &mut self.others,
            Client::Address(address) => network(address),
        };
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            self.clients.retain(|_, bucket| !bucket.is_full(now));
            if self.clients.len() >= CLIENTS {
                return &mut self.others;
            }
        }
        let full = &self.full;
        self.clients.entry(client).or_insert_with(|| full.clone())
    }
}

/// Returns what one client has for certain: an IPv4 address, or a /64.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Client {
        Client::Address(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn guesses_of_one_client_lock_no_other_out() {
        let mut guesses = Guesses::new(1.0, 2);
        for _ in 0..2 {
            assert_eq!(guesses.check(client(1), false, Duration::ZERO), Ok(()));
        }
        for is_right in [false, true] {
            assert!(guesses.check(client(1), is_right, Duration::ZERO).is_err());
        }
        for other in [client(2), Client::Local] {
            for _ in 0..3 {
                assert_eq!(guesses.check(other, true, Duration::ZERO), Ok(()));
            }
        }
        assert_eq!(
            guesses.check(client(1), true, Duration::from_secs(1)),
            Ok(())
        );
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let mut guesses = Guesses::new(1.0, 1);
        let of = |text: &str| Client::Address(text.parse().unwrap());
        assert_eq!(
            guesses.check(of("2001:db8::1"), false, Duration::ZERO),
            Ok(())
        );
        assert!(
            guesses
                .check(of("2001:db8::2"), false, Duration::ZERO)
                .is_err()
        );
        assert_eq!(
            guesses.check(of("2001:db8:0:1::1"), false, Duration::ZERO),
            Ok(())
        );
    }

    #[test]
    fn clients_beyond_the_maximum_share_a_bucket() {
        let mut guesses = Guesses::new(1.0, 2);
        let most = u32::try_from(CLIENTS).unwrap();
        for number in 0..most {
            assert_eq!(guesses.check(client(number), false, Duration::ZERO), Ok(()));
        }
        for number in most..most + 2 {
            assert_eq!(guesses.check(client(number), false, Duration::ZERO), Ok(()));
        }
        assert!(
            guesses
                .check(client(most + 2), false, Duration::ZERO)
                .is_err()
        );
        let unnamed = guesses.check(Client::Unnamed, true, Duration::ZERO);
        assert!(unnamed.is_err());
        let local = guesses.check(Client::Local, true, Duration::ZERO);
        assert_eq!(local, Ok(()));
        assert_eq!(guesses.clients.len(), CLIENTS);
        // Buckets that are full again make room.
        let later = Duration::from_secs(2);
        assert_eq!(guesses.check(client(most + 2), false, later), Ok(()));
        assert_eq!(guesses.clients.len(), 1);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(2.0, 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(Duration::ZERO), Ok(()));
        }
        assert_eq!(bucket.take(Duration::ZERO), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(Duration::from_millis(500)), Ok(()));
        assert!(
            bucket.take(Duration::from_millis(400)).is_err(),
            "time that runs backwards gives nothing"
        );
    }
}
