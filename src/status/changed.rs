use crate::document::StatusBody;

/// Returns whether two statuses differ enough to write the new one. Counters and times that change by
/// themselves do not count; otherwise every pass would write a file.
pub fn changed(before: &StatusBody, after: &StatusBody) -> bool {
    before != after && settled(before) != settled(after)
}

/// Returns the status without the values that change by themselves.
fn settled(status: &StatusBody) -> StatusBody {
    let mut still = status.clone();
    // Whether the peer answers, and whether all echoes do, counts as a change; the variation of the times does not.
    still.rtt_ms = status.rtt_ms.map(|_| 1.0);
    still.loss = status
        .loss
        .map(|loss| if loss > 0.0 && loss < 1.0 { 0.5 } else { loss });
    if let Some(tunnel) = &mut still.tunnel {
        tunnel.last_handshake = None;
        tunnel.rx_bytes = 0;
        tunnel.tx_bytes = 0;
    }
    if let Some(bgp) = &mut still.bgp {
        bgp.routes_imported = 0;
        bgp.routes_exported = 0;
        // BIRD derives it from a monotonic clock, so that it differs by a second between two readings; the
        // state shows a real change, and the condition its time.
        bgp.since = None;
    }
    still
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{BgpStatus, Phase, TunnelStatus};

    #[test]
    fn first_peer_answer_is_a_change_and_later_times_not() {
        let probed = |rtt_ms, loss| StatusBody {
            rtt_ms,
            loss: Some(loss),
            ..Default::default()
        };
        assert!(changed(&StatusBody::default(), &probed(Some(9.0), 0.0)));
        assert!(!changed(&probed(Some(9.0), 0.0), &probed(Some(200.0), 0.0)));
        assert!(!changed(&probed(Some(9.0), 0.25), &probed(Some(9.0), 0.75)));
        assert!(changed(&probed(Some(9.0), 0.0), &probed(Some(9.0), 0.25)));
        assert!(changed(&probed(Some(9.0), 0.75), &probed(None, 1.0)));
    }

    #[test]
    fn traffic_is_no_reason_to_write() {
        let before = StatusBody {
            tunnel: Some(TunnelStatus {
                rx_bytes: 1,
                ..Default::default()
            }),
            bgp: Some(BgpStatus {
                state: "established".into(),
                routes_imported: 1,
                ..Default::default()
            }),
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
