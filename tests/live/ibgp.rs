//! Internal BGP between routers, each with an agent of its own.

use crate::lab::backbone::{Backbone, Site};
use crate::lab::traffic::Traffic;
use crate::lab::{contains, wait_until};

/// Two clients that know of each other only what the router between them passes on.
fn line(middle: &'static str) -> Backbone {
    let client = |id, name| Site { id, name, kind: "client" };
    let mut backbone =
        Backbone::new(&[client(1, "jp1"), Site { id: 2, name: "mid", kind: middle }, client(3, "jp3")]);
    for end in ["jp1", "jp3"] {
        backbone.mesh(end, "mid");
        backbone.ibgp(end, "mid");
    }
    backbone.network(1, &[("jp1", 100)]);
    backbone.network(2, &[("jp3", 100)]);
    backbone.start();
    backbone.wait_established();
    backbone
}

#[test]
fn a_reflector_passes_routes_between_its_clients_with_the_next_hop_of_the_border() {
    let backbone = line("rr");
    let (near, far) = (backbone.at("jp1"), backbone.at("jp3"));
    let network = &backbone.networks[1];
    // The border names itself as next hop, and the reflector leaves it at that.
    for prefix in [&network.prefix4, &network.prefix6] {
        wait_until(&format!("jp1 has {prefix}"), 30, || {
            let route = near.ask(&format!("show route {prefix} protocol ibgp_mid all"))?;
            contains(&route, prefix)?;
            let next_hop = route.lines().find(|line| line.contains("next_hop")).ok_or(route.clone())?;
            contains(next_hop, &far.loopback6()).or_else(|_| contains(next_hop, &far.loopback4()))
        });
    }
    // Not by way of the reflector's BGP, but over its links: packets go from one network to the other.
    let [one, two] = [0, 1].map(|index| &backbone.networks[index]);
    for (source, destination) in one.addresses().into_iter().zip(two.addresses()) {
        let traffic = Traffic::start(&one.inside, source, &two.inside, destination);
        std::thread::sleep(std::time::Duration::from_secs(1));
        traffic.stop_without_loss();
    }
}
