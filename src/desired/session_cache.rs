//! The sessions of the last desired state, with everything they were made of: only one that differs is made again, or
//! rendered again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Object;
use super::applied_specs::ParsedRecords;
use crate::document::{BgpSessionSpec, Document};
use crate::effective::{Claimant, Defaults, Router, Secrets, Session};
use crate::model::{AddressRange, Bandwidth, ObjectName};
use crate::render::{Fingerprint, LinkClass, Measured, RenderError};
use crate::store::{AppliedDocument, Stored};
use crate::util::shared::shared;

/// The sessions of the last desired state.
#[derive(Default)]
pub struct SessionCache {
    texts: Mutex<BTreeMap<ObjectName, Rendered>>,
    last: Mutex<Option<(Ground, Kept)>>,
    /// The specifications that they have applied.
    pub(super) parsed: Mutex<ParsedRecords>,
}

/// What all sessions are made of.
#[derive(PartialEq)]
pub(super) struct Ground {
    pub(super) router: Router,
    pub(super) defaults: Defaults,
    pub(super) secrets: Secrets,
    pub(super) reach: Arc<super::Reach>,
    pub(super) extra_ranges: Vec<AddressRange>,
    pub(super) bandwidth: Option<Bandwidth>,
    pub(super) overrides_complete: bool,
    pub(super) texts: Fingerprint,
}

/// What one session is made of besides.
pub(super) struct Own {
    pub(super) document: Arc<Stored<Document<BgpSessionSpec>>>,
    pub(super) applied: Option<Arc<Stored<AppliedDocument>>>,
    pub(super) class: Measured,
    pub(super) in_bird: bool,
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        let is_same_record = match (&self.applied, &other.applied) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        is_same_record
            && Arc::ptr_eq(&self.document, &other.document)
            && (self.class, self.in_bird) == (other.class, other.in_bird)
    }
}

/// A session that was made.
pub(super) struct Made {
    pub(super) own: Own,
    pub(super) object: Object,
    pub(super) claimant: Option<Claimant>,
}

/// The sessions that were made without a problem.
pub(super) type Kept = BTreeMap<ObjectName, Made>;

struct Rendered {
    of: Fingerprint,
    /// That of the last desired state.
    session: Arc<Session>,
    class: LinkClass,
    text: Arc<str>,
}

impl SessionCache {
    /// Takes the sessions that were made on this ground.
    pub(super) fn take(&self, ground: Option<&Ground>) -> Kept {
        let last = self.last.lock().take();
        let last = last.filter(|(last, _)| Some(last) == ground);
        last.map(|(_, kept)| kept).unwrap_or_default()
    }

    /// Keeps the sessions that were made on this ground, for the next desired state.
    pub(super) fn put(&self, ground: Option<Ground>, kept: Kept) {
        *self.last.lock() = ground.map(|ground| (ground, kept));
    }

    /// Returns the text of a session, rendered only if anything differs since the last time.
    pub(super) fn text(
        &self,
        of: Fingerprint,
        session: &Arc<Session>,
        class: LinkClass,
        render: impl FnOnce() -> Result<String, RenderError>,
    ) -> Result<Arc<str>, RenderError> {
        if let Some(last) = self.texts.lock().get_mut(&session.name)
            && (last.of, last.class) == (of, class)
            && last.session == *session
        {
            last.session = Arc::clone(session);
            return Ok(Arc::clone(&last.text));
        }
        let text = shared(&render()?);
        let rendered = Rendered {
            of,
            session: Arc::clone(session),
            class,
            text: Arc::clone(&text),
        };
        self.texts.lock().insert(session.name.clone(), rendered);
        Ok(text)
    }

    /// Forgets the texts of all other sessions.
    pub(super) fn keep(&self, is_wanted: impl Fn(&ObjectName) -> bool) {
        self.texts.lock().retain(|name, _| is_wanted(name));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::document::{BgpSessionSpec, NodeSpec, RoutingPolicySpec};
    use crate::effective::{Defaults, Router};
    use crate::render::{BaseInput, Features, Renderer, Shared};

    fn session(mtu: u32) -> Session {
        let spec = serde_json::json!({
            "asn": 4_242_421_080_u32, "address": {"peerLinkLocal": "fe80::1"},
            "tunnel": {"publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "mtu": mtu}
        });
        let spec: BgpSessionSpec = serde_json::from_value(spec).unwrap();
        let filled = spec.filled(&router(), &Defaults::default());
        let (name, uid) = ("a".parse().unwrap(), "a".parse().unwrap());
        Session::resolve(&name, &uid, &filled, &router(), &BTreeMap::new()).unwrap()
    }

    fn router() -> Router {
        let node =
            serde_json::json!({"id": 1, "asn": 4_242_420_998_u32, "loopbackIpv6": "fd00::1"});
        let node: NodeSpec = serde_json::from_value(node).unwrap();
        Router::new("jp1", &node, None)
    }

    /// Returns the digest of everything else, for a drained router or another one.
    fn fingerprint(drained: bool) -> Fingerprint {
        let input = BaseInput {
            router: &router(),
            policy: &RoutingPolicySpec::default(),
            has_policy: true,
            features: Features::of(2, 17),
            drained,
            ebgp_disabled: false,
            manage_main_config: false,
            provided: Default::default(),
            loopback_interface: "lo",
            shared: &Shared::default(),
            rpki: &BTreeMap::new(),
            roa: None,
        };
        let renderer = Renderer::new(&BTreeMap::new()).unwrap();
        renderer.peerings(&input).unwrap().fingerprint()
    }

    #[test]
    fn only_what_differs_is_rendered_again() {
        let (cache, renders) = (SessionCache::default(), std::cell::Cell::new(0));
        let text = |of, session: &Arc<Session>| {
            let class = LinkClass::of(session, None, None, None);
            let render = || {
                renders.set(renders.get() + 1);
                Ok("text".to_owned())
            };
            cache.text(of, session, class, render).unwrap()
        };
        let (one, other) = (Arc::new(session(1420)), Arc::new(session(1380)));
        text(fingerprint(false), &one);
        text(fingerprint(false), &one);
        assert_eq!(renders.get(), 1);
        text(fingerprint(false), &other);
        text(fingerprint(true), &other);
        assert_eq!(renders.get(), 3, "another session, and a drained router");
        cache.keep(|_| false);
        text(fingerprint(true), &other);
        assert_eq!(renders.get(), 4);
    }
}
