//! Rules between the files of a network, which one file alone cannot show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;

use super::super::check::Problem;
use super::super::finding::Finding;
use super::care::Percent;
use super::files::{FleetFiles, NETWORK, router_path};
use super::spec::{Ibgp, Topology};
use super::topology::{Named, is_reflector, link};
use super::{Network, RouterSpec, Wave};
use crate::effective::mesh_interface;
use crate::model::{InterfaceName, ObjectName};

/// The default prefix of an agent's links.
const INTERFACE_PREFIX: &str = "mesh_";

/// Gathers findings with their places.
struct Findings<'f> {
    files: &'f FleetFiles,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, file: &str, path: &[&str], message: impl Display) {
        let problem = Problem {
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            message: message.to_string(),
        };
        let text = self.files.text(file).map_or("", |text| text);
        self.found
            .push(Finding::new(Path::new(file), text, &problem));
    }

    fn router(&mut self, name: &ObjectName, path: &[&str], message: impl Display) {
        self.add(&router_path(name), path, message);
    }
}

impl Network {
    /// Returns the errors for which nothing is derived from the network.
    pub(super) fn broken_rules(&self, files: &FleetFiles) -> Vec<Finding> {
        let found = Vec::new();
        let mut findings = Findings { files, found };
        self.check_layouts(&mut findings);
        self.check_topology(&mut findings);
        self.check_regions(&mut findings);
        self.check_rollout(&mut findings);
        self.check_unique(&mut findings);
        for own in self.routers() {
            self.check_loopbacks(own, &mut findings);
            self.check_ports(own, &mut findings);
            self.check_links(own, &mut findings);
        }
        findings.found
    }

    /// A router with a folder of its own and a file of the network would get the answers of one of them.
    fn check_layouts(&self, findings: &mut Findings<'_>) {
        let both = |folder: &&str| self.has(folder);
        for name in findings.files.folders().filter(both) {
            let file = format!("routers/{name}.yaml");
            let message = format!("{name} has also {name}/router.yaml; remove one of the two");
            findings.found.push(Finding::whole(file.as_ref(), message));
        }
    }

    /// A wave without a router protects nothing.
    fn check_rollout(&self, findings: &mut Findings<'_>) {
        let Some(rollout) = &self.spec.rollout else {
            return;
        };
        if rollout.waves.is_empty() {
            let message =
                "without a wave a change would reach every router at once; write [[ROUTER], 50%]";
            findings.add(NETWORK, &["rollout", "waves"], message);
        }
        let (mut reached, mut named) = (Percent::ZERO, BTreeSet::new());
        for (at, wave) in rollout.waves.iter().enumerate() {
            let message = match wave {
                Wave::Share(share) if *share > reached => {
                    reached = *share;
                    continue;
                }
                Wave::Share(_) => {
                    format!("adds no router: write a share above {reached}")
                }
                Wave::Routers(names) => {
                    let twice = names.iter().find(|name| !named.insert(*name));
                    let mut all = names.iter();
                    let unknown = all.find(|name| !self.routers.contains_key(*name));
                    match (twice, unknown) {
                        (Some(name), _) => format!("{name} is in a wave twice"),
                        (None, Some(name)) => format!("{name} has no file in routers/"),
                        (None, None) if names.is_empty() => "names no router".to_owned(),
                        (None, None) => continue,
                    }
                }
            };
            findings.add(NETWORK, &["rollout", "waves", &at.to_string()], message);
        }
    }

    fn check_topology(&self, findings: &mut Findings<'_>) {
        let mesh = &self.spec.mesh;
        let place = |name: &String| self.index.places.get(name);
        let mut regions = mesh.ring.iter().enumerate();
        let twice = regions.find(|(at, name)| place(name).is_some_and(|first| first < at));
        if let Some((at, name)) = twice {
            let at = at.to_string();
            findings.add(
                NETWORK,
                &["mesh", "ring", &at],
                format_args!("{name} is in the ring twice"),
            );
        }
        if mesh.topology == Topology::Ring && mesh.ring.is_empty() {
            let message = "the topology ring needs the regions in the order of the ring";
            findings.add(NETWORK, &["mesh", "ring"], message);
        }
        self.check_reflectors(findings);
    }

    /// Without a reflector, the list of every other router would be empty.
    fn check_reflectors(&self, findings: &mut Findings<'_>) {
        let is_member = |(_, router): Named| is_reflector(router) && router.mesh.enabled;
        if self.routers.is_empty() || self.routers().any(is_member) {
            return;
        }
        let field = match self.spec.mesh.topology {
            Topology::Hub => "topology",
            _ if self.ibgp() == Ibgp::Reflectors => "ibgp",
            _ => return,
        };
        let message = match self.routers().any(|(_, router)| is_reflector(router)) {
            true => {
                "every router with type: rr has mesh.enabled: false; enable one, or make another the reflector"
            }
            false => "no router has type: rr; give it to those that are to be reflectors",
        };
        findings.add(NETWORK, &["mesh", field], message);
    }

