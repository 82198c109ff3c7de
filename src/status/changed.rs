use crate::document::StatusBody;

/// Whether two statuses differ in something that is worth a write. Counters and times that move by
/// themselves do not count, or every look would write a file.
pub fn changed(before: &StatusBody, after: &StatusBody) -> bool {
    settled(before) != settled(after)
}

/// The status without what moves by itself.
fn settled(status: &StatusBody) -> StatusBody {
    let mut still = status.clone();
    still.rtt_ms = None;
    still.loss = None;
    if let Some(tunnel) = &mut still.tunnel {
        tunnel.last_handshake = None;
        tunnel.rx_bytes = 0;
        tunnel.tx_bytes = 0;
    }
    if let Some(bgp) = &mut still.bgp {
        bgp.routes_imported = 0;
        bgp.routes_exported = 0;
        // BIRD derives it from a monotonic clock, so that it moves by a second between two looks; the
        // state tells of a real change, and the condition of its time.
        bgp.since = None;
    }
    still
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{BgpStatus, Phase, TunnelStatus};

    #[test]
    fn traffic_is_no_reason_to_write() {
        let before = StatusBody {
            tunnel: Some(TunnelStatus { rx_bytes: 1, ..Default::default() }),
            bgp: Some(BgpStatus { state: "established".into(), routes_imported: 1, ..Default::default() }),
            ..Default::default()
        };
        let mut after = before.clone();
        after.tunnel.as_mut().unwrap().rx_bytes = 99;
        after.bgp.as_mut().unwrap().routes_imported = 99;
        assert!(!changed(&before, &after));
        after.phase = Phase::Established;
        assert!(changed(&before, &after));
    }
}
