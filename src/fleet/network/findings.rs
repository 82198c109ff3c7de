//! Every error of a network's files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::check::{self, Problem};
use super::super::finding::Finding;
use super::answers::session;
use super::files::{NETWORK, router_path};
use super::rules::interface;
use super::topology::Named;
use super::{FleetFiles, Network};
use crate::effective::Claim;
use crate::model::ObjectName;
use crate::wire::Call;

/// Returns the number of routers, and every error in the files of a network, by file and place.
pub fn findings(files: &FleetFiles) -> (usize, Vec<Finding>) {
    let routers = files.routers().count();
    let mut found = match Network::read(files) {
        Err(found) => found,
        Ok(network) => {
            let mut found = network.weak_points(files);
            for own in network.routers() {
                found.extend(network.policy_findings(own, files));
                found.extend(network.session_findings(own, files));
            }
            found.extend(repeated_uuids(files));
            found.extend(network.owner_findings(files));
            found
        }
    };
    found.sort_by(|one, other| place(one).cmp(&place(other)));
    // Every router has the same network's policy.
    found.dedup();
    (routers, found)
}

fn place(finding: &Finding) -> (&Path, Option<u64>, Option<u64>, &str) {
    (
        &finding.file,
        finding.line,
        finding.column,
        &finding.message,
    )
}

/// The file of a session, and its content.
type SessionFile<'f> = (&'f str, &'f Arc<str>, Value);

impl Network {
    /// Returns the errors in the policy of a router, at the file that gives the field.
    fn policy_findings(&self, own: Named<'_>, files: &FleetFiles) -> Vec<Finding> {
        let answer = self.bird_config(own.0).unwrap_or_default();
        let units = check::units(Call::BirdConfig, &answer, None);
        let problems = units.into_iter().flat_map(|unit| unit.problems);
        problems
            .map(|problem| self.finding(files, own.0, Call::BirdConfig, &problem))
            .collect()
    }

    /// Returns a problem of an answer as an error of the file that it comes from.
    pub(in crate::fleet) fn finding(
        &self,
        files: &FleetFiles,
        name: &ObjectName,
        call: Call,
        problem: &Problem,
    ) -> Finding {
        let is_policy = problem.path.first().is_some_and(|part| part == "policy");
        let field = problem.path.get(1);
        let session = field
            .and_then(|index| files.sessions_of(name).nth(index.parse().ok()?))
            .filter(|_| call == Call::Sessions);
        if let Some((path, text)) = session {
            let text = text.map_or("", |text| text);
            return Finding::new(path.as_ref(), text, &in_session(problem.clone()));
        }
        // A field of the policy that is derived has its place where the network gives it.
        let source: Option<&[&str]> = match field.map(String::as_str) {
            Some("dn42As") => Some(&["asn"]),
            Some("dn42Ipv4Prefix") => Some(&["prefixes", "ipv4"]),
            Some("dn42Ipv6Prefix") => Some(&["prefixes", "ipv6"]),
            _ => None,
        };
        let is_own = |field| {
            let router = self.routers.get(name);
            router.is_some_and(|router| router.policy.contains_key(field))
        };
        let file = match is_policy && !field.is_some_and(is_own) {
            true => NETWORK.to_owned(),
            false => router_path(name),
        };
        let is_derived =
            file == NETWORK && !field.is_some_and(|it| self.spec.policy.contains_key(it));
        let problem = match source.filter(|_| is_policy && is_derived) {
            Some(path) => &Problem {
                path: path.iter().map(|key| (*key).to_owned()).collect(),
                message: problem.message.clone(),
            },
            None => problem,
        };
        Finding::new(file.as_ref(), text(files, &file), problem)
    }

    /// Returns the errors in the sessions of a router by its name.
    pub(in crate::fleet) fn findings_of_sessions(
        &self,
        router: &ObjectName,
        files: &FleetFiles,
    ) -> Vec<Finding> {
        let own = self.named(router);
        own.map_or_else(Vec::new, |own| self.session_findings(own, files))
    }

