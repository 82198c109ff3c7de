//! Golden cases of the planner, a folder each in `tests/golden/plan`: a session's document, perhaps an
//! override, and what was observed give a plan and the specification that comes into force. The listing
//! of the folder is the list of the tests. `UPDATE_GOLDEN=1` writes what is expected anew.

use std::fs;
use std::path::{Path, PathBuf};

use moenet_agent::document::{BgpSessionSpec, Document, NodeSpec, OverrideSpec, parse, to_yaml};
use moenet_agent::effective::{Defaults, Router, Session, merge};
use moenet_agent::model::AdminState;
use moenet_agent::plan::{Plan, Refusal, WantedTunnel, plan_removal, plan_session};

use super::golden_observed::Observation;
use crate::support::{our_key, router_key};

/// Stands for what the templates render, which have golden cases of their own.
const FRAGMENT: &str = "protocol bgp ebgp_peer {\n}\n";

struct Case {
    folder: PathBuf,
    session: String,
    node: Document<NodeSpec>,
    override_: Option<Document<OverrideSpec>>,
    observed: Observation,
}

/// What a case gives: the two files, the second only when the specification comes into force.
struct Outcome {
    plan: String,
    applied: Option<String>,
}

impl Case {
    fn load(folder: PathBuf) -> Self {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let shared = || fs::read_to_string(golden().join("node.yaml")).unwrap();
        let observed = read("observed.yaml").expect("every case has an observed.yaml");
        Self {
            session: read("session.yaml").expect("every case has a session.yaml"),
            node: parse(&read("node.yaml").unwrap_or_else(shared)).unwrap(),
            override_: read("override.yaml").map(|text| parse(&text).unwrap()),
            observed: moenet_agent::document::parse_value(&observed)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display())),
            folder,
        }
    }

    fn run(&self) -> Outcome {
        let invalid = |error: &dyn std::fmt::Display| Outcome {
            plan: format!("invalid: {error}\n"),
            applied: None,
        };
        let document = match parse::<BgpSessionSpec>(&self.session) {
            Ok(document) => document,
            Err(error) => return invalid(&error),
        };
        let spec = match self.effective(&document) {
            Ok(spec) => spec,
            Err(error) => return invalid(&error),
        };
        let session = Session::resolve(
            &document.metadata.name,
            &document.uid(),
            &spec,
            &self.router(),
            &self.observed.secrets(),
        );
        let session = match session {
            Ok(session) => session,
            Err(error) => return invalid(&error),
        };
        let planned = self.plan(&session);
        let in_effect = planned.is_ok() && session.admin_state == AdminState::Enabled;
        Outcome {
            plan: shown(&planned),
            applied: in_effect.then(|| to_yaml(&spec).unwrap()),
        }
    }

    fn router(&self) -> Router {
        Router::new(self.node.metadata.name.as_str(), &self.node.spec, our_key())
    }

    /// Defaults below the document, the override above it while it lasts.
    fn effective(
        &self,
        document: &Document<BgpSessionSpec>,
    ) -> Result<BgpSessionSpec, moenet_agent::effective::FieldError> {
        let in_effect = self
            .override_
            .as_ref()
            .filter(|override_| override_.spec.in_effect(self.observed.now));
        let merged = match in_effect {
            Some(override_) => merge(&document.spec, &override_.spec.set)?.spec,
            None => document.spec.clone(),
        };
        Ok(merged.filled(&self.router(), &Defaults::default()))
    }

    fn plan(&self, session: &Session) -> Result<Plan, Refusal> {
        let kernel = self.observed.kernel();
        let seen = self.observed.view(&kernel, FRAGMENT);
        let tunnel = WantedTunnel::of_session(session, &router_key(), self.observed.resolved);
        match (session.admin_state, &tunnel) {
            (AdminState::Enabled, Err(refusal)) => Err(refusal.clone()),
            (AdminState::Enabled, Ok(tunnel)) => {
                plan_session(&session.name, tunnel, FRAGMENT, &seen)
            }
            _ => Ok(plan_removal(&session.name, &session.uid, &seen)),
        }
    }
}

fn shown(planned: &Result<Plan, Refusal>) -> String {
    match planned {
        Ok(plan) if plan.is_empty() => "nothing to do\n".to_owned(),
        Ok(plan) => plan.steps.iter().map(|step| format!("{step}\n")).collect(),
        Err(refusal) => format!("refused: {refusal}\n"),
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares with a file, or writes it; says what differs.
fn check(file: &Path, got: Option<&str>) -> Result<(), String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        match got {
            Some(text) => fs::write(file, text).unwrap(),
            None => drop(fs::remove_file(file)),
        }
        return Ok(());
    }
    let want = fs::read_to_string(file).ok();
    if want.as_deref() == got {
        return Ok(());
    }
    let shown = |text: Option<&str>| text.unwrap_or("(no file)\n").to_owned();
    Err(format!(
        "{}\n--- expected\n{}--- got\n{}",
        file.display(),
        shown(want.as_deref()),
        shown(got)
    ))
}

#[test]
fn every_case_gives_the_plan_and_the_specification_it_says() {
    let mut folders: Vec<_> = fs::read_dir(golden().join("plan"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 20, "cases are missing");
    let mut wrong = Vec::new();
    for folder in folders {
        let case = Case::load(folder);
        let outcome = case.run();
        let plan = check(&case.folder.join("expected-plan.txt"), Some(&outcome.plan));
        let applied = check(
            &case.folder.join("expected-applied.yaml"),
            outcome.applied.as_deref(),
        );
        wrong.extend([plan, applied].into_iter().filter_map(Result::err));
    }
    assert!(
        wrong.is_empty(),
        "{}\nUPDATE_GOLDEN=1 accepts this",
        wrong.join("\n")
    );
}
