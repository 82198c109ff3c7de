use super::*;
use crate::model::{Address, PublicKey};
use crate::observed::bird::{Channel, ProtocolState};
use crate::observed::kernel::{LinkKind, Unread, WireGuard, WireGuardPeer};
use crate::observed::mark::Mark;

fn link(peers: u8) -> Link {
    let peer = |number: u8| (PublicKey::new([number; 32]), WireGuardPeer::default());
    Link {
        index: 1,
        kind: LinkKind::WireGuard,
        mtu: 1420,
        up: true,
        mark: Mark::None,
        addrgen_none: true,
        addresses: [Address::new("fe80::998:1/64".parse().unwrap(), None)].into(),
        routes: BTreeSet::new(),
        wireguard: Some(WireGuard {
            public_key: Some(KEY),
            listen_port: crate::model::Port::new(21_001),
            peers: (1..=peers)
                .map(peer)
                .map(|(key, peer)| (key, peer.into()))
                .collect(),
        }),
        unread: None,
        gre: None,
        learnt: false,
        sysctls: BTreeMap::new(),
    }
}

fn session(name: &str, asn: u32, neighbour: &str, families: &[&str]) -> Protocol {
    let channel = |family: &&str| Channel {
        name: (*family).to_owned(),
        ..Channel::default()
    };
    Protocol {
        name: name.into(),
        proto: "BGP".into(),
        table: None,
        state: ProtocolState::Up,
        since: None,
        info: String::new(),
        description: None,
        message: None,
        bgp: Some(Bgp {
            neighbor_address: Some(neighbour.into()),
            neighbor_as: Some(asn),
            local_as: Some(4_242_420_998),
            ..Bgp::default()
        }),
        rpki: None,
        channels: families.iter().map(channel).collect(),
    }
}

/// The public key of each interface, which the agent has too.
const KEY: PublicKey = PublicKey::new([9; 32]);

fn mapped(link: Link, protocols: &[Protocol], text: &str, included: bool) -> Adoption {
    mapped_with(link, protocols, (text, included), &[])
}

fn mapped_with(
    link: Link,
    protocols: &[Protocol],
    (text, included): (&str, bool),
    files: &[TunnelFile],
) -> Adoption {
    let path = Path::new("/key");
    let public = Some(KEY);
    mapped_with_key(
        link,
        protocols,
        (text, included),
        files,
        OwnKey { path, public },
    )
}

fn mapped_with_key(
    link: Link,
    protocols: &[Protocol],
    (text, included): (&str, bool),
    files: &[TunnelFile],
    key: OwnKey<'_>,
) -> Adoption {
    let mut other = link.clone();
    let own = PublicKey::new([8; 32]);
    other.wireguard.as_mut().unwrap().public_key = Some(own);
    let kernel = KernelView {
        links: [
            ("wg1".parse().unwrap(), link),
            ("wg2".parse().unwrap(), other),
        ]
        .into_iter()
        .collect(),
        ..KernelView::default()
    };
    let path = Path::new("/etc/bird/bird.conf");
    let texts = [(path, text)].into_iter();
    let main = MainFile::of_operator(path.into(), true, included, texts);
    Adoption::of(Running {
        kernel: &kernel,
        protocols,
        main: &main,
        files,
        asn: Some(OwnAs {
            asn: 4_242_420_998_u64.try_into().unwrap(),
            place: "node.asn at config.yaml:2",
        }),
        key,
    })
}

const TEXT: &str = "\nprotocol bgp p from t {\n  neighbor fe80::2%'wg1' as 4242421001;\n  password \"hunter2\";\n}\n";

fn peering() -> [Protocol; 1] {
    [session(
        "p",
        4_242_421_001,
        "fe80::2%wg1",
        &["ipv4", "ipv6"],
    )]
}

#[track_caller]
fn says(adoption: &Adoption, outcome: Outcome, words: &str) {
    let mut findings = adoption.findings.iter();
    let found = findings.any(|it| it.outcome == outcome && it.reason.contains(words));
    assert!(found, "no {words:?} in {:#?}", adoption.findings);
}

#[test]
fn link_with_one_peer_and_its_session_become_a_document() {
    let adoption = mapped(link(1), &peering(), TEXT, false);
    let spec = &adoption.documents[0].document.spec;
    assert!(spec.tunnel.adopt);
    assert_eq!(spec.asn.get(), 4_242_421_001);
    assert_eq!(spec.address.peer_link_local, "fe80::2".parse().ok());
    assert_eq!(spec.address.local_link_local, "fe80::998:1".parse().ok());
    assert_eq!(spec.tunnel.persistent_keepalive, Some(0));
    says(&adoption, Outcome::Left, "resets it once");
    let place = adoption.findings.iter().find_map(|it| it.place.as_ref());
    assert_eq!(place.unwrap().to_string(), "/etc/bird/bird.conf:2");
}

