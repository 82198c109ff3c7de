//! An RPKI server: StayRTR, which serves what a test writes into its file.

use super::namespace::Process;
use super::router::Router;
use super::wait_until;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Prefix, longest length, origin.
pub(crate) type Roa = (String, u8, u32);

pub(crate) struct Rtr {
    pub(crate) port: u16,
    table: PathBuf,
    process: Process,
}

impl Rtr {
    /// Serves this table on a loopback port of the router's namespace.
    pub(crate) fn start(router: &Router, port: u16, roas: &[Roa]) -> Self {
        let table = router.path(&format!("vrps{port}.json"));
        write(&table, roas);
        let program = PathBuf::from("/usr/bin/stayrtr");
        assert!(
            program.exists(),
            "no StayRTR: tests/deps.sh tests installs it"
        );
        let (bind, metrics) = (
            format!("127.0.0.1:{port}"),
            format!("127.0.0.1:{}", port + 1000),
        );
        let file = table.display().to_string();
        let arguments = [
            "-bind",
            &bind,
            "-metrics.addr",
            &metrics,
            "-cache",
            &file,
            "-checktime=false",
            "-refresh",
            "1",
        ];
        let process = router.inside.spawn(
            &router.path(&format!("rtr{port}.log")),
            &program,
            &arguments,
        );
        wait_until("the RPKI server listens", 20, || {
            router
                .inside
                .try_shell(&format!("ss -Hltn sport = :{port} | grep -q ."))
                .map(drop)
        });
        Self {
            port,
            table,
            process,
        }
    }

    /// Serves another table from now on, and tells the routers so.
    pub(crate) fn serve(&self, roas: &[Roa]) {
        let new = self.table.with_extension("new");
        write(&new, roas);
        std::fs::rename(new, &self.table).unwrap();
    }

    pub(crate) fn stop(&mut self) {
        self.process.end("-KILL");
    }

    /// As in `GET bird-config`.
    pub(crate) fn server(&self) -> Value {
        json!({"host": "127.0.0.1", "port": self.port})
    }
}

fn write(file: &std::path::Path, roas: &[Roa]) {
    let roa = |(prefix, max, asn): &Roa| json!({"prefix": prefix, "maxLength": max, "asn": asn});
    let roas: Vec<Value> = roas.iter().map(roa).collect();
    let times = json!({"counts": roas.len(), "generated": 1_700_000_000, "valid": 1_900_000_000});
    std::fs::write(file, json!({"metadata": times, "roas": roas}).to_string()).unwrap();
}
