//! Links, sessions and files of a running router as documents with `adopt: true`, and findings.
//!
//! The kernel and the running daemon are the truth; files add only what neither reports, and the places.

mod files;
mod keys;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::session::{adopted, surplus};
use super::report::{Finding, Outcome, Place};
use super::tunnel_file::TunnelFile;
use crate::document::{BgpSessionSpec, Document, OverrideSpec};
use crate::model::{Asn, InterfaceName, ObjectName, PresharedKey};
use crate::observed::bird::main_file::{MainFile, OperatorProtocol};
use crate::observed::bird::{Bgp, Protocol};
use crate::observed::kernel::{KernelView, Link};

/// Statements of a BGP protocol that a document or the agent's own text covers, by their first word.
const COVERED: [&str; 14] = [
    "from",
    "local",
    "source",
    "neighbor",
    "description",
    "direct",
    "interface",
    "ipv4",
    "ipv6",
    "import",
    "export",
    "extended",
    "next",
    "graceful",
];

pub use keys::OwnKey;

/// What runs on a router.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    pub kernel: &'a KernelView,
    /// The protocols of the running daemon.
    pub protocols: &'a [Protocol],
    pub main: &'a MainFile,
    pub files: &'a [TunnelFile],
    /// This router's AS; sessions inside it are no peerings.
    pub asn: Option<OwnAs<'a>>,
    pub key: OwnKey<'a>,
}

/// This router's AS, as the agent has it.
#[derive(Debug, Clone, Copy)]
pub struct OwnAs<'a> {
    pub asn: Asn,
    /// Where it is set.
    pub place: &'a str,
}

/// One document, with the secret that it names.
#[derive(Debug, Clone)]
pub struct Adopted {
    pub document: Document<BgpSessionSpec>,
    pub preshared_key: Option<PresharedKey>,
    /// The override that is written in its place, where the Control Plane lists the session.
    pub over: Option<Document<OverrideSpec>>,
}

impl Adopted {
    /// Returns the name of the session.
    pub fn name(&self) -> ObjectName {
        let over = self.over.as_ref().map(|over| &over.metadata);
        over.unwrap_or(&self.document.metadata).name.clone()
    }

    /// Returns the interface that it takes over.
    pub fn interface(&self) -> Option<&InterfaceName> {
        self.document.spec.tunnel.interface.as_ref()
    }

    /// Returns the request to write the secret that the document names, below the state directory.
    pub fn secret(&self, state: &Path) -> Option<Finding> {
        let tunnel = &self.document.spec.tunnel;
        self.preshared_key
            .as_ref()
            .filter(|_| self.over.is_none())?;
        let path = state.join(tunnel.preshared_key_file.as_ref()?);
        let interface = tunnel.interface.as_ref()?;
        let (folder, path) = (path.parent()?.display(), path.display());
        let reason = format!(
            "its preshared key must be in {path}, mode 0600, before the document is used: `mkdir -p -m 0700 {folder} && \
             (umask 077; wg show {interface} preshared-keys | cut -f 2 > {path})`"
        );
        let subject = format!("interface {interface}");
        Some(Finding::new(Outcome::Needed, subject, None, reason))
    }
}

/// The documents and the report.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    pub documents: Vec<Adopted>,
    pub findings: BTreeSet<Finding>,
    /// Why the documents cannot be used yet.
    pub conflicts: Vec<String>,
}

