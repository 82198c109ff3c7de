//! The process, under the names that Prometheus' own clients give these metrics.

use std::path::Path;
use std::sync::LazyLock;

use prometheus::{Counter, Gauge};

use super::Registry;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::{gauge, signed};
use crate::util::{file, fs};

/// Size limit of a file below `/proc`, in bytes.
const PROC: u64 = 4 * 1024 * 1024;

/// When the system started, in seconds since 1970. Read once: the kernel computes it for each reader, and may answer a
/// second more or less.
static BOOT: LazyLock<Option<u64>> = LazyLock::new(|| {
    let text = file::read_text(Path::new("/proc/stat"), PROC).ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
});

/// Facts of the process.
pub(in super::super) struct Process {
    stat: Stat,
    open_files: u64,
    /// When the system started, in seconds since 1970.
    boot: u64,
}

impl Process {
    /// Reads `/proc/self`; blocks.
    pub(in super::super) fn read() -> Option<Self> {
        let stat = file::read_text(Path::new("/proc/self/stat"), PROC).ok()?;
        // The directory itself is open while it is read.
        let open = fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1);
        Some(Self {
            stat: Stat::parse(&stat)?,
            open_files: open as u64,
            boot: (*BOOT)?,
        })
    }
}

/// Fields of `/proc/self/stat` (proc_pid_stat(5)): times in clock ticks, sizes in bytes and pages.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    user: u64,
    system: u64,
    threads: u64,
    /// Since the system started.
    start: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may contain spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self {
            user: field(14)?,
            system: field(15)?,
            threads: field(20)?,
            start: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Metrics of the process; none where `/proc` cannot be read.
pub(super) fn process(process: Option<&Process>, registry: &Registry) -> prometheus::Result<()> {
    let Some(process) = process else {
        return Ok(());
    };
    let stat = &process.stat;
    let cpu = Counter::new(
        "process_cpu_seconds_total",
        "User and system processor time, in seconds",
    )?;
    cpu.inc_by(seconds(stat.user + stat.system));
    registry.register(Box::new(cpu))?;
    let start = Gauge::new(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970",
    )?;
    start.set(process.boot as f64 + seconds(stat.start));
    registry.register(Box::new(start))?;
    // No limit has no series.
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        let help = "Most file descriptors that may be open";
        gauge(registry, "process_max_fds", help, signed(limit))?;
    }
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Resident memory, in bytes",
            stat.resident_pages * page_size() as u64,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory, in bytes",
            stat.virtual_bytes,
        ),
        (
            "process_open_fds",
            "Open file descriptors",
            process.open_files,
        ),
        ("process_threads", "Threads of the process", stat.threads),
    ] {
        gauge(registry, name, help, signed(value))?;
    }
    Ok(())
}

/// Converts clock ticks.
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_name_with_parentheses_is_read() {
        let text = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 1234 5000 42 18446744073709551615";
        let want = Stat {
            user: 250,
            system: 50,
            threads: 3,
            start: 1234,
            virtual_bytes: 5000,
            resident_pages: 42,
        };
        assert_eq!(Stat::parse(text), Some(want));
        for text in ["", "7 (a) S 1", "7 a S 1"] {
            assert_eq!(Stat::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn own_process_uses_memory_and_has_started() {
        let process = Process::read().unwrap();
        let start = process.boot as f64 + seconds(process.stat.start);
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!(start <= now + 1.0 && start > 1_700_000_000.0, "{start}");
        assert!(process.stat.resident_pages > 0 && process.open_files >= 3);
    }
}
