//! `init`: writes a configuration, checks that it works on this host, and shows the first plan.

mod ask;
mod earlier;
mod values;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Map;

use super::doctor::{self, Line};
use super::steps::ObjectSteps;
use super::{Arguments, Outcome, Verb, commented, output, plan, terminal};
use crate::config::{self, Environment};
use crate::util::file::{self, Writer};
use crate::util::{fs, progress};

use earlier::Taken;
use values::Values;

/// Where the configuration is written without `--config`.
const PLACE: &str = "/etc/moenet-agent/config.yaml";
/// Mode of the file, which may hold a token.
const MODE: u32 = 0o600;
/// Mode of its folder, as systemd makes it for the unit.
const FOLDER_MODE: u32 = 0o700;
/// The most copies of earlier files.
const MOST_COPIES: u32 = 100;

/// Write a configuration.
#[derive(Debug, Args)]
pub struct Init {
    /// The config.json of the earlier agent written in Go
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Replace an existing file, of which a copy is kept
    #[arg(long)]
    force: bool,
    /// Name of this router at the Control Plane
    #[arg(long)]
    name: Option<String>,
    /// Number of this router in its network
    #[arg(long)]
    id: Option<u16>,
    /// AS number
    #[arg(long)]
    asn: Option<u32>,
    /// Place of this router
    #[arg(long)]
    region: Option<String>,
    /// Loopback IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    loopback_ipv4: Option<Ipv4Addr>,
    /// Loopback IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    loopback_ipv6: Option<Ipv6Addr>,
    /// URL of the Control Plane
    #[arg(long, value_name = "URL")]
    control_plane: Option<String>,
    /// A file that holds the token of the Control Plane
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Control socket of BIRD
    #[arg(long, value_name = "SOCKET")]
    bird_socket: Option<PathBuf>,
    /// Directory of BIRD's configuration
    #[arg(long, value_name = "DIR")]
    bird_directory: Option<PathBuf>,
    /// File of the WireGuard private key
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
}

/// The answer for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    file: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<&'a Path>,
    /// The keys of the earlier configuration.
    keys: &'a [Taken],
    checks: Vec<Line>,
    /// The first plan.
    plan: Vec<ObjectSteps>,
    /// Why there is no plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Init {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let path = arguments.config.clone().unwrap_or_else(|| PLACE.into());
        refuse_link(&path)?;
        anyhow::ensure!(
            self.force || fs::symlink_metadata(&path).is_err() || is_of_package(&path)?,
            "{} exists already, and was not changed; add --force to replace it, of which a copy is kept",
            path.display()
        );
        let (mut values, keys) = self.earlier()?;
        self.given(&mut values);
        if let Some(why) = values.refused() {
            anyhow::bail!("nothing was written: {why}");
        }
        if terminal::is_possible() {
            ask::for_missing(&mut values).context("read an answer")?;
        }
        let missing = values.missing();
        anyhow::ensure!(
            missing.is_empty(),
            "nothing was written: {} missing; give {}, or --control-plane",
            missing
                .iter()
                .map(|(key, _)| *key)
                .collect::<Vec<_>>()
                .join(", "),
            missing
                .iter()
                .map(|(_, flag)| *flag)
                .collect::<Vec<_>>()
                .join(", "),
        );
        let text = commented::configuration(values.sections());
        config::check(&text, Environment::read())
            .context("nothing was written: a value is invalid")?;
        let copy = write(&path, &text, self.force)?;
        let answer = Answer {
            file: &path,
            copy: copy.as_deref(),
            keys: &keys,
            checks: Vec::new(),
            plan: Vec::new(),
            error: None,
        };
        let checked = Arguments {
            config: Some(path.clone()),
            output: arguments.output,
            verb: Verb::Doctor,
        };
        if !arguments.output.is_for_people() {
            return answer.checked(&checked);
        }
        answer.print();
        check(&checked)
    }

    /// Returns the values of the earlier configuration, and what each of its keys became.
    fn earlier(&self) -> anyhow::Result<(Values, Vec<Taken>)> {
        let Some(path) = &self.from else {
            return Ok(Default::default());
        };
        let text = file::read_text(path, file::DOCUMENT)
            .with_context(|| format!("read {}", path.display()))?;
        earlier::read(&text).with_context(|| path.display().to_string())
    }

    /// Adds the values of the flags.
    fn given(&self, values: &mut Values) {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|it| it.display().to_string());
        values.set("node.name", self.name.clone());
        values.set("node.id", self.id);
        values.set("node.asn", self.asn);
        values.set("node.region", self.region.clone());
        values.set(
            "node.loopbackIpv4",
            self.loopback_ipv4.map(|it| it.to_string()),
        );
        values.set(
            "node.loopbackIpv6",
            self.loopback_ipv6.map(|it| it.to_string()),
        );
        values.set("controlPlane.url", self.control_plane.clone());
        values.set("controlPlane.tokenFile", text(&self.token_file));
        values.set("bird.controlSocket", text(&self.bird_socket));
        values.set("bird.directory", text(&self.bird_directory));
        values.set("wireguard.privateKeyPath", text(&self.private_key));
    }
}

