//! Foreign and half-made links, hung processes, names and events.

use super::*;

live!(foreign_links_are_never_touched, async || {
    let bench = Bench {
        kernel: kernel(),
        interface: "v0".parse().unwrap(),
    };
    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    ip(&["link", "set", "v1", "alias", "moenet-agent"]);
    let before = bench.kernel.observe().await.unwrap();
    for target in ["v0", "v1", "lo"] {
        let bench = Bench {
            kernel: kernel(),
            interface: target.parse().unwrap(),
        };
        let interface = bench.interface.clone();
        let actions = [
            bench.delete(),
            bench.mtu(1400),
            bench.up(),
            bench.mark(),
            bench.add(address("127.0.0.2/8", None)),
            bench.remove(address("127.0.0.1/8", None)),
            KernelAction::DisableKernelAddresses {
                interface: interface.clone(),
            },
            KernelAction::ConfigureWireGuard {
                interface: interface.clone(),
                patch: WireGuardPatch::default(),
            },
            KernelAction::SetSysctl {
                interface: Some(interface),
                key: Sysctl::RpFilter,
                value: 2,
            },
        ];
        for action in actions {
            let refused = bench.try_apply(action.clone()).await;
            assert!(
                matches!(refused, Err(KernelError::NotOurs { .. })),
                "{action}: {refused:?}"
            );
        }
        assert_eq!(bench.kernel.counters().messages(), 0);
    }
    assert_eq!(bench.kernel.observe().await.unwrap(), before);
    assert_eq!(
        before.links[&"v1".parse().unwrap()].mark,
        Mark::Foreign("moenet-agent".to_owned())
    );
});

live!(
    the_loopback_link_takes_our_addresses_and_nothing_else,
    async || {
        let bench = Bench {
            kernel: kernel(),
            interface: "lo".parse().unwrap(),
        };
        let ours = [
            address("172.22.188.1/32", None),
            address("fd00:4242::1/128", None),
        ];
        for address in ours {
            bench.apply(bench.add(address)).await;
        }
        assert!(bench.link().await.addresses.is_superset(&ours.into()));
        for address in ours {
            bench.apply(bench.remove(address)).await;
        }
        assert!(bench.link().await.addresses.is_disjoint(&ours.into()));
        assert_eq!(bench.link().await.kind, LinkKind::Loopback);
    }
);

live!(a_link_is_deleted_by_its_mark_alone, async || {
    let bench = Bench::new().await;
    let other = KernelAction::DeleteLink {
        interface: bench.interface.clone(),
        uid: "other".parse().unwrap(),
    };
    let refused = bench.try_apply(other).await.unwrap_err();
    assert!(
        matches!(&refused, KernelError::NotOurs { found, .. } if found.contains("555555555555"))
    );
    assert!(bench.found().await.is_some());
    bench.apply(bench.delete()).await;
    assert!(bench.found().await.is_none());
    assert!(
        !std::path::Path::new(&format!("/var/run/wireguard/{}.sock", bench.interface)).exists()
    );
    // What is gone is deleted.
    bench.apply(bench.delete()).await;
    // And the name is free again.
    bench.apply(bench.create()).await;
});

live!(
    a_link_that_merely_answers_to_the_name_is_another_link,
    async || {
        let bench = Bench {
            kernel: kernel(),
            interface: "nickname".parse().unwrap(),
        };
        ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        let alias = Alias {
            identity: Some(identity()),
            object: uid(),
        };
        ip(&["link", "set", "v0", "alias", &alias.to_string()]);
        ip(&[
            "link", "property", "add", "dev", "v0", "altname", "nickname",
        ]);
        bench.apply(bench.delete()).await;
        assert!(bench.try_apply(bench.mtu(1400)).await.is_err());
        assert_eq!(link_named(&bench.kernel, "v0").await.mtu, 1500);
    }
);

live!(a_half_made_link_is_seen_without_a_mark, async || {
    let bench = Bench {
        kernel: kernel(),
        interface: name(""),
    };
    bench.apply(bench.create()).await;
    let link = bench.link().await;
    assert_eq!((link.mark, link.up), (Mark::None, false));
    assert!(
        link.wireguard
            .is_some_and(|it| it.peers.is_empty() && it.public_key.is_none())
    );
    // Without a mark only the mark can be set.
    assert!(matches!(
        bench.try_apply(bench.mtu(1400)).await,
        Err(KernelError::NotOurs { .. })
    ));
    let again = bench
        .try_apply(bench.create())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        again.contains(bench.interface.as_str()) && again.contains("exists"),
        "{again}"
    );
    bench.apply(bench.mark()).await;
    bench.apply(bench.mtu(1400)).await;
});

