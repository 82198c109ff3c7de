//! The description of the operators' calls.

use utoipa::openapi::HttpMethod::{Get, Post};

use super::super::GitView;
use super::super::history::RouterHistory;
use super::super::overview::RouterView;
use super::{Alive, Changed, Routers, SessionChange};
use crate::http::{Answer, Description, Endpoint, METRICS, text_answer};
use crate::model::ObjectName;

/// Errors of every call that needs a role.
const ANY: [(u16, &str); 5] = [
    (401, "`INVALID_TOKEN`: the token is missing or wrong."),
    (404, "`NOT_FOUND`: the server was started without roles."),
    (429, "`RATE_LIMITED`: too many wrong tokens."),
    (
        500,
        "`INTERNAL`: the files of the fleet cannot be read or written.",
    ),
    (
        503,
        "`STORE_UNAVAILABLE`: the database cannot be used now. `NO_FLEET` (`/readyz`): there is no fleet to serve.",
    ),
];

const NOT_FOUND: (u16, &str) = (404, "`NOT_FOUND`: no router has this name.");

/// Adds the operators' calls to the description of the API.
pub(in crate::fleet) fn describe(api: &mut Description) {
    for (path, id, summary) in [
        ("/healthz", "healthz", "The server runs"),
        (
            "/readyz",
            "readyz",
            "The server can read the fleet, and there is one",
        ),
    ] {
        let mut call = Endpoint::new(Get, path, id, summary);
        call.open = true;
        let done = api.json::<Alive>(200, "Yes.");
        let errors = api.errors(ANY.into_iter().filter(|(status, _)| *status >= 500));
        api.add(call, [done].into_iter().chain(errors));
    }
    let metrics = text_answer(METRICS, "Metrics as Prometheus text.");
    let call = Endpoint::new(
        Get,
        "/metrics",
        "metrics",
        "When each router was seen, and its sessions",
    );
    add(api, call, metrics, &[]);
    let done = api.json::<Routers>(200, "All routers, by name.");
    let call = Endpoint::new(
        Get,
        "/v1/routers",
        "routers",
        "What every router posted last",
    );
    add(api, call, done, &[]);
    let done = api.json::<RouterView>(200, "The router.");
    let call = Endpoint::new(
        Get,
        "/v1/routers/{router}",
        "router",
        "What a router posted last",
    );
    let call = with_router(api, call);
    add(api, call, done, &[NOT_FOUND]);
    let done = api.json::<RouterHistory>(200, "The lists, the newest last.");
    let path = "/v1/routers/{router}/history";
    let call = Endpoint::new(Get, path, "history", "Which lists a router was served");
    let call = with_router(api, call);
    add(api, call, done, &[NOT_FOUND]);
    describe_change(api);
    describe_git(api);
}

fn describe_git(api: &mut Description) {
    let no_git = (404, "`NOT_FOUND`: the server follows no Git reference.");
    let path = "/v1/git";
    let done = api.json::<GitView>(
        200,
        "The commit that is served, and why a newer one is not.",
    );
    let call = Endpoint::new(Get, path, "git", "The state of the followed Git reference");
    add(api, call, done, &[no_git]);
    let done = api.json::<GitView>(200, "The state after the look.");
    let call = Endpoint::new(
        Post,
        path,
        "lookAtGit",
        "Look for a newer commit now, as a hook of the repository does",
    );
    let read_only = (403, "`READ_ONLY`: the token may only read.");
    add(api, call, done, &[read_only, no_git]);
}

fn describe_change(api: &mut Description) {
    let done = api.json::<Changed>(200, "The change is in the files.");
    let path = "/v1/routers/{router}/sessions";
    let mut call = Endpoint::new(
        Post,
        path,
        "changeSession",
        "Accept, disable or delete a session",
    );
    call.body = api.body::<SessionChange>();
    let call = with_router(api, call);
    let errors = [
        (400, "`BAD_REQUEST`: the body is not what the call accepts."),
        (403, "`READ_ONLY`: the token may only read."),
        (404, "`SESSION_NOT_FOUND`: the router has no such session."),
        (
            409,
            "`NOT_CHANGED`: the session cannot have this status now, or the fleet would be invalid. \
               `READ_ONLY`: this server only reads its fleet, as one that follows a Git repository.",
        ),
        (
            412,
            "`CHANGED_MEANWHILE`: the session is not the one of `tag`.",
        ),
        (
            413,
            "`PAYLOAD_TOO_LARGE`: the body has more than 4096 bytes.",
        ),
    ];
    add(api, call, done, &errors);
}

fn with_router(api: &mut Description, mut call: Endpoint) -> Endpoint {
    call.parameters = vec![api.part::<ObjectName>("router", "The router's name.")];
    call
}

fn add(api: &mut Description, call: Endpoint, done: Answer, errors: &[(u16, &str)]) {
    let errors = api.errors(ANY.into_iter().chain(errors.iter().copied()));
    api.add(call, [done].into_iter().chain(errors));
}
