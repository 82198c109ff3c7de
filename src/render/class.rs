use serde::{Deserialize, Serialize};

use crate::effective::{Session, Tunnel};
use crate::model::{Bandwidth, TunnelType};

/// The upper bounds of the latency classes 1..8 in milliseconds; above them is class 9. This is the
/// table of DN42's BGP communities; its formula contradicts it at 55, 1097 and 2981.
const LATENCY_BOUNDS: [f64; 8] = [2.7, 7.3, 20.0, 55.0, 148.0, 403.0, 1097.0, 2981.0];

/// Loss share below which the table's "about none" applies.
const NO_LOSS: f64 = 0.001;

/// The classes of a link in DN42's communities `(64511, class)`. Unknown values are absent, and are
/// then neither set for the link nor removed from a route that carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkClass {
    /// 1 (up to 2.7 ms) to 9 (over 2.9 s).
    pub latency: Option<u8>,
    /// 21 (from 0.1 Mbit/s) to 25 (from 1 Gbit/s).
    pub bandwidth: Option<u8>,
    /// 31 (none) to 36 (forward secrecy that resists a quantum computer).
    pub crypto: u8,
    /// 81 (a wire) to 89 (other); a tunnel is 83.
    pub link_type: u8,
    /// 91 (none) to 94 (over 5 %).
    pub loss: Option<u8>,
    /// Mbit/s, for the local large community `(local ASN, 5, Mbit/s)`.
    pub mbit: Option<u32>,
}

impl LinkClass {
    /// Returns the classes of a session's tunnel. `latency` and `loss` are measured classes after
    /// [`Hysteresis`](super::Hysteresis); `bandwidth` is the smaller of both directions.
    pub fn of(
        session: &Session,
        latency: Option<u8>,
        loss: Option<u8>,
        bandwidth: Option<Bandwidth>,
    ) -> Self {
        Self {
            latency,
            bandwidth: bandwidth.and_then(bandwidth_class),
            crypto: crypto_class(&session.tunnel),
            link_type: 83,
            loss,
            mbit: bandwidth.map(|b| u32::try_from(b.mbit()).unwrap_or(u32::MAX)),
        }
    }
}

/// Returns the latency class of a round-trip time in milliseconds; `None` for an invalid time.
pub fn latency_class(milliseconds: f64) -> Option<u8> {
    let valid = milliseconds.is_finite() && milliseconds >= 0.0;
    // At most 8 bounds are smaller, so the class is at most 9.
    valid.then(|| {
        1 + LATENCY_BOUNDS
            .iter()
            .filter(|bound| milliseconds > **bound)
            .count() as u8
    })
}

/// Returns the range of round-trip times of a latency class, in milliseconds.
pub(crate) fn latency_range(class: u8) -> (f64, f64) {
    let bound = |index: usize| LATENCY_BOUNDS.get(index).copied();
    let index = usize::from(class).saturating_sub(1);
    (
        index.checked_sub(1).and_then(bound).unwrap_or(0.0),
        bound(index).unwrap_or(f64::INFINITY),
    )
}

/// Returns the range of loss shares of a loss class.
pub(crate) fn loss_range(class: u8) -> (f64, f64) {
    match class {
        ..=91 => (0.0, NO_LOSS),
        92 => (NO_LOSS, 0.01),
        93 => (0.01, 0.05),
        94.. => (0.05, 1.0),
    }
}

/// Returns the bandwidth class: `2x` from 10^(x-2) Mbit/s, up to 25; `None` below 0.1 Mbit/s.
pub fn bandwidth_class(bandwidth: Bandwidth) -> Option<u8> {
    match bandwidth.kbit() {
        0..100 => None,
        100..1_000 => Some(21),
        1_000..10_000 => Some(22),
        10_000..100_000 => Some(23),
        100_000..1_000_000 => Some(24),
        1_000_000.. => Some(25),
    }
}

/// Returns the loss class of a share of lost packets, 0.0..1.0; "none" is below one in a thousand.
pub fn loss_class(share: f64) -> Option<u8> {
    if !(0.0..=1.0).contains(&share) {
        return None;
    }
    Some(match share {
        s if s < NO_LOSS => 91,
        s if s <= 0.01 => 92,
        s if s <= 0.05 => 93,
        _ => 94,
    })
}

/// Returns the encryption class: WireGuard has forward secrecy (34), with a preshared key 35; GRE has none (31).
pub fn crypto_class(tunnel: &Tunnel) -> u8 {
    match tunnel.kind {
        TunnelType::Wireguard if tunnel.preshared_key.is_some() => 35,
        TunnelType::Wireguard => 34,
        TunnelType::Gre | TunnelType::Ip6gre => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_classes_are_those_of_the_table() {
        let table = [
            (0.0, 1),
            (0.3, 1),
            (2.7, 1),
            (2.71, 2),
            (7.3, 2),
            (20.0, 3),
            (20.1, 4),
            (55.0, 4),
            (55.1, 5),
            (148.0, 5),
            (403.0, 6),
            (1097.0, 7),
            (1097.5, 8),
            (2981.0, 8),
            (2982.0, 9),
            (1e9, 9),
        ];
        for (milliseconds, class) in table {
            assert_eq!(latency_class(milliseconds), Some(class), "{milliseconds}");
            let (low, high) = latency_range(class);
            assert!(low <= milliseconds && milliseconds <= high);
        }
        for nonsense in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(latency_class(nonsense), None);
        }
    }

    #[test]
    fn bandwidth_classes_are_powers_of_ten() {
        let table = [
            ("0.1M", 21),
            ("0.9M", 21),
            ("1M", 22),
            ("10M", 23),
            ("99M", 23),
            ("100M", 24),
        ];
        for (text, class) in table
            .into_iter()
            .chain([("999M", 24), ("1G", 25), ("100G", 25)])
        {
            assert_eq!(
                bandwidth_class(text.parse().unwrap()),
                Some(class),
                "{text}"
            );
        }
        assert_eq!(bandwidth_class("0.05M".parse().unwrap()), None);
    }

    #[test]
    fn the_ranges_of_loss_classes_are_those_of_the_classes() {
        for share in [0.0, 0.0005, 0.001, 0.01, 0.02, 0.05, 0.2, 1.0] {
            let (low, high) = loss_range(loss_class(share).unwrap());
            assert!(low <= share && share <= high, "{share}");
        }
    }

    #[test]
    fn loss_classes_are_those_of_the_table() {
        for (share, class) in [
            (0.0, 91),
            (0.01, 92),
            (0.02, 93),
            (0.05, 93),
            (0.051, 94),
            (1.0, 94),
        ] {
            assert_eq!(loss_class(share), Some(class), "{share}");
        }
        assert_eq!(loss_class(f64::NAN), None);
    }
}
