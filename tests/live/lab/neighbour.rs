//! A neighbour: another network's router with a tunnel to the router under test.

use super::bird::Bird;
use super::frr::Frr;
use super::gobgp::GoBgp;
use super::namespace::Namespace;
use super::wireguard::{KeyPair, Tunnel};
use super::{contains, wait_until};

/// The other end of a neighbour's tunnel.
pub(crate) struct FarEnd {
    pub(crate) asn: u32,
    pub(crate) address: String,
    pub(crate) public: String,
    pub(crate) endpoint: String,
}

pub(crate) struct Neighbour {
    pub(crate) asn: u32,
    pub(crate) address: String,
    pub(crate) prefix4: String,
    pub(crate) prefix6: String,
    pub(crate) keys: KeyPair,
    /// Further statements of its BIRD. What static protocols named `says…` have is announced.
    pub(crate) says: String,
    far_address: String,
    pub(crate) folder: tempfile::TempDir,
    daemon: Daemon,
    /// Dropped last: it waits for its programs, of which a stopped one ends only by its own drop.
    pub(crate) inside: Namespace,
}

enum Daemon {
    None,
    Bird(Bird),
    Frr(Frr),
    GoBgp(GoBgp),
}

impl Neighbour {
    pub(crate) const PORT: u16 = 51820;

    pub(crate) fn new(number: u32) -> Self {
        Self {
            inside: Namespace::new(&format!("neighbour {number}")),
            asn: 4_242_421_000 + number,
            address: format!("fe80::1:{number}"),
            prefix4: format!("172.20.{number}.0/24"),
            prefix6: format!("fd42:{number}::/48"),
            keys: KeyPair::new(),
            says: String::new(),
            far_address: String::new(),
            folder: tempfile::tempdir().unwrap(),
            daemon: Daemon::None,
        }
    }

    fn tunnel<'a>(&'a self, far: &'a FarEnd) -> Tunnel<'a> {
        Tunnel {
            device: "wg0",
            address: &self.address,
            private: &self.keys.private,
            port: Self::PORT,
            peer: &far.public,
            endpoint: &far.endpoint,
        }
    }

    pub(crate) fn start_bird(&mut self, version: &str, far: &FarEnd) {
        self.far_address.clone_from(&far.address);
        self.tunnel(far).make(&self.inside, self.folder.path());
        let mut bird = Bird::new(version, self.folder.path());
        std::fs::write(bird.folder.join("bird.conf"), self.bird_config(far)).unwrap();
        bird.start(&self.inside);
        self.daemon = Daemon::Bird(bird);
    }

    /// With BIRD as its operator has set it up: `setup` is a line of shell for the tunnel's addresses.
    pub(crate) fn start_bird_with(
        &mut self,
        version: &str,
        far: &FarEnd,
        setup: &str,
        config: &str,
    ) {
        self.tunnel(far).make(&self.inside, self.folder.path());
        self.start_daemon(version, setup, config);
    }

    /// The same where the tunnel is there already.
    pub(crate) fn start_daemon(&mut self, version: &str, setup: &str, config: &str) {
        self.inside.shell(setup);
        let mut bird = Bird::new(version, self.folder.path());
        std::fs::write(bird.folder.join("bird.conf"), config).unwrap();
        bird.start(&self.inside);
        self.daemon = Daemon::Bird(bird);
    }

    pub(crate) fn start_frr(&mut self, far: &FarEnd) {
        self.far_address.clone_from(&far.address);
        self.tunnel(far).make(&self.inside, self.folder.path());
        self.daemon = Daemon::Frr(Frr::start(
            &self.inside,
            self.folder.path(),
            &self.frr_config(far),
        ));
    }

    pub(crate) fn start_gobgp(&mut self, far: &FarEnd) {
        self.far_address.clone_from(&far.address);
        self.tunnel(far).make(&self.inside, self.folder.path());
        let (asn, router, folder) = (self.asn, &far.address, self.folder.path());
        let config = format!(
            "[global.config]\n as = {asn}\n router-id = \"10.0.{}.1\"\n[[neighbors]]\n[neighbors.config]\n \
             neighbor-address = \"{router}%wg0\"\n peer-as = {}\n[neighbors.timers.config]\n connect-retry = 1\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n afi-safi-name = \"ipv4-unicast\"\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n afi-safi-name = \"ipv6-unicast\"\n",
            asn % 250,
            far.asn
        );
        let daemon = GoBgp::start(
            &self.inside,
            folder,
            &config,
            [&self.prefix4, &self.prefix6],
        );
        self.daemon = Daemon::GoBgp(daemon);
    }

    fn bird_config(&self, far: &FarEnd) -> String {
        let Self {
            asn,
            address,
            prefix4,
            prefix6,
            says,
            ..
        } = self;
        let (router, router_asn) = (&far.address, far.asn);
        format!(
            "router id 10.0.{}.1;\nprotocol device {{}}\n\
             protocol static own4 {{ ipv4; route {prefix4} blackhole; }}\n\
             protocol static own6 {{ ipv6; route {prefix6} blackhole; }}\n\
             {says}\n\
             protocol bgp moe_router {{\n local {address} as {asn};\n neighbor {router}%'wg0' as {router_asn};\n \
             connect delay time 1; connect retry time 2; error wait time 1, 2; graceful restart on;\n \
             ipv4 {{ import all; export where proto = \"own4\" || proto ~ \"says*\"; extended next hop on; }};\n \
             ipv6 {{ import all; export where proto = \"own6\" || proto ~ \"says*\"; }};\n}}\n",
            asn % 250
        )
    }

