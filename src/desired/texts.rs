use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Inputs, Maintenance, Object, Objects, RouterDocuments, TextError, router};
use crate::effective::{Router, Session};
use crate::model::{Endpoint, InterfaceName};
use crate::plan::BaseFiles;
use crate::render::{BaseInput, LinkClass, Peerings, Renderer, Shared};
use crate::status::RpkiName;
use crate::util::sorted::Sorted as _;

/// The pieces from which sessions and shared files are rendered.
pub(super) struct Parts<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) documents: &'a RouterDocuments,
    pub(super) maintenance: Maintenance,
    /// The backbone tunnels and the internal neighbours.
    pub(super) backbone: &'a Objects,
    /// Those with a text in the files that all sessions share.
    shared: Shared<'a>,
    /// The interface of the node's own addresses.
    loopback: InterfaceName,
    /// Addresses of the names of RPKI servers.
    rpki: BTreeMap<Endpoint, IpAddr>,
    /// Addresses that no peer may claim.
    pub(super) reach: &'a Arc<super::Reach>,
    /// What sessions have applied.
    pub(super) applied: &'a super::AppliedSpecs<'a>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(
        inputs: &'a Inputs<'a>,
        documents: &'a RouterDocuments,
        maintenance: Maintenance,
        backbone: &'a Objects,
        rpki: &[RpkiName],
        (reach, applied): (&'a Arc<super::Reach>, &'a super::AppliedSpecs<'a>),
    ) -> Self {
        let mut shared = Shared::default();
        for wanted in backbone.values().filter_map(Object::wanted) {
            wanted.share(&mut shared);
        }
        let loopback = router::loopback_interface(inputs);
        let rpki = rpki
            .iter()
            .filter_map(|name| Some((name.endpoint.clone(), name.address?)))
            .sorted_map();
        Self {
            inputs,
            documents,
            maintenance,
            backbone,
            shared,
            loopback,
            rpki,
            reach,
            applied,
        }
    }

    fn input<'s>(&'s self, router: &'s Router) -> Result<(&'s Renderer, BaseInput<'s>), TextError> {
        let material = self.inputs.material;
        let renderer: &Renderer = material.renderer.as_ref().map_err(Clone::clone)?;
        let input = BaseInput {
            router,
            policy: &self.documents.policy.spec,
            has_policy: self.documents.has_policy,
            features: material.features.clone()?,
            drained: self.maintenance.enabled,
            ebgp_disabled: self.maintenance.ebgp_disabled,
            manage_main_config: material.main.is_agents()
                && material.config.bird.manage_main_config,
            provided: material.main.provided(self.loopback.as_str()),
            loopback_interface: self.loopback.as_str(),
            shared: &self.shared,
            rpki: &self.rpki,
            roa: material.roa.as_deref(),
        };
        Ok((renderer, input))
    }

    /// Returns the files that all sessions share.
    pub(super) fn base(&self, router: &Router) -> Result<BaseFiles, TextError> {
        let (renderer, input) = self.input(router)?;
        let files = renderer.base(&input)?.into_iter();
        Ok(files.map(|(path, text)| (path, text.into())).sorted_map())
    }

    /// Prepares the texts of sessions.
    pub(super) fn peerings<'s>(&'s self, router: &'s Router) -> Result<Peerings<'s>, TextError> {
        let (renderer, input) = self.input(router)?;
        Ok(renderer.peerings(&input)?)
    }

    /// Returns the text of a session.
    pub(super) fn fragment(
        &self,
        peerings: &Peerings<'_>,
        session: &Arc<Session>,
    ) -> Result<Arc<str>, TextError> {
        let measured = self.inputs.material.classes.get(&session.name);
        let measured = measured.copied().unwrap_or_default();
        let bandwidth = self.documents.policy.spec.location.bandwidth;
        let class = LinkClass::of(session, measured.latency, measured.loss, bandwidth);
        let texts = self.inputs.sessions;
        let text = texts.text(peerings.fingerprint(), session, class, || {
            peerings.text(session, &class)
        });
        Ok(text?)
    }
}
