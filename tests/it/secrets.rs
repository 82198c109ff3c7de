//! No value that holds a secret shows it: not to `{:?}`, not to `{}`, and not to a serialiser.

use std::fmt::Debug;

use crate::support::{PSK_FILE, key, our_key, resolve, router};
use moenet_agent::document::{BgpSessionSpec, parse};
use moenet_agent::effective::Secrets;
use moenet_agent::model::{PresharedKey, PrivateKey, RouterKey, Secret, Uid};
use moenet_agent::observed::Mark;
use moenet_agent::observed::kernel::{KernelView, Link, LinkKind, WireGuard, WireGuardPeer};
use moenet_agent::plan::action::{KernelAction, PeerPatch, WireGuardPatch};
use moenet_agent::plan::{ObjectObservation, Plan, WantedTunnel, plan_base, plan_session};

/// A key that is recognised in any spelling.
const KEY: [u8; 32] = *b"recognise-me-if-you-can-see-me!!";
const OTHER: [u8; 32] = *b"recognise-the-key-that-was-there";
const PASSWORD: &str = "correct horse battery staple";
const PASSWORD_FILE: &str = "secrets/peer.bgp";

/// The spellings in which a secret could leak.
fn spellings() -> Vec<String> {
    let mut spellings = vec![PASSWORD.to_owned(), "recognise".to_owned()];
    for bytes in [KEY, OTHER] {
        spellings.push(
            PrivateKey::new(bytes)
                .to_base64()
                .expose()
                .trim_end_matches('=')
                .to_owned(),
        );
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        spellings.extend([hex.to_uppercase(), hex]);
        let list: Vec<_> = bytes.iter().map(ToString::to_string).collect();
        spellings.extend([list.join(", "), list.join(",\n        ")]);
        // Half a key is a leak too.
        spellings.push(list[..8].join(", "));
    }
    spellings
}

fn assert_hidden(what: &str, text: &str) {
    let squeezed: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for spelling in spellings() {
        assert!(
            !text.contains(&spelling) && !squeezed.contains(&spelling),
            "{what} shows a secret: {text}"
        );
    }
}

fn assert_debug_hides(what: &str, value: &impl Debug) {
    assert_hidden(what, &format!("{value:?}"));
    assert_hidden(what, &format!("{value:#?}"));
}

fn secrets() -> Secrets {
    let psk = PresharedKey::new(KEY).to_base64();
    Secrets::from([
        (PSK_FILE.into(), psk),
        (PASSWORD_FILE.into(), Secret::new(PASSWORD.into())),
    ])
}

fn spec() -> BgpSessionSpec {
    let text = format!(
        "{{apiVersion: moenet.work/v1, kind: BgpSession, metadata: {{name: peer}}, spec: {{asn: 65000, \
         tunnel: {{publicKey: {}, presharedKeyFile: {PSK_FILE}}}, address: {{peerLinkLocal: 'fe80::2'}}, \
         bgp: {{passwordFile: {PASSWORD_FILE}}}}}}}",
        key(7)
    );
    parse::<BgpSessionSpec>(&text).unwrap().spec
}

fn uid() -> Uid {
    "abc-123".parse().unwrap()
}

fn tunnel() -> WantedTunnel {
    let session = resolve("peer", &uid(), &spec(), &secrets()).unwrap();
    WantedTunnel::of_session(
        &session,
        &RouterKey::Available {
            private: PrivateKey::new(KEY),
            public: our_key(),
        },
        None,
    )
    .unwrap()
}

/// A kernel whose link has another preshared key.
fn kernel() -> KernelView {
    let peer = WireGuardPeer {
        preshared_key: Some(PresharedKey::new(OTHER)),
        ..WireGuardPeer::default()
    };
    let wireguard = WireGuard {
        public_key: None,
        listen_port: None,
        peers: [(key(7), peer.into())].into(),
    };
    let link = Link {
        index: 1,
        kind: LinkKind::WireGuard,
        mtu: 1420,
        up: true,
        mark: Mark::Ours(uid()),
        addrgen_none: true,
        addresses: [].into(),
        routes: [].into(),
        wireguard: Some(wireguard),
        gre: None,
        unread: None,
        learnt: false,
        sysctls: [].into(),
    };
    KernelView {
        links: [("wg_65000".parse().unwrap(), link)].into_iter().collect(),
        ..KernelView::default()
    }
}

