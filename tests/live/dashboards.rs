//! The dashboards of the package: Prometheus scrapes a running agent and answers each of their queries.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::lab::namespace::{Namespace, Process};
use crate::lab::wait_until;
use crate::lab::world::{World, interface};

/// Panels that show nothing while nothing is wrong.
const OF_FAULTS: [&str; 3] = [
    "Sessions that are down",
    "Conditions that are False",
    "Starts of the agent",
];

/// Prometheus, with the agent of a namespace as its only target.
struct Prometheus<'a> {
    inside: &'a Namespace,
    _process: Process,
}

impl<'a> Prometheus<'a> {
    fn start(inside: &'a Namespace, folder: &Path) -> Self {
        let config = json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "moenet-agent", "static_configs": [{"targets": ["127.0.0.1:24368"]}]}],
        });
        let file = folder.join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!(
                "--storage.tsdb.path={}",
                folder.join("prometheus").display()
            ),
            "--web.listen-address=127.0.0.1:9090".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let log = folder.join("prometheus.log");
        let process = inside.spawn(&log, Path::new("prometheus"), &arguments);
        Self {
            inside,
            _process: process,
        }
    }

    /// Returns the series that a query selects.
    fn ask(&self, query: &str) -> Result<Vec<Value>, String> {
        let quoted = query.replace('\'', r"'\''");
        let answer = self.inside.try_shell(&format!(
            "curl -s http://127.0.0.1:9090/api/v1/query --data-urlencode 'query={quoted}'"
        ))?;
        let answer: Value = serde_json::from_str(&answer).map_err(|_| answer)?;
        let found = answer["data"]["result"].as_array();
        found.cloned().ok_or_else(|| answer.to_string())
    }
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/dashboards");
    let files = fs::read_dir(folder).unwrap();
    let read = |path: &Path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let named = files.map(|file| file.unwrap().path());
    named
        .map(|path| (path.display().to_string(), read(&path)))
        .collect()
}

/// The queries of a dashboard, each with the title of its panel or annotation.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        queries.push((text(&annotation["name"]), text(&annotation["expr"])));
    }
    for variable in list(&dashboard["templating"]["list"]) {
        // `label_values(series, label)`: there must be such a series with a value of the label.
        if let Some(of) = variable["definition"].as_str() {
            let inner = of.strip_prefix("label_values(").unwrap();
            let (series, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            let query = format!("{series} and on ({label}) {series}");
            queries.push((text(&variable["name"]), query));
        }
    }
    queries
}

fn filled_in(query: &str) -> String {
    let values = [
        ("$__rate_interval", "10s"),
        ("$job", "moenet-agent"),
        ("$instance", "127.0.0.1:24368"),
        ("$session", ".*"),
    ];
    let filled = |query: String, (name, value): (&str, &str)| query.replace(name, value);
    let query = values.into_iter().fold(query.to_owned(), filled);
    assert!(
        !query.contains('$'),
        "a variable without a value in this test: {query}"
    );
    query
}

#[test]
fn prometheus_answers_every_query_of_the_dashboards() {
    let world = World::converged(1);
    let verb = format!("override {} tunnel.mtu=1380 --reason test", interface(1));
    world.router.inside.shell(&world.router.command(&verb));
    let prometheus = Prometheus::start(&world.router.inside, &world.router.path(""));
    wait_until("Prometheus has some scrapes", 60, || {
        let scrapes = prometheus.ask("min_over_time(up[4s]) == 1 and count_over_time(up[9s]) > 6");
        match scrapes?.as_slice() {
            [_] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let dashboards = dashboards();
    assert!(!dashboards.is_empty());
    for (file, dashboard) in &dashboards {
        for (title, query) in queries(dashboard) {
            let found = prometheus
                .ask(&filled_in(&query))
                .unwrap_or_else(|error| panic!("{file}: {title}: {query}: {error}"));
            let may_be_empty = OF_FAULTS.contains(&title.as_str());
            assert!(
                may_be_empty || !found.is_empty(),
                "{file}: {title}: nothing is selected by {query}"
            );
        }
    }
}

#[test]
fn faults_show_on_the_dashboards() {
    let world = World::converged(1);
    let prometheus = Prometheus::start(&world.router.inside, &world.router.path(""));
    let all: Vec<_> = dashboards()
        .iter()
        .flat_map(|(_, one)| queries(one))
        .collect();
    world.neighbours[0].inside.shell("ip link set u0 down");
    let router = &world.router;
    router.bird.ask(&router.inside, "restart all");
    for title in &OF_FAULTS[..2] {
        let of_title = all.iter().filter(|(of, _)| of == title);
        for (_, query) in of_title {
            wait_until(
                &format!("{title} shows the dead session"),
                90,
                || match prometheus.ask(&filled_in(query))?.is_empty() {
                    true => Err("nothing".to_owned()),
                    false => Ok(()),
                },
            );
        }
    }
}
