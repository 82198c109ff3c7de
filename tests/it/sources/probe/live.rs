//! Real echoes, in a network namespace of their own.

use std::time::Duration;

use crate::support::namespace;
use moenet_agent::sources::probe::{
    IcmpPing, Ping, Probe, ProbeError, ProbeSettings, Target, trace,
};

/// `lo` routes 198.51.100.1 to nobody. The nested namespace behind `left` has fe80::2, and so has the
/// one behind `other`, which is slower.
const SETUP: &str = "
    ip link set lo up
    ip route add 198.51.100.1/32 dev lo
    for name in left other; do
        ip link add $name type veth peer name far
        unshare --net sleep 20 </dev/null >/dev/null 2>&1 &
        pid=$!
        while [ \"$(readlink /proc/$pid/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        ip link set far netns $pid
        ip link set $name addrgenmode none up
        ip addr add fe80::1/64 dev $name nodad
        nsenter --target $pid --net ip link set far addrgenmode none up
        nsenter --target $pid --net ip addr add fe80::2/64 dev far nodad
    done";

fn target(address: &str, interface: Option<&str>) -> Target {
    Target {
        address: address.parse().unwrap(),
        interface: interface.map(|name| name.parse().unwrap()),
    }
}

async fn probe(address: &str, interface: Option<&str>) -> Result<Probe, ProbeError> {
    let settings = ProbeSettings {
        count: 3,
        timeout: Duration::from_secs(1),
        ..ProbeSettings::default()
    };
    let echoes = IcmpPing
        .ping(&target(address, interface), &settings)
        .await?;
    Ok(Probe::new(&echoes, jiff::Timestamp::now()))
}

async fn assert_echoes() {
    for (address, interface) in [
        ("127.0.0.1", None),
        ("::1", None),
        ("::1", Some("lo")),
        ("fe80::2", Some("left")),
    ] {
        let found = probe(address, interface).await.unwrap();
        assert_eq!(found.loss, 0.0, "{address} {interface:?}");
        assert!((0.001..500.0).contains(&found.rtt_ms.unwrap()), "{found:?}");
    }
    for (address, interface) in [
        ("198.51.100.1", None),
        ("203.0.113.9", None),
        ("fe80::9", Some("left")),
    ] {
        let found = probe(address, interface).await.unwrap();
        assert_eq!(
            (found.rtt_ms, found.loss),
            (None, 1.0),
            "{address} {interface:?}"
        );
    }
}

/// Awaits without CAP_NET_RAW. Capabilities are of one thread, as is the runtime here.
async fn without_raw_sockets<T>(future: impl Future<Output = T>) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let before = capabilities(None).unwrap();
    let mut less = before;
    less.effective.remove(CapabilitySet::NET_RAW);
    set_capabilities(None, less).unwrap();
    let done = future.await;
    set_capabilities(None, before).unwrap();
    done
}

#[test]
#[ignore = "runs inside a namespace"]
fn inner() {
    if !namespace::inside() {
        return;
    }
    namespace::sh(SETUP);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // A new namespace grants unprivileged sockets to nobody ("1 0", inet_init_net).
        println!("with raw sockets");
        assert_echoes().await;
        println!("a trace tells what keeps it from asking");
        let traced = |address| async move {
            trace(&target(address, None), Duration::from_millis(200)).await
        };
        assert_eq!(traced("127.0.0.1").await.unwrap().len(), 1);
        for unreachable in ["203.0.113.9", "2001:db8::9"] {
            let error = traced(unreachable).await.unwrap_err().to_string();
            assert!(error.contains("check that a route leads there"), "{error}");
        }
        println!("with unprivileged sockets");
        namespace::sh("echo '0 0' > /proc/sys/net/ipv4/ping_group_range");
        assert_echoes().await;
        println!("a trace needs a raw socket");
        let traced = without_raw_sockets(traced("127.0.0.1")).await;
        let error = traced.unwrap_err().to_string();
        assert!(error.contains("CAP_NET_RAW"), "{error}");
        println!("the same address at the end of two tunnels");
        namespace::sh("ip link set other down");
        let (left, other) = tokio::join!(
            probe("fe80::2", Some("left")),
            probe("fe80::2", Some("other"))
        );
        assert_eq!((left.unwrap().loss, other.unwrap().loss), (0.0, 1.0));
        println!("what cannot be probed is an error and not a loss");
        let missing = probe("fe80::2", Some("wg_missing"))
            .await
            .unwrap_err()
            .to_string();
        assert!(missing.contains("fe80::2%wg_missing"), "{missing}");
        let nowhere = probe("fe80::2", None).await.unwrap_err().to_string();
        assert!(nowhere.contains("needs the interface"), "{nowhere}");
    });
}

#[test]
fn echoes_measure_time_and_loss_over_both_families() {
    namespace::run(test_path!("inner"));
}
