//! Routers that are refused, each with what to do.

use super::{Built, DEVICE, GO_AGENT};
use crate::lab::wireguard::KeyPair;

impl Built {
    /// Refuses with these words, and changes nothing.
    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        let session = self.neighbour.session().unwrap();
        let answer = self.adopt("table").ended(1);
        for word in words {
            answer.says(word);
        }
        answer.says("`moenet-agent adopt` refuses, and changes nothing");
        let applied = self.apply(&["--watch", "1s"]).ended(1);
        applied.says("nothing was changed");
        assert!(!self.router.path("state").exists());
        let up = |text: &str| text.contains("Established");
        assert!(up(&session) && up(&self.neighbour.session().unwrap()));
    }
}

#[test]
fn interface_with_another_key_stays() {
    let built = Built::new(&GO_AGENT);
    let key = built.router.path("private.key");
    std::fs::write(&key, KeyPair::new().private).unwrap();
    built.refuses(&[
        &format!(
            "interface {DEVICE}: it has the public key {}",
            built.router.keys.public
        ),
        &format!("wg show {DEVICE} private-key > {}", key.display()),
        "there is nothing to take over",
    ]);
}

#[test]
fn missing_key_file_is_named_with_the_command() {
    let built = Built::new(&GO_AGENT);
    let key = built.router.path("private.key");
    std::fs::remove_file(&key).unwrap();
    built.refuses(&[
        &format!("{}, has no key", key.display()),
        &format!("{DEVICE} with public key {}", built.router.keys.public),
        &format!("wg show {DEVICE} private-key > {}", key.display()),
    ]);
    // The command of the message helps.
    let command = format!(
        "(umask 077; wg show {DEVICE} private-key > {})",
        key.display()
    );
    built.router.inside.shell(&command);
    built.adopt("table").ended(0);
}

#[test]
fn other_local_as_is_named_with_both_places() {
    let built = Built::new(&GO_AGENT);
    let mut config = super::configuration(&built.router);
    config["node"]["asn"] = 4_242_420_111_u32.into();
    built.router.write_config(&config);
    built.refuses(&[
        "config.yaml:",
        "is AS4242420111",
        "peers/peer.conf:1 runs with `local as 4242420998`",
    ]);
}

#[test]
fn files_that_bird_does_not_run_are_refused() {
    let built = Built::new(&GO_AGENT);
    let peer = built.router.path("bird/peers/peer.conf");
    let text = std::fs::read_to_string(&peer).unwrap();
    std::fs::remove_file(&peer).unwrap();
    built.refuses(&["protocol bgp dn42_4242421001 runs, and neither"]);
    std::fs::write(&peer, text.replace("fe80::1:1 %", "fe80::1:2 %")).unwrap();
    built.refuses(&["has the neighbour fe80::1:2 on disk, and BIRD runs it with fe80::1:1"]);
    std::fs::write(&peer, format!("{text}nonsense;\n")).unwrap();
    built.refuses(&["BIRD's parser rejects the files on disk", "peer.conf:6"]);
    let main = built.router.path("bird/bird.conf");
    let aside = built.router.path("bird/bird.conf.mine");
    std::fs::write(&peer, &text).unwrap();
    std::fs::rename(&main, &aside).unwrap();
    built.refuses(&["bird.conf is missing, and BIRD still runs", "put it back"]);
    std::fs::rename(&aside, &main).unwrap();
    std::fs::write(&peer, text + "protocol static later { ipv4; }\n").unwrap();
    built
        .adopt("table")
        .ended(0)
        .says("protocol static later: stays in bird.conf, and BIRD does not run it");
}

#[test]
fn stopped_bird_is_refused() {
    let mut built = Built::new(&GO_AGENT);
    built.router.bird.kill();
    built
        .adopt("table")
        .ended(1)
        .says("Start BIRD, and run `moenet-agent adopt --plan` again");
}
