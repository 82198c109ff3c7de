//! Live tests: the real program, real BIRD and real WireGuard, judged from the neighbour's side and in the kernel.
//!
//! They need root and what `tests/deps.sh tests` and `tests/lab/fetch-birds` provide. One that cannot run fails
//! and says what is missing. Each test has its own namespaces, so they run side by side.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may block, and panics when it fails"
)]

mod lab;

mod addresses;
mod adopt;
mod approval;
mod audit;
mod bird_versions;
mod book;
mod canary;
mod changes_in_place;
mod control_plane_faults;
mod conveniences;
mod convergence;
mod crash;
mod dashboards;
mod describe;
mod describe_bgp;
mod describe_documents;
mod describe_tunnel;
mod disabled;
mod drain;
mod editors;
mod editors_directory;
mod editors_disk;
mod editors_flood;
mod edits;
mod embedded_control_plane;
mod firewall;
mod first_contact;
mod fleet_page;
mod fleet_sources;
mod hostile;
mod hostile_control_plane;
mod hung_bird;
mod ibgp;
mod identity;
mod init;
mod isolation;
mod journal;
mod kinds;
mod limits;
mod local_api;
mod looking_glass;
mod lost;
mod maintenance;
mod mesh;
mod metrics;
mod names;
mod network;
mod no_policy;
mod node;
mod overrides;
mod plans;
mod policy;
mod private_key;
mod probing;
mod readers;
mod removal;
mod repair;
mod repository;
mod restart;
mod roa;
mod rollback;
mod rpki_names;
mod secrets;
mod service_manager;
mod shapes;
mod strangers;
mod supervision;
mod templates;
mod the_harness;
mod truth;
mod unreadable;
mod versions;
mod web_page;
