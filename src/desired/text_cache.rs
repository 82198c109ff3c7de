use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::effective::Session;
use crate::model::ObjectName;
use crate::render::{Fingerprint, LinkClass, RenderError};
use crate::util::shared::shared;

/// The last text of each session, with everything it was rendered from: only a session that differs is rendered again.
#[derive(Default)]
pub struct TextCache(Mutex<BTreeMap<ObjectName, Rendered>>);

struct Rendered {
    of: Fingerprint,
    /// That of the last desired state.
    session: Arc<Session>,
    class: LinkClass,
    text: Arc<str>,
}

impl TextCache {
    /// Returns the text of a session, rendered only if anything differs since the last time.
    pub(super) fn text(
        &self,
        of: Fingerprint,
        session: &Arc<Session>,
        class: LinkClass,
        render: impl FnOnce() -> Result<String, RenderError>,
    ) -> Result<Arc<str>, RenderError> {
        if let Some(last) = self.0.lock().get_mut(&session.name)
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
        self.0.lock().insert(session.name.clone(), rendered);
        Ok(text)
    }

    /// Forgets the texts of all other sessions.
    pub(super) fn keep(&self, is_wanted: impl Fn(&ObjectName) -> bool) {
        self.0.lock().retain(|name, _| is_wanted(name));
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
        let (cache, renders) = (TextCache::default(), std::cell::Cell::new(0));
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
