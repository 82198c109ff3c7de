"""The machine that the benchmark measures on: BIRD, links, the agent, and what each of them cost."""
import collections
import glob
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
LAB = os.environ.get("BENCH_LAB", "/lab")
DATA = f"{LAB}/data"
BIRD, PEERS, SOCKET = f"{LAB}/bird", f"{LAB}/bird/peers", "/run/bird/bird.ctl"
PREFIX = "dn42w"
CONTROL_PLANE, API = "http://127.0.0.1:18080", "http://127.0.0.1:24368"
ADDRESS = "fe80::998:302:1:1"  # on each of the agent's tunnels
TICK = os.sysconf("SC_CLK_TCK")
now = time.monotonic


def shell(command, **options):
    ran = subprocess.run(command, shell=isinstance(command, str), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, check=False, **options)
    return ran.stdout


NEEDED = {}  # programs without which every wait is in vain, by name


def wait(what, seconds, condition, step=0.05):
    """Returns the seconds until a condition holds; None: it did not in time."""
    begun = now()
    while not condition():
        for name, process in NEEDED.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} has ended: {process.returncode}\n" + shell(f"tail -n 5 {LAB}/{name}.log"))
        if now() - begun > seconds:
            print(f"# {what}: not within {seconds} s", file=sys.stderr, flush=True)
            return None
        time.sleep(step)
    return now() - begun


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def stat(pid):
    """The fields of /proc/PID/stat after the name; none when the process has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def cpu(pid):
    """Processor seconds of a process and its children, of those that run too."""
    fields = stat(pid)
    used = sum(map(int, fields[11:15])) / TICK if fields else 0
    children = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return used + sum(cpu(child) for child in children if (stat(child) or " 0")[1] == str(pid))


def memory(pid, key):
    with open(f"/proc/{pid}/status") as file:
        found = re.search(rf"{key}:\s+(\d+)", file.read())
    return int(found.group(1)) if found else 0


def spent():
    """Processor seconds of all programs that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- links
def links():
    """Not from /sys, which shows the namespace that mounted it."""
    with open("/proc/net/dev") as file:
        return re.findall(rf"^\s*({PREFIX}\d+):", file.read(), re.M)


def indexes():
    return set(re.findall(rf"^(\d+: {PREFIX}\d+)", shell("ip -o link"), re.M))


def peers():
    """The number of links with a peer."""
    return shell("wg show all peers").count(PREFIX)


def addresses():
    return shell(f"ip -o -6 addr show to {ADDRESS}").count("\n")


def delete_links():
    if links():
        shell(["ip", "-batch", "-"], input="".join(f"link set dev {name} group 77\n" for name in links()))
        shell("ip link delete group 77")
    # The node's link, whose mark a new state directory would not know.
    shell("ip link delete dummy0")
    wait("links are gone", 120, lambda: not links())


# ---- log
SYSLOG = """import socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
with open(sys.argv[1], "wb") as file:
    while True:
        file.write(log.recv(1 << 16) + b"\\n")
"""


def log_daemon():
    """Takes the messages of BIRD, as on a router. Without a log daemon each of them goes to the console, which is slow."""
    subprocess.Popen([sys.executable, "-c", SYSLOG, f"{LAB}/syslog"])
    wait("the log daemon listens", 20, lambda: os.path.exists("/dev/log"))


