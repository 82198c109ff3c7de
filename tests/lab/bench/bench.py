#!/usr/bin/env python3
"""bench.py AGENT --n 10,100 [options]: measures, as root, in namespaces or a guest.

Run it by `run`. Results: a JSON object a line in $BENCH_OUT/results.jsonl; `table.py` makes tables of them.
"""
import argparse
import json
import os
import shutil
import subprocess
import time

import lab
from lab import Agent, Bird, ControlPlane, log_daemon, now, shell, wait

OUT = os.environ.get("BENCH_OUT", "/tmp")


def record(what, n, **values):
    with open(f"{OUT}/results.jsonl", "a") as file:
        file.write(json.dumps({"what": what, "n": n, **values}) + "\n")
    print("#", what, n, json.dumps(values), flush=True)


def plan(name, n):
    with open(f"{lab.DATA}/{name}.plan") as file:
        return "".join(file.readlines()[:n])


# ---- the limits
def limit(n, bird, check):
    """One C program: batched netlink, N files, with `check` one `bird -p`, one `configure`."""
    options = ["-d", lab.PEERS, "-s", lab.SOCKET] + (["-c", f"{lab.BIRD}/bird.conf"] if check else [])
    ran = subprocess.run([f"{lab.LAB}/limit", *options], input=plan("agent", n), text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, check=False)
    if ran.returncode:
        raise SystemExit(f"limit failed: {ran.stdout}")
    return dict(line.split(" ", 1) for line in ran.stdout.splitlines())


def tools(n, _bird):
    """What a shell script does: `ip -batch`, `wg setconf` for each link, N files, one `configure`."""
    rows = [line.split() for line in plan("agent", n).splitlines()]
    make = "".join(f"link add dev {row[0]} mtu {row[8]} type wireguard\n" for row in rows)
    up = "".join(f"addr add {row[7]}/64 dev {row[0]}\nlink set dev {row[0]} up\n" for row in rows)
    script = "set -e\n" + "".join(f"wg setconf {row[0]} {lab.LAB}/wg/{row[0]}\n" for row in rows)
    subprocess.run(["ip", "-batch", "-"], input=make, text=True, check=True)
    subprocess.run(["sh"], input=script, text=True, check=True)
    subprocess.run(["ip", "-batch", "-"], input=up, text=True, check=True)
    for name, _, _, _, _, _, _, _, _, asn, neighbor in rows:
        with open(f"{lab.PEERS}/dn42_{asn}.conf", "w") as file:
            file.write(f"protocol bgp dn42_{asn} from dn42_peer {{\n    neighbor {neighbor} % '{name}' as {asn};\n}}\n")
    subprocess.run(["birdc", "-s", lab.SOCKET, "configure"], check=True, stdout=subprocess.DEVNULL)


def settings(n):
    """The files of `wg setconf` are not part of the measurement."""
    os.makedirs(f"{lab.LAB}/wg", exist_ok=True)
    for name, private, port, key, ip, far, keepalive, *_ in (line.split() for line in plan("agent", n).splitlines()):
        with open(f"{lab.LAB}/wg/{name}", "w") as file:
            file.write(f"[Interface]\nPrivateKey = {private}\nListenPort = {port}\n[Peer]\nPublicKey = {key}\n"
                       f"Endpoint = {ip}:{far}\nAllowedIPs = 0.0.0.0/0,fd00::/8,fe80::/64\n"
                       f"PersistentKeepalive = {keepalive}\n")


def limits(n, bird, rounds):
    """Interleaved, so that a machine that becomes slower affects all of them."""
    settings(n)
    ways = (("tools", tools), ("limit", lambda n, bird: limit(n, bird, False)),
            ("limit + bird -p", lambda n, bird: limit(n, bird, True)))
    for _ in range(rounds):
        for what, way in ways:
            bird.clean(Bird.TEMPLATE)
            begun, used, used_bird = now(), lab.spent(), bird.cpu()
            phases = way(n, bird)
            wait("BIRD has all", 120, lambda: bird.protocols() >= n, 0.02)
            record(what, n, seconds=now() - begun, cpu=lab.spent() - used, cpu_bird=bird.cpu() - used_bird,
                   peers=lab.peers(), phases=phases)
    bird.clean()


# ---- the agent
def ready(n, bird, begun, seconds):
    """Seconds until kernel and BIRD have everything. The cheap question comes first, and seldom: in the guest each takes
    a part of a processor from the agent."""
    for what, has in (("links", lambda: len(lab.links()) >= n), ("BIRD", lambda: bird.protocols() >= n),
                      ("peers", lambda: lab.peers() >= n), ("addresses", lambda: lab.addresses() >= n)):
        if wait(f"{what} of {n} sessions", max(1, begun + seconds - now()), has, 0.05 if n <= 10 else 0.2) is None:
            return None
    return now() - begun