impl Adoption {
    pub fn of(running: Running<'_>) -> Self {
        let mut adoption = Self::default();
        let mut peerings = BTreeMap::<&InterfaceName, Vec<(&Protocol, &Bgp)>>::new();
        for protocol in running.protocols {
            let Some(bgp) = &protocol.bgp else { continue };
            match running.link_of(bgp) {
                _ if running.is_internal(bgp) => {
                    adoption.left(running, protocol, "it is internal (iBGP)")
                }
                None => adoption.left(
                    running,
                    protocol,
                    "no WireGuard interface leads to its neighbour",
                ),
                Some(interface) => peerings.entry(interface).or_default().push((protocol, bgp)),
            }
        }
        adoption.other_as(running, peerings.values().flatten().copied());
        let interfaces: Vec<_> = peerings.keys().copied().collect();
        adoption.missing_key(running, &interfaces);
        adoption.files(running);
        for (interface, link) in running.kernel.links.iter() {
            if link.is_wireguard() {
                let sessions = peerings.remove(interface).unwrap_or_default();
                adoption.link(running, interface, link, &sessions);
            }
        }
        adoption.rest(running);
        adoption
    }

    fn add(
        &mut self,
        outcome: Outcome,
        subject: &str,
        place: Option<Place>,
        reason: impl Into<String>,
    ) {
        let finding = Finding::new(outcome, subject, place, reason);
        self.findings.insert(finding);
    }

    /// Refuses a router whose sessions all run with another AS: the configuration has a wrong one.
    fn other_as<'a>(
        &mut self,
        running: Running<'_>,
        sessions: impl Iterator<Item = (&'a Protocol, &'a Bgp)>,
    ) {
        let others: Option<Vec<_>> = sessions.map(|it| running.other_as(it)).collect();
        if let Some(first) = others.and_then(|others| others.into_iter().next()) {
            let action = "correct it, or the protocols, and run `moenet-agent adopt` again";
            self.conflicts.push(format!("{first}; {action}"));
        }
    }

    fn left(&mut self, running: Running<'_>, protocol: &Protocol, why: &str) {
        let place = running.place_of(&protocol.name);
        let subject = format!("protocol bgp {}", protocol.name);
        self.add(
            Outcome::Left,
            &subject,
            place,
            format!("stays in bird.conf: {why}"),
        );
    }

    /// Takes over one WireGuard interface with its sessions, or says why not.
    fn link(
        &mut self,
        running: Running<'_>,
        interface: &InterfaceName,
        link: &Link,
        sessions: &[(&Protocol, &Bgp)],
    ) {
        let adopted = match adopted(running, interface, link, sessions) {
            Ok(adopted) => adopted,
            Err(why) => {
                let place = why.place().or_else(|| running.file_of(interface));
                self.add(
                    why.outcome(),
                    &format!("interface {interface}"),
                    place,
                    why.to_string(),
                );
                for (protocol, _) in sessions {
                    self.left(
                        running,
                        protocol,
                        &format!("interface {interface} is not taken over"),
                    );
                }
                return;
            }
        };
        for file in running.files_of(interface) {
            self.findings.extend(file.findings());
        }
        let taken = format!("document sessions/{}", adopted.document.metadata.name);
        self.add(
            Outcome::Taken,
            &format!("interface {interface}"),
            running.file_of(interface),
            &taken,
        );
        for (lost, reason) in surplus(link, &adopted.document.spec) {
            let value = lost.local.addr().to_string();
            let place = TunnelFile::place_of(running.files, interface, "Address", &value);
            let subject = format!("interface {interface}");
            self.add(Outcome::Unsupported, &subject, place, reason);
        }
        for (protocol, _) in sessions {
            self.session(running, protocol, &taken);
        }
        self.documents.push(adopted);
    }

    /// Reports one session whose tunnel is taken over.
    fn session(&mut self, running: Running<'_>, protocol: &Protocol, document: &str) {
        let name = &protocol.name;
        let subject = format!("protocol bgp {name}");
        let place = running.place_of(name);
        if running.main.included {
            self.conflicts.push(format!(
                "{} includes moenet/main.conf already: the agent would load a second session with the neighbour of \
                 {subject}; remove the include, or the protocol",
                running.main.path.display()
            ));
        }
        let reason = format!(
            "runs on from bird.conf; {document} describes it. To hand it over, remove the protocol and include \
             moenet/main.conf: that resets it once, because BIRD identifies a session by its name and the agent's \
             has another name"
        );
        self.add(Outcome::Left, &subject, place.clone(), reason);
        let configured = running.main.protocol(name);
        for (words, place) in configured.into_iter().flat_map(uncovered) {
            let reason = format!("`{words}` has no counterpart in {document}");
            self.add(Outcome::Unsupported, &subject, Some(place), reason);
        }
    }

    /// Reports the operator's other protocols and definitions, which stay.
    fn rest(&mut self, running: Running<'_>) {
        let main = running.main;
        let runs = |it: &&OperatorProtocol| running.protocols.iter().any(|p| p.name == it.name);
        let others = main.protocols.iter().filter(|it| it.class != "bgp");
        for protocol in others.filter(runs) {
            let place = Some(Place::new(&protocol.file, protocol.line));
            self.add(
                Outcome::Left,
                &format!("protocol {protocol}"),
                place,
                "stays in bird.conf",
            );
        }
        let beyond = main.beyond.iter();
        for definition in beyond.filter(|it| !it.words.starts_with("protocol")) {
            let place = Some(Place::new(&definition.file, definition.line));
            self.add(
                Outcome::Left,
                &definition.words,
                place,
                "stays in bird.conf",
            );
        }
    }
}

