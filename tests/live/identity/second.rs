//! A second agent on the same host.

use super::*;

/// Another network on the same host: own state, own BIRD, own port, own firewall table, its node and session by hand.
pub(crate) struct Second {
    pub(crate) agent: Option<Process>,
    pub(crate) bird: Bird,
    keys: KeyPair,
    folder: tempfile::TempDir,
}

const SECOND_ASN: u32 = 4_242_420_997;

impl Second {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bird = Bird::new(&bird::version(), &folder.path().join("bird"));
        let keys = KeyPair::new();
        std::fs::write(
            folder.path().join("private.key"),
            format!("{}\n", keys.private),
        )
        .unwrap();
        Self {
            agent: None,
            bird,
            keys,
            folder,
        }
    }

    pub(crate) fn far_end(&self) -> FarEnd {
        FarEnd {
            asn: SECOND_ASN,
            address: "fe80::997:2".into(),
            public: self.keys.public.clone(),
            endpoint: "192.0.2.17:21002".into(),
        }
    }

    pub(crate) fn start(&mut self, world: &World, neighbour: &Neighbour) {
        self.prepare(world, neighbour, |_| {});
        std::fs::write(self.bird.folder.join("bird.conf"), "protocol device {}\n").unwrap();
        self.bird.start(&world.router.inside);
        self.run(world);
    }

    fn run(&mut self, world: &World) {
        let (program, file) = (agent_program(), self.folder.path().join("config.yaml"));
        let arguments = ["--config", file.to_str().unwrap(), "run"];
        let log = self.folder.path().join("agent.log");
        self.agent = Some(world.router.inside.spawn(&log, &program, &arguments));
    }

    /// A command of the second agent.
    pub(crate) fn says(&self, world: &World, verb: &str) -> String {
        let (program, folder) = (agent_program(), self.folder.path().display());
        let program = program.display();
        let line = format!("{program} --config {folder}/config.yaml {verb} 2>&1 || true");
        world.router.inside.shell(&line)
    }

    /// Writes its configuration and documents.
    pub(crate) fn prepare(
        &self,
        world: &World,
        neighbour: &Neighbour,
        edit: impl FnOnce(&mut Value),
    ) {
        let path = |name: &str| self.folder.path().join(name);
        let mut config = world.router.config("http://127.0.0.1:1", 1);
        config.as_object_mut().unwrap().remove("controlPlane");
        config["node"] = json!({
            "name": "other", "id": 2, "asn": SECOND_ASN,
            "loopbackIpv4": "172.20.99.2", "loopbackIpv6": "fd42:99::2"
        });
        config["server"] = json!({"listen": "127.0.0.1:24369"});
        config["state"] = json!({"directory": path("state")});
        config["wireguard"]["privateKeyPath"] = json!(path("private.key"));
        config["bird"] = json!({
            "controlSocket": self.bird.socket(), "directory": self.bird.folder,
            "binary": self.bird.program(), "confirmTimeout": 10, "templates": templates(&path("templates"))
        });
        config["firewall"] = json!({"enabled": true});
        // Where the kernel has dummy devices, the default is the first agent's device.
        config["loopback"]["interface"] = json!("lo");
        edit(&mut config);
        std::fs::write(path("config.yaml"), config.to_string()).unwrap();
        std::fs::create_dir_all(path("state/sessions")).unwrap();
        let session = json!({
            "apiVersion": "moenet.work/v1", "kind": "BgpSession", "metadata": {"name": "second"},
            "spec": {
                "asn": neighbour.asn,
                "tunnel": {
                    "interface": interface(2), "publicKey": neighbour.keys.public,
                    "endpoint": "192.0.2.18:51820", "listenPort": 21_002
                },
                "address": {"peerLinkLocal": neighbour.address}
            }
        });
        std::fs::write(path("state/sessions/second.yaml"), session.to_string()).unwrap();
    }

    fn forget_log(&self) {
        std::fs::write(self.folder.path().join("agent.log"), "").unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("──── second agent.log\n{}", self.log());
        }
    }
}

/// Two BIRDs on one host share port 179 when each listens on its tunnels alone.
fn templates(folder: &Path) -> Value {
    const BUILT_IN: &str = include_str!("../../../templates/session.conf");
    std::fs::create_dir_all(folder).unwrap();
    let text = BUILT_IN.replace("  source address", "  strict bind on;\n  source address");
    assert_ne!(text, BUILT_IN);
    std::fs::write(folder.join("session.conf"), text).unwrap();
    json!(folder)
}