fn planned(kernel: &KernelView) -> Plan {
    let tunnel = tunnel();
    let now = "2026-11-23T20:00:00Z".parse().unwrap();
    let fragment = format!("protocol bgp x {{\n\tpassword \"{PASSWORD}\";\n}}\n");
    let before = fragment.replace("horse", "recognise");
    let seen = ObjectObservation {
        formerly: None,
        kernel,
        creating: None,
        resolved: None,
        endpoint_changed: false,
        gives_way: false,
        now,
        fragment: Some(&before),
    };
    assert_debug_hides("what is wanted", &tunnel);
    assert_debug_hides("what is seen", &seen);
    plan_session(&"peer".parse().unwrap(), &tunnel, &fragment, &seen).unwrap()
}

#[test]
fn a_session_and_its_tunnel_show_no_secret() {
    assert_debug_hides("the secrets", &secrets());
    assert_debug_hides(
        "a session",
        &resolve("peer", &uid(), &spec(), &secrets()).unwrap(),
    );
    assert_debug_hides("a wanted tunnel", &tunnel());
    assert_debug_hides("a router", &router());
}

#[test]
fn what_the_kernel_has_shows_no_secret() {
    assert_debug_hides("the kernel's view", &kernel());
}

#[test]
fn a_plan_its_steps_and_their_reasons_show_no_secret() {
    for kernel in [kernel(), KernelView::default()] {
        let plan = planned(&kernel);
        assert!(
            plan.steps
                .iter()
                .any(|step| step.to_string().contains("preshared key"))
        );
        assert_debug_hides("a plan", &plan);
        for step in &plan.steps {
            assert_debug_hides("a step", step);
            assert_hidden("a step", &step.to_string());
            assert_hidden("an action", &step.action.to_string());
            assert_hidden("a drift", &step.because.to_string());
        }
    }
}

#[test]
fn shared_files_of_bird_show_no_secret() {
    let files = |text: &str| [("bird.conf".to_owned(), text.into())].into();
    let line = |password: &str| files(&format!("password \"{password}\";\n"));
    let plan = plan_base(&line(PASSWORD), &line("recognise"));
    assert_debug_hides("a plan of BIRD's files", &plan);
    assert_hidden("a step", &plan.steps[0].to_string());
}

#[test]
fn a_change_of_wireguard_shows_no_secret() {
    let peer = PeerPatch {
        public_key: key(7),
        preshared_key: Some(Some(PresharedKey::new(KEY))),
        endpoint: None,
        keepalive: None,
        allowed_ips: None,
    };
    let patch = WireGuardPatch {
        private_key: Some(PrivateKey::new(OTHER)),
        peers: vec![peer],
        ..WireGuardPatch::default()
    };
    let action = KernelAction::ConfigureWireGuard {
        interface: "wg_1".parse().unwrap(),
        patch: patch.clone(),
    };
    assert_debug_hides("a patch", &patch);
    assert_hidden("a patch", &patch.to_string());
    assert_debug_hides("an action", &action);
    assert_hidden("an action", &action.to_string());
}

#[test]
fn applied_spec_names_the_file_and_not_the_secret() {
    let filled = spec().filled(&router(), &moenet_agent::effective::Defaults::default());
    let text = moenet_agent::document::to_yaml(&filled).unwrap();
    assert!(text.contains(PSK_FILE));
    assert_hidden("applied", &text);
    assert_hidden("applied, as JSON", &serde_json::to_string(&filled).unwrap());
}

#[test]
fn an_error_about_a_secret_does_not_quote_it() {
    let broken = Secrets::from([
        (PSK_FILE.into(), Secret::new("recognise-me".to_owned())),
        (PASSWORD_FILE.into(), Secret::new(PASSWORD.to_owned())),
    ]);
    let error = resolve("peer", &uid(), &spec(), &broken).unwrap_err();
    assert_hidden("an error", &error.to_string());
    let broken = Secrets::from([
        (PSK_FILE.into(), PresharedKey::new(KEY).to_base64()),
        (
            PASSWORD_FILE.into(),
            Secret::new(format!("{PASSWORD}\"; recognise")),
        ),
    ]);
    let error = resolve("peer", &uid(), &spec(), &broken).unwrap_err();
    assert_hidden("an error", &error.to_string());
}
