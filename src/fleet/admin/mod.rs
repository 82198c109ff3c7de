//! The operators' side of the Control Plane: views of the whole fleet for programs and browsers, and the review of
//! sessions. Each call needs a role.

mod access;
mod metrics;
mod openapi;
mod view;

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::answers::Answers;
use super::audit::Author;
use super::change::{ChangeError, Changes, Must, Wish};
use super::history::RouterHistory;
use super::overview::{self, RouterView};
use super::review;
use super::store::git::Git;
use crate::http::{ApiError, Client, METRICS, page, read_body, token_of};
use crate::intervals::{FLEET_BODY, FLEET_VIEW};
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

pub use access::{Access, AccessError};
pub(super) use access::{Role, Trusted};
pub(crate) use metrics::all as all_metrics;
pub(super) use openapi::describe;

/// Size limit of a body: a login or one change.
const BODY_MAX: usize = 4096;

/// A call of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Health,
    Ready,
    Metrics,
    Routers,
    Router(ObjectName),
    History(ObjectName),
    Change(ObjectName),
    /// The state of the followed Git reference.
    Git,
    /// Looks for a newer commit now.
    GitLook,
    Page,
    RouterPage(ObjectName),
    ChangeForm(ObjectName),
    Login,
    Style,
}

impl Ask {
    /// Returns the method and the call of a path.
    pub(super) fn of(path: &str, method: &str) -> Option<(&'static str, Self)> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let router = |name: &str| name.parse::<ObjectName>().ok();
        Some(match parts[..] {
            ["healthz"] => ("GET", Self::Health),
            ["readyz"] => ("GET", Self::Ready),
            ["metrics"] => ("GET", Self::Metrics),
            ["v1", "git"] if method == "POST" => ("POST", Self::GitLook),
            ["v1", "git"] => ("GET", Self::Git),
            ["v1", "routers"] => ("GET", Self::Routers),
            ["v1", "routers", name] => ("GET", Self::Router(router(name)?)),
            ["v1", "routers", name, "history"] => ("GET", Self::History(router(name)?)),
            ["v1", "routers", name, "sessions"] => ("POST", Self::Change(router(name)?)),
            [""] => ("GET", Self::Page),
            ["routers", name] if method == "POST" => ("POST", Self::ChangeForm(router(name)?)),
            ["routers", name] => ("GET", Self::RouterPage(router(name)?)),
            ["login"] => ("POST", Self::Login),
            ["style.css"] => ("GET", Self::Style),
            _ => return None,
        })
    }

    /// Returns the role that the call needs; `None`: it tells nothing about the fleet.
    fn needs(&self) -> Option<Role> {
        match self {
            Self::Health | Self::Ready | Self::Login | Self::Style => None,
            Self::Change(_) | Self::ChangeForm(_) | Self::GitLook => Some(Role::Write),
            _ => Some(Role::Read),
        }
    }

    /// Returns the router of which the call changes a session.
    fn changes(&self) -> Option<&ObjectName> {
        match self {
            Self::Change(router) | Self::ChangeForm(router) => Some(router),
            _ => None,
        }
    }

    /// Returns whether a browser asks.
    fn is_of_page(&self) -> bool {
        matches!(self, Self::Page | Self::RouterPage(_) | Self::ChangeForm(_))
    }
}

/// A change of a session.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionChange {
    /// The session: its uuid, its link, or the name of its file.
    #[schemars(length(min = 1, max = 255), example = &"wg_4242421080")]
    session: String,
    /// What the session is to become.
    change: Wish,
    /// `review.tag` of the session that was reviewed: 412 if it differs now. Without it, `accept` takes any version.
    tag: Option<String>,
}

/// The answer with all routers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Routers {
    /// All routers, by name.
    routers: Vec<RouterView>,
    /// Why the newest description of the network is not served; `routers` has the last one without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The answer to a change.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Changed {
    /// The changed files; none if the session was as wanted.
    files: Vec<String>,
}

/// The answer of `/healthz` and `/readyz`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Alive {
    /// Always `ok`.
    #[schemars(extend("const" = "ok"))]
    status: &'static str,
}