def changes(agent, before):
    after = agent.counters()
    return {name: after[name] - before.get(name, 0) for name in after
            if name in COUNTED and after[name] != before.get(name, 0)}


COUNTED = ("netlink_writes", "sysctl_writes", "firewall_writes", "bird_reloads", "bird_checks", "bird_file_writes", "state_writes",
           "passes", "observations", "desired_builds", "fsyncs", "git_processes")


def cold(n, bird, agent, plane, seconds):
    used_bird = bird.cpu()
    agent.start()
    done = ready(n, bird, agent.begun, seconds)
    cpu = agent.cpu()
    wait("all reported", seconds, lambda: plane.stats()["active"] >= n, 0.1)
    last = plane.stats()["last_active"]
    record("cold", n, seconds=done, reported=last and last - agent.begun, cpu=cpu, cpu_reported=agent.cpu(),
           cpu_bird=bird.cpu() - used_bird, counters=changes(agent, {}), errors=plane.stats()["errors"],
           rss_kb=lab.memory(agent.pid(), "VmRSS"), peak_kb=lab.memory(agent.pid(), "VmHWM"))


class Spent:
    """Processor time of the agent for something besides what it spends at rest anyway; counters, whose reading costs
    some too, are read before and after."""
    RATE = 0

    def __init__(self, agent):
        self.agent, self.before = agent, agent.counters()
        self.begun, self.used = now(), agent.cpu()

    def fields(self, times=1):
        used, seconds = self.agent.cpu() - self.used, now() - self.begun
        return {"cpu": max(0, used - seconds * Spent.RATE) / times, "cpu_all": used / times,
                "wrote": changes(self.agent, self.before)}


def rest(n, bird, agent, seconds):
    """Until nothing was written for 25 s; then what a minute costs."""
    begun, last, since = now(), None, now()
    while now() - since < 25 and now() - begun < seconds:
        time.sleep(2)
        counted = {name: value for name, value in agent.counters().items() if name in COUNTED and "pass" not in name}
        if counted != last:
            last, since = counted, now()
    settled = since - agent.begun
    before = agent.counters()
    used, used_bird = agent.cpu(), bird.cpu()
    time.sleep(60)
    used = agent.cpu() - used
    Spent.RATE = used / 60
    record("rest", n, settled=settled, cpu=used, cpu_bird=bird.cpu() - used_bird,
           wrote=changes(agent, before), rss_kb=lab.memory(agent.pid(), "VmRSS"))


def syncs(n, agent, plane):
    spent = Spent(agent)
    for _ in range(4):
        wanted = plane.syncs() + 1
        lab.get(lab.API + "/sync")
        wait("a sync", 60, lambda: plane.syncs() >= wanted, 0.1)
        time.sleep(2)
    record("sync", n, **spent.fields(4))


def drift(n, agent):
    key = shell(f"wg show {lab.PREFIX}0005 peers").strip()
    link = lab.PREFIX + "{:04d}"
    for what, do, back in (
            ("address", f"ip addr del {lab.ADDRESS}/64 dev {link.format(3)}",
             lambda: lab.ADDRESS in shell(f"ip -6 addr show dev {link.format(3)}")),
            ("mtu", f"ip link set {link.format(4)} mtu 1300",
             lambda: "mtu 1420" in shell(f"ip link show dev {link.format(4)}")),
            ("peer", f"wg set {link.format(5)} peer '{key}' remove",
             lambda: key in shell(f"wg show {link.format(5)} peers"))):
        spent = Spent(agent)
        shell(do)
        seconds = wait(f"drift of {what} is repaired", 90, back, 0.005)
        time.sleep(3)
        record("drift", n, of=what, seconds=seconds, **spent.fields())


def one_change(n, bird, agent, plane):
    for what, change, done in (
            ("mtu", {"mtu": 1380}, lambda: "mtu 1380" in shell(f"ip link show dev {lab.PREFIX}0006")),
            ("asn", {"asn": 4201279999}, lambda: "4201279999" in lab.text_of(6))):
        spent, configured = Spent(agent), bird.configured()
        plane.edit(6, **change)
        begun = now()
        lab.get(lab.API + "/sync")
        seconds = wait(f"change of {what}", 120, done, 0.01)
        if what == "asn":
            wait("BIRD is configured", 120, lambda: bird.configured() != configured)
            seconds = now() - begun
        time.sleep(8)
        record("change", n, of=what, seconds=seconds, **spent.fields())


def restart(n, bird, agent):
    before, configured = lab.indexes(), bird.configured()
    stopped = agent.end()
    agent.start()
    seconds = wait("all active again", 300, lambda: agent.active() >= n, 0.05)
    cpu = agent.cpu()
    time.sleep(10)
    record("restart", n, stopped=stopped, seconds=seconds, cpu=cpu, wrote=changes(agent, {}),
           same_links=before == lab.indexes(), reloaded=bird.configured() != configured)