# ---- BIRD
class Bird:
    EMPTY = "router id 192.0.2.1; protocol device {{}}\n"
    # The configuration of the limits.
    TEMPLATE = """log "{log}" all;
router id 10.0.0.1;
protocol device {{ scan time 10; }}
filter dn42_import_filter {{ accept; }}
filter dn42_export_filter {{ accept; }}
template bgp dn42_peer {{
    local as 4242420998;
    graceful restart on;
    ipv4 {{ import limit 10000 action warn; import filter dn42_import_filter; export filter dn42_export_filter;
           extended next hop on; next hop self; }};
    ipv6 {{ import limit 10000 action warn; import filter dn42_import_filter; export filter dn42_export_filter;
           next hop self; }};
}}
include "{peers}/*.conf";
"""

    def __init__(self):
        os.makedirs("/run/bird", exist_ok=True)
        self.reset(self.EMPTY)
        self.process = subprocess.Popen(["bird", "-f", "-c", f"{BIRD}/bird.conf", "-s", SOCKET],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        NEEDED["bird"] = self.process
        if wait("BIRD answers", 20, lambda: os.path.exists(SOCKET)) is None:
            raise SystemExit("BIRD did not start")

    def reset(self, template):
        shutil.rmtree(BIRD, ignore_errors=True)
        os.makedirs(PEERS)
        with open(f"{BIRD}/bird.conf", "w") as file:
            file.write(template.format(log=f"{LAB}/bird.log", peers=PEERS))

    def clean(self, template=EMPTY):
        """Nothing is left, and BIRD has this configuration; in place of the empty one the agent writes its own."""
        delete_links()
        self.reset(template)
        self.ask("configure")
        wait("BIRD has no protocol left", 60, lambda: not self.protocols(), 0.2)
        time.sleep(1)

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(SOCKET)
            with connection.makefile("rw") as stream:
                self.reply(stream)
                stream.write(command + "\n")
                stream.flush()
                return self.reply(stream)

    @staticmethod
    def reply(stream):
        lines = []
        for line in stream:
            lines.append(line)
            if re.match(r"\d{4} ", line):
                return lines
        raise OSError("BIRD closed its socket")

    def protocols(self):
        return sum(" BGP " in line for line in self.ask("show protocols"))

    def configured(self):
        """The time of its last configuration, as text."""
        return "".join(line for line in self.ask("show status") if "econfiguration" in line)

    def cpu(self):
        return cpu(self.process.pid)


# ---- control plane and agent
class ControlPlane:
    def __init__(self, count, *options):
        program = [sys.executable, f"{HERE}/control_plane.py", f"{DATA}/sessions.json", str(count), *options]
        self.process = subprocess.Popen(program)
        wait("the control plane answers", 20, self.answers)

    def answers(self):
        try:
            return bool(self.stats())
        except OSError:
            return False

    def stats(self):
        return json.loads(get(CONTROL_PLANE + "/admin/stats"))

    def edit(self, index, **values):
        body = json.dumps({"index": index, "set": values}).encode()
        urllib.request.urlopen(urllib.request.Request(CONTROL_PLANE + "/admin/edit", body)).close()

    def syncs(self):
        return self.stats()["calls"].get("GET sessions", 0)

    def end(self):
        self.process.kill()
        self.process.wait()


class Agent:
    STATE, LOG, GITS = f"{LAB}/state", f"{LAB}/agent.log", f"{LAB}/git.calls"

    def __init__(self, program):
        self.program, self.trace = program, f"{LAB}/trace"
        shutil.rmtree(self.STATE, ignore_errors=True)
        shutil.copy(f"{DATA}/agent.key", f"{LAB}/private.key")
        os.chmod(f"{LAB}/private.key", 0o600)
        # JSON is YAML.
        config = {"node": {"name": "bench", "linkLocal": ADDRESS}, "state": {"directory": self.STATE},
                  "controlPlane": {"url": CONTROL_PLANE, "token": "t", "requestTimeout": 60},
                  "server": {"listen": "127.0.0.1:24368"}, "bird": {"controlSocket": SOCKET, "directory": BIRD},
                  "wireguard": {"privateKeyPath": f"{LAB}/private.key"}, "probe": {"interval": 300}}
        with open(f"{LAB}/config.yaml", "w") as file:
            json.dump(config, file)
        self.count_gits()

    def count_gits(self):
        """A git before the real one that notes each call."""
        os.makedirs(f"{LAB}/programs", exist_ok=True)
        with open(f"{LAB}/programs/git", "w") as file:
            file.write(f'#!/bin/sh\necho "$*" >>{self.GITS}\nexec {shutil.which("git")} "$@"\n')
        os.chmod(f"{LAB}/programs/git", 0o755)

    def gits(self):
        if not os.path.exists(self.GITS):
            return 0
        with open(self.GITS) as file:
            return len(file.readlines())

    def start(self, traced=False):
        command = [self.program, "--config", f"{LAB}/config.yaml", "run"]
        if traced:
            calls = "fsync,fdatasync,syncfs,sync_file_range,openat,sendto,sendmsg,sendmmsg,execve"
            command = ["strace", "-f", "-qq", "-Y", "-yy", "-s0", "-o", self.trace, "-e", f"trace={calls}", *command]
        if os.path.exists(self.GITS):
            os.unlink(self.GITS)
        environment = {**os.environ, "PATH": f"{LAB}/programs:{os.environ['PATH']}"}
        with open(self.LOG, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.begun = now()
        NEEDED["agent"] = self.process

    def pid(self):
        return self.process.pid

    def cpu(self):
        return cpu(self.pid())

    def counters(self):
        """What the agent counts of itself since its start; nothing while it does not answer."""
        try:
            text = get(API + "/metrics")
        except OSError:
            return {}
        found = re.findall(r"^moenet_agent_(\w+?)(?:_total)?(?:\{status=\"active\"\})? (\S+)$", text, re.M)
        counted = {"git_processes": self.gits()}
        for name, value in found:
            counted[name] = int(float(value))
        return counted

    def active(self):
        found = re.search(r'sessions_total{status="active"} (\d+)', get_or_nothing(API + "/metrics"))
        return int(found.group(1)) if found else 0

    def traced(self):
        """Counts of system calls, from the file of strace: by the program that made them."""
        counted = collections.Counter()
        with open(self.trace, errors="replace") as file:
            for line in file:
                found = re.match(r"\d+(?:<(\S*?)>)?\s+(\w+)\((.*)", line)
                if not found:
                    continue
                program, call, rest = found.groups()
                owner = "git" if (program or "").startswith("git") else "agent"
                if "sync" in call:
                    counted[f"fsyncs_{owner}"] += 1
                elif call.startswith("send") and "NETLINK" in rest[:80]:
                    counted["netlink_calls"] += 1
                elif call == "openat":
                    counted[f"opened_{owner}"] += 1
                elif call == "execve" and "ENOENT" not in rest:
                    counted["programs"] += 1
        return dict(counted)

    def end(self):
        begun = now()
        NEEDED.pop("agent")
        pid = self.pid()
        if "strace" in self.process.args[0]:
            pid = int(shell(f"pgrep -P {pid}").split()[0])
        os.kill(pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return now() - begun


def get_or_nothing(url):
    try:
        return get(url)
    except OSError:
        return ""


def text_of(index):
    """The text that BIRD reads for a session."""
    text = ""
    for path in glob.glob(f"{BIRD}/**/sessions/{PREFIX}{index:04d}*", recursive=True):
        with open(path) as file:
            text += file.read()
    return text