/// The operators' calls.
pub(super) struct Admin {
    access: access::Checked,
    /// The store, if it follows a Git reference.
    git: Option<Arc<Git>>,
    /// A look at the whole fleet reads the posts of each router, so that many calls share one.
    seen: tokio::sync::Mutex<Option<(Instant, Arc<Routers>)>>,
}

impl Admin {
    pub(super) fn new(access: &Access, has_tls: bool, git: Option<Arc<Git>>) -> Self {
        Self {
            access: access::Checked::new(access, has_tls),
            git,
            seen: tokio::sync::Mutex::default(),
        }
    }

    fn git(&self) -> Result<&Arc<Git>, ApiError> {
        self.git.as_ref().ok_or_else(|| {
            ApiError::not_found("the server follows no Git reference; start it with --git-ref")
        })
    }

    /// Answers a call.
    ///
    /// # Errors
    /// The client lacks the role, or the fleet cannot be read or changed.
    pub(super) async fn answer(
        &self,
        (method, ask): (&'static str, Ask),
        answers: &Answers,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, ApiError> {
        if parts.method.as_str() != method {
            let allowed = match ask {
                Ask::Git | Ask::GitLook => "GET, POST",
                _ => method,
            };
            return Err(ApiError::method_not_allowed(allowed));
        }
        let role = match self.access.check(parts, ask.needs(), ask.is_of_page()) {
            Ok(role) => role,
            Err(refusal) if ask.is_of_page() && refusal.status == StatusCode::UNAUTHORIZED => {
                let form = page::fleet_login(None)?;
                return Ok(private((refusal.status, form).into_response()));
            }
            Err(refusal) if refusal.status == StatusCode::FORBIDDEN => {
                let router = ask.changes();
                let refused = |router| asked(parts, "read-token", router).refused(refusal.clone());
                return Err(router.map_or(refusal.clone(), refused));
            }
            Err(refusal) => return Err(refusal),
        };
        let body = read_body(body, BODY_MAX, FLEET_BODY).await?;
        let answer = self.answer_as(role, ask, answers, parts, &body).await?;
        Ok(private(answer))
    }

    async fn answer_as(
        &self,
        role: Role,
        ask: Ask,
        answers: &Answers,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response, ApiError> {
        match ask {
            Ask::Health => Ok(alive()),
            Ask::Ready => answers.ready().await.map(|()| alive()),
            Ask::Style => Ok(page::style()),
            Ask::Login => self.login(parts, body),
            Ask::Metrics => {
                let git = self.git.as_deref().map(Git::view);
                let Routers { routers, error } = &*self.routers(answers).await;
                let text = metrics::text(routers, error.is_some(), git.as_ref())?;
                Ok(([(CONTENT_TYPE, METRICS)], text).into_response())
            }
            Ask::Routers => {
                let routers = self.routers(answers).await;
                Ok(Json(&*routers).into_response())
            }
            Ask::Router(name) => Ok(Json(self.router(answers, &name).await?).into_response()),
            Ask::History(name) => {
                let RouterView { router, .. } = self.router(answers, &name).await?;
                let served = answers.store.served(&router).await?;
                Ok(Json(RouterHistory { router, served }).into_response())
            }
            Ask::Git => Ok(Json(self.git()?.view()).into_response()),
            Ask::GitLook => Ok(Json(self.git()?.look().await).into_response()),
            Ask::Page => {
                let tunnels = answers.files.tunnels(view::MAP_MAX).await;
                let routers = self.routers(answers).await;
                let Routers { routers, error } = &*routers;
                let error = error.as_deref();
                page::fleet(&view::fleet((routers, error), tunnels.as_deref(), role))
            }
            Ask::RouterPage(name) => {
                let router = self.router(answers, &name).await?;
                page::fleet_router(&view::router(&router, role))
            }
            Ask::Change(router) => {
                let change = read_change(parts, &router, serde_json::from_slice(body))?;
                let files = self.change(answers, parts, router, change).await?;
                Ok(Json(Changed { files }).into_response())
            }
            Ask::ChangeForm(router) => {
                let fields: std::collections::BTreeMap<_, _> =
                    form_urlencoded::parse(body).into_owned().sorted_map();
                let change = serde_json::from_value(serde_json::json!(fields));
                let change = read_change(parts, &router, change)?;
                let shown = format!("/routers/{router}");
                self.change(answers, parts, router, change).await?;
                Ok(Redirect::to(&shown).into_response())
            }
        }
    }

    fn login(&self, parts: &Parts, body: &Bytes) -> Result<Response, ApiError> {
        match self.access.login(parts, token_of(body).as_deref())? {
            Some(cookie) => Ok(([(SET_COOKIE, cookie)], Redirect::to("/")).into_response()),
            None => {
                let form = page::fleet_login(Some("This token has no role in this fleet."))?;
                Ok((StatusCode::UNAUTHORIZED, form).into_response())
            }
        }
    }

    async fn routers(&self, answers: &Answers) -> Arc<Routers> {
        let mut seen = self.seen.lock().await;
        if let Some((at, routers)) = &*seen
            && at.elapsed() < FLEET_VIEW
        {
            return Arc::clone(routers);
        }
        let routers = overview::all(&*answers.store, &answers.files).await;
        let refused = self
            .git
            .as_ref()
            .and_then(|git| git.view().errors.into_iter().next());
        let error = refused.or(answers.files.error().await);
        let routers = Arc::new(Routers { routers, error });
        *seen = Some((Instant::now(), Arc::clone(&routers)));
        routers
    }

    async fn router(&self, answers: &Answers, name: &ObjectName) -> Result<RouterView, ApiError> {
        let Routers { routers, error } = &*self.routers(answers).await;
        match (routers.iter().find(|it| it.router == *name), error) {
            (Some(found), _) => Ok(found.clone()),
            // The description that is not served may have it.
            (None, Some(error)) => Err(ApiError::internal(format!(
                "description of the network: {error}"
            ))),
            (None, None) => Err(ApiError::not_found("the fleet has no router of this name")),
        }
    }

    /// Changes a session in the files, and logs who did.
    async fn change(
        &self,
        answers: &Answers,
        parts: &Parts,
        router: ObjectName,
        change: SessionChange,
    ) -> Result<Vec<String>, ApiError> {
        let SessionChange {
            session,
            change,
            tag,
        } = change;
        let name = format!("{router}/{session}");
        let who = access::who(parts);
        let by = Author::new(who, Client::of(parts), change.word(), name.clone());
        let make = Box::new(move |changes: &mut Changes| {
            let place = changes.session(&name)?;
            let tag = tag.as_ref().filter(|_| change == Wish::Accept);
            if tag.is_some_and(|tag| *tag != review::tag(&place.item)) {
                return Err(changed_meanwhile().into());
            }
            changes.wish(&place, change)?;
            Ok(Must::NotGetWorse)
        });
        let changed = answers.change_files(&by, make).await;
        *self.seen.lock().await = None;
        changed.map_err(refused)
    }
}

/// Returns who asks for a change of a router's sessions that is not known more exactly.
fn asked(parts: &Parts, who: &'static str, router: &ObjectName) -> Author {
    Author::new(who, Client::of(parts), "change", router.to_string())
}

fn read_change(
    parts: &Parts,
    router: &ObjectName,
    read: Result<SessionChange, serde_json::Error>,
) -> Result<SessionChange, ApiError> {
    read.map_err(|error| {
        let error = ApiError::bad_request(format!("the body: {error}"));
        asked(parts, access::who(parts), router).refused(error)
    })
}

fn alive() -> Response {
    Json(Alive { status: "ok" }).into_response()
}

fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn changed_meanwhile() -> ApiError {
    let message = "the session was changed after the review; reload the page and review it again";
    let status = StatusCode::PRECONDITION_FAILED;
    ApiError::new(status, "CHANGED_MEANWHILE", message)
}

fn refused(error: ChangeError) -> ApiError {
    let message = error.to_string();
    match error {
        ChangeError::NoSession(_) | ChangeError::NoRouter { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", message)
        }
        ChangeError::Fleet(_) | ChangeError::Io { .. } => ApiError::internal(message),
        ChangeError::Refused(error) => error,
        _ => ApiError::new(StatusCode::CONFLICT, "NOT_CHANGED", message),
    }
}
