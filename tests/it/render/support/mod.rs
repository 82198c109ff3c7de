//! What the tests of rendering share: the cases below `tests/golden/render`, and the BIRDs.
pub(crate) mod lab;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moenet_agent::document::{BgpSessionSpec, IbgpPeerSpec, NodeSpec, RoutingPolicySpec};
use moenet_agent::effective::{Defaults, InternalNeighbour, Router, Session};
use moenet_agent::model::{Endpoint, InterfaceName, PublicKey, RoaTable, Secret};
use moenet_agent::render::{BaseInput, Features, LinkClass, Renderer, Shared};

/// The versions that the templates are for: the folder's name, and the first two numbers.
pub(crate) const BIRDS: [(&str, u32, u32); 5] = [
    ("2.0.12", 2, 0),
    ("2.17", 2, 17),
    ("2.20", 2, 20),
    ("3.1", 3, 1),
    ("3.4", 3, 4),
];

/// `input.yaml` of a case.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(rename = "about")]
    _about: String,
    #[serde(default = "golden_version")]
    pub(crate) bird: (u32, u32),
    pub(crate) node: NodeSpec,
    #[serde(default)]
    pub(crate) policy: RoutingPolicySpec,
    #[serde(default)]
    pub(crate) no_policy: bool,
    #[serde(default)]
    pub(crate) sessions: BTreeMap<String, BgpSessionSpec>,
    #[serde(default)]
    pub(crate) secrets: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) ibgp: BTreeMap<String, IbgpPeerSpec>,
    #[serde(default)]
    pub(crate) mesh: Vec<InterfaceName>,
    #[serde(default)]
    pub(crate) roa: Option<String>,
    #[serde(default)]
    pub(crate) rpki: BTreeMap<Endpoint, std::net::IpAddr>,
    #[serde(default)]
    pub(crate) drained: bool,
    #[serde(default)]
    pub(crate) ebgp_disabled: bool,
    #[serde(default = "yes")]
    pub(crate) manage_main_config: bool,
    #[serde(default)]
    pub(crate) provided: moenet_agent::observed::bird::Provided,
    #[serde(default = "dummy")]
    pub(crate) loopback_interface: String,
    #[serde(default)]
    pub(crate) link: Option<LinkClass>,
    #[serde(default)]
    pub(crate) templates: BTreeMap<String, String>,
}

fn golden_version() -> (u32, u32) {
    (2, 17)
}

fn yes() -> bool {
    true
}

fn dummy() -> String {
    "dummy0".to_owned()
}

/// All cases, by their folders' names.
pub(crate) fn cases() -> BTreeMap<String, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/render");
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.path())
    };
    std::fs::read_dir(root).unwrap().map(entry).collect()
}

impl Case {
    /// Reads a case's input.
    pub(crate) fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("input.yaml")).unwrap();
        Self::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    }

    /// Parses an input.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        moenet_agent::document::parse_value(text).map_err(|error| error.to_string())
    }

    /// Renders everything: files by path below BIRD's directory.
    pub(crate) fn render(
        &self,
        (major, minor): (u32, u32),
    ) -> Result<BTreeMap<String, String>, String> {
        let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
            .parse::<PublicKey>()
            .unwrap();
        let router = Router::new("jp1", &self.node, key);
        let ibgp: Vec<_> = self
            .ibgp
            .iter()
            .map(|(name, spec)| internal(name, spec, &router))
            .collect();
        let roa = self.roa.as_ref().map(|text| RoaTable::parse(text).0);
        let mut shared = Shared::default();
        shared.mesh_interfaces.extend(&self.mesh);
        shared.ibgp.extend(&ibgp);
        let input = BaseInput {
            router: &router,
            policy: &self.policy,
            has_policy: !self.no_policy,
            features: Features::of(major, minor),
            drained: self.drained,
            ebgp_disabled: self.ebgp_disabled,
            manage_main_config: self.manage_main_config,
            provided: self.provided,
            loopback_interface: &self.loopback_interface,
            shared: &shared,
            rpki: &self.rpki,
            roa: roa.as_ref(),
        };
        let renderer = Renderer::new(&self.templates).map_err(|error| error.to_string())?;
        let mut files = renderer.base(&input).map_err(|error| error.to_string())?;
        for (name, spec) in &self.sessions {
            let session = self.session(name, spec, &router);
            let link = self
                .link
                .unwrap_or_else(|| LinkClass::of(&session, None, None, None));
            let text = renderer
                .peerings(&input)
                .unwrap()
                .text(&session, &link)
                .map_err(|error| error.to_string())?;
            files.insert(format!("moenet/sessions/{name}.conf"), text);
        }
        Ok(files)
    }

    fn session(&self, name: &str, spec: &BgpSessionSpec, router: &Router) -> Session {
        let secret = |(file, text): (&String, &String)| (file.clone(), Secret::new(text.clone()));
        let secrets = self.secrets.iter().map(secret).collect();
        let spec = spec.filled(router, &Defaults::default());
        Session::resolve(
            &name.parse().unwrap(),
            &name.parse().unwrap(),
            &spec,
            router,
            &secrets,
        )
        .unwrap()
    }
}

fn internal(name: &str, spec: &IbgpPeerSpec, router: &Router) -> InternalNeighbour {
    let name = name.parse().unwrap();
    InternalNeighbour::resolve(&name, spec, router.loopback_ipv4, router.loopback_ipv6).unwrap()
}

/// Writes the files below a directory, with what the committer adds.
pub(crate) fn write(directory: &Path, files: &BTreeMap<String, String>) {
    std::fs::create_dir_all(directory.join("moenet/sessions")).unwrap();
    std::fs::write(
        directory.join("moenet/generation.conf"),
        "define MOE_GENERATION = 1;\n",
    )
    .unwrap();
    if !files.contains_key("bird.conf") {
        let text = "router id 10.0.0.1;\ninclude \"moenet/main.conf\";\n";
        std::fs::write(directory.join("bird.conf"), text).unwrap();
    }
    for (path, text) in files {
        std::fs::write(directory.join(path), text).unwrap();
    }
}

/// The program of a version; a test without it fails, and says what to do.
pub(crate) fn bird(version: &str, program: &str) -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_default();
    let root = std::env::var("MOENET_BIRDS").unwrap_or_else(|_| format!("{home}/.cache/birds"));
    let path = Path::new(&root).join(version).join(program);
    assert!(
        path.exists(),
        "BIRD {version} is not at {}; set MOENET_BIRDS to a folder that holds \
         2.0.12, 2.17, 2.20, 3.1 and 3.4, each with `bird` and `birdc`",
        path.display()
    );
    path
}

/// Has a BIRD read a configuration and say what it thinks of it.
pub(crate) fn parse_only(version: &str, directory: &Path) -> Output {
    let file = directory.join("bird.conf");
    Command::new(bird(version, "bird"))
        .arg("-p")
        .arg("-c")
        .arg(file)
        .output()
        .unwrap()
}

/// Asserts that a BIRD takes the files without a word.
pub(crate) fn assert_silent(version: &str, what: &str, files: &BTreeMap<String, String>) {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    let output = parse_only(version, directory.path());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        output.status.success() && said.is_empty(),
        "{what} on BIRD {version}: {said}"
    );
}
