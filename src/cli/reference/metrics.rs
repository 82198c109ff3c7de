//! The page of metrics, from those that an agent without objects registers.

use std::sync::Arc;

use anyhow::Context as _;

use crate::agent::Parts;
use crate::cli::block_on;
use crate::config;
use crate::fleet;
use crate::http::Metric;
use crate::store::Store;
use crate::util::fs;
use crate::util::task::blocking;

const HEAD: &str = "# Metric reference

Generated from the code. `GET /metrics` of the [local API](../contract/local-api.md#metrics) answers in Prometheus' text
format; a metric without series now is left out. Alerts on them: [alert reference](alerts.md).

| metric | type | labels | means |
|---|---|---|---|
";

const CONTROL_PLANE: &str = "
## Control Plane

`GET /metrics` of the [embedded Control Plane](../contract/fleet.md#operators), for the role `read`.

| metric | type | labels | means |
|---|---|---|---|
";

/// Returns the page.
pub(super) fn page() -> anyhow::Result<String> {
    let agent = rows(of_agent()?);
    let control_plane = rows(fleet::all_metrics()?);
    Ok(format!("{HEAD}{agent}{CONTROL_PLANE}{control_plane}"))
}

fn of_agent() -> anyhow::Result<Vec<Metric>> {
    block_on(async {
        let directory = blocking(fs::temporary_dir)
            .await
            .context("create a temporary directory")?;
        let state = directory.path().join("state");
        let text = format!(
            "{{node: {{name: x, id: 1, asn: 4242420998}}, state: {{directory: {state:?}}}}}"
        );
        let config = config::parse(&text)?;
        let store = blocking(move || Store::open(&state)).await?;
        let parts = Parts::rehearse(config, Arc::new(store.with_secrets_in_memory())).await?;
        Ok(blocking(move || parts.shared.all_metrics()).await)
    })
}

fn rows(metrics: Vec<Metric>) -> String {
    let row = |metric: Metric| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        let labels: Vec<_> = labels.collect();
        let labels = if labels.is_empty() {
            "–".to_owned()
        } else {
            labels.join(", ")
        };
        super::cells(&[
            format!("`{}`", metric.name),
            metric.kind.to_owned(),
            labels,
            metric.help,
        ])
    };
    metrics.into_iter().map(row).collect()
}