impl Answer<'_> {
    /// Prints the answer for programs, with the checks of the host and the first plan.
    fn checked(mut self, arguments: &Arguments) -> Outcome {
        self.checks = doctor::checks_before_start(arguments)?;
        match plan::planned(arguments.load()?, false) {
            Ok(planned) => self.plan = planned.objects.into_values().collect(),
            Err(error) => self.error = Some(format!("{error:#}")),
        }
        output::value(arguments.output, &self)?;
        let is_fit = self.error.is_none() && doctor::is_fit(&self.checks);
        Ok(match is_fit {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    fn print(&self) {
        for taken in self.keys {
            let note = taken
                .note
                .map_or(String::new(), |note| format!(" ({note})"));
            output::line(match taken.becomes {
                Some(path) => format!("taken over   {}: {path}{note}", taken.key),
                None => format!("unsupported  {}{note}", taken.key),
            });
        }
        if let Some(copy) = self.copy {
            output::line(format_args!(
                "copied the earlier file to {}",
                copy.display()
            ));
        }
        output::line(format_args!("wrote {}", self.file.display()));
    }
}

/// Refuses a symbolic link: to replace it would leave the file that it names, and the tools that keep it, behind.
fn refuse_link(path: &Path) -> anyhow::Result<()> {
    let Ok(target) = fs::read_link(path) else {
        return Ok(());
    };
    anyhow::bail!(
        "nothing was written: {} is a symbolic link to {}; give the file itself with --config, or remove the link",
        path.display(),
        target.display()
    )
}

/// Writes the file. Returns the copy of the file that it replaced.
fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<Option<PathBuf>> {
    let what = || format!("write {}", path.display());
    refuse_link(path)?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::create_dirs(folder, FOLDER_MODE).with_context(what)?;
    }
    let writer = Writer::new(MODE);
    if writer.create(path, text.as_bytes()).with_context(what)? {
        return Ok(None);
    }
    let copy = match is_of_package(path)? {
        true => None,
        false => {
            anyhow::ensure!(
                force,
                "{} exists already, and was not changed",
                path.display()
            );
            Some(copy(path, &read(path)?)?)
        }
    };
    writer.replace(path, text.as_bytes()).with_context(what)?;
    Ok(copy)
}

/// Whether the file is as a package installs it, in which every key is commented out.
fn is_of_package(path: &Path) -> anyhow::Result<bool> {
    Ok(read(path)? == commented::configuration(&Map::new()).into_bytes())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    file::read(path, file::DOCUMENT).with_context(|| format!("read {}", path.display()))
}

/// Keeps a copy beside the file, under a name that no file has.
fn copy(path: &Path, content: &[u8]) -> anyhow::Result<PathBuf> {
    for number in 0..MOST_COPIES {
        let mut name = path.as_os_str().to_owned();
        name.push(".before-moenet-agent");
        if number > 0 {
            name.push(format!("-{number}"));
        }
        let copy = PathBuf::from(name);
        let created = Writer::new(MODE).create(&copy, content);
        if created.with_context(|| format!("write {}", copy.display()))? {
            return Ok(copy);
        }
    }
    anyhow::bail!(
        "{} has {MOST_COPIES} copies already; remove some",
        path.display()
    )
}

/// Prints the checks of the host and the first plan.
fn check(arguments: &Arguments) -> Outcome {
    let _progress = output::progress(arguments.output, "checking this host");
    output::line("\nChecks");
    let is_fit = doctor::before_start(arguments)?;
    output::line("\nFirst plan");
    progress::say("planning", None);
    let planned = plan::Plan::default().run(arguments);
    let Err(error) = planned else {
        return Ok(match is_fit {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    };
    Err(error.context("the configuration is written, and the plan failed"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn existing_file_is_replaced_only_with_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/config.yaml");
        assert_eq!(write(&path, "one", false).unwrap(), None);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let folder = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(folder.permissions().mode() & 0o7777, 0o700);
        write(&path, "two", false).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        for (text, before) in [("two", "one"), ("three", "two")] {
            let copy = write(&path, text, true).unwrap().unwrap();
            assert_eq!(std::fs::read_to_string(copy).unwrap(), before);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn file_of_the_package_is_replaced_without_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let installed = commented::configuration(&Map::new());
        std::fs::write(&path, &installed).unwrap();
        assert_eq!(write(&path, "one", false).unwrap(), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        std::fs::write(&path, installed.replacen("#node:", "node:", 1)).unwrap();
        write(&path, "two", false).unwrap_err();
    }

    #[test]
    fn symbolic_link_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (
            folder.path().join("kept.yaml"),
            folder.path().join("config.yaml"),
        );
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for force in [false, true] {
            write(&link, "new", force).unwrap_err();
            assert!(!target.exists());
        }
        std::fs::write(&target, "one").unwrap();
        let error = write(&link, "new", true).unwrap_err().to_string();
        assert!(error.contains("kept.yaml"), "{error}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "one");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn directory_in_the_way_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "one", true).unwrap_err();
        assert!(folder.path().is_dir());
    }
}