    /// Returns the errors in the sessions of a router, as its agent would find them.
    fn session_findings(&self, own: Named<'_>, files: &FleetFiles) -> Vec<Finding> {
        let (sessions, mut found) = session_files(own.0, files);
        let answer = self.config(own.0).unwrap_or_default();
        let node = answer.get("node");
        let items: Vec<Value> = sessions
            .iter()
            .map(|(.., session)| session.clone())
            .collect();
        let tunnels = self.claims(own);
        for (item, (path, text, _)) in items.iter().zip(&sessions) {
            let claims = check::claims(item, node);
            if let Some((claim, peer)) = tunnels.iter().find(|(claim, _)| claims.contains(claim)) {
                let message = format!("{claim} is that of the tunnel to {peer}");
                let field = match claim {
                    Claim::ListenPort(_) => "listenPort",
                    _ => "interface",
                };
                let path_in = vec![field.to_owned()];
                found.push(Finding::new(
                    path.as_ref(),
                    text,
                    &Problem {
                        path: path_in,
                        message,
                    },
                ));
            }
        }
        let answer = Map::from_iter([("sessions".to_owned(), Value::from(items))]);
        for unit in check::units(Call::Sessions, &answer, node) {
            let Some((path, text, _)) = unit.place.1.and_then(|index| sessions.get(index)) else {
                continue;
            };
            let in_file = unit.problems.into_iter().map(in_session);
            found.extend(in_file.map(|problem| Finding::new(path.as_ref(), text, &problem)));
        }
        found
    }

    /// Returns the errors of one session by itself, beside no other object.
    pub(in crate::fleet) fn problems_of_session(
        &self,
        router: &ObjectName,
        path: &str,
        text: &Arc<str>,
    ) -> Vec<Finding> {
        let item = match session(path, text) {
            Ok(item) => item,
            Err(error) => return vec![error],
        };
        let answer = self.config(router).unwrap_or_default();
        let list = Map::from_iter([("sessions".to_owned(), json!([item]))]);
        let units = check::units(Call::Sessions, &list, answer.get("node"));
        let problems = units.into_iter().flat_map(|unit| unit.problems);
        let found = problems.map(|problem| Finding::new(path.as_ref(), text, &in_session(problem)));
        found.collect()
    }

    /// Returns the ports and links of a router's tunnels, with the peers.
    fn claims(&self, own: Named<'_>) -> BTreeMap<Claim, ObjectName> {
        let mut claims = BTreeMap::new();
        for peer in self.tunnel_peers(own) {
            let port = self.listen_port(own, peer).map(Claim::ListenPort);
            let interface = interface(own, peer).map(Claim::Interface);
            let all = port.into_iter().chain(interface);
            claims.extend(all.map(|claim| (claim, peer.0.clone())));
        }
        claims
    }
}

/// Returns a problem of a list of sessions with the place in the session.
fn in_session(problem: Problem) -> Problem {
    Problem {
        path: problem.path.into_iter().skip(2).collect(),
        message: problem.message,
    }
}

/// Returns the sessions of a router that can be read, and the errors of the others.
fn session_files<'f>(
    router: &ObjectName,
    files: &'f FleetFiles,
) -> (Vec<SessionFile<'f>>, Vec<Finding>) {
    let (mut sessions, mut found) = (Vec::new(), Vec::new());
    for (path, text) in files.sessions_of(router) {
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                found.push(Finding::whole(path.as_ref(), why));
                continue;
            }
        };
        match session(path, text) {
            Ok(session) => sessions.push((path, text, session)),
            Err(error) => found.push(error),
        }
    }
    (sessions, found)
}

/// Returns a finding for each identity that sessions of two routers share; an agent finds those of its own.
fn repeated_uuids(files: &FleetFiles) -> Vec<Finding> {
    let mut owners: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    let mut found = Vec::new();
    for (path, router, text) in files.sessions() {
        let session = crate::document::parse_value::<Map<String, Value>>(text).unwrap_or_default();
        let Some(uuid) = session.get("uuid").and_then(Value::as_str) else {
            continue;
        };
        match owners.get(uuid) {
            Some((owner, other)) if *owner != router => {
                let message = format!("also the identity of {other}; each session has its own");
                let path_in = vec!["uuid".to_owned()];
                let problem = Problem {
                    path: path_in,
                    message,
                };
                found.push(Finding::new(path.as_ref(), text, &problem));
            }
            Some(_) => {}
            None => drop(owners.insert(uuid.to_owned(), (router, path))),
        }
    }
    found
}

fn text<'f>(files: &'f FleetFiles, path: &str) -> &'f str {
    files.text(path).map_or("", |text| text)
}