#[test]
fn password_is_named_and_never_shown() {
    let adoption = mapped(link(1), &peering(), TEXT, false);
    says(
        &adoption,
        Outcome::Unsupported,
        "`password` has no counterpart",
    );
    assert!(!format!("{:?}", adoption.findings).contains("hunter2"));
}

#[test]
fn statement_of_a_template_is_named_with_its_own_place() {
    let text =
        format!("\ntemplate bgp t {{\n  local as 4242420998;\n  connect retry time 5;\n}}\n{TEXT}");
    let adoption = mapped(link(1), &peering(), &text, false);
    let place = |words: &str| {
        let mut findings = adoption.findings.iter();
        let found = findings.find(|it| it.reason.contains(words)).unwrap();
        found.place.as_ref().unwrap().to_string()
    };
    assert_eq!(place("`connect retry time 5`"), "/etc/bird/bird.conf:4");
    assert_eq!(place("`password`"), "/etc/bird/bird.conf:9");
}

#[test]
fn link_that_no_document_can_hold_is_refused() {
    let two = mapped(link(2), &peering(), TEXT, false);
    says(&two, Outcome::Unsupported, "exactly one peer");
    let idle = mapped(link(1), &[], "", false);
    says(&idle, Outcome::Left, "no running BGP session");
    let mut unread = link(1);
    unread.unread = Some(Unread::new("no answer"));
    let unread = mapped(unread, &peering(), TEXT, false);
    says(&unread, Outcome::Unsupported, "no answer");
    let other = session("q", 4_242_421_002, "fe80::3%wg1", &["ipv4"]);
    let [first] = peering();
    let mixed = mapped(link(1), &[first, other], TEXT, false);
    says(&mixed, Outcome::Unsupported, "different neighbour ASNs");
    let mut marked = link(1);
    marked.mark = Mark::Foreign("of another tool".into());
    let marked = mapped(marked, &peering(), TEXT, false);
    says(&marked, Outcome::Left, "is not taken over");
    for adoption in [two, idle, unread, mixed, marked] {
        assert!(adoption.documents.is_empty());
    }
}

#[test]
fn internal_and_remote_sessions_stay() {
    let internal = session("i", 4_242_420_998, "fe80::2%wg1", &["ipv6"]);
    let remote = session("r", 4_242_421_003, "fd00::9", &["ipv6"]);
    let adoption = mapped(link(1), &[internal, remote], "", false);
    says(&adoption, Outcome::Left, "internal (iBGP)");
    says(&adoption, Outcome::Left, "no WireGuard interface");
    assert!(adoption.documents.is_empty());
}

#[test]
fn link_of_an_undecoded_file_is_not_adopted() {
    let path = Path::new("/etc/wireguard/wg1.conf");
    let text = b"[Interface]\n# B\xfcro\nMTU = 1400\n";
    let file = TunnelFile::read(path, text).unwrap();
    let adoption = mapped_with(link(1), &peering(), (TEXT, false), &[file]);
    assert!(adoption.documents.is_empty());
    says(&adoption, Outcome::Unsupported, "is not UTF-8");
    let place = Some(Place::new(path, 2));
    assert!(adoption.findings.iter().any(|it| it.place == place));
    let other = Path::new("/etc/wireguard/wg9.conf");
    let file = TunnelFile::read(other, text).unwrap();
    let adoption = mapped_with(link(1), &peering(), (TEXT, false), &[file]);
    assert_eq!(adoption.documents.len(), 1);
}

#[test]
fn session_beside_an_included_tree_is_a_conflict() {
    assert!(
        mapped(link(1), &peering(), TEXT, false)
            .conflicts
            .is_empty()
    );
    let conflicts = mapped(link(1), &peering(), TEXT, true).conflicts;
    assert!(conflicts[0].contains("second session"), "{conflicts:?}");
}

#[test]
fn surplus_addresses_are_named() {
    let mut full = link(1);
    let more = [
        ("172.20.0.1/32", Some("172.20.0.2")),
        ("172.20.0.9/24", None),
        ("fd00::1/128", None),
        ("fe80::999/64", None),
    ];
    let more = more.map(|(local, peer)| {
        Address::new(local.parse().unwrap(), peer.map(|it| it.parse().unwrap()))
    });
    full.addresses.extend(more);
    let [mut peering] = peering();
    peering.bgp.as_mut().unwrap().source_address = Some("fe80::998:1".into());
    let adoption = mapped(full, &[peering], TEXT, false);
    let address = &adoption.documents[0].document.spec.address;
    assert_eq!(address.local_link_local, "fe80::998:1".parse().ok());
    assert_eq!(address.local_ipv4, "172.20.0.1".parse().ok());
    assert_eq!(address.peer_ipv4, "172.20.0.2".parse().ok());
    for lost in ["172.20.0.9/24", "fd00::1/128", "fe80::999/64"] {
        says(
            &adoption,
            Outcome::Unsupported,
            &format!("address {lost} has no field"),
        );
    }
    let named = adoption.findings.iter();
    let named = named.filter(|it| it.reason.starts_with("address"));
    assert_eq!(named.count(), 3);
}

