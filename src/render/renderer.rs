use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::context::{Base, Peering};
use super::{BaseInput, LinkClass, RenderError, check_policy, quote};
use crate::effective::Session;

/// The template of a session's file.
const SESSION: &str = "session.conf";

/// The template of the file that exists only where `bird.conf` is ours.
const MAIN: &str = "bird.conf";

/// The built-in templates. All but a session's are named as the file that they become.
const BUILT_IN: [(&str, &str); 10] = [
    (MAIN, include_str!("../../templates/bird.conf")),
    (
        "moenet/main.conf",
        include_str!("../../templates/moenet/main.conf"),
    ),
    (
        "moenet/defines.conf",
        include_str!("../../templates/moenet/defines.conf"),
    ),
    (
        "moenet/roa.conf",
        include_str!("../../templates/moenet/roa.conf"),
    ),
    (
        "moenet/filters.conf",
        include_str!("../../templates/moenet/filters.conf"),
    ),
    (
        "moenet/system.conf",
        include_str!("../../templates/moenet/system.conf"),
    ),
    (
        "moenet/babel.conf",
        include_str!("../../templates/moenet/babel.conf"),
    ),
    (
        "moenet/bgp.conf",
        include_str!("../../templates/moenet/bgp.conf"),
    ),
    (
        "moenet/ibgp.conf",
        include_str!("../../templates/moenet/ibgp.conf"),
    ),
    (SESSION, include_str!("../../templates/session.conf")),
];

/// Turns what is wanted into BIRD's configuration.
#[derive(Debug)]
pub struct Renderer {
    environment: Environment<'static>,
}

impl Renderer {
    /// Built-in templates, overlaid by an operator's: name (a path below the folder of templates, as
    /// `moenet/filters.conf`) and text. A name that starts with `_` is a part for `include`.
    ///
    /// # Errors
    /// A template that does not parse, with name and line; or one that overrides nothing.
    pub fn new(overrides: &BTreeMap<String, String>) -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(whole_lines()?);
        quote::guard(&mut environment);
        for (name, text) in BUILT_IN {
            environment.add_template(name, text)?;
        }
        for (name, text) in overrides {
            known(name)?;
            environment.add_template_owned(name.clone(), text.clone())?;
        }
        Ok(Self { environment })
    }

    /// The names of the built-in templates, each of which can be overridden.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of a built-in template, for an operator to start from.
    pub fn built_in(name: &str) -> Option<&'static str> {
        BUILT_IN
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, text)| *text)
    }

    /// Every file but the sessions', by path below BIRD's directory. `moenet/generation.conf` and the
    /// folder `moenet/sessions`, which these include, are the committer's.
    ///
    /// # Errors
    /// A template that does not render, or a value that no configuration can be made from.
    pub fn base(&self, input: &BaseInput<'_>) -> Result<BTreeMap<String, String>, RenderError> {
        check_policy(input.policy)?;
        let context = Base::new(input);
        let mut files = BTreeMap::new();
        for name in Self::names().filter(|name| *name != SESSION) {
            if name != MAIN || input.manage_main_config {
                files.insert(name.to_owned(), self.text(name, &context)?);
            }
        }
        for (name, ipv6) in [("moenet/roa4.conf", false), ("moenet/roa6.conf", true)] {
            let routes = input
                .roa
                .map(|table| table.routes(ipv6))
                .unwrap_or_default();
            files.insert(name.to_owned(), routes);
        }
        Ok(files)
    }

    /// The file of one session.
    ///
    /// # Errors
    /// As [`Renderer::base`].
    pub fn session(
        &self,
        session: &Session,
        input: &BaseInput<'_>,
        link: &LinkClass,
    ) -> Result<String, RenderError> {
        self.text(SESSION, &Peering::new(session, input, link)?)
    }

    fn text(&self, name: &str, context: &impl Serialize) -> Result<String, RenderError> {
        Ok(self
            .environment
            .get_template(name)?
            .render(Serde(context))?)
    }
}

/// A line that holds only a block tag leaves nothing behind.
fn whole_lines() -> Result<SyntaxConfig, RenderError> {
    let mut syntax = SyntaxConfig::builder();
    Ok(syntax
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?)
}

