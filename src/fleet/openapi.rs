//! The description of the Control Plane's API, as agents call it and the embedded server answers.

use serde_json::Value;
use utoipa::openapi::HttpMethod::{self, Get, Post};
use utoipa::openapi::Type;

use super::posts::{PostDone, Posts, REPORTED};
use crate::http::{Answer, Description, Endpoint, OPENAPI, OpenApi};
use crate::model::ObjectName;
use crate::wire::reference::{REVISION, ROOT, Revision, endpoint, shapes};
use crate::wire::{Call, DrainWish, Heartbeat, Modify, Report};

const ABOUT: &str = "The API between agents and a Control Plane: what agents accept in answers, and what the embedded \
    server (`moenet-agent control-plane`) accepts in posts. Unknown fields are ignored. A list is complete or an error; \
    each item is read alone. Every error has a code. A method that a path does not have is 405 `METHOD_NOT_ALLOWED`.";

/// Errors of every call of a router.
const ANY: [(u16, &str); 7] = [
    (400, "`BAD_REQUEST`: the body is not what the call accepts."),
    (401, "`INVALID_TOKEN`: the token is missing or wrong."),
    (
        404,
        "`ROUTER_NOT_FOUND`: no router has this name. `NOT_FOUND`: it has no such file.",
    ),
    (413, "`PAYLOAD_TOO_LARGE`: the body has more than 4 MiB."),
    (429, "`RATE_LIMITED`: too many calls."),
    (
        500,
        "`INTERNAL`: a file of the fleet is not valid or cannot be written.",
    ),
    (
        503,
        "`MAINTENANCE_MODE`: the operator works on this router's files. `STORE_UNAVAILABLE`: the database cannot be used now.",
    ),
];

/// Returns the description in OpenAPI 3.1, the content of `schemas/openapi-control-plane.json`.
pub fn openapi() -> Value {
    let mut api = Description::new();
    for call in Call::ALL {
        let (summary, done) = answer(&mut api, call);
        let body = match call {
            Call::Heartbeat => api.body::<Heartbeat>(),
            Call::Report => api.body::<Report>(),
            Call::Modify => api.body::<Modify>(),
            Call::Drain => api.body::<DrainWish>(),
            Call::Sessions | Call::Mesh | Call::Config | Call::BirdConfig => None,
        };
        let own = match call {
            Call::Modify => Some((404, "`SESSION_NOT_FOUND`: no session has this uuid.")),
            Call::Drain => Some((
                409,
                "`DRAIN_REFUSED`: a budget of the network would be broken.",
            )),
            _ => None,
        };
        add(&mut api, endpoint(call), summary, body, done, own);
    }
    let posts = api.json::<Posts>(200, "The newest posts; an addition of the embedded server.");
    add(
        &mut api,
        REPORTED,
        "What the router posted last",
        None,
        posts,
        None,
    );
    let mut waits = call_of(
        &mut api,
        Get,
        REVISION,
        "A number that changes with the router's lists; waits for a change",
    );
    let known = "The revision that the client knows; another one is answered at once.";
    waits.parameters.extend([
        Description::option(
            "wait",
            "The longest wait in seconds, at most 60; none without it.",
            Type::Integer,
        ),
        Description::option("revision", known, Type::String),
    ]);
    let about = "The newest revision. Offered with the header `moenet-long-poll` of a list: the longest wait in seconds.";
    let newest = api.json::<Revision>(200, about);
    let errors = api.errors(ANY);
    api.add(waits, [newest].into_iter().chain(errors));
    super::admin::describe(&mut api);
    super::owners::describe(&mut api);
    let itself = api.json::<OpenApi>(200, "This document.");
    let mut call = Endpoint::new(Get, OPENAPI, "openapi", "This description");
    call.open = true;
    let errors = api.errors(ANY.into_iter().filter(|(status, _)| *status == 429));
    api.add(call, [itself].into_iter().chain(errors));
    api.finish("moenet Control Plane API", ABOUT, false)
}

fn answer(api: &mut Description, call: Call) -> (&'static str, Answer) {
    use shapes::{BirdConfig, Config, Mesh, Sessions};
    match call {
        Call::Sessions => {
            let done = api.accepted::<Sessions>(200, "All sessions, of every status.");
            ("All BGP sessions of the router", done)
        }
        Call::Mesh => {
            let done = api.accepted::<Mesh>(200, "All peers.");
            ("All peers of the router's backbone tunnels", done)
        }
        Call::Config => {
            let done = api.accepted::<Config>(200, "The node.");
            ("The identity of the router", done)
        }
        Call::BirdConfig => {
            let done = api.accepted::<BirdConfig>(200, "The policy and the neighbours.");
            ("The routing policy and the internal BGP neighbours", done)
        }
        Call::Heartbeat | Call::Report | Call::Modify | Call::Drain => {
            let summary = match call {
                Call::Heartbeat => "The agent is alive",
                Call::Report => "The state of the sessions",
                _ => "A session's change of status",
            };
            let done =
                api.json::<PostDone>(200, "Received. Agents accept any 2xx without an `error`.");
            (summary, done)
        }
    }
}

fn call_of(
    api: &mut Description,
    method: HttpMethod,
    endpoint: &str,
    summary: &'static str,
) -> Endpoint {
    let path = format!("/{ROOT}/{{router}}/{endpoint}");
    let mut call = Endpoint::new(method, path, endpoint, summary);
    let about = "The router's name, `node.name` of its agent.";
    call.parameters = vec![api.part::<ObjectName>("router", about)];
    call
}

fn add(
    api: &mut Description,
    endpoint: &str,
    summary: &'static str,
    body: Option<utoipa::openapi::request_body::RequestBody>,
    done: Answer,
    error: Option<(u16, &str)>,
) {
    let method = if body.is_some() { Post } else { Get };
    let mut call = call_of(api, method, endpoint, summary);
    call.body = body;
    let errors = api.errors(ANY.into_iter().chain(error));
    let mut answers = vec![done];
    if call.body.is_none() {
        call.parameters.push(Description::header(
            "If-None-Match",
            "The `ETag` of the answer that the client has.",
        ));
        answers.push(Description::unchanged());
    }
    api.add(call, answers.into_iter().chain(errors));
}