#[test]
fn address_with_another_prefix_is_named() {
    let mut other = link(1);
    other.addresses = [Address::new("fe80::998:1/10".parse().unwrap(), None)].into();
    let adoption = mapped(other, &peering(), TEXT, false);
    let words = "fe80::998:1/10: the document expresses it as fe80::998:1/64";
    says(&adoption, Outcome::Unsupported, words);
}

#[test]
fn secret_to_write_is_named_and_never_shown() {
    let mut adopted = mapped(link(1), &peering(), TEXT, false).documents.remove(0);
    assert_eq!(adopted.secret(Path::new("/s")), None);
    let mut keyed = link(1);
    let key = crate::model::PresharedKey::new([7; 32]);
    let peers = &mut keyed.wireguard.as_mut().unwrap().peers;
    peers
        .values_mut()
        .for_each(|peer| peer.preshared_key = Some(key.clone()));
    adopted = mapped(keyed, &peering(), TEXT, false).documents.remove(0);
    let finding = adopted.secret(Path::new("/s")).unwrap();
    assert_eq!(finding.outcome, Outcome::Needed);
    for words in [
        "/s/secrets/wg1.psk, mode 0600",
        "wg show wg1 preshared-keys",
    ] {
        assert!(finding.reason.contains(words), "{}", finding.reason);
    }
    assert!(!finding.reason.contains(key.to_base64().expose()));
}

#[test]
fn interface_with_another_key_stays_and_others_are_taken() {
    let second = session("q", 4_242_421_002, "fe80::3%wg2", &["ipv4"]);
    let [first] = peering();
    let adoption = mapped(link(1), &[first, second], TEXT, false);
    assert_eq!(adoption.documents.len(), 1);
    for words in [
        &KEY.to_string(),
        &PublicKey::new([8; 32]).to_string(),
        "wireguard.privateKeyPath, /key",
        "`(umask 077; wg show wg2 private-key > /key)`",
    ] {
        says(&adoption, Outcome::Unsupported, words);
    }
}

#[test]
fn missing_key_file_is_refused_with_the_command() {
    let path = Path::new("/key");
    let public = None;
    let key = OwnKey { path, public };
    let adoption = mapped_with_key(link(1), &peering(), (TEXT, false), &[], key);
    assert!(adoption.documents.is_empty());
    let why = adoption.conflicts.join("\n");
    let named = format!("wg1 with public key {KEY}");
    for words in ["/key, has no key", &named, "wg show wg1 private-key > /key"] {
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn other_local_as_is_refused_with_both_places() {
    let [mut other] = peering();
    other.bgp.as_mut().unwrap().local_as = Some(4_242_420_111);
    let adoption = mapped(link(1), &[other], TEXT, false);
    assert!(adoption.documents.is_empty());
    let why = adoption.conflicts.join("\n");
    for words in [
        "node.asn at config.yaml:2 is AS4242420998",
        "protocol bgp p at /etc/bird/bird.conf:2",
        "`local as 4242420111`",
    ] {
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn running_protocol_in_no_file_is_refused() {
    let text = "protocol bgp x { neighbor 10.0.0.2 as 7; }\n";
    let adoption = mapped(link(1), &peering(), text, false);
    let why = adoption.conflicts.join("\n");
    assert!(why.contains("protocol bgp p runs, and neither"), "{why}");
    says(&adoption, Outcome::Left, "BIRD does not run it");
    let range = "protocol bgp all { neighbor range 10.0.0.0/8 as 7; dynamic name \"p\"; }\n";
    let adoption = mapped(link(1), &peering(), range, false);
    assert!(adoption.conflicts.is_empty(), "{:?}", adoption.conflicts);
}

#[test]
fn other_neighbour_on_disk_is_refused() {
    for (words, text) in [
        (
            "neighbour fe80::7 on disk",
            "protocol bgp p {\n neighbor fe80::7%'wg1' as 4242421001; }",
        ),
        (
            "neighbour AS7 on disk",
            "protocol bgp p {\n neighbor fe80::2%'wg1' as 7; }",
        ),
    ] {
        let adoption = mapped(link(1), &peering(), text, false);
        let why = adoption.conflicts.join("\n");
        assert!(why.contains(words) && why.contains("bird.conf:1"), "{why}");
    }
    for text in [
        "protocol bgp p { neighbor PEER as AS_PEER; }",
        "protocol bgp p from t {}",
    ] {
        let adoption = mapped(link(1), &peering(), text, false);
        assert!(adoption.conflicts.is_empty(), "{:?}", adoption.conflicts);
    }
}