/// A name that overrides nothing is a typing error, and would be ignored for ever in silence.
fn known(name: &str) -> Result<(), RenderError> {
    if name.starts_with('_') || Renderer::names().any(|known| known == name) {
        return Ok(());
    }
    let near = |known: &&str| strsim::jaro_winkler(known, name);
    let best = Renderer::names().max_by(|a, b| near(a).total_cmp(&near(b)));
    let hint = match best.filter(|best| near(best) > 0.8) {
        Some(best) => format!("; did you mean `{best}`?"),
        None => "; a part that others include has a name that starts with `_`".to_owned(),
    };
    Err(RenderError::UnknownTemplate {
        template: name.to_owned(),
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{NodeSpec, RoutingPolicySpec};
    use crate::effective::Router;
    use crate::render::Features;
    use serde_json::json;

    /// Renders the base of a router with one template overridden.
    fn with(
        name: &str,
        text: &str,
        policy: serde_json::Value,
    ) -> Result<BTreeMap<String, String>, String> {
        let node: NodeSpec =
            serde_json::from_value(json!({"id": 1, "asn": 4242420998u32})).unwrap();
        let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
            .parse::<crate::model::PublicKey>()
            .unwrap();
        let policy: RoutingPolicySpec = serde_json::from_value(policy).unwrap();
        let input = BaseInput {
            router: &Router::new("jp1", &node, key),
            policy: &policy,
            has_policy: true,
            features: Features::of(2, 17),
            drained: false,
            ebgp_disabled: false,
            manage_main_config: true,
            provided: Default::default(),
            loopback_interface: "dummy0",
            mesh_interfaces: &[],
            ibgp: &[],
            rpki: &BTreeMap::new(),
            roa: None,
        };
        let overrides = BTreeMap::from([(name.to_owned(), text.to_owned())]);
        let renderer = Renderer::new(&overrides).map_err(|error| error.to_string())?;
        renderer.base(&input).map_err(|error| error.to_string())
    }

    fn refusal(name: &str, text: &str) -> String {
        with(name, text, json!({})).unwrap_err()
    }

    #[test]
    fn a_template_that_does_not_parse_is_named_with_its_line() {
        let error = refusal("moenet/babel.conf", "# fine\n{% if %}\n");
        assert!(
            error.starts_with("template moenet/babel.conf, line 2: syntax error"),
            "{error}"
        );
    }

    #[test]
    fn a_value_that_does_not_exist_is_named_with_its_line() {
        let error = refusal("moenet/babel.conf", "a\nb\n{{ router.asnn }}");
        assert!(
            error.starts_with("template moenet/babel.conf, line 3: undefined value"),
            "{error}"
        );
        let error = refusal("moenet/babel.conf", "{% if nonsense %}{% endif %}");
        assert!(
            error.starts_with("template moenet/babel.conf, line 1: undefined value"),
            "{error}"
        );
    }

    #[test]
    fn a_value_that_is_none_is_no_text() {
        let error = refusal("moenet/babel.conf", "\n{{ router.loopback_ipv4 }}");
        assert!(
            error.contains("line 2") && error.contains("ask for it with `if`"),
            "{error}"
        );
    }

    #[test]
    fn an_override_of_nothing_is_a_typing_error() {
        let error = refusal("moenet/filter.conf", "");
        let hint = "there is no such template to override; did you mean `moenet/filters.conf`?";
        assert_eq!(error, format!("template moenet/filter.conf: {hint}"));
    }

    #[test]
    fn an_override_stands_in_for_the_built_in_template() {
        let files = with("moenet/babel.conf", "# AS{{ router.asn }}\n", json!({})).unwrap();
        assert_eq!(files["moenet/babel.conf"], "# AS4242420998\n");
        assert!(with("_part.conf", "define MOE_X = 1;", json!({})).is_ok());
    }

    #[test]
    fn an_own_prefix_that_swallows_the_world_is_an_error_of_the_policy() {
        for (family, net) in [("ipv4", "0.0.0.0/0"), ("ipv6", "::/0")] {
            let error = with("_x", "", json!({"prefixes": {family: net}})).unwrap_err();
            assert!(
                error.starts_with(&format!("spec.prefixes.{family}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_hostile_cache_is_an_error_of_the_policy() {
        for host in ["a\"; x", "a b", &"a".repeat(300), "-a", "::1%eth0"] {
            let servers = json!([{"host": "ok.dn42", "port": 1}, {"host": host, "port": 8282}]);
            let error = with("_x", "", json!({"rpki": {"servers": servers}})).unwrap_err();
            assert!(error.starts_with("spec.rpki.servers[1].host: "), "{error}");
        }
    }

    #[test]
    fn every_built_in_template_can_be_read() {
        assert!(
            Renderer::names()
                .all(|name| Renderer::built_in(name).is_some_and(|text| !text.is_empty()))
        );
    }
}
