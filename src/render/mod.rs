//! Renders BIRD's configuration from the desired state. Pure: the operator's templates are passed in as text.
//!
//! Below BIRD's directory:
//!
//! ```text
//! bird.conf               only if the agent writes it: log, router id, time formats
//! moenet/main.conf        includes all files below, in an order that defines names before their use
//! moenet/generation.conf  the committer's
//! moenet/defines.conf     numbers and sets            moenet/filters.conf  functions that use them
//! moenet/roa.conf         ROA tables, RPKI            moenet/roa{4,6}.conf the cached table
//! moenet/system.conf      device, kernel, own nets    moenet/babel.conf    the backbone
//! moenet/bgp.conf         templates of BGP            moenet/ibgp.conf     internal neighbours
//! moenet/sessions/*.conf  one file per session
//! ```
//!
//! An operator with a `bird.conf` of their own includes `moenet/main.conf` there and sets the router
//! id. `timeformat protocol` is in `moenet/main.conf` anyway, since the parser of BIRD's answers
//! depends on it; a duplicate is valid, and the last one counts.
//!
//! # Communities of a route
//!
//! | community | means |
//! |---|---|
//! | `(64511, 1..9)` `(64511, 91..94)` `(64511, 81..89)` | latency, loss, type: the worst link of the path |
//! | `(64511, 21..25)` `(64511, 31..36)` | bandwidth, encryption: the weakest link of the path |
//! | `(64511, 41..57)` `(64511, 1000 + country)` | region and country, only on this network's own routes |
//! | `(local ASN, 1, continent)` `(local ASN, 2, region)` `(local ASN, 3, node)` | where it entered this network |
//! | `(local ASN, 4, type)` `(local ASN, 5, Mbit/s)` | the link over which it entered this network |
//! | `(local ASN, 10, relation)` | relation of the neighbour that sent it: only inside this network |
//!
//! Local preference is `relation * 1000 + distance`, so that a relation always outweighs a distance,
//! and each router of this network computes it again from the communities: a value set by another router reflects
//! the distances of that router. Only 0, which means "about to go" (RFC 8326), is accepted.

mod class;
mod context;
mod error;
mod features;
mod hysteresis;
mod input;
mod place;
mod quote;
mod renderer;

pub use class::LinkClass;
pub use context::Shared;
pub(crate) use context::rpki_protocol;
pub(crate) use error::RenderError;
pub use features::Features;
pub(crate) use hysteresis::{Hysteresis, Measure, Measured};
pub use input::BaseInput;
pub(crate) use input::{check_policy, odd_policy};
pub use renderer::Renderer;
pub(crate) use renderer::{Fingerprint, Peerings};
