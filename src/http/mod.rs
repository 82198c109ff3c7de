//! The agent's local API (docs/contract/local-api.md): requests to the agent, over TCP or a unix
//! socket. The server has no knowledge of sessions: its answers come from an [`AgentApi`], which is `answers` for a
//! running agent.

mod accept;
mod answers;
mod api;
mod browsers;
mod bucket;
mod error;
mod events;
mod gate;
mod glass;
mod listen;
mod login;
mod long_poll;
mod openapi;
pub(crate) mod page;
mod proxies;
mod routes;
mod seats;
mod server;
mod tls;
mod token;
pub mod view;

pub(crate) use answers::{Glass, LocalApi, Metric, Registry};
pub use api::{
    AgentApi, ApiRefusal, Confirmation, MaintenanceView, NodeView, Overview, SessionCounts,
    StatusView,
};
pub(crate) use api::{BirdView, HeldView};
use bucket::Guesses;
pub(crate) use bucket::TokenBucket;
pub(crate) use error::ApiError;
pub use glass::{GlassError, HopView, LookingGlass, PingView, RouteView, TraceView};
pub(crate) use listen::listen;
pub use openapi::openapi;
pub(crate) use openapi::{Answer, Description, Endpoint, OPENAPI, OpenApi, text as text_answer};
pub use routes::{HttpOptions, app};
pub(crate) use server::bind_unix;
pub use server::{ServeError, Server};

pub(crate) use accept::run;
pub(crate) use api::METRICS;
pub(crate) use browsers::refuse_other_pages;
pub(crate) use login::{Logins, token_of};
pub(crate) use long_poll::LongPoll;
pub(crate) use proxies::{Client, Proxies};
pub(crate) use routes::read_body;
pub(crate) use tls::{Tls, TlsListener};
pub use tls::{TlsError, TlsFiles};
pub(crate) use token::Guarded;
pub(crate) use token::{bearer, same};