impl<'a> Running<'a> {
    fn is_internal(&self, bgp: &Bgp) -> bool {
        let own = bgp.local_as.or(self.asn.map(|own| own.asn.get()));
        bgp.neighbor_as.is_some() && bgp.neighbor_as == own
    }

    /// Returns that a session runs with another local AS than this router's.
    fn other_as(&self, (protocol, bgp): (&Protocol, &Bgp)) -> Option<String> {
        let OwnAs { asn, place } = self.asn?;
        let local = bgp.local_as.filter(|local| *local != asn.get())?;
        let at = self.place_of(&protocol.name);
        let at = at.map_or(String::new(), |at| format!(" at {at}"));
        Some(format!(
            "{place} is AS{asn}, and protocol bgp {}{at} runs with `local as {local}`: the agent's session would have the \
             other AS, and the neighbour would refuse it",
            protocol.name
        ))
    }

    /// Returns the WireGuard interface that leads to a session's neighbour.
    fn link_of(&self, bgp: &Bgp) -> Option<&'a InterfaceName> {
        let (address, scope) = bgp.neighbour()?;
        let mut links = self
            .kernel
            .links
            .iter()
            .filter(|(_, link)| link.is_wireguard());
        let found = links.find(|(name, link)| match scope {
            Some(scope) => name.as_str() == scope,
            None => link
                .addresses
                .iter()
                .filter_map(|it| it.route())
                .any(|net| net.contains(&address)),
        });
        found.map(|(name, _)| name)
    }

    fn place_of(&self, protocol: &str) -> Option<Place> {
        let found = self.main.protocol(protocol)?;
        Some(Place::new(&found.file, found.line))
    }

    fn files_of(&self, interface: &InterfaceName) -> impl Iterator<Item = &'a TunnelFile> {
        let files = self.files.iter();
        files.filter(move |file| file.interface == interface.as_str())
    }

    fn file_of(&self, interface: &InterfaceName) -> Option<Place> {
        let file = self.files_of(interface).next()?;
        Some(Place::new(&file.path, 1))
    }
}

/// Returns the statements of a session, or of its template, without a counterpart in a document. A password is never shown.
fn uncovered(protocol: &OperatorProtocol) -> impl Iterator<Item = (String, Place)> {
    let statements = protocol.statements.iter().filter(|it| {
        let first = it.words.first().map(String::as_str).unwrap_or_default();
        !it.is_in_channel() && !COVERED.contains(&first)
    });
    statements.map(|it| {
        let secret = it.words.first().is_some_and(|word| word == "password");
        let shown = it.words[..if secret { 1 } else { it.words.len() }].join(" ");
        (shown, Place::new(&it.file, it.line))
    })
}
