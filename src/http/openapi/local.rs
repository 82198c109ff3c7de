//! The description of the local API. `http::routes` has the same calls in its table.

use serde_json::Value;
use utoipa::openapi::HttpMethod::{self, Get, Post};
use utoipa::openapi::Required;

use super::{Answer, Description, Endpoint, OPENAPI, text};
use crate::document::{Kind, StatusBody};
use crate::http::api::{
    DrainBody, METRICS, MaintenanceDone, MaintenanceView, Ready, RestartBody, RestartDone,
    StatusView, SyncTriggered,
};
use crate::http::events::StreamEvent;
use crate::http::glass::{PingView, RouteView, TraceView};
use crate::model::ObjectName;

const ABOUT: &str = "Health of the agent, and operations. \
    Without `server.token` it answers programs of this machine only, and no web pages of other origins. With it, every \
    call but `/healthz` and `/readyz` needs `Authorization: Bearer`, and `/events` takes the cookie of the web page too. The calls of `/looking-glass` need the token of `server.lookingGlass` instead, and are off without it. Every error has a code. A method that a path does \
    not have is 405 `METHOD_NOT_ALLOWED`, with `Allow`; other paths are 404 `NOT_FOUND`.";

/// The kinds of objects that have a status.
const WITH_STATUS: [Kind; 5] = [
    Kind::BgpSession,
    Kind::MeshPeer,
    Kind::IbgpPeer,
    Kind::Node,
    Kind::RoutingPolicy,
];

/// Errors of every call.
const ANY: [(u16, &str); 2] = [
    (
        400,
        "`BAD_REQUEST`: the request is wrong, or comes from a web page of another origin.",
    ),
    (413, "`PAYLOAD_TOO_LARGE`: the body has more than 64 KiB."),
];
/// Errors of every call that needs a token.
const TOKEN: [(u16, &str); 2] = [
    (401, "`INVALID_TOKEN`: the token is missing or wrong."),
    (429, "`RATE_LIMITED`: too many wrong tokens."),
];
const RATE: (u16, &str) = (429, "`RATE_LIMITED`: more than 10 calls a second.");
const STREAMS: (u16, &str) = (429, "`RATE_LIMITED`: 16 streams are open.");
const FAILED: (u16, &str) = (
    500,
    "`INTERNAL`: the attempt failed; the text has the advice.",
);
const DRAINED: (u16, &str) = (503, "`MAINTENANCE_MODE`: the router is drained.");

/// Returns the description of the local API in OpenAPI 3.1, the content of `schemas/openapi-local.json`.
pub fn description() -> Value {
    let mut api = Description::new();
    status(&mut api);
    let done = api.json::<SyncTriggered>(200, "The sync is requested; `/status` tells its end.");
    let summary = "Fetch the sessions from the Control Plane now";
    add(&mut api, Get, "/sync", summary, done, &[RATE, DRAINED]);
    maintenance(&mut api);
    restart(&mut api);
    let metrics = text(METRICS, "Metrics as Prometheus text.");
    add(&mut api, Get, "/metrics", "Metrics", metrics, &[]);
    let summary = "Changes of objects' phases";
    let told = "Server-sent events: `ready`, then `object` with the object and its new phase; no phase when it is gone.";
    let events = api.events::<StreamEvent>(told);
    add(&mut api, Get, "/events", summary, events, &[STREAMS]);
    glass(&mut api);
    probes(&mut api);
    let itself = api.json::<super::OpenApi>(200, "This document.");
    add(&mut api, Get, OPENAPI, "This description", itself, &[]);
    api.finish("moenet-agent local API", ABOUT, true)
}

/// Adds a call whose path is its identifier.
fn add(
    api: &mut Description,
    method: HttpMethod,
    path: &str,
    summary: &'static str,
    done: Answer,
    errors: &[(u16, &str)],
) {
    let call = Endpoint::new(method, path, id(path), summary);
    add_call(api, call, [done], errors);
}

fn add_call(
    api: &mut Description,
    call: Endpoint,
    done: impl IntoIterator<Item = Answer>,
    errors: &[(u16, &str)],
) {
    let is_open = call.open;
    let token = TOKEN.into_iter().filter(|_| !is_open);
    let all = ANY.into_iter().chain(token).chain(errors.iter().copied());
    let errors = api.errors(all);
    api.add(call, done.into_iter().chain(errors));
}

/// `/maintenance/start` is `maintenance-start`.
fn id(path: &str) -> String {
    let name = path.trim_start_matches('/').trim_end_matches(".json");
    name.replace('/', "-")
}

