//! The node itself: its own addresses, its router id, what it originates, and the kernel's settings.

use crate::lab::router::{PREFIX4, PREFIX6};
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};

/// What every tunnel's sysctls are to be, and what a cautious distribution sets by default.
const WANTED: [(&str, &str, &str); 5] = [
    ("ipv4", "forwarding", "1"),
    ("ipv4", "rp_filter", "0"),
    ("ipv6", "forwarding", "1"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "autoconf", "0"),
];

fn path(family: &str, interface: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{interface}/{key}")
}

/// Every sysctl of an interface, as one text.
fn sysctls(world: &World, interface: &str) -> String {
    let folders = ["ipv4", "ipv6"].map(|family| path(family, interface, ""));
    // The rest are random, or refuse to be read.
    world.router.inside.shell(&format!(
        "grep -rs . {} | grep -v stable_secret | sort",
        folders.join(" ")
    ))
}

#[track_caller]
fn wait_sysctls(world: &World, interface: &str) {
    wait_until(
        &format!("the sysctls of {interface} are as wanted"),
        40,
        || {
            for (family, key, wanted) in WANTED {
                let found = world
                    .router
                    .inside
                    .try_shell(&format!("cat {}", path(family, interface, key)))?;
                if found.trim() != wanted {
                    return Err(format!("{family}.{key} is {found}"));
                }
            }
            Ok(())
        },
    );
}

