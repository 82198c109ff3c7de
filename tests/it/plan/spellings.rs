//! Two spellings of one value are one value: the specifications are equal, and a router that has one of them applied has
//! nothing to do for the other.

use moenet_agent::document::{BgpSessionSpec, parse};
use moenet_agent::model::Endpoint;
use moenet_agent::plan::WantedTunnel;
use proptest::prelude::*;

use super::kernel::ModelKernel;
use super::observed::World;
use super::wanted::{Wanted, uid};
use crate::support::{resolve, router_key, secrets};

/// A value in its normal spelling, and other spellings.
type Spellings = (&'static str, &'static [&'static str]);

const ENDPOINTS: [Spellings; 4] = [
    (
        "[2001:db8::1]:51820",
        &[
            "[2001:DB8::1]:51820",
            "[2001:0db8:0:0:0:0:0:0001]:051820",
            "[2001:db8::0.0.0.1]:51820",
        ],
    ),
    (
        "192.0.2.1:51820",
        &[
            "192.0.2.1.:51820",
            "[::ffff:192.0.2.1]:51820",
            "[::FFFF:c000:201]:51820",
            "192.0.2.1:0051820",
        ],
    ),
    (
        "peer.example.com:51820",
        &[
            "Peer.EXAMPLE.com:51820",
            "peer.example.com.:51820",
            "PEER.example.com.:51820",
        ],
    ),
    ("_wg.a-b.dn42:1", &["_WG.A-B.dn42.:1", "_wg.a-b.dn42:00001"]),
];

const KEYS: [Spellings; 1] = [(
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    &[
        " xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= ",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\\n",
        "\\txTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg",
    ],
)];

const LINK_LOCALS: [Spellings; 1] = [(
    "fe80::2",
    &["FE80::2", "fe80:0:0:0::0002", "fe80::2/64", "fe80::0.0.0.2"],
)];

const ULAS: [Spellings; 1] = [(
    "fd00:1080::1",
    &[
        "FD00:1080::1",
        "fd00:1080:0:0:0:0:0:1",
        "fd00:1080::0001/128",
    ],
)];

fn spelled<const N: usize>(
    values: [Spellings; N],
) -> impl Strategy<Value = (&'static str, &'static str)> {
    let pairs: Vec<_> = values
        .into_iter()
        .flat_map(|(normal, others)| others.iter().map(move |other| (normal, *other)))
        .collect();
    prop::sample::select(pairs)
}

fn spec(endpoint: &str, key: &str, link_local: &str, ula: &str) -> BgpSessionSpec {
    let text = format!(
        "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: peer, uid: abc-123}}\nspec:\n  \
         asn: 4242421080\n  tunnel: {{interface: wg_4242421080, endpoint: \"{endpoint}\", publicKey: \"{key}\"}}\n  \
         address: {{peerLinkLocal: \"{link_local}\", peerIpv6: \"{ula}\"}}\n"
    );
    parse(&text).unwrap().spec
}

fn wanted(spec: &BgpSessionSpec) -> Wanted {
    let session = resolve("peer", &uid(), spec, &secrets(1)).unwrap();
    let resolved = session.tunnel.endpoint.as_ref().and_then(Endpoint::address);
    Wanted {
        tunnel: WantedTunnel::of_session(&session, &router_key(), resolved).unwrap(),
        resolved,
        endpoint_changed: false,
        fragment: "# 1".to_owned(),
    }
}

proptest! {
    #[test]
    fn another_spelling_is_no_drift(
        endpoint in spelled(ENDPOINTS),
        key in spelled(KEYS),
        link_local in spelled(LINK_LOCALS),
        ula in spelled(ULAS),
    ) {
        let normal = spec(endpoint.0, key.0, link_local.0, ula.0);
        let other = spec(endpoint.1, key.1, link_local.1, ula.1);
        prop_assert_eq!(&normal, &other);
        let text = serde_json::to_string(&other).unwrap();
        for value in [endpoint.0, key.0, link_local.0, ula.0] {
            prop_assert!(text.contains(value), "{value} is not in {text}");
        }
        let mut world = World {
            wanted: wanted(&normal),
            kernel: ModelKernel { uid: Some(uid()), ..ModelKernel::default() },
            creating: None,
            fragment: None,
        };
        prop_assert!(world.converge().unwrap() > 0);
        world.wanted = wanted(&other);
        prop_assert_eq!(world.converge().unwrap(), 0);
    }
}
