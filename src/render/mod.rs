//! BIRD's configuration, from what is wanted. Pure: templates of the operator come in as text.
//!
//! Below BIRD's directory:
//!
//! ```text
//! bird.conf               only where it is ours: log, router id, time formats
//! moenet/main.conf        includes all that follows, in an order in which names come before their use
//! moenet/generation.conf  the committer's
//! moenet/defines.conf     numbers and sets            moenet/filters.conf  what is done with them
//! moenet/roa.conf         ROA tables, RPKI            moenet/roa{4,6}.conf the cached table
//! moenet/system.conf      device, kernel, own nets    moenet/babel.conf    the backbone
//! moenet/bgp.conf         templates of BGP            moenet/ibgp.conf     internal neighbours
//! moenet/sessions/*.conf  one file a session
//! ```
//!
//! An operator with a `bird.conf` of their own includes `moenet/main.conf` there and sets the router
//! id. `timeformat protocol` is in `moenet/main.conf` all the same, since our reading of BIRD's answers
//! depends on it; saying it twice is fine, and the last one counts.
//!
//! # What a route carries
//!
//! | community | means |
//! |---|---|
//! | `(64511, 1..9)` `(64511, 91..94)` `(64511, 81..89)` | latency, loss, type: the worst link of the way |
//! | `(64511, 21..25)` `(64511, 31..36)` | bandwidth, encryption: the weakest link of the way |
//! | `(64511, 41..57)` `(64511, 1000 + country)` | region and country, on our own routes only |
//! | `(our ASN, 1, continent)` `(our ASN, 2, region)` `(our ASN, 3, node)` | where it came to us |
//! | `(our ASN, 4, type)` `(our ASN, 5, Mbit/s)` | the link over which it came to us |
//! | `(our ASN, 10, relation)` | who gave it to us: inside our network only |
//!
//! Local preference is `relation * 1000 + distance`, so that a relation always outweighs a distance,
//! and is made anew by each router of ours from the communities: what another has set speaks of
//! another's distances. Only 0, which means "about to go" (RFC 8326), is believed.

mod class;
mod context;
mod error;
mod features;
mod hysteresis;
mod input;
mod place;
mod quote;
mod renderer;
mod roa;

pub use class::{LinkClass, bandwidth_class, crypto_class, latency_class, loss_class};
pub use context::rpki_protocol;
pub use error::RenderError;
pub use features::Features;
pub use hysteresis::{Hysteresis, Measure};
pub use input::{BaseInput, DEFAULT_IMPORT_LIMIT, DEFAULT_MAX_PATH, check_policy, odd_policy};
pub use quote::{MAX_STRING, quoted};
pub use renderer::Renderer;
pub use roa::{Roa, RoaTable};
