use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Firewall, FirewallError};
use crate::intervals::NFT_CALL;
use crate::plan::firewall::{
    FirewallAction, FirewallView, Ruleset, Table, deletion, dropping, listed_names,
};
use crate::util::exec::{ExecError, Run};

/// Limit of a listing, in bytes: an operator's sets may be large.
const MOST_OUTPUT: u64 = 64 * 1024 * 1024;

/// Access to nftables through `nft -j`, which uses the JSON of libnftables-json(5): the kernel's netlink
/// interface has no well-maintained library, and `nft` comes with every system that has nftables.
#[derive(Debug)]
pub struct Nft {
    program: PathBuf,
    deadline: Duration,
    /// How this nft lists the last ruleset, if that differs from the written form.
    spelling: Mutex<Option<Table>>,
    writes: AtomicU64,
}

impl Default for Nft {
    fn default() -> Self {
        Self::new("nft".into(), NFT_CALL)
    }
}

impl Nft {
    /// Uses another program than the `nft` in `PATH`, or another deadline for one run of it.
    pub fn new(program: PathBuf, deadline: Duration) -> Self {
        Self {
            program,
            deadline,
            spelling: Mutex::default(),
            writes: AtomicU64::new(0),
        }
    }

    async fn install(
        &self,
        name: &str,
        replace: bool,
        wanted: &Ruleset,
    ) -> Result<(), FirewallError> {
        let operation = "write the agent's table";
        let transaction = wanted.transaction(name, replace).to_string();
        self.run(operation, &["-f", "-"], &transaction).await?;
        let mut tables = self.read(operation).await?;
        let Some(mut found) = tables.remove(name) else {
            return Err(FirewallError::NotInEffect {
                operation,
                difference: "it is not there".to_owned(),
            });
        };
        let Some(difference) = found.difference(wanted) else {
            return Ok(());
        };
        if !found.may_spell(wanted) {
            return Err(FirewallError::NotInEffect {
                operation,
                difference: difference.to_string(),
            });
        }
        // A later nft may list the agent's rules in other words. Without this the agent would rewrite them at every
        // pass.
        tracing::debug!("nft lists the agent's rules in another form than they were written");
        found.spelled = Some(wanted.clone());
        *self.spelling.lock() = Some(found);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), FirewallError> {
        let transaction = deletion(name).to_string();
        self.run("delete the agent's table", &["-f", "-"], &transaction)
            .await
            .map(drop)
    }

    /// Reads the tables that an agent may have created. The names are listed first: nft reports
    /// "No such file or directory" for a missing table, and for other errors.
    async fn read(
        &self,
        operation: &'static str,
    ) -> Result<BTreeMap<String, Table>, FirewallError> {
        let listed = self.list(operation, &["list", "tables", "inet"]).await?;
        let mut tables = BTreeMap::new();
        for name in listed_names(&listed) {
            let listing = self
                .list(operation, &["list", "table", "inet", &name])
                .await?;
            tables.insert(name, Table::parse(&listing));
        }
        Ok(tables)
    }

    async fn list(
        &self,
        operation: &'static str,
        arguments: &[&str],
    ) -> Result<Vec<Value>, FirewallError> {
        let text = self.run(operation, arguments, "").await?;
        let bad = |reason: String| FirewallError::Output { operation, reason };
        let mut listing: Value =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        match listing.get_mut("nftables").map(Value::take) {
            Some(Value::Array(objects)) => Ok(objects),
            _ => Err(bad("no list `nftables`".to_owned())),
        }
    }

    async fn run(
        &self,
        operation: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Vec<u8>, FirewallError> {
        let run = Run::new(&self.program, self.deadline, MOST_OUTPUT).args(["-j"]);
        let run = run.args(arguments).input(input.as_bytes().to_vec());
        let output = run
            .output()
            .await
            .map_err(|error| self.not_run(operation, error))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message: String = String::from_utf8_lossy(&output.stderr)
            .trim()
            .chars()
            .take(300)
            .collect();
        Err(FirewallError::Refused { operation, message })
    }

    fn not_run(&self, operation: &'static str, error: ExecError) -> FirewallError {
        match error {
            ExecError::Deadline => FirewallError::Deadline {
                operation,
                seconds: self.deadline.as_secs(),
            },
            ExecError::Start(source) if source.kind() == io::ErrorKind::NotFound => {
                FirewallError::Missing {
                    operation,
                    program: self.program.display().to_string(),
                }
            }
            ExecError::Start(source) | ExecError::Output(source) => {
                FirewallError::Run { operation, source }
            }
        }
    }
}

#[async_trait]
impl Firewall for Nft {
    async fn observe(&self) -> Result<FirewallView, FirewallError> {
        let operation = "read the agent's table";
        let mut tables = self.read(operation).await?;
        if let Some(known) = &*self.spelling.lock() {
            for found in tables.values_mut().filter(|found| found.same_as(known)) {
                found.spelled.clone_from(&known.spelled);
            }
        }
        let chains = self.list(operation, &["list", "chains"]).await?;
        Ok(FirewallView {
            tables,
            dropping: dropping(&chains),
        })
    }

    async fn apply(&self, action: &FirewallAction) -> Result<(), FirewallError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        match action {
            FirewallAction::Install {
                table,
                replace,
                ruleset,
            } => self.install(table, *replace, ruleset).await,
            FirewallAction::Remove { table } => self.remove(table).await,
        }
    }

    fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}