fn status(api: &mut Description) {
    let answer = api.json::<StatusView>(200, "The agent's health; lists are bounded.");
    let summary = "Health, sessions by state, held changes, notices";
    add(api, Get, "/status", summary, answer, &[]);
    let unknown = (404, "`NOT_FOUND`: no object with a status has this name.");
    for kind in WITH_STATUS {
        let path = format!("/status/{}", kind.folder());
        let mut call = Endpoint::new(Get, path.clone(), id(&path), "The status of one object");
        if !kind.is_single() {
            call.path = format!("{path}/{{name}}");
            let about = "The object's name, as `get` shows it.";
            call.parameters = vec![api.part::<ObjectName>("name", about)];
        }
        let answer = api.json::<StatusBody>(200, "The current status.");
        add_call(api, call, [answer], &[unknown]);
    }
}

fn maintenance(api: &mut Description) {
    let view = api.json::<MaintenanceView>(200, "Drained or not.");
    add(
        api,
        Get,
        "/maintenance",
        "Whether the router is drained",
        view,
        &[],
    );
    for (path, summary) in [
        ("/maintenance/start", "Drain the router"),
        ("/maintenance/stop", "End the drain"),
    ] {
        let done = api.json::<MaintenanceDone>(200, "BIRD runs the requested state.");
        let pending = api.json::<MaintenanceDone>(202, "Recorded; BIRD has not confirmed yet.");
        let down = "`BIRD_UNAVAILABLE`: recorded; takes effect as soon as BIRD answers.";
        let mut call = Endpoint::new(Post, path, id(path), summary);
        let mut errors = vec![FAILED, (503, down)];
        if path == "/maintenance/start" {
            call.body = api.body::<DrainBody>();
            if let Some(body) = &mut call.body {
                body.required = Some(Required::False);
            }
            errors.push((409, "`DRAIN_REFUSED`: a budget of the network forbids it."));
        }
        add_call(api, call, [done, pending], &errors);
    }
}

fn restart(api: &mut Description) {
    let summary = "Recreate a tunnel and its BGP session";
    let mut call = Endpoint::new(Post, "/restart", "restart", summary);
    call.body = api.body::<RestartBody>();
    let done = api.json::<RestartDone>(200, "Tunnel and BGP session are configured again.");
    let unknown = (404, "`SESSION_NOT_FOUND`: no session has this interface.");
    add_call(api, call, [done], &[unknown, RATE, FAILED, DRAINED]);
}

/// The calls of the looking glass, each with a target.
fn glass(api: &mut Description) {
    const OFF: (u16, &str) = (404, "`NOT_FOUND`: the looking glass is off.");
    const BUSY: (u16, &str) = (
        429,
        "`RATE_LIMITED`: more than a call a second, or 4 at once.",
    );
    let bird = (503, "`BIRD_UNAVAILABLE`: BIRD does not answer.");
    let probe = (
        503,
        "`PROBE_FAILED`: the system grants no socket for echoes, or no echo could be sent, as without a route.",
    );
    let route = api.json::<RouteView>(200, "The routes, as BIRD prints them; bounded.");
    let ping = api.json::<PingView>(200, "The answers to 4 echoes.");
    let trace = api.json::<TraceView>(200, "The routers on the way, at most 30.");
    let calls = [
        (
            "route",
            "BIRD's routes to a prefix or an address",
            route,
            bird,
        ),
        ("ping", "Echoes to an address in DN42", ping, probe),
        ("trace", "The way to an address in DN42", trace, probe),
    ];
    for (word, summary, done, failed) in calls {
        let path = format!("{}/{word}", crate::http::gate::PAGE);
        let mut call = Endpoint::new(Get, path.clone(), id(&path), summary);
        let about = match word {
            "route" => "A prefix or an address.",
            _ => "An address in 172.20.0.0/14, 10.0.0.0/8, fd00::/8 or the policy's extraRanges.",
        };
        call.parameters = vec![Description::query("target", about, "172.20.0.53")];
        add_call(api, call, [done], &[OFF, BUSY, failed]);
    }
}

fn probes(api: &mut Description) {
    let not_yet = (
        503,
        "`NOT_READY`: the node is not configured, or the state directory cannot be used.",
    );
    let probes: [(_, _, &[_]); 2] = [
        ("/healthz", "Whether the process answers", &[]),
        ("/readyz", "Whether the node is configured", &[not_yet]),
    ];
    for (path, summary, errors) in probes {
        let mut call = Endpoint::new(Get, path, id(path), summary);
        call.open = true;
        let done = api.json::<Ready>(200, "Yes.");
        add_call(api, call, [done], errors);
    }
}
