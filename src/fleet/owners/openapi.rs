//! The description of the owners' calls.

use utoipa::openapi::HttpMethod::{self, Delete, Get, Patch, Post};

use super::SESSIONS;
use super::bodies::{NewSession, OwnedSession, OwnedSessions, SessionPatch};
use crate::http::{Answer, Description, Endpoint};
use crate::model::ObjectName;

/// Errors of every call of an owner.
const ANY: [(u16, &str); 5] = [
    (
        401,
        "`INVALID_TOKEN`: no owner of an AS number has this token.",
    ),
    (
        404,
        "`NOT_FOUND`: the fleet has no network.yaml. `SESSION_NOT_FOUND`: the owner has no such session.",
    ),
    (429, "`RATE_LIMITED`: too many calls, or wrong tokens."),
    (
        500,
        "`INTERNAL`: the files of the fleet cannot be read or written.",
    ),
    (
        503,
        "`STORE_UNAVAILABLE`: the database cannot be used now. `FLEET_INVALID`: an operator has to repair the description.",
    ),
];

/// Errors of every change.
const CHANGE: [(u16, &str); 2] = [
    (
        409,
        "`NOT_CHANGED`: the session cannot be changed now, or not by its owner. `READ_ONLY`: this server only reads its fleet, \
         as one that follows a Git repository.",
    ),
    (413, "`PAYLOAD_TOO_LARGE`: the body has more than 16 KiB."),
];

const BAD_BODY: [(u16, &str); 2] = [
    (400, "`BAD_REQUEST`: the body is not what the call accepts."),
    (
        422,
        "`INVALID_SESSION`: a router would refuse the session; the text names the fields.",
    ),
];

const CHANGED_MEANWHILE: (u16, &str) = (
    412,
    "`CHANGED_MEANWHILE`: the session is not the one of `If-Match`.",
);

/// Adds the owners' calls to the description of the API.
pub(in crate::fleet) fn describe(api: &mut Description) {
    let done = api.accepted::<OwnedSessions>(200, "The sessions. A change may be missing for 2 s.");
    let call = Endpoint::new(Get, SESSIONS, "ownedSessions", "The sessions of an owner");
    add(api, call, [done], &[]);
    let done = api.accepted::<OwnedSession>(201, "The session waits for review.");
    let mut call = Endpoint::new(Post, SESSIONS, "askForSession", "Ask for a session");
    call.body = api.body::<NewSession>();
    let own = [
        (
            403,
            "`LIMIT_REACHED`: the owner has as many sessions as it may have.",
        ),
        (409, "`EXISTS`: the router has a session of this name."),
    ];
    let errors = [&CHANGE[..], &BAD_BODY, &own].concat();
    add(api, call, [done], &errors);
    let done = api.accepted::<OwnedSession>(200, "The session, with an `ETag`.");
    let call = one(api, Get, "ownedSession", "One session of an owner");
    add(api, call, [done], &[]);
    let about = "The session. It waits for review, unless only its description changed.";
    let done = api.accepted::<OwnedSession>(200, about);
    let mut call = one(
        api,
        Patch,
        "changeOwnedSession",
        "Change fields of a session",
    );
    call.body = api.body::<SessionPatch>();
    call.parameters.push(if_match());
    let errors = [&CHANGE[..], &BAD_BODY, &[CHANGED_MEANWHILE]].concat();
    add(api, call, [done], &errors);
    let about = "The router removes the session. Call again once `status` has no `status`.";
    let marked = api.accepted::<OwnedSession>(202, about);
    let gone = Description::empty(
        204,
        "The session is gone: its router had confirmed the removal.",
    );
    let mut call = one(api, Delete, "deleteOwnedSession", "Delete a session");
    call.parameters.push(if_match());
    let errors = [&CHANGE[..], &[CHANGED_MEANWHILE]].concat();
    add(api, call, [marked, gone], &errors);
}

fn one(api: &mut Description, method: HttpMethod, id: &str, summary: &'static str) -> Endpoint {
    let path = format!("{SESSIONS}/{{router}}/{{session}}");
    let mut call = Endpoint::new(method, path, id, summary);
    call.parameters = vec![
        api.part::<ObjectName>("router", "The router's name."),
        api.part::<ObjectName>("session", "The session's name on this router."),
    ];
    call
}

fn if_match() -> utoipa::openapi::path::Parameter {
    let about = "The `ETag` of the session that the client knows; another one is not changed.";
    Description::header("If-Match", about)
}

fn add<const N: usize>(
    api: &mut Description,
    call: Endpoint,
    done: [Answer; N],
    errors: &[(u16, &str)],
) {
    let errors = api.errors(ANY.into_iter().chain(errors.iter().copied()));
    api.add(call, done.into_iter().chain(errors));
}