#[test]
fn two_agents_on_one_host_leave_each_other_alone() {
    let mut world = World::new(1);
    let folder = world.router.path("templates");
    world.router.reconfigure(|config| {
        config["firewall"] = json!({"enabled": true});
        config["bird"]["templates"] = templates(&folder);
    });
    world.router.start_agent();
    world.neighbours[0].wait_established(40);

    let mut second = Second::new();
    let far = second.far_end();
    world.join(Neighbour::new(2), 2, |neighbour, _| {
        neighbour.start_bird(&bird::version(), &far);
    });
    second.start(&world, &world.neighbours[1]);
    world.neighbours[1].wait_established(60);
    let tables = || {
        let all = world.router.inside.shell("nft list tables inet");
        all.lines()
            .filter(|line| line.contains("moenet_agent"))
            .count()
    };
    wait_until("each agent has its table", 30, || match tables() {
        2 => Ok(()),
        other => Err(format!("{other} tables")),
    });
    // Measured links and first reloads are over.
    std::thread::sleep(std::time::Duration::from_secs(10));

    let marks = aliases(&world);
    let ages: Vec<Age> = world.neighbours.iter().map(Age::of).collect();
    let rules = world.router.inside.shell("nft -a list ruleset");
    let events = NetlinkEvents::record(&world.router);
    world.wait_polls("sessions", 15);
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(events.seen(), Vec::<String>::new());
    assert_eq!(aliases(&world), marks);
    assert_eq!(world.router.inside.shell("nft -a list ruleset"), rules);
    assert_eq!(world.ages(), ages);
    contains(&rules, "21001")
        .and_then(|()| contains(&rules, "21002"))
        .unwrap();

    // One goes, with its table; the other does not notice.
    world.control_plane.sessions(&[]);
    drop(second.agent.take());
    assert_eq!(world.ages(), ages);
}

#[test]
fn second_agent_leaves_the_first_bird_directory_unchanged() {
    let mut world = World::converged(1);
    let mut second = Second::new();
    let far = second.far_end();
    world.join(Neighbour::new(2), 2, |neighbour, _| {
        neighbour.start_bird(&bird::version(), &far);
    });
    world.wait_measured();
    let (age, identity) = (Age::of(&world.neighbours[0]), world.router.identity());
    let files = bird_files(&world);
    let shared = (world.router.bird.socket(), world.router.bird.folder.clone());
    // As with the first agent's dummy device on kernels that have them, the loopback interface is foreign too.
    world.router.inside.shell("ip link add br7 type bridge");
    second.prepare(&world, &world.neighbours[1], |config| {
        config["bird"]["controlSocket"] = json!(shared.0);
        config["bird"]["directory"] = json!(shared.1);
        config["firewall"]["enabled"] = json!(false);
        config["loopback"]["interface"] = json!("br7");
    });
    let told = |text: &str| {
        contains(text, &format!("identity {identity}"))?;
        contains(text, &shared.1.join("bird.conf").display().to_string())?;
        contains(text, "bird.directory")
    };
    let plan = second.says(&world, "plan");
    told(&plan)
        .and_then(|()| contains(&plan, "interface br7"))
        .unwrap();
    for _ in 0..2 {
        second.run(&world);
        wait_until("/status of the second names the first", 40, || {
            let status = "curl -sf http://127.0.0.1:24369/status";
            told(&world.router.inside.try_shell(status)?)
        });
        wait_until("its tunnel is there meanwhile", 30, || {
            let links = world.router.inside.shell("ip -o link");
            contains(&links, &interface(2))?;
            contains(&aliases(&world).join("\n"), "local/sessions/second")
        });
        wait_until("describe names the first", 20, || {
            told(&second.says(&world, "describe node"))
        });
        wait_until("its log names the first", 20, || {
            contains(&second.log(), &format!("identity {identity}"))
        });
        world.wait_polls("sessions", 4);
        assert_eq!(bird_files(&world), files);
        assert_eq!(Age::of(&world.neighbours[0]), age);
        assert_eq!(second.log().matches("other users may read").count(), 1);
        drop(second.agent.take());
        second.forget_log();
    }
    // The first goes on as before: it loads what changes.
    second.run(&world);
    let mut sessions = world.sessions()[..1].to_vec();
    sessions[0]["description"] = json!("changed meanwhile");
    world.control_plane.sessions(&sessions);
    wait_until("the first writes its files", 30, || {
        let texts: Vec<_> = bird_files(&world)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        contains(&texts.join("\n"), "changed meanwhile")
    });
    assert_eq!(Age::of(&world.neighbours[0]), age);
    // With a BIRD of its own the second works.
    drop(second.agent.take());
    second.prepare(&world, &world.neighbours[1], |config| {
        config["firewall"]["enabled"] = json!(false);
    });
    second.run(&world);
    let own = second.bird.folder.join("moenet/sessions/second.conf");
    wait_until("its own directory has its files", 30, || {
        match own.exists() {
            true => Ok(()),
            false => Err("not yet".into()),
        }
    });
    assert_eq!(Age::of(&world.neighbours[0]), age);
}