def changes_for(minutes, n, agent, plane):
    """Another MTU of another session every two seconds: memory after that, against memory after a minute of it."""
    begun, first, index = now(), None, 0
    while now() - begun < 60 * minutes:
        plane.edit(index % n, mtu=1280 + index % 100)
        lab.get(lab.API + "/sync")
        index += 1
        time.sleep(2)
        if first is None and now() - begun > 60:
            first = lab.memory(agent.pid(), "VmRSS")
    last = lab.memory(agent.pid(), "VmRSS")
    record("changes", n, minutes=minutes, changes=index, first_kb=first, last_kb=last,
           growth=last / first - 1 if first else None)


def ours(n, bird, options):
    bird.clean()
    plane, agent = ControlPlane(n), Agent(options.agent)
    cold(n, bird, agent, plane, options.timeout)
    if not options.brief:
        rest(n, bird, agent, options.timeout)
        syncs(n, agent, plane)
        drift(n, agent)
        one_change(n, bird, agent, plane)
        if options.minutes:
            changes_for(options.minutes, n, agent, plane)
        restart(n, bird, agent)
    agent.end()
    plane.end()
    shutil.copy(agent.LOG, f"{OUT}/agent-{n}.log")
    os.unlink(agent.LOG)
    bird.clean()


# How much more a cold start may count because every tenth session is broken.
MORE = {"observations": 6, "bird_reloads": 1, "bird_checks": 2, "fsyncs": 10}


def broken(n, bird, options):
    """A cold start with every tenth session broken, in ten ways: the others are configured as without them."""
    found = {}
    for what, sound, how in (("sound", n - n // 10, ()), ("broken", n - n // 10, ("broken",))):
        plane, agent = ControlPlane(n if how else sound, *how), Agent(options.agent)
        agent.start()
        wait(f"all {what} reported", options.timeout, lambda: plane.stats()["active"] >= sound, 0.1)
        reported, seconds = plane.stats()["active"], plane.stats()["last_active"] - agent.begun
        found[what] = changes(agent, {})
        record(what, n, sound=sound, reported=reported, seconds=seconds, cpu=agent.cpu(), counters=found[what])
        if reported < sound:
            raise SystemExit(f"only {reported} of {sound} sound sessions were configured")
        agent.end()
        plane.end()
        shutil.copy(agent.LOG, f"{OUT}/agent-{what}-{n}.log")
        os.unlink(agent.LOG)
        bird.clean()
    for name, more in MORE.items():
        with_them, without = found["broken"].get(name, 0), found["sound"].get(name, 0)
        if with_them > without + more:
            raise SystemExit(f"{name}: {with_them} with broken sessions, {without} without; at most {more} more")


def traced(n, bird, options):
    """A cold start under strace, whose times say nothing: system calls of the agent and of its children."""
    plane, agent = ControlPlane(n), Agent(options.agent)
    agent.start(traced=True)
    ready(n, bird, agent.begun, options.timeout)
    wait("all reported", options.timeout, lambda: plane.stats()["active"] >= n, 0.1)
    time.sleep(3)
    counters = changes(agent, {})
    agent.end()
    plane.end()
    record("traced", n, calls=agent.traced(), counters=counters)
    os.unlink(agent.trace)
    bird.clean()


def far_ends(n):
    """The other ends of the tunnels, in a namespace of their own."""
    shell("ip netns add peers; ip -n peers link set lo up")
    subprocess.run([f"{lab.LAB}/limit", "-n", "peers"], input=plan("peers", n), text=True, check=True,
                   stdout=subprocess.DEVNULL)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("agent")
    arguments.add_argument("--n", default="10,100", help="numbers of sessions")
    arguments.add_argument("--rounds", type=int, default=5, help="rounds of the limits")
    arguments.add_argument("--no-limits", action="store_true", help="a kernel without WireGuard: the agent alone")
    arguments.add_argument("--broken", action="store_true", help="only: cold starts with and without broken sessions")
    arguments.add_argument("--brief", action="store_true", help="the cold start alone")
    arguments.add_argument("--minutes", type=float, default=0, help="of changes, for the growth of memory")
    arguments.add_argument("--trace", action="store_true", help="one more cold start under strace")
    arguments.add_argument("--timeout", type=float, default=1500, help="seconds for each wait")
    options = arguments.parse_args()
    numbers = [int(number) for number in options.n.split(",")]
    os.makedirs(f"{lab.LAB}/bird", exist_ok=True)
    if not options.no_limits:
        log_daemon()
    bird = Bird()
    if not options.no_limits:
        far_ends(max(numbers))
    for n in numbers:
        if options.broken:
            broken(n, bird, options)
            continue
        ours(n, bird, options)
        if options.trace and shutil.which("strace"):
            traced(n, bird, options)
        if not options.no_limits:
            limits(n, bird, options.rounds)
    bird.process.kill()


if __name__ == "__main__":
    main()