live!(
    a_userspace_link_outlives_the_process_that_made_it,
    2,
    async |stage| {
        let kernel = LinuxKernel::new(options(Backend::Userspace));
        if stage == 0 {
            let bench = Bench::with(kernel, "").await;
            bench
                .configure(WireGuardPatch {
                    listen_port: Port::new(21080),
                    ..Default::default()
                })
                .await;
            return;
        }
        let bench = Bench {
            kernel,
            interface: name(""),
        };
        let link = bench.link().await;
        assert!(link.mark.is(&uid()));
        assert_eq!(link.wireguard.unwrap().listen_port, Port::new(21080));
        bench.peer(full(2)).await;
        assert_eq!(bench.wireguard().await.peers.len(), 1);
        bench.apply(bench.delete()).await;
        assert!(bench.found().await.is_none());
    }
);

live!(
    a_userspace_process_has_its_own_group_and_none_of_our_secrets,
    async || {
        let kernel = LinuxKernel::new(options(Backend::Userspace));
        let bench = Bench::with(kernel, "").await;
        let process = process_of(&bench.interface);
        let environment = std::fs::read_to_string(format!("/proc/{process}/environ")).unwrap();
        assert!(
            std::env::var(super::super::namespace::TOKEN).is_ok()
                && !environment.contains("hunter2"),
            "{environment}"
        );
        let group = |process: u32| {
            let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            text.rsplit_once(") ")
                .unwrap()
                .1
                .split(' ')
                .nth(2)
                .unwrap()
                .to_owned()
        };
        assert_ne!(group(process), group(std::process::id()));
    }
);

live!(
    a_stopped_userspace_process_holds_up_its_own_link_alone,
    async || {
        let userspace = || LinuxKernel::new(options(Backend::Userspace));
        let stopped = Bench::with(userspace(), "a").await;
        let other = Bench::with(userspace(), "b").await;
        let process = process_of(&stopped.interface).to_string();
        let signal = |signal: &str| {
            let done = std::process::Command::new("kill")
                .args([signal, &process])
                .status()
                .unwrap();
            assert!(done.success());
        };
        signal("-STOP");
        let start = Instant::now();
        let view = other.kernel.observe().await;
        let took = start.elapsed();
        signal("-CONT");
        let links = view.unwrap().links;
        assert!(links[&stopped.interface].wireguard.is_none());
        assert!(links[&stopped.interface].mark.is(&uid()));
        assert!(links[&other.interface].wireguard.is_some());
        assert!(took < Duration::from_secs(7), "{took:?}");
        assert!(stopped.link().await.wireguard.is_some());
    }
);

live!(deleting_a_link_ends_its_hung_process, async || {
    let bench = Bench::with(LinuxKernel::new(options(Backend::Userspace)), "").await;
    let process = process_of(&bench.interface).to_string();
    let stopped = std::process::Command::new("kill")
        .args(["-STOP", &process])
        .status();
    assert!(stopped.unwrap().success());
    bench.apply(bench.delete()).await;
    assert!(bench.found().await.is_none());
    let command = std::fs::read(format!("/proc/{process}/cmdline"));
    assert!(command.unwrap_or_default().is_empty(), "it still runs");
    bench.apply(bench.create()).await;
    assert!(bench.kernel.is_starting(&bench.interface).await);
    bench.apply(bench.mark()).await;
    assert!(!bench.kernel.is_starting(&bench.interface).await);
});

live!(
    kernel_only_says_when_the_kernel_has_no_wireguard,
    async || {
        let kernel = LinuxKernel::new(options(Backend::Kernel));
        let bench = Bench {
            kernel,
            interface: name(""),
        };
        match bench.try_apply(bench.create()).await {
            Ok(()) => assert_eq!(bench.link().await.kind, LinkKind::WireGuard),
            Err(KernelError::Unsupported { missing, .. }) => {
                assert!(missing.contains("modprobe wireguard"))
            }
            Err(other) => panic!("{other}"),
        }
    }
);