/// The addresses on `lo` but those of the machine itself.
fn on_lo(world: &World) -> String {
    let list = world.router.inside.shell("ip -o addr show dev lo");
    let addresses = list
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    let mut addresses: Vec<_> = addresses
        .filter(|address| !["127.0.0.1/8", "::1/128"].contains(address))
        .collect();
    addresses.sort_unstable();
    addresses.join(" ")
}

#[test]
fn only_the_adding_agent_removes_addresses_on_lo() {
    let mut world = World::new(1);
    world
        .router
        .reconfigure(|config| config["loopback"]["interface"] = json!("lo"));
    let inside = &world.router.inside;
    // The operator has one of the node's addresses there already, and one more.
    inside.shell("ip link set lo up && ip addr add 172.23.105.177/32 dev lo && ip addr add 172.20.99.77/32 dev lo");
    world.router.start_agent();
    world.neighbours[0].wait_established(40);
    let record = |world: &World| world.read("applied/node.yaml");
    wait_until("the record names the address that was added", 20, || {
        contains(&record(&world), "loopbackAddresses")?;
        contains(&record(&world), "- fd48:4242:420::1")
    });
    assert_eq!(
        on_lo(&world),
        "172.20.99.77/32 172.23.105.177/32 fd48:4242:420::1/128"
    );
    assert!(
        !record(&world).contains("- 172.23.105.177"),
        "{}",
        record(&world)
    );

    // A crash after the claim and the address, before the record of what is in effect.
    world.router.kill_agent();
    let claimed = record(&world).replace(
        "- fd48:4242:420::1\n",
        "- fd48:4242:420::1\n  - fd42:99::dead\n",
    );
    assert_ne!(claimed, record(&world));
    world.write("applied/node.yaml", &claimed);
    world
        .router
        .inside
        .shell("ip addr add fd42:99::dead/128 dev lo");
    world.router.start_agent();
    wait_until("the address of the crash is gone", 30, || {
        match on_lo(&world).contains("dead") {
            true => Err(on_lo(&world)),
            false => Ok(()),
        }
    });
    assert_eq!(
        on_lo(&world),
        "172.20.99.77/32 172.23.105.177/32 fd48:4242:420::1/128"
    );

    // A second agent with the same addresses comes and goes.
    let ages = world.ages();
    let mut second = Second::new();
    second.prepare(&world, &world.neighbours[0], |config| {
        config["loopback"]["interface"] = json!("lo");
        config["firewall"]["enabled"] = json!(false);
        config["node"]["loopbackIpv4"] = json!("172.23.105.177");
        config["node"]["loopbackIpv6"] = json!("fd48:4242:420::1");
    });
    std::fs::remove_file(second.folder.path().join("state/sessions/second.yaml")).unwrap();
    std::fs::write(second.bird.folder.join("bird.conf"), "protocol device {}\n").unwrap();
    second.bird.start(&world.router.inside);
    second.run(&world);
    let of_second = second.folder.path().join("state/applied/node.yaml");
    wait_until("the second has its record", 40, || {
        contains(
            &std::fs::read_to_string(&of_second).unwrap_or_default(),
            "loopbackAddresses: []",
        )
    });
    drop(second.agent.take());
    second.prepare(&world, &world.neighbours[0], |config| {
        config["loopback"]["interface"] = json!("lo");
        config["firewall"]["enabled"] = json!(false);
        config["node"]["loopbackIpv4"] = json!("172.20.99.9");
        config["node"]["loopbackIpv6"] = json!("fd42:99::9");
    });
    std::fs::remove_file(second.folder.path().join("state/sessions/second.yaml")).unwrap();
    second.run(&world);
    wait_until("the second has other addresses", 40, || {
        contains(&on_lo(&world), "fd42:99::9/128")
    });
    contains(&on_lo(&world), "172.23.105.177/32 ").unwrap();
    contains(&on_lo(&world), "fd48:4242:420::1/128").unwrap();
    assert_eq!(world.ages(), ages);
}
