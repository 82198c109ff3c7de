//! A network, mount and process namespace that ends, with all in it, when its `Namespace` does.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// `/run/wireguard` is private, since userspace WireGuard names its sockets by interface only.
const INIT: &str = "mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard && mount -t sysfs sysfs /sys \
    && ip link set lo up && echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad && echo ready && read -r _";

pub(crate) struct Namespace {
    pub(crate) name: String,
    holder: Child,
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        // The holder ends when our end of its stdin closes, also when the tests are killed.
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                INIT,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot run `unshare`: install util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "ready\n",
            "cannot make a namespace: live tests need root (and iproute2)"
        );
        Self {
            name: name.into(),
            holder,
        }
    }

    /// Where the files stand as they are seen inside, mounts included.
    pub(crate) fn root(&self) -> std::path::PathBuf {
        format!("/proc/{}/root", self.holder.id()).into()
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let proc = format!("/proc/{}/ns", self.holder.id());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={proc}/net"))
            .arg(format!("--mount={proc}/mnt"))
            .arg(format!("--pid={proc}/pid_for_children"))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a line of shell inside and returns what it printed, whether it succeeded or not.
    pub(crate) fn try_shell(&self, line: &str) -> Result<String, String> {
        let output = self
            .command("sh")
            .args(["-c", line])
            .output()
            .expect("cannot run `nsenter`");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(format!(
            "{}: {line}: {text}{}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    #[track_caller]
    pub(crate) fn shell(&self, line: &str) -> String {
        self.try_shell(line)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a program inside that ends with the returned value.
    pub(crate) fn spawn(&self, log: &Path, program: &Path, arguments: &[&str]) -> Process {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut child = self
            .command("sh")
            .args(["-c", "echo $$; exec \"$@\" >&2", "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("cannot run `nsenter`: install util-linux");
        let mut pid = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut pid)
            .unwrap();
        Process {
            pid: pid.trim().into(),
            child,
            enter: format!("/proc/{}/ns", self.holder.id()),
        }
    }

    /// Joins two namespaces with a link, an address on each end.
    pub(crate) fn link(
        &self,
        device: &str,
        addresses: &[&str],
        to: &Self,
        far: &str,
        far_addresses: &[&str],
    ) {
        // Made with the names of this process and counter first, since both ends start in one namespace.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (
            format!("ma{}.{n}", std::process::id()),
            format!("mb{}.{n}", std::process::id()),
        );
        let script = format!(
            "ip link add {a} type veth peer name {b} && ip link set {a} netns {} name {device} \
             && ip link set {b} netns {} name {far}",
            self.holder.id(),
            to.holder.id()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(
            output.status.success(),
            "cannot link: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.bring_up(device, addresses);
        to.bring_up(far, far_addresses);
    }

    /// A link to the host's own namespace; it goes when this one does.
    pub(crate) fn link_to_host(
        &self,
        device: &str,
        address: &str,
        host_device: &str,
        host_address: &str,
    ) {
        let script = format!(
            "ip link add {host_device} type veth peer name {device} netns {} \
             && ip addr add {host_address} dev {host_device} && ip link set {host_device} up",
            self.holder.id()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(
            output.status.success(),
            "cannot link: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.bring_up(device, &[address]);
    }

    pub(crate) fn bring_up(&self, device: &str, addresses: &[&str]) {
        for address in addresses {
            self.shell(&format!("ip addr add {address} dev {device}"));
        }
        self.shell(&format!("ip link set {device} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.holder.stdin.take() {
            let _ = stdin.write_all(b"end\n");
        }
        let _ = self.holder.wait();
    }
}

/// A program inside a namespace, known by the process id it has there.
pub(crate) struct Process {
    pid: String,
    child: Child,
    enter: String,
}

impl Process {
    /// Sends a signal to the program itself.
    pub(crate) fn signal(&self, signal: &str) {
        let pid_namespace = format!("--pid={}/pid_for_children", self.enter);
        let _ = Command::new("nsenter")
            .args([&pid_namespace, "kill", signal, &self.pid])
            .output();
    }

    /// Lets a stopped program go on. `nsenter` stops with it, and must go on too.
    pub(crate) fn resume(&self) {
        let _ = Command::new("kill")
            .args(["-CONT", &self.child.id().to_string()])
            .output();
        self.signal("-CONT");
    }

    /// Ends the program and waits until it is gone.
    pub(crate) fn end(&mut self, signal: &str) {
        if self.is_running() {
            self.resume();
            self.signal(signal);
            let _ = self.child.wait();
        }
    }

    /// The exit code, once the program has ended by itself.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.try_wait().ok()??.code()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end("-KILL");
    }
}