/// As Debian 13 has it: `rp_filter` on everywhere, and on what is yet to come.
fn cautious(world: &World) {
    for (family, key, value) in [
        ("ipv4", "rp_filter", 1),
        ("ipv4", "forwarding", 0),
        ("ipv6", "accept_ra", 1),
        ("ipv6", "autoconf", 1),
    ] {
        world.router.inside.shell(&format!(
            "for at in /proc/sys/net/{family}/conf/default /proc/sys/net/{family}/conf/u*; do echo {value} > $at/{key}; done"
        ));
    }
    world
        .router
        .inside
        .shell("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
}

/// The kernel can be told to forward IPv6 from one interface alone.
fn forwards_by_interface(world: &World) -> bool {
    world
        .router
        .inside
        .try_shell(&format!("cat {}", path("ipv6", "all", "force_forwarding")))
        .is_ok()
}

#[test]
fn tunnels_get_their_sysctls_and_no_other_interface_is_changed() {
    let mut world = World::new(2);
    cautious(&world);
    let mut dotted = session(1, &world.neighbours[0]);
    dotted["interface"] = "wg_a.b".into();
    world
        .control_plane
        .sessions(&[dotted, session(2, &world.neighbours[1])]);
    let before = ["u1", "default"].map(|name| sysctls(&world, name));
    world
        .router
        .start_agent_with(&["RUST_LOG=info,moenet_agent=debug"]);
    world.wait_established();
    for name in ["wg_a.b".to_owned(), interface(2)] {
        wait_sysctls(&world, &name);
    }
    wait_until("rp_filter of all links is off", 30, || {
        contains(
            &world
                .router
                .inside
                .try_shell("cat /proc/sys/net/ipv4/conf/all/rp_filter")?,
            "0",
        )
    });
    let forwarding = world
        .router
        .inside
        .shell("cat /proc/sys/net/ipv6/conf/all/forwarding");
    if forwards_by_interface(&world) {
        assert_eq!(["u1", "default"].map(|name| sysctls(&world, name)), before);
        assert_eq!(forwarding.trim(), "0");
        assert_eq!(
            world
                .router
                .inside
                .shell("cat /proc/sys/net/ipv6/conf/wg_a.b/force_forwarding")
                .trim(),
            "1"
        );
    } else {
        // This kernel forwards IPv6 between all interfaces or none, and says so of each.
        assert_eq!(forwarding.trim(), "1");
        let told =
            |text: &str| text.replace("ipv6/conf/u1/forwarding:0", "ipv6/conf/u1/forwarding:1");
        assert_eq!(sysctls(&world, "u1"), told(&before[0]));
    }
    assert_eq!(
        world
            .router
            .inside
            .shell("cat /proc/sys/net/ipv4/ip_forward")
            .trim(),
        "0"
    );
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    contains(&log, "set sysctl ipv4.rp_filter of all to 0").unwrap();
    contains(
        &log,
        "want all ipv4.rp_filter=0, for the tunnels to forward, have 1",
    )
    .unwrap();
}

#[test]
fn a_sysctl_that_somebody_sets_back_is_repaired() {
    let mut world = World::new(1);
    let mut dotted = session(1, &world.neighbours[0]);
    dotted["interface"] = "wg_a.b".into();
    world.control_plane.sessions(&[dotted]);
    world.router.start_agent();
    world.wait_established();
    wait_sysctls(&world, "wg_a.b");
    for (family, key, wanted) in WANTED {
        let wrong = if wanted == "0" { 1 } else { 0 };
        world
            .router
            .inside
            .shell(&format!("echo {wrong} > {}", path(family, "wg_a.b", key)));
    }
    world
        .router
        .inside
        .shell("echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter");
    wait_sysctls(&world, "wg_a.b");
    wait_until("rp_filter of all links is off", 40, || {
        contains(
            &world
                .router
                .inside
                .try_shell("cat /proc/sys/net/ipv4/conf/all/rp_filter")?,
            "0",
        )
    });
}

#[test]
fn read_only_proc_sys_holds_no_tunnel_up() {
    let mut world = World::new(1);
    let inside = |world: &World, line: &str| world.router.inside.shell(line);
    let rp_filter = path("ipv4", "default", "rp_filter");
    for (family, key, value) in WANTED {
        world
            .router
            .inside
            .shell(&format!("echo {value} > {}", path(family, "default", key)));
    }
    world
        .router
        .inside
        .shell(&format!("echo 0 > {}", path("ipv4", "all", "rp_filter")));
    // Where there is such a thing, the tunnel's own is what the agent sets.
    let _ = world.router.inside.try_shell(&format!(
        "echo 1 > {}",
        path("ipv6", "default", "force_forwarding")
    ));
    if !forwards_by_interface(&world) {
        world
            .router
            .inside
            .shell(&format!("echo 1 > {}", path("ipv6", "all", "forwarding")));
    }
    inside(&world, &format!("echo 1 > {rp_filter}"));
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys";
    world.router.inside.shell(read_only);
    world.router.start_agent();
    let message = world.wait_condition("node", "SysctlsConfigured", "False", "NotSet");
    assert!(message.contains("rp_filter"), "{message}");
    world.wait_reported(&uuid(1), 1, "");
    world.router.inside.shell("umount /proc/sys");
    world.wait_established();

    let link = interface(1);
    inside(
        &world,
        &format!("echo 0 > {rp_filter} && {read_only} && ip link del {link}"),
    );
    wait_until("the tunnel is back and up", 30, || {
        contains(
            &world
                .router
                .inside
                .try_shell(&format!("ip link show {link}"))?,
            ",UP",
        )
    });
    world.wait_established();
    wait_sysctls(&world, &link);
    world.wait_reported(&uuid(1), 1, "");
}

#[test]
fn global_sysctls_stay_after_the_last_tunnel_and_are_logged() {
    let mut world = World::new(1);
    cautious(&world);
    world.router.start_agent();
    world.wait_established();
    wait_until("rp_filter of all links is off", 30, || {
        contains(
            &world
                .router
                .inside
                .try_shell("cat /proc/sys/net/ipv4/conf/all/rp_filter")?,
            "0",
        )
    });
    let mut gone = session(1, &world.neighbours[0]);
    gone["status"] = 5.into();
    world.control_plane.sessions(&[gone]);
    let log = world.router.path("agent.log");
    wait_until("the agent says what it leaves behind", 40, || {
        contains(&std::fs::read_to_string(&log).unwrap(), "have 1 before")
    });
    assert_eq!(
        world
            .router
            .inside
            .shell("cat /proc/sys/net/ipv4/conf/all/rp_filter")
            .trim(),
        "0"
    );
}

#[test]
fn uplink_keeps_accepting_router_advertisements() {
    uplink_stays("ip addr add 2001:db8:9::1/64 dev u1 valid_lft 3600 preferred_lft 3600");
}

#[test]
fn uplink_keeps_a_route_of_router_advertisements() {
    uplink_stays(
        "ip addr add 2001:db8:9::1/64 dev u1 && \
         ip -6 route add 2001:db8:a::/64 via 2001:db8:9::2 dev u1 proto ra expires 3600",
    );
}

/// Checks that an uplink goes on accepting router advertisements when this command makes it depend on them.
fn uplink_stays(learn: &str) {
    let mut world = World::new(1);
    let uplink = path("ipv6", "u1", "forwarding");
    world.router.inside.shell(&format!(
        "echo 1 > {} && {learn}",
        path("ipv6", "u1", "accept_ra")
    ));
    world.router.start_agent();
    world.wait_established();
    if !forwards_by_interface(&world) {
        let status = world.router.path("state/status/node.yaml");
        wait_until("the condition names the uplink", 40, || {
            contains(
                &std::fs::read_to_string(&status).unwrap_or_default(),
                "u1 ignore the router",
            )
        });
        assert_eq!(
            world.router.inside.shell(&format!("cat {uplink}")).trim(),
            "0"
        );
        world
            .router
            .inside
            .shell(&format!("echo 2 > {}", path("ipv6", "u1", "accept_ra")));
        wait_until("IPv6 is forwarded", 40, || {
            contains(
                &world
                    .router
                    .inside
                    .try_shell("cat /proc/sys/net/ipv6/conf/all/forwarding")?,
                "1",
            )
        });
    } else {
        world.wait_polls("sessions", 3);
        assert_eq!(
            world.router.inside.shell(&format!("cat {uplink}")).trim(),
            "0"
        );
    }
}

#[test]
fn node_addresses_use_a_dummy_device_or_lo() {
    let mut world = World::new(1);
    let file = world.router.path("config.yaml");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let dummies = config["loopback"]["interface"] == "dummy0";
    config["loopback"]["interface"] = "dummy7".into();
    std::fs::write(file, config.to_string()).unwrap();
    world.router.start_agent();
    world.wait_established();
    let device = if dummies { "dummy7" } else { "lo" };
    let addresses = format!("ip -o addr show dev {device}");
    wait_until("the addresses are there", 30, || {
        let found = world.router.inside.try_shell(&addresses)?;
        contains(&found, "172.23.105.177/32")
            .and_then(|()| contains(&found, "fd48:4242:420::1/128"))
    });
    let direct = "show route protocol moe_loopback";
    wait_until("BIRD knows them from there", 30, || {
        contains(
            &world.router.bird.try_ask(&world.router.inside, direct)?,
            device,
        )
    });
}

#[test]
fn packets_pass_from_one_neighbour_to_another_and_back() {
    let mut world = World::new(2);
    cautious(&world);
    world.router.start_agent();
    world.wait_established();
    for (number, neighbour) in (1..).zip(&world.neighbours) {
        neighbour.inside.shell(&format!(
            "ip addr add 172.20.{number}.1/32 dev lo && ip addr add fd42:{number}::1/128 dev lo nodad && \
             ip route add 172.20.0.0/14 via inet6 fe80::998:1 dev wg0 src 172.20.{number}.1 && \
             ip route add fd00::/8 via fe80::998:1 dev wg0 src fd42:{number}::1"
        ));
    }
    for target in ["172.20.2.1", "fd42:2::1"] {
        wait_until(&format!("{target} answers through the router"), 30, || {
            world.neighbours[0]
                .inside
                .try_shell(&format!("ping -c 1 -W 1 {target}"))
                .map(drop)
        });
    }
}

#[test]
fn node_addresses_router_id_and_own_prefixes_apply() {
    let world = World::converged(1);
    let config = std::fs::read_to_string(world.router.path("config.yaml")).unwrap();
    let device = if config.contains("dummy0") {
        "dummy0"
    } else {
        "lo"
    };
    let addresses = world
        .router
        .inside
        .shell(&format!("ip -o addr show dev {device}"));
    contains(&addresses, "172.23.105.177/32").unwrap();
    contains(&addresses, "fd48:4242:420::1/128").unwrap();
    let status = world.router.bird.ask(&world.router.inside, "show status");
    contains(&status, "Router ID is 172.23.105.177").unwrap();
    let [neighbour] = &world.neighbours[..] else {
        panic!("one neighbour")
    };
    for prefix in [PREFIX4, PREFIX6] {
        neighbour.wait_route(prefix, "4242420998", 30);
    }
    contains(&neighbour.session().unwrap(), "172.23.105.177").unwrap();

    world
        .router
        .inside
        .shell(&format!("ip addr del 172.23.105.177/32 dev {device}"));
    wait_until("the loopback address is back", 30, || {
        contains(
            &world
                .router
                .inside
                .try_shell(&format!("ip -o addr show dev {device}"))?,
            "172.23.105.177/32",
        )
    });
}
