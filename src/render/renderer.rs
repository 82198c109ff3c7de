use std::collections::{BTreeMap, BTreeSet};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, merge_maps};
use minijinja::{Environment, UndefinedBehavior, Value};
use sha2::{Digest, Sha256};

use super::context::{Base, Bounds, Peering};
use super::{BaseInput, LinkClass, RenderError, check_policy, quote};
use crate::effective::Session;
use crate::observed::bird::outline::{Outline, protocols_in};
use crate::util::sorted::Sorted as _;

/// The template of a session's file.
const SESSION: &str = "session.conf";

/// The template of the file that exists only if the agent writes `bird.conf`.
const MAIN: &str = "bird.conf";

/// The built-in templates. All except the session's have the name of their output file.
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

/// Cost limit of one rendering, in instructions of minijinja and in 64 bytes of data. The built-in templates take
/// about 400 for a session, and about 50 for an internal neighbour.
const SESSION_FUEL: u64 = 100_000;
const BASE_FUEL: u64 = 2_000_000;

/// Size limit of a rendered file in bytes: a session of the built-in template has about 3000.
const SESSION_BYTES: usize = 64 * 1024;
const BASE_BYTES: usize = 4 * 1024 * 1024;

/// Renders the desired state into BIRD's configuration.
#[derive(Debug)]
pub struct Renderer {
    sessions: Environment<'static>,
    base: Environment<'static>,
    /// The built-in templates alone, if an operator overrides some: overrides must define the same protocols.
    measure: Option<Environment<'static>>,
    /// The operator's templates.
    overrides: BTreeMap<String, String>,
}

/// Everything that the texts of all sessions of a router have in common, prepared once for all of them.
pub struct Peerings<'a> {
    renderer: &'a Renderer,
    ebgp_disabled: bool,
    limits: Bounds,
    base: Value,
    fingerprint: Fingerprint,
}

/// A digest of everything that the text of a session depends on besides the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Renderer {
    /// Loads the built-in templates, overlaid by an operator's: name (a path below the folder of templates, as
    /// `moenet/filters.conf`) and text. A name that starts with `_` is a part for `include`.
    ///
    /// # Errors
    /// A template that does not parse, with name and line; or one that overrides nothing.
    pub fn new(overrides: &BTreeMap<String, String>) -> Result<Self, RenderError> {
        overrides.keys().try_for_each(|name| known(name))?;
        let measure = (!overrides.is_empty())
            .then(|| environment(&BTreeMap::new(), BASE_FUEL))
            .transpose()?;
        Ok(Self {
            sessions: environment(overrides, SESSION_FUEL)?,
            base: environment(overrides, BASE_FUEL)?,
            measure,
            overrides: overrides.clone(),
        })
    }

    /// Returns the names of the built-in templates, each of which can be overridden.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Renders every file except the sessions', by path below BIRD's directory. The committer owns
    /// `moenet/generation.conf` and the folder `moenet/sessions`, which these include.
    ///
    /// # Errors
    /// A template that does not render, or a value that cannot be rendered into a configuration.
    pub fn base(&self, input: &BaseInput<'_>) -> Result<BTreeMap<String, String>, RenderError> {
        check_policy(input.policy)?;
        let context = Value::from(Serde(&Base::new(input)));
        let names = || Self::names().filter(|name| *name != SESSION);
        let names = || names().filter(|name| *name != MAIN || input.manage_main_config);
        let all = |environment| -> Result<BTreeMap<String, String>, RenderError> {
            names()
                .map(|name| {
                    Ok((
                        name.to_owned(),
                        text(environment, name, context.clone(), BASE_BYTES)?,
                    ))
                })
                .collect()
        };
        let mut files = all(&self.base)?;
        if let Some(measure) = &self.measure {
            complete(&all(measure)?, &files)?;
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

    /// Prepares the texts of sessions.
    ///
    /// # Errors
    /// A value that cannot be a template's variable.
    pub fn peerings<'a>(&'a self, input: &BaseInput<'a>) -> Result<Peerings<'a>, RenderError> {
        let base = Base::new(input);
        let facts = serde_json::to_vec(&(&base, input.ebgp_disabled, &self.overrides));
        let facts = facts.map_err(|error| RenderError::input(SESSION, error.to_string()))?;
        Ok(Peerings {
            renderer: self,
            ebgp_disabled: input.ebgp_disabled,
            limits: base.limits,
            base: Serde(&base).into(),
            fingerprint: Fingerprint(Sha256::digest(&facts).into()),
        })
    }
}

impl Peerings<'_> {
    /// Returns the digest of everything that a session's text depends on besides the session and the classes of its
    /// link.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Renders the file of one session.
    ///
    /// # Errors
    /// As [`Renderer::base`].
    pub fn text(&self, session: &Session, link: &LinkClass) -> Result<String, RenderError> {
        let peering = Peering::new(session, self.ebgp_disabled, self.limits, link)?;
        let own = Value::from(Serde(&peering));
        let context = merge_maps([own, self.base.clone()]);
        let text = text(&self.renderer.sessions, SESSION, context, SESSION_BYTES)?;
        if self.renderer.measure.is_some() {
            let there = protocols_in(&text);
            let mut wanted = session
                .neighbours
                .iter()
                .map(|neighbour| &neighbour.protocol);
            if let Some(missing) = wanted.find(|protocol| !there.contains(protocol)) {
                return Err(incomplete(SESSION, format!("protocol {missing}")));
            }
        }
        Ok(text)
    }
}