    fn frr_config(&self, far: &FarEnd) -> String {
        let (asn, router) = (self.asn, &far.address);
        let family = |name: &str, prefix: &str| {
            format!(
                " address-family {name} unicast\n  network {prefix}\n  neighbor {router} activate\n \
                 exit-address-family\n"
            )
        };
        format!(
            "log stdout\nrouter bgp {asn}\n bgp router-id 10.0.{}.1\n no bgp ebgp-requires-policy\n \
             no bgp network import-check\n neighbor {router} remote-as {}\n neighbor {router} interface wg0\n \
             neighbor {router} capability extended-nexthop\n neighbor {router} timers connect 1\n{}{}",
            asn % 250,
            far.asn,
            family("ipv4", &self.prefix4),
            family("ipv6", &self.prefix6)
        )
    }

    /// Its BIRD, to change its configuration, ask or stop it.
    #[track_caller]
    pub(crate) fn bird(&mut self) -> &mut Bird {
        match &mut self.daemon {
            Daemon::Bird(bird) => bird,
            _ => panic!("the neighbour runs no BIRD"),
        }
    }

    #[track_caller]
    pub(crate) fn ask_bird(&self, request: &str) -> String {
        match &self.daemon {
            Daemon::Bird(bird) => bird.ask(&self.inside, request),
            _ => panic!("the neighbour runs no BIRD"),
        }
    }

    /// Starts its BIRD again, on the configuration that it has.
    pub(crate) fn start_bird_again(&mut self) {
        if let Daemon::Bird(bird) = &mut self.daemon {
            bird.start(&self.inside);
        }
    }

    /// What the neighbour's daemon says about the session.
    pub(crate) fn session(&self) -> Result<String, String> {
        match &self.daemon {
            Daemon::None => Err("no daemon started".into()),
            Daemon::Bird(bird) => bird.try_ask(&self.inside, "show protocols all moe_router"),
            Daemon::Frr(frr) => frr.ask(&self.inside, "show bgp neighbors"),
            // Its words for the state: ESTABLISHED.
            Daemon::GoBgp(gobgp) => {
                let far = format!("neighbor {}%wg0", self.far_address);
                gobgp
                    .ask(&self.inside, &far)
                    .map(|said| said.replace("ESTABLISHED", "Established"))
            }
        }
    }

    /// The prefixes of one family that came over the session, sorted.
    pub(crate) fn heard(&self, family: u8) -> Result<Vec<String>, String> {
        let words = |text: String| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut found = match &self.daemon {
            Daemon::None => return Err("no daemon started".into()),
            Daemon::Bird(bird) => {
                let request = format!("show route table master{family} protocol moe_router");
                words(bird.try_ask(&self.inside, &request)?)
            }
            Daemon::Frr(frr) => {
                let request = format!(
                    "show bgp ipv{family} unicast neighbors {} routes",
                    self.far_address
                );
                words(frr.ask(&self.inside, &request)?)
            }
            Daemon::GoBgp(gobgp) => {
                let request = format!("neighbor {}%wg0 adj-in -a ipv{family}", self.far_address);
                words(gobgp.ask(&self.inside, &request)?)
            }
        };
        found.retain(|word| {
            word.contains('/') && word.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':')
        });
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The route as received over the session, with its attributes.
    pub(crate) fn route(&self, prefix: &str) -> Result<String, String> {
        match &self.daemon {
            Daemon::None => Err("no daemon started".into()),
            Daemon::Bird(bird) => bird.try_ask(
                &self.inside,
                &format!("show route {prefix} protocol moe_router all"),
            ),
            Daemon::Frr(frr) => {
                let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
                frr.ask(&self.inside, &format!("show bgp {family} unicast {prefix}"))
            }
            Daemon::GoBgp(gobgp) => {
                let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
                gobgp.ask(&self.inside, &format!("global rib -a {family} {prefix}"))
            }
        }
    }

    #[track_caller]
    pub(crate) fn wait_established(&self, seconds: u64) {
        wait_until(
            &format!("AS{} sees the session Established", self.asn),
            seconds,
            || {
                contains(&self.session()?, "Established")
                    .or_else(|_| contains(&self.session()?, "state = Established"))
            },
        );
    }

    #[track_caller]
    pub(crate) fn wait_route(&self, prefix: &str, attribute: &str, seconds: u64) {
        wait_until(
            &format!("AS{} has {prefix} with {attribute:?}", self.asn),
            seconds,
            || {
                let route = self.route(prefix)?;
                contains(&route, prefix)?;
                contains(&route, attribute)
            },
        );
    }

    /// Its operator rotates the key of the running tunnel.
    pub(crate) fn set_private_key(&mut self, keys: KeyPair) {
        let file = self.folder.path().join("new.key");
        std::fs::write(&file, &keys.private).unwrap();
        self.inside
            .shell(&format!("wg set wg0 private-key {}", file.display()));
        self.keys = keys;
    }

    /// It forgets where the router is, and waits to be called.
    pub(crate) fn stop_calling(&self) {
        let peer = self.inside.shell("wg show wg0 peers");
        let peer = peer.trim();
        self.inside.shell(&format!(
            "wg set wg0 peer {peer} remove; wg set wg0 peer {peer} allowed-ips 0.0.0.0/0,::/0"
        ));
    }

    /// It moves to another address of its underlay and waits to be called there.
    pub(crate) fn move_to(&self, old: &str, new: &str) {
        let peer = self.inside.shell("wg show wg0 peers");
        self.inside.shell(&format!(
            "wg set wg0 peer {} persistent-keepalive 0",
            peer.trim()
        ));
        self.readdress(old, new);
    }

    /// It has another address of its underlay from now on. Removing the first takes the second with it.
    pub(crate) fn readdress(&self, old: &str, new: &str) {
        self.inside.shell(&format!(
            "ip addr del {old} dev u0; ip addr replace {new} dev u0"
        ));
    }
}
