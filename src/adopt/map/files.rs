//! The protocols of the files on disk, compared with those that BIRD runs: a later `configure` ends or starts the
//! difference.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Adoption, Running};
use crate::adopt::report::{Outcome, Place};
use crate::observed::bird::main_file::OperatorProtocol;
use crate::observed::bird::{Bgp, Protocol};
use crate::util::sorted::Sorted as _;

/// The name of a session that BIRD makes of a range of neighbours, without its number.
const DYNAMIC: &str = "dynbgp";

impl Adoption {
    /// Refuses files that a load would make sessions end with, and reports protocols that BIRD does not run.
    pub(super) fn files(&mut self, running: Running<'_>) {
        let main = running.main;
        if let Some(problem) = main.on_hold() {
            return self.conflicts.push(problem.to_string());
        }
        if main.is_agents() {
            return;
        }
        let dynamic = dynamic_names(&main.protocols);
        for protocol in running.protocols {
            match main.protocol(&protocol.name) {
                Some(configured) => self.conflicts.extend(other_neighbour(configured, protocol)),
                // The agent's own files have further protocols.
                None if main.included => {}
                None if dynamic.iter().any(|it| protocol.name.starts_with(it)) => {}
                None => self.conflicts.push(format!(
                    "protocol {} {} runs, and neither {} nor a file that it includes has it: the next `birdc configure` \
                     or start of BIRD would end it; put its file back, or run `birdc configure` if it is to end",
                    protocol.proto.to_lowercase(),
                    protocol.name,
                    main.path.display()
                )),
            }
        }
        let names = running.protocols.iter().map(|it| it.name.as_str());
        let names: BTreeSet<_> = names.sorted_set();
        let all = main.protocols.iter();
        for protocol in all.filter(|it| !names.contains(it.name.as_str())) {
            let place = Some(Place::new(&protocol.file, protocol.line));
            let subject = format!("protocol {protocol}");
            let reason = "stays in bird.conf, and BIRD does not run it: the next `birdc configure` starts it";
            self.add(Outcome::Left, &subject, place, reason);
        }
    }
}

/// Returns the beginnings of the names of sessions that no file defines one by one.
fn dynamic_names(protocols: &[OperatorProtocol]) -> BTreeSet<String> {
    let is_range = |protocol: &&OperatorProtocol| {
        let mut statements = protocol.statements.iter();
        statements.any(|it| it.words.iter().take(2).eq(["neighbor", "range"]))
    };
    let names = protocols.iter().filter(is_range).map(|protocol| {
        let mut statements = protocol.statements.iter();
        let given = statements.find_map(|it| match &it.words[..] {
            [dynamic, name, text] if dynamic == "dynamic" && name == "name" => Some(text),
            _ => None,
        });
        given
            .map_or(DYNAMIC, |text| text.trim_matches('"'))
            .to_owned()
    });
    names.sorted_set()
}

/// Returns that a session has another neighbour on disk than the one that BIRD runs.
fn other_neighbour(configured: &OperatorProtocol, running: &Protocol) -> Option<String> {
    let (address, asn) = neighbour(configured);
    let bgp = running.bgp.as_ref()?;
    let is_other = |address: &IpAddr| Bgp::neighbour(bgp).is_some_and(|(has, _)| has != *address);
    let address = address.filter(is_other).map(|it| it.to_string());
    let asn = asn.filter(|asn| bgp.neighbor_as.is_some_and(|has| has != *asn));
    let differs = address.or_else(|| asn.map(|asn| format!("AS{asn}")))?;
    Some(format!(
        "protocol {configured} at {} has the neighbour {differs} on disk, and BIRD runs it with {} AS{}: the next `birdc \
         configure` would reset it; put the running text back, or run `birdc configure` first",
        configured.place(),
        bgp.neighbor_address.as_deref().unwrap_or_default(),
        bgp.neighbor_as.unwrap_or_default(),
    ))
}

/// Returns the address and the AS of a session's neighbour, as far as the text has them as numbers.
fn neighbour(protocol: &OperatorProtocol) -> (Option<IpAddr>, Option<u32>) {
    let mut statements = protocol.statements.iter();
    let found = statements.find_map(|it| match &it.words[..] {
        [first, rest @ ..] if first == "neighbor" => Some(rest),
        _ => None,
    });
    let words = found.unwrap_or_default();
    let end = words
        .iter()
        .take_while(|word| *word != "as" && *word != "%");
    let address: String = end.map(String::as_str).collect();
    let asn = words.iter().skip_while(|word| *word != "as").nth(1);
    (address.parse().ok(), asn.and_then(|asn| asn.parse().ok()))
}