/// Returns the built-in templates, overlaid by an operator's.
fn environment(
    overrides: &BTreeMap<String, String>,
    fuel: u64,
) -> Result<Environment<'static>, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(whole_lines()?);
    environment.set_fuel(Some(fuel));
    quote::guard(&mut environment);
    for (name, text) in BUILT_IN {
        environment.add_template(name, text)?;
    }
    for (name, text) in overrides {
        environment.add_template_owned(name.clone(), text.clone())?;
    }
    Ok(environment)
}

fn text(
    environment: &Environment<'_>,
    name: &str,
    context: Value,
    limit: usize,
) -> Result<String, RenderError> {
    let mut capped = Capped {
        bytes: Vec::new(),
        limit,
        is_full: false,
    };
    let template = environment.get_template(name)?;
    let rendered = template.render_captured_to(context, &mut capped).map(drop);
    if capped.is_full {
        return Err(RenderError::TooLarge {
            template: name.to_owned(),
            limit,
        });
    }
    rendered?;
    String::from_utf8(capped.bytes)
        .map_err(|_| RenderError::input(name, "the template does not render to UTF-8"))
}

/// A buffer with a limit; a write past it fails, so that the rendering stops there.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl std::io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.is_full |= self.bytes.len() + bytes.len() > self.limit;
        if self.is_full {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Protocol types whose names other parts use: conditions, reports and the cache of ROAs.
const NAMED: [&str; 2] = ["bgp", "rpki"];

/// Rejects files that do not define the same as the built-in ones: each protocol type, and each session and
/// RPKI server by name. An operator may rename and move the rest.
fn complete(
    built_in: &BTreeMap<String, String>,
    files: &BTreeMap<String, String>,
) -> Result<(), RenderError> {
    let there: BTreeSet<_> = files.values().flat_map(|text| defined(text)).sorted_set();
    for (template, text) in built_in {
        if let Some((class, name)) = defined(text).into_iter().find(|one| !there.contains(one)) {
            let missing = match name {
                Some(name) => format!("protocol {name}"),
                None => format!("a `protocol {class}`"),
            };
            return Err(incomplete(template, missing));
        }
    }
    Ok(())
}

/// Returns the protocols of a text: their types, with the name if it is used elsewhere.
fn defined(text: &str) -> BTreeSet<(&str, Option<&str>)> {
    let blocks = Outline::of(text).blocks.into_iter();
    blocks
        .filter(|block| !block.is_template)
        .map(|block| {
            (
                block.class,
                block.name.filter(|_| NAMED.contains(&block.class)),
            )
        })
        .sorted_set()
}

fn incomplete(template: &str, missing: String) -> RenderError {
    RenderError::Incomplete {
        template: template.to_owned(),
        missing,
    }
}

/// Removes lines that hold only a block tag.
fn whole_lines() -> Result<SyntaxConfig, RenderError> {
    let mut syntax = SyntaxConfig::builder();
    Ok(syntax
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?)
}

/// Validates the name of an override. A name that overrides nothing is a typing error, and would otherwise be ignored
/// silently.
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
    use crate::render::{Features, Shared};
    use serde_json::json;

    /// Renders the base of a router with one template overridden.
    fn with(
        name: &str,
        text: &str,
        policy: serde_json::Value,
    ) -> Result<BTreeMap<String, String>, RenderError> {
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
            shared: &Shared::default(),
            rpki: &BTreeMap::new(),
            roa: None,
        };
        let overrides = BTreeMap::from([(name.to_owned(), text.to_owned())]);
        Renderer::new(&overrides)?.base(&input)
    }

    fn refusal(name: &str, text: &str) -> String {
        with(name, text, json!({})).unwrap_err().to_string()
    }

    #[test]
    fn template_syntax_error_names_template_and_line() {
        let error = refusal("moenet/babel.conf", "# fine\n{% if %}\n");
        assert!(
            error.starts_with("template moenet/babel.conf, line 2: syntax error"),
            "{error}"
        );
    }

    #[test]
    fn missing_template_value_names_its_line() {
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
            error.contains("line 2") && error.contains("test for it with `if`"),
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
    fn template_that_defines_less_than_the_built_in_is_refused() {
        for (name, text, missing) in [
            ("moenet/system.conf", "", "protocol device"),
            (
                "moenet/system.conf",
                "# protocol device {}",
                "protocol device",
            ),
            (
                "moenet/system.conf",
                "protocol device { }",
                "protocol kernel",
            ),
        ] {
            let error = refusal(name, text);
            assert!(
                error.contains(name) && error.contains(missing),
                "{text}: {error}"
            );
        }
        let renamed = "protocol device x { } protocol kernel y { ipv4; }";
        assert!(with("moenet/system.conf", renamed, json!({})).is_ok());
    }

    #[test]
    fn rendering_ends_within_its_bounds() {
        let endless = "{% for a in range(10000) %}{% for b in range(10000) %}x{{ b }}\n{% endfor %}{% endfor %}";
        for text in [
            endless,
            "{% set x = \"x\" * 1000000000 %}",
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        ] {
            let error = refusal("moenet/babel.conf", text);
            assert!(error.contains("endless loop"), "{text}: {error}");
        }
    }

    #[test]
    fn own_default_prefix_is_an_error_of_the_policy() {
        for (family, net) in [("ipv4", "0.0.0.0/0"), ("ipv6", "::/0")] {
            let error = with("_x", "", json!({"prefixes": {family: net}}));
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("spec.prefixes.{family}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_hostile_rpki_host_is_an_error_of_the_policy() {
        for host in ["a\"; x", "a b", &"a".repeat(300), "-a", "::1%eth0"] {
            let servers = json!([{"host": "ok.dn42", "port": 1}, {"host": host, "port": 8282}]);
            let policy = json!({"rpki": {"servers": servers}});
            let error = serde_json::from_value::<RoutingPolicySpec>(policy).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("must be a name or an address"), "{text}");
        }
    }

    #[test]
    fn every_built_in_template_can_be_read() {
        assert!(BUILT_IN.iter().all(|(_, text)| !text.is_empty()));
    }
}