    /// A router outside the known regions would have no tunnel in a ring, and no communities.
    fn check_regions(&self, findings: &mut Findings<'_>) {
        let Self {
            spec,
            routers,
            index,
        } = self;
        let known = |list: &mut dyn Iterator<Item = &String>| {
            list.map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        for (name, router) in routers {
            match &router.region {
                Some(region) if !spec.regions.is_empty() && !spec.regions.contains_key(region) => {
                    let all = known(&mut spec.regions.keys());
                    findings.router(
                        name,
                        &["region"],
                        format_args!("network.yaml has no region {region}; it has {all}"),
                    );
                }
                region if spec.mesh.topology == Topology::Ring => {
                    let is_in = region
                        .as_ref()
                        .is_some_and(|region| index.places.contains_key(region));
                    if !is_in {
                        let all = known(&mut spec.mesh.ring.iter());
                        findings.router(
                            name,
                            &["region"],
                            format_args!("must be a region of mesh.ring: {all}"),
                        );
                    }
                }
                _ => {}
            }
        }
    }

    fn check_unique(&self, findings: &mut Findings<'_>) {
        let id = |router: &RouterSpec| Some(router.id);
        self.unique(findings, "id", id, |_| true);
        self.unique(
            findings,
            "loopbackIpv4",
            |router| self.loopback_ipv4(router),
            |router| router.loopback_ipv4.is_some(),
        );
        self.unique(
            findings,
            "loopbackIpv6",
            |router| self.loopback_ipv6(router),
            |router| router.loopback_ipv6.is_some(),
        );
        self.unique(
            findings,
            "linkLocal",
            |router| Some(self.link_local(router)),
            |router| router.link_local.is_some(),
        );
        let key = |router: &RouterSpec| router.mesh.public_key;
        self.unique(findings, "mesh.publicKey", key, |_| true);
    }

    /// Reports each value that two routers have, in the file that gives it; one that is derived has no place but the id.
    fn unique<T: Ord + Display>(
        &self,
        findings: &mut Findings<'_>,
        field: &str,
        value: impl Fn(&RouterSpec) -> Option<T>,
        is_given: impl Fn(&RouterSpec) -> bool,
    ) {
        let mut owners: BTreeMap<T, &ObjectName> = BTreeMap::new();
        let path: Vec<&str> = field.split('.').collect();
        for (name, router) in self.routers() {
            let Some(value) = value(router) else { continue };
            if let Some(owner) = owners.get(&value) {
                let first = self.router(owner);
                // What is derived from an id that two have is no second error.
                if first.is_some_and(|it| it.id == router.id) && field != "id" {
                    continue;
                }
                let (at, other, path) = match (is_given(router), first.is_some_and(&is_given)) {
                    (true, _) => (name, *owner, &path[..]),
                    (false, true) => (*owner, name, &path[..]),
                    (false, false) => (name, *owner, &["id"][..]),
                };
                let message = format!("{value} is also that of {other}; give one of them another");
                findings.router(at, path, message);
            } else {
                owners.insert(value, name);
            }
        }
    }

    fn check_loopbacks(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let (name, router) = own;
        if self.loopback_ipv4(router).is_some() || self.loopback_ipv6(router).is_some() {
            return;
        }
        let message = match self.spec.prefixes.ipv4 {
            Some(net) => format!(
                "{} does not fit into {net}; give loopbackIpv4 or loopbackIpv6",
                router.id
            ),
            None => "no loopback address: give prefixes in network.yaml, or loopbackIpv6 here"
                .to_owned(),
        };
        findings.router(name, &["id"], message);
    }

    /// Two tunnels of a router cannot share a port. Derived ports differ among each other, as the ids do.
    fn check_ports(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let (name, router) = own;
        let base = self.spec.mesh.port_base;
        let given = |peer: Named<'_>| link(router, peer.0).and_then(|link| link.listen_port);
        let mut used = BTreeMap::new();
        for peer in self.tunnel_peers(own).filter(|peer| given(*peer).is_none()) {
            match self.listen_port(own, peer) {
                Some(port) => drop(used.insert(port, peer.0)),
                None => {
                    let id = peer.1.id;
                    let message = format!(
                        "{base} and the id {id} of {} are over 65535; give a smaller base",
                        peer.0
                    );
                    findings.add(NETWORK, &["mesh", "portBase"], message);
                }
            }
        }
        for peer in self.tunnel_peers(own) {
            let Some(port) = given(peer) else { continue };
            if let Some(other) = used.insert(port, peer.0) {
                let path = ["mesh", "links", peer.0.as_str(), "listenPort"];
                findings.router(
                    name,
                    &path,
                    format_args!("{port} is also the port for {other}"),
                );
            }
        }
    }

    fn check_links(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let (name, router) = own;
        for (peer, here) in &router.mesh.links {
            let there = self.routers.get(peer).and_then(|peer| link(peer, name));
            let mtus = (here.mtu, there.and_then(|there| there.mtu));
            if let (Some(mtu), Some(other)) = mtus
                && mtu != other
            {
                let path = ["mesh", "links", peer.as_str(), "mtu"];
                findings.router(
                    name,
                    &path,
                    format_args!("{mtu} here and {other} in routers/{peer}.yaml"),
                );
            }
        }
    }

    /// Returns the errors that affect one router each: what is derived goes on being served.
    pub fn weak_points(&self, files: &FleetFiles) -> Vec<Finding> {
        let found = Vec::new();
        let mut findings = Findings { files, found };
        for own in self.routers() {
            self.check_token(own, &mut findings);
            self.check_callers(own, &mut findings);
            self.check_families(own, &mut findings);
            self.check_interfaces(own, &mut findings);
        }
        for (path, router, _) in files.sessions() {
            if !self.has(router) {
                let message =
                    format!("no router gets this session: routers/{router}.yaml does not exist");
                findings.found.push(Finding::whole(path.as_ref(), message));
            }
        }
        findings.found
    }

    fn check_token(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let (name, router) = own;
        let kinds = [
            router.token.is_some(),
            router.token_file.is_some(),
            !router.token_hashes.is_empty(),
        ];
        match kinds.into_iter().filter(|kind| *kind).count() {
            0 => {
                let message = format!("no token: {name} needs token, tokenFile or tokenHashes");
                findings
                    .found
                    .push(Finding::whole(router_path(name).as_ref(), message));
            }
            1 if router.token_hashes.len() <= 2 => {}
            1 => findings.router(name, &["tokenHashes"], "more than two; revoke the old ones"),
            _ => findings.router(
                name,
                &["token"],
                "give only one of token, tokenFile and tokenHashes",
            ),
        }
    }

    /// At least one side of each tunnel must know where the other one is.
    fn check_callers(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let (name, router) = own;
        for peer in router.mesh.links.keys() {
            if peer == name || !self.routers.contains_key(peer) {
                let path = ["mesh", "links", peer.as_str()];
                findings.router(name, &path, "no other router has this name");
            }
        }
        // Each pair once.
        for peer in self.tunnel_peers(own).filter(|peer| peer.0 > name) {
            if self.endpoint(own, peer).is_none() && self.endpoint(peer, own).is_none() {
                let message = format!(
                    "neither {name} nor {} has an address, so that neither calls the other; give one of them an \
                     address, or set mesh.links.{}.enabled: false",
                    peer.0, peer.0
                );
                findings
                    .found
                    .push(Finding::whole(router_path(name).as_ref(), message));
            }
        }
    }

    /// An internal session needs loopback addresses of one family at both ends.
    fn check_families(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let (name, router) = own;
        let families = |router| {
            let (v4, v6) = (self.loopback_ipv4(router), self.loopback_ipv6(router));
            [v4.is_some(), v6.is_some()]
        };
        let own_families = families(router);
        // Each pair once.
        for peer in self.ibgp_peers(own).filter(|peer| peer.0 > name) {
            let mut both = own_families.iter().zip(families(peer.1));
            if !both.any(|(here, there)| *here && there) {
                let message = format!(
                    "{name} and {} have no loopback addresses of one family; give both loopbackIpv6",
                    peer.0
                );
                let file = router_path(name);
                findings.found.push(Finding::whole(file.as_ref(), message));
            }
        }
    }

    /// Two links of a router cannot have one name, as its agent derives them by default.
    fn check_interfaces(&self, own: Named<'_>, findings: &mut Findings<'_>) {
        let mut owners = BTreeMap::new();
        for peer in self.tunnel_peers(own) {
            let path = ["mesh", "links", peer.0.as_str(), "interface"];
            let Some(interface) = interface(own, peer) else {
                let message = format!(
                    "{INTERFACE_PREFIX}{} is no name of a link; give one",
                    peer.0
                );
                findings.router(own.0, &path, message);
                continue;
            };
            if let Some(other) = owners.insert(interface.clone(), peer.0) {
                let message =
                    format!("{interface} is also the link to {other}; give one another name");
                findings.router(own.0, &path, message);
            }
        }
    }
}

/// Returns the name of a link: the given one, else that of an agent with its default prefix.
pub(super) fn interface(own: Named<'_>, peer: Named<'_>) -> Option<InterfaceName> {
    let given = link(own.1, peer.0).and_then(|link| link.interface.clone());
    let derived = || mesh_interface(INTERFACE_PREFIX, peer.0, peer.1.id);
    given.or_else(|| derived().parse().ok())
}
