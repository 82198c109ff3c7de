//! Our table in nftables: it follows the tunnels that are there, and nothing else is touched.

use crate::lab::router::agent_program;
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};
use serde_json::Value;

/// An operator's own rules, with names close to ours.
const FOREIGN: &str = "
    table inet filter {
        set admins { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
        chain input { type filter hook input priority filter; policy accept; ip saddr @admins counter accept; }
    }
    table ip nat { chain post { type nat hook postrouting priority srcnat; oifname \"eth9\" masquerade; }; }
    table ip moenet_agent { chain c { }; }
    table inet moenet_agent2 { chain c { }; }";

fn enable(world: &World, enabled: bool) {
    let file = world.router.path("config.yaml");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["firewall"] = serde_json::json!({ "enabled": enabled });
    std::fs::write(file, config.to_string()).unwrap();
}

fn load(world: &World, rules: &str) {
    world
        .router
        .inside
        .shell(&format!("nft -f - <<'X'\n{rules}\nX\n"));
}

/// Everything but our table, byte for byte, without what counts packets.
fn foreign(world: &World) -> String {
    world.router.inside.shell(
        "nft list ruleset | awk '/^table inet moenet_agent \\{/ {skip=1} !skip {print} /^}/ {skip=0}' \
         | sed 's/packets [0-9]* bytes [0-9]*/counted/'",
    )
}

/// Our table with its handles, which change with every write.
fn ours(world: &World) -> Result<String, String> {
    world
        .router
        .inside
        .try_shell("nft -a list table inet moenet_agent")
}

#[track_caller]
fn wait_ports(world: &World, ports: &str) {
    let wanted = format!("elements = {{ {ports} }}");
    wait_until(&format!("the ports {ports} are open"), 30, || {
        contains(&ours(world)?, &wanted)
    });
}

#[track_caller]
fn wait_gone(world: &World) {
    wait_until("our table is gone", 30, || ours(world).map_or(Ok(()), Err));
}

fn writes(world: &World) -> String {
    let (_, metrics) = world.router.api("", "/metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("moenet_agent_firewall_writes_total "));
    line.expect("a count of writes").to_owned()
}

fn agent(world: &World, verb: &str) -> String {
    let config = world.router.path("config.yaml");
    world.router.inside.shell(&format!(
        "{} --config {} {verb} || true",
        agent_program().display(),
        config.display()
    ))
}

/// The node's condition about our table, as the status file has it.
#[track_caller]
fn wait_condition(world: &World, wanted: &str) {
    let file = world.router.path("state/status/node.yaml");
    wait_until(&format!("the condition says {wanted:?}"), 30, || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let about = text
            .split("type: FirewallConfigured")
            .nth(1)
            .ok_or(format!("no condition in:\n{text}"))?;
        contains(&about[..about.len().min(600)].replace("\n", " "), wanted)
    });
}

#[test]
fn firewall_has_all_tunnel_ports_and_keeps_foreign_rules() {
    let mut world = World::new(2);
    load(&world, FOREIGN);
    let before = foreign(&world);
    world.router.start_agent();
    world.wait_established();
    assert!(ours(&world).is_err(), "the firewall is off by default");

    world.router.kill_agent();
    enable(&world, true);
    let plan = agent(&world, "plan");
    let step = "write nftables table inet moenet_agent (2 UDP ports, 2 tunnels)";
    contains(&plan, &format!("firewall  {step}")).unwrap();
    contains(
        &plan,
        "because firewall.table: want inet moenet_agent, have (none)",
    )
    .unwrap();
    assert!(ours(&world).is_err(), "a plan writes nothing");

    world
        .router
        .start_agent_with(&["RUST_LOG=info,moenet_agent=debug"]);
    wait_ports(&world, "21001, 21002");
    let table = ours(&world).unwrap();
    assert_eq!(
        table
            .matches("tcp flags syn tcp option maxseg size set rt mtu")
            .count(),
        3,
        "{table}"
    );
    contains(&table, "udp dport @tunnel_ports accept").unwrap();
    assert_eq!(foreign(&world), before);
    // The line follows the table.
    world.wait_log(step);
    let git = format!(
        "git -C {} log -p -- applied/node.yaml",
        world.router.path("state").display()
    );
    wait_until(
        "the history has the step and what came into force",
        30,
        || {
            let log = world.router.inside.try_shell(&git)?;
            contains(&log, step).and_then(|()| contains(&log, "+    - 21002"))
        },
    );

    world.wait_polls("sessions", 5);
    assert_eq!(
        ours(&world).unwrap(),
        table,
        "written although nothing changed"
    );
    assert_eq!(writes(&world), "moenet_agent_firewall_writes_total 1");

    let mut moved = session(1, &world.neighbours[0]);
    moved["listenPort"] = 24555.into();
    world.control_plane.sessions(&[moved]);
    wait_ports(&world, "24555");
    contains(
        &ours(&world).unwrap(),
        &format!("elements = {{ \"{}\" }}", interface(1)),
    )
    .unwrap();

    world.router.kill_agent();
    enable(&world, false);
    contains(
        &agent(&world, "plan"),
        "firewall  delete nftables table inet moenet_agent",
    )
    .unwrap();
    contains(
        &agent(&world, "apply --once"),
        "Applied: 0 added, 0 changed, 1 removed, 0 BGP resets",
    )
    .unwrap();
    wait_gone(&world);
    contains(&agent(&world, "plan"), "No changes.").unwrap();
    assert_eq!(foreign(&world), before);
}

#[test]
fn our_table_is_back_after_somebody_flushed_or_changed_it() {
    let mut world = World::new(1);
    enable(&world, true);
    world
        .router
        .start_agent_with(&["RUST_LOG=info,moenet_agent=debug"]);
    wait_ports(&world, "21001");
    world.wait_reported(&uuid(1), 1, "");
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    let at = |step: &str| {
        log.find(step)
            .unwrap_or_else(|| panic!("no {step} in:\n{log}"))
    };
    assert!(
        at("(1 UDP port, 1 tunnel)") < at("write BIRD session wg_4242421001"),
        "{log}"
    );
    world.router.inside.shell("nft flush ruleset");
    wait_ports(&world, "21001");
    world
        .router
        .inside
        .shell("nft insert rule inet moenet_agent input drop");
    wait_until("the strange rule is gone", 30, || {
        let table = ours(&world)?;
        if table.contains(" drop ") {
            Err(table)
        } else {
            Ok(())
        }
    });
    world
        .router
        .inside
        .shell("nft flush table inet moenet_agent");
    wait_until("the rules are back", 30, || {
        contains(&ours(&world)?, "@tunnel_ports accept")
    });
    world.wait_established();
}

#[test]
fn foreign_table_with_the_agents_name_stays_unchanged() {
    let mut world = World::new(1);
    enable(&world, true);
    load(
        &world,
        "table inet moenet_agent { chain input { type filter hook input priority 0; accept; }; }",
    );
    let before = ours(&world).unwrap();
    world.router.start_agent();
    world.wait_established();
    wait_condition(&world, "exists without the agent's mark");
    assert_eq!(ours(&world).unwrap(), before);
    enable(&world, false);
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_polls("sessions", 3);
    assert_eq!(ours(&world).unwrap(), before);
}

/// Hides `nft` in the router's own mount namespace.
const WITHOUT_NFT: &str = "mkdir -p /run/wireguard/real /run/wireguard/sbin && mount --bind /usr/sbin /run/wireguard/real \
    && for program in /run/wireguard/real/*; do ln -s $program /run/wireguard/sbin/; done \
    && rm /run/wireguard/sbin/nft && mount --bind /run/wireguard/sbin /usr/sbin && ! command -v nft";

#[test]
fn missing_nft_blocks_no_session_and_names_the_package() {
    let mut world = World::new(1);
    enable(&world, true);
    world.router.inside.shell(WITHOUT_NFT);
    world.router.start_agent();
    world.wait_established();
    world.wait_reported(&uuid(1), 1, "");
    wait_condition(&world, "Debian package `nftables`");
}

#[test]
fn an_nft_that_hangs_holds_up_no_session() {
    let mut world = World::new(2);
    enable(&world, true);
    world.router.inside.shell(
        "printf '#!/bin/sh\nexec sleep 600\n' > /run/wireguard/nft && chmod +x /run/wireguard/nft \
         && mount --bind /run/wireguard/nft /usr/sbin/nft",
    );
    world.router.start_agent();
    world.wait_established();
    wait_condition(&world, "nft did not end within");
}

#[test]
fn foreign_dropping_chain_is_named_and_still_drops() {
    let mut world = World::new(1);
    enable(&world, true);
    load(
        &world,
        "table inet mine { chain input { type filter hook input priority 10; policy drop;
         iifname { lo, cp0 } accept; ip6 saddr fe80::/10 accept; }; }",
    );
    // We wait to be called: an answer to a call of ours would be let in by most rules.
    let mut waits = session(1, &world.neighbours[0]);
    waits["endpoint"] = Value::Null;
    world.control_plane.sessions(&[waits]);
    world.router.start_agent();
    wait_ports(&world, "21001");
    wait_condition(
        &world,
        "inet mine input drops packets that it does not accept",
    );
    let handshakes = format!("wg show {} latest-handshakes", interface(1));
    world.wait_polls("sessions", 3);
    assert!(
        world
            .router
            .inside
            .shell(&handshakes)
            .trim()
            .ends_with("\t0"),
        "an accept overrode a drop"
    );
    world
        .router
        .inside
        .shell("nft add rule inet mine input udp dport 21001 accept");
    world.wait_established();
}

#[test]
fn mss_is_clamped_to_the_tunnel_mtu() {
    let mut world = World::new(2);
    enable(&world, true);
    let narrow = |number: usize, mtu: u32| {
        let mut session = session(
            u32::try_from(number).unwrap() + 1,
            &world.neighbours[number],
        );
        session["mtu"] = mtu.into();
        session
    };
    world
        .control_plane
        .sessions(&[narrow(0, 1420), narrow(1, 1300)]);
    world.router.start_agent();
    world.wait_established();
    wait_ports(&world, "21001, 21002");
    for (number, neighbour) in (1..).zip(&world.neighbours) {
        neighbour.inside.shell(&format!(
            "ip addr add 172.20.{number}.1/32 dev lo && \
             ip route add 172.20.0.0/14 via inet6 fe80::998:1 dev wg0 src 172.20.{number}.1"
        ));
    }
    let [one, two] = &world.neighbours[..] else {
        panic!("two neighbours")
    };
    two.inside.shell(
        "nft -f - <<'X'\ntable ip seen { chain input { type filter hook input priority 0;
         tcp flags syn tcp option maxseg size 1260 counter; tcp flags syn tcp option maxseg size != 1260 counter; }; }\nX\n",
    );
    // 1300 less 40 bytes of headers; unclamped it would be 1380, by the MTU of 1420 on the caller's side.
    wait_until(
        "a SYN arrives with the MSS of the narrow tunnel",
        30,
        || {
            let _ = one.inside.try_shell(
            "timeout 2 python3 -c 'import socket; socket.create_connection((\"172.20.2.1\", 9), 1)'",
        );
            let seen = two.inside.shell("nft list table ip seen");
            let counts: Vec<_> = seen
                .lines()
                .filter(|line| line.contains("counter"))
                .collect();
            match counts[..] {
                [right, wrong] if !right.contains("packets 0 ") && wrong.contains("packets 0 ") => {
                    Ok(())
                }
                _ => Err(seen),
            }
        },
    );
}
