//! The answers that the files of a fleet give each router.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::document::{parse_list, parse_value};
use crate::fleet::finding::Finding;
use crate::fleet::layout::{RouterFile, file_of};
use crate::fleet::network::{FleetFiles, MeshKeys, Network, session};
use crate::fleet::tree;
use crate::model::{ObjectName, PublicKey};
use crate::util::sorted::Sorted as _;
use crate::wire::Call;

/// The answers of one router, by the call.
pub type Answers = BTreeMap<Call, Map<String, Value>>;

/// Returns the answers of all routers.
///
/// # Errors
/// The structure of the network has an error, so that nothing is derived from it.
pub fn answers(files: &FleetFiles) -> Result<BTreeMap<String, Answers>, Vec<Finding>> {
    let mut all = BTreeMap::new();
    if files.has_network() {
        let network = Network::read(files)?;
        let keys = keys(&network);
        for (name, _) in network.routers() {
            all.insert(name.to_string(), described(files, &network, &keys, name));
        }
    }
    for router in tree::folders(files) {
        all.insert(router.clone(), of_folder(files, &router));
    }
    Ok(all)
}

fn described(files: &FleetFiles, network: &Network, keys: &MeshKeys, name: &ObjectName) -> Answers {
    let all = [
        (Call::Config, network.config(name)),
        (Call::Sessions, Some(sessions(files, name))),
        (Call::Mesh, network.mesh(name, keys)),
        (Call::BirdConfig, network.bird_config(name)),
    ];
    all.into_iter()
        .filter_map(|(call, answer)| Some((call, answer?)))
        .sorted_map()
}

/// Returns the list of sessions, without files that cannot be read.
fn sessions(files: &FleetFiles, name: &ObjectName) -> Map<String, Value> {
    let texts = files.sessions_of(name);
    let sessions = texts.filter_map(|(path, text)| session(path, text.ok()?).ok());
    Map::from_iter([("sessions".to_owned(), sessions.collect())])
}

/// Returns a key for each router in place of the one in its heartbeats, the same for the same router.
fn keys(network: &Network) -> MeshKeys {
    let key = |id: u16| {
        let mut bytes = [9; 32];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        PublicKey::new(bytes)
    };
    let routers = network.routers();
    routers
        .map(|(_, router)| (router.id, key(router.id)))
        .sorted_map()
}

fn of_folder(files: &FleetFiles, router: &str) -> Answers {
    let answer = |call: Call| {
        let text = files.text(&format!("{router}/{}", file_of(call)))?;
        let answer = match call {
            Call::Config => {
                let node = parse_value::<RouterFile>(text).ok()?.node?;
                Map::from_iter([("node".to_owned(), node)])
            }
            _ => parse_list(text).ok()?,
        };
        Some((call, answer))
    };
    tree::CALLS.into_iter().filter_map(answer).sorted_map()
}
