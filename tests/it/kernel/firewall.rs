//! The real nft, in a network namespace of its own.

use std::time::Duration;

use crate::support::namespace::{self, sh};
use moenet_agent::firewall::{Firewall as _, FirewallError, Nft};
use moenet_agent::kernel::nftables_events;
use moenet_agent::model::{InterfaceName, Port};
use moenet_agent::observed::Ownership;
use moenet_agent::plan::firewall::{FirewallAction, Ruleset, TABLE_NAME, plan_firewall};
use moenet_agent::plan::{Action, Step};

const FOREIGN: &str = "
    table inet filter {
        set admins { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
        chain input { type filter hook input priority filter; policy drop; ct state established accept; ip saddr @admins accept; }
    }
    table ip nat { chain post { type nat hook postrouting priority srcnat; oifname \"eth0\" masquerade; }; }
    table ip moenet_agent { chain c { }; }
    table inet moenet_agent2 { chain c { }; }";

/// A tunnel on each of these ports.
fn ruleset(ports: std::ops::Range<u16>) -> Ruleset {
    let name = |port| -> InterfaceName { format!("mesh_a.b-{port}").parse().unwrap() };
    Ruleset::new(ports.map(|port| (name(port), Port::new(port)))).marked(&ownership())
}

fn ownership() -> Ownership {
    Ownership::of("4f1c8a09d2e7b365".parse().unwrap())
}

/// Observe, plan, apply.
async fn converge(nft: &Nft, wanted: Option<&Ruleset>) -> Result<Option<Step>, FirewallError> {
    let view = nft.observe().await?;
    let step = plan_firewall(wanted, &view.tables, &ownership()).unwrap();
    if let Some(Step {
        action: Action::Firewall(action),
        ..
    }) = &step
    {
        nft.apply(action).await?;
    }
    Ok(step)
}

/// Everything but our table, byte for byte.
fn foreign() -> String {
    sh(
        "nft list ruleset | awk '/^table inet moenet_agent \\{/ {skip=1} !skip {print} /^}/ {skip=0}'",
    )
}

async fn install(nft: &Nft, wanted: &Ruleset) -> Option<String> {
    let step = converge(nft, Some(wanted)).await.unwrap();
    assert_eq!(
        converge(nft, Some(wanted)).await.unwrap(),
        None,
        "not converged"
    );
    step.map(|step| step.because.to_string())
}

#[test]
#[ignore = "runs inside a namespace"]
fn inner() {
    if !namespace::inside() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let nft = Nft::default();
        sh(&format!("nft -f - <<'X'\n{FOREIGN}\nX\n"));
        let before = sh("nft list ruleset");
        assert_eq!(converge(&nft, None).await.unwrap(), None);

        println!("written, with foreign rules byte-identical");
        let small = ruleset(21080..21082);
        let missing = Some("firewall.table: want inet moenet_agent, have (none)");
        assert_eq!(install(&nft, &small).await.as_deref(), missing);
        let text = sh("nft list table inet moenet_agent");
        println!("{text}");
        assert!(text.contains("udp dport @tunnel_ports accept"));
        assert_eq!(
            text.matches("tcp flags syn tcp option maxseg size set rt mtu")
                .count(),
            3
        );
        assert_eq!(foreign(), before);

        println!("repaired when somebody changes it");
        sh("nft delete element inet moenet_agent tunnel_ports '{ 21080 }'");
        assert_eq!(
            install(&nft, &small).await.as_deref(),
            Some("firewall.table: want port 21080, have (none)")
        );
        sh("nft insert rule inet moenet_agent input drop");
        assert_eq!(
            install(&nft, &small).await.as_deref(),
            Some("firewall.table: want (none), have rules of input")
        );

        println!("emptied, and a thousand ports in one transaction");
        install(&nft, &ruleset(0..0)).await;
        let large = ruleset(20000..21000);
        let writes = nft.writes();
        install(&nft, &large).await;
        assert_eq!(nft.writes(), writes + 1);
        assert_eq!(foreign(), before);

        println!("restored after a flush, of which the kernel tells");
        let mut events = nftables_events(TABLE_NAME).unwrap();
        sh("nft add chain inet moenet_agent2 d");
        let second = Duration::from_secs(1);
        assert!(
            tokio::time::timeout(second, events.recv()).await.is_err(),
            "told of somebody else's table"
        );
        sh("nft flush ruleset");
        assert_eq!(
            tokio::time::timeout(20 * second, events.recv()).await,
            Ok(Some(()))
        );
        assert_eq!(install(&nft, &large).await.as_deref(), missing);
        assert_eq!(foreign(), "");

        println!("gone when disabled, and nothing else with it");
        sh(&format!("nft -f - <<'X'\n{FOREIGN}\nX\n"));
        let step = converge(&nft, None).await.unwrap().unwrap();
        let table = TABLE_NAME.to_owned();
        assert_eq!(
            step.action,
            Action::Firewall(FirewallAction::Remove { table })
        );
        assert_eq!(sh("nft list ruleset"), before);
        assert_eq!(converge(&nft, None).await.unwrap(), None);
    });
}

#[test]
fn agents_table_is_written_repaired_removed_others_untouched() {
    if sh("command -v nft || true").is_empty() {
        assert!(std::env::var_os("CI").is_none(), "no nft here");
        eprintln!("NOT TESTED: no nft here");
        return;
    }
    namespace::run(test_path!("inner"));
}

#[tokio::test]
async fn a_missing_nft_is_an_error_that_names_the_package() {
    let nft = Nft::new("/nonexistent/nft".into(), Duration::from_secs(5));
    let error = converge(&nft, Some(&Ruleset::default()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Debian package `nftables`"), "{error}");
}

#[tokio::test]
async fn an_nft_that_hangs_is_given_up_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("nft");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
    sh(&format!("chmod +x {}", program.display()));
    let error = converge(&Nft::new(program, Duration::from_secs(1)), None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("did not end within 1 s"), "{error}");
}