live!(
    gre_and_dummy_links_read_back_as_made_where_the_kernel_has_them,
    async || {
        let ends = |local: &str, remote: &str| -> (IpAddr, IpAddr) {
            (local.parse().unwrap(), remote.parse().unwrap())
        };
        let (v4, v6) = (
            ends("192.0.2.1", "192.0.2.2"),
            ends("2001:db8::1", "2001:db8::2"),
        );
        let gre = |(local, remote)| {
            (
                NewLink::Gre {
                    local: Some(local),
                    remote,
                },
                Some((local, remote)),
            )
        };
        let all = [
            ("g4", gre(v4), LinkKind::Gre),
            ("g6", gre(v6), LinkKind::Ip6Gre),
            ("d0", (NewLink::Dummy, None), LinkKind::Dummy),
        ];
        let kernel = kernel();
        for (name, (kind, ends), expected) in all {
            let interface = name.parse().unwrap();
            let create = KernelAction::CreateLink { interface, kind };
            match kernel.apply(&[&create]).await.remove(0) {
                Ok(()) => {
                    let link = link_named(&kernel, name).await;
                    let ends = ends.map(|(local, remote)| GreEnds {
                        local: Some(local),
                        remote: Some(remote),
                    });
                    assert_eq!((link.kind, link.gre), (expected, ends));
                }
                Err(KernelError::Unsupported { missing, .. }) => {
                    println!("{name}: this kernel has no such links");
                    assert!(missing.contains("modprobe"));
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
);

live!(sysctls_of_our_links_are_read_and_set, async || {
    let bench = Bench::new().await;
    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    assert_eq!(bench.link().await.sysctls.len(), Sysctl::ALL.len());
    for (key, value) in [
        (Sysctl::RpFilter, 0),
        (Sysctl::Ipv6Forwarding, 1),
        (Sysctl::AcceptRa, 0),
    ] {
        let interface = Some(bench.interface.clone());
        bench
            .apply(KernelAction::SetSysctl {
                interface,
                key,
                value,
            })
            .await;
        assert_eq!(bench.link().await.sysctls[&key], value);
    }
    assert!(
        link_named(&bench.kernel, "v0").await.sysctls.is_empty(),
        "not ours, not read"
    );
    bench
        .apply(KernelAction::SetSysctl {
            interface: None,
            key: Sysctl::Ipv4Forwarding,
            value: 1,
        })
        .await;
    let all = std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/forwarding").unwrap();
    assert_eq!(all.trim(), "1");
});

live!(a_link_whose_name_we_do_not_allow_is_not_seen, async || {
    ip(&["link", "add", "a+b", "type", "veth", "peer", "name", "v1"]);
    let view = kernel().observe().await.unwrap();
    let names: Vec<_> = view.links.keys().map(InterfaceName::as_str).collect();
    assert_eq!(names, ["lo", "v1"]);
});

live!(a_name_with_a_dot_works_throughout, async || {
    let bench = Bench::with(kernel(), ".5").await;
    let interface = Some(bench.interface.clone());
    bench
        .apply(KernelAction::SetSysctl {
            interface,
            key: Sysctl::RpFilter,
            value: 2,
        })
        .await;
    let link = bench.link().await;
    assert_eq!(link.sysctls[&Sysctl::RpFilter], 2);
    assert!(link.wireguard.is_some());
});

live!(changes_of_links_and_addresses_are_announced, async || {
    let mut news = events().unwrap();
    let bench = Bench {
        kernel: kernel(),
        interface: name(""),
    };
    let mut until_named = async || {
        let named = async {
            while news.recv().await.unwrap().interface.as_ref() != Some(&bench.interface) {}
        };
        tokio::time::timeout(Duration::from_secs(5), named)
            .await
            .unwrap();
        // The rest of the same change.
        tokio::time::sleep(Duration::from_millis(300)).await;
        while news.try_recv().is_ok() {}
    };
    bench.apply(bench.create()).await;
    until_named().await;
    bench.apply(bench.mark()).await;
    bench.apply(bench.up()).await;
    until_named().await;
    bench.apply(bench.mtu(1400)).await;
    until_named().await;
    bench.apply(bench.mark()).await;
    until_named().await;
    bench
        .apply(bench.add(address("172.20.0.1/32", Some("172.20.0.2"))))
        .await;
    until_named().await;
    bench.apply(bench.add(address("fd00::1/64", None))).await;
    until_named().await;
    bench
        .apply(bench.remove(address("172.20.0.1/32", Some("172.20.0.2"))))
        .await;
    until_named().await;
    bench.apply(bench.delete()).await;
    until_named().await;
});

live!(
    an_error_names_what_was_attempted_and_shows_no_key,
    async || {
        let bench = Bench::new().await;
        let secret = private(1).to_base64().expose().clone();
        let port = UdpSocket::bind("0.0.0.0:0").unwrap();
        let listen_on = |port: u16| KernelAction::ConfigureWireGuard {
            interface: bench.interface.clone(),
            patch: WireGuardPatch {
                release_port: false,
                private_key: Some(private(1)),
                listen_port: Port::new(port),
                ..Default::default()
            },
        };
        // A userspace WireGuard learns from the kernel that its link is up, and binds its port only then.
        bench.apply(listen_on(21080)).await;
        bench.apply(bench.up()).await;
        while UdpSocket::bind("0.0.0.0:21080").is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let action = listen_on(port.local_addr().unwrap().port());
        let error = bench.try_apply(action).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(&format!("set WireGuard on {}", bench.interface)),
            "{text}"
        );
        assert!(
            text.contains("choose another port") && !text.contains(&secret),
            "{text}"
        );
    }
);
