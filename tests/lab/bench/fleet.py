#!/usr/bin/env python3
"""fleet.py AGENT [N[,N…]] [--store postgres] [--seconds 60] [--speed 1]: the embedded Control Plane with N simulated
routers (100, 1000 and 10000 unless told), each with 20 sessions and the calls of an agent at its default intervals.

Prints one JSON object a line for each N, and progress to standard error. AGENT is a release build. With --store
postgres the fleet is in a database that is started for it (Debian's package; needs root). --speed 2 halves all
intervals but that of the long poll; --idle 60 adds so many seconds with nothing but long polls. Everything is on
loopback, and is removed at the end.
"""
import argparse
import asyncio
import base64
import gc
import glob
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SESSIONS = 20
# Seconds between two calls of one kind (docs/contract/control-plane.md#calls).
LISTS = {"sessions": 60, "mesh": 120, "bird-config": 300, "config": 300}
POSTS = {"heartbeat": 30, "report": 60}
RING, REFLECTORS = 10, 4
# Seconds of a wait for a change.
WAIT = 60
TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    print(f"# {text}", file=sys.stderr, flush=True)


def name(router):
    return f"r{router}"


def fleet(folder, routers):
    """Writes a network: a ring of regions with ten routers each, and route reflectors."""
    regions = [f"g{number}" for number in range(max(1, routers // RING))]
    os.makedirs(f"{folder}/routers")
    with open(f"{folder}/network.yaml", "w") as file:
        file.write("asn: 4242420998\nprefixes: {ipv4: 10.0.0.0/8, ipv6: 'fd48:4da8:420::/48'}\n"
                   f"regions: {{{', '.join(f'{region}: {{}}' for region in regions)}}}\n"
                   f"mesh: {{topology: ring, ibgp: reflectors, ring: [{', '.join(regions)}]}}\n")
    for router in range(1, routers + 1):
        write_router(folder, routers, router, "192.0.2.1")
        os.makedirs(f"{folder}/sessions/{name(router)}")
        for number in range(SESSIONS):
            write_session(folder, router, number, 1)


def write_router(folder, routers, router, address):
    region = (router - 1) // RING % max(1, routers // RING)
    kind = ", type: rr" if router <= min(REFLECTORS, routers) else ""
    with open(f"{folder}/routers/{name(router)}.yaml", "w") as file:
        file.write(f"{{id: {router}, region: g{region}, address: {address}, token: t{router}{kind}}}\n")


def write_session(folder, router, number, status):
    key = base64.b64encode(f"{router:016}{number:016}".encode()).decode()
    with open(f"{folder}/sessions/{name(router)}/s{number}.yaml", "w") as file:
        file.write(f"uuid: s-{router}-{number}\nasn: {4242420000 + number}\nstatus: {status}\n"
                   f"ipv6LinkLocal: fe80::{number + 1:x}\ninterface: wg_{number}\nlistenPort: {40000 + number}\n"
                   f"credential: {{publicKey: {key}}}\n")


class Connection(asyncio.Protocol):
    """One connection that is kept, with one request at a time."""

    def __init__(self):
        self.transport, self.waiter, self.data = None, None, b""

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.transport = None
        if self.waiter and not self.waiter.done():
            self.waiter.set_exception(ConnectionError("closed"))

    def data_received(self, data):
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.data[:end].lower()
        status = int(head[9:12])
        if b"\r\ntransfer-encoding: chunked" in head:
            complete = self.data.endswith(b"\r\n0\r\n\r\n")
        else:
            place = head.find(b"\r\ncontent-length: ")
            length = int(head[place + 18:].split(b"\r\n", 1)[0]) if place >= 0 else 0
            complete = status == 304 or len(self.data) >= end + 4 + length
        if not complete:
            return
        tag = head.find(b"\r\netag: ")
        tag = self.data[tag + 8:end].split(b"\r\n", 1)[0] if tag >= 0 else None
        body, self.data = self.data[end + 4:], b""
        if b"\r\nconnection: close" in head:
            self.transport.close()
            self.transport = None
        if self.waiter and not self.waiter.done():
            self.waiter.set_result((status, tag, body))


class Router:
    def __init__(self, bench, number):
        self.bench, self.number, self.tags = bench, number, {}
        self.lock, self.kept, self.poll = asyncio.Lock(), None, None
        self.revision, self.told = None, asyncio.Event()

    async def call(self, kept, method, endpoint, headers=b"", body=b""):
        for attempt in range(3):
            if kept is None or kept.transport is None:
                # More than one source address: closed connections keep their ports for a minute.
                source = (f"127.0.{self.number % 7 + 1}.{self.number % 250 + 1}", 0)
                _, kept = await asyncio.get_running_loop().create_connection(
                    Connection, "127.0.0.1", self.bench.port, local_addr=source)
            kept.waiter = asyncio.get_running_loop().create_future()
            kept.transport.write(
                f"{method} /agent/{name(self.number)}/{endpoint} HTTP/1.1\r\nhost: localhost\r\n"
                f"authorization: Bearer t{self.number}\r\naccept: application/json\r\naccept-encoding: gzip\r\n"
                f"content-length: {len(body)}\r\n".encode() + headers + b"\r\n" + body)
            try:
                return kept, await kept.waiter
            except ConnectionError:
                # An idle connection that the server has closed.
                kept = None
        raise ConnectionError(f"{endpoint}: closed {attempt + 1} times")

    async def timed(self, method, endpoint, headers=b"", body=b""):
        begin = time.monotonic()
        async with self.lock:
            self.kept, answer = await self.call(self.kept, method, endpoint, headers, body)
        self.bench.record(endpoint, begin, answer[0])
        return answer

    async def get(self, what):
        tag = self.tags.get(what)
        headers = b"if-none-match: " + tag + b"\r\n" if tag else b""
        status, tag, _ = await self.timed("GET", what, headers)
        if status == 200:
            self.tags[what] = tag

    async def post(self, what):
        if what == "heartbeat":
            key = base64.b64encode(f"key{self.number:029}".encode()).decode()
            body = {"version": "1.0.0", "uptime": int(time.monotonic()), "meshPublicKey": key}
        else:
            body = {"sessions": [
                {"uuid": f"s-{self.number}-{number}", "rtt_ms": round(random.uniform(1, 99), 1), "loss": 0.0,
                 "routes_imported": random.randrange(900), "routes_exported": 900, "state": "established"}
                for number in range(SESSIONS)]}
        await self.timed("POST", what, b"content-type: application/json\r\n", json.dumps(body).encode())

    async def every(self, interval, work, what):
        interval /= self.bench.speed
        await asyncio.sleep(random.uniform(0, interval))
        while True:
            try:
                await work(what)
            except (OSError, ConnectionError) as error:
                self.bench.fail(what, error)
            await asyncio.sleep(interval * random.uniform(0.9, 1.1))

    async def wait(self):
        # Routers do not start at one moment.
        await asyncio.sleep(random.uniform(0, WAIT))
        while True:
            known = f"&revision={self.revision}" if self.revision else ""
            try:
                self.poll, (status, _, body) = await self.call(self.poll, "GET", f"revision?wait={WAIT}{known}")
                self.bench.waits += 1
                before, self.revision = self.revision, json.loads(body)["revision"]
                if status != 200:
                    self.bench.fail("revision", status)
                if before and self.revision != before:
                    self.bench.changes += 1
                    for what in LISTS:
                        await self.get(what)
                    self.told.set()
            except (OSError, ConnectionError, KeyError, ValueError) as error:
                self.bench.fail("revision", error)
            await asyncio.sleep(1)

    async def start(self):
        for what in LISTS:
            await self.get(what)
        await self.post("report")

    def calls(self):
        calls = [(interval, self.get, what) for what, interval in LISTS.items()]
        calls += [(interval, self.post, what) for what, interval in POSTS.items()]
        return [asyncio.create_task(self.every(*call)) for call in calls]


def cpu(pids):
    """Returns the processor time of processes in seconds."""
    total = 0
    for pid in pids:
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
        except OSError:
            pass
    return total


def memory(pid, key):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(key):
            return int(line.split()[1]) // 1024
    return 0


class Database:
    def __init__(self, folder):
        programs = max(glob.glob("/usr/lib/postgresql/*/bin"))
        self.folder = folder
        os.chmod(folder, 0o755)
        shutil.chown(folder, "postgres", "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = ["-D", f"{folder}/data"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([*user, f"{programs}/initdb", *data, "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
                       check=True, **quiet)
        self.server = subprocess.Popen([*user, f"{programs}/postgres", *data, "-k", folder, "-h", ""], **quiet)
        self.url = f"postgres://postgres@localhost/postgres?host={folder}"

    def pids(self):
        """Its processes; a connection's process that ended is not counted."""
        children = open(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read()
        return [self.server.pid, *map(int, children.split())]

    def stop(self):
        self.server.send_signal(signal.SIGINT)
        self.server.wait()


class Bench:
    def __init__(self, options, routers, folder):
        self.options, self.routers, self.folder = options, routers, folder
        self.speed, self.port = options.speed, 18090
        self.times, self.errors, self.waits, self.changes = {}, {}, 0, 0
        self.measuring = False

    def record(self, what, begin, status):
        if status not in (200, 304):
            self.fail(what, status)
        elif self.measuring:
            self.times.setdefault(what, []).append((time.monotonic() - begin) * 1000)

    def fail(self, what, why):
        key = f"{what}: {why}"
        self.errors[key] = self.errors.get(key, 0) + 1

    def serve(self, database):
        source = ["--fleet", f"{self.folder}/fleet"]
        if database:
            source = ["--store", database.url]
            load = [self.options.agent, "fleet", "import", f"{self.folder}/fleet", *source]
            for _ in range(20):
                if subprocess.run(load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                    break
                time.sleep(1)
        log = open(f"{self.folder}/log", "w")
        return subprocess.Popen([self.options.agent, "control-plane", *source, "--listen", f"127.0.0.1:{self.port}"],
                                stdout=log, stderr=log)

    async def ready(self, router):
        begin = time.monotonic()
        while True:
            try:
                _, (status, _, _) = await router.call(None, "GET", "config")
                if status == 200:
                    return time.monotonic() - begin
            except (OSError, ConnectionError):
                pass
            if time.monotonic() - begin > 300:
                raise SystemExit(f"the server does not answer; its log: {open(self.folder + '/log').read()[-2000:]}")
            await asyncio.sleep(0.5)

    async def change(self, router, database, edit):
        """Makes an edit, and returns the seconds until its router was woken and has fetched."""
        router.told.clear()
        edit(f"{self.folder}/fleet", router.number)
        begin = time.monotonic()
        if database:
            load = [self.options.agent, "fleet", "import", f"{self.folder}/fleet", "--store", database.url, "--overwrite"]
            done = await asyncio.create_subprocess_exec(*load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            await done.wait()
            begin = time.monotonic()
        try:
            await asyncio.wait_for(router.told.wait(), 60)
        except asyncio.TimeoutError:
            return None
        return round(time.monotonic() - begin, 2)

    async def used(self, seconds, server, database):
        """Waits, and returns the seconds that passed with the processors that server, generator and database took."""
        pids = database.pids() if database else []

        def now():
            return cpu([server.pid]), time.process_time(), cpu(pids)
        begin, before = time.monotonic(), now()
        await asyncio.sleep(seconds)
        passed = time.monotonic() - begin
        shares = [round((after - used) / passed, 3) for after, used in zip(now(), before)]
        return passed, dict(zip(("server", "generator", "database"), shares))

    async def run(self, server, database):
        routers = [Router(self, number) for number in range(1, self.routers + 1)]
        started = await self.ready(routers[0])
        say(f"{self.routers} routers: the server answers after {started:.1f} s, memory {memory(server.pid, 'VmRSS')} MB")
        begin, limit = time.monotonic(), asyncio.Semaphore(64)

        async def limited(work):
            async with limit:
                await work
        # A list of tunnels needs the keys of the peers, which come with heartbeats.
        await asyncio.gather(*(limited(router.post("heartbeat")) for router in routers))
        await asyncio.gather(*(limited(router.start()) for router in routers))
        first, first_used = time.monotonic() - begin, cpu([server.pid])
        say(f"first calls of all routers: {first:.1f} s, memory {memory(server.pid, 'VmRSS')} MB")
        tasks = [task for router in routers for task in router.calls()]
        waits = [asyncio.create_task(router.wait()) for router in routers]
        # A collection of all tasks stops the generator for longer than a request takes.
        gc.collect()
        gc.disable()
        await asyncio.sleep(self.options.settle)
        self.measuring, self.waits, self.changes = True, 0, 0
        passed, used = await self.used(self.options.seconds, server, database)
        self.measuring, answered, changes = False, self.waits, self.changes
        connections = len(os.listdir(f"/proc/{server.pid}/fd"))
        memories = {f"{name}_mb": memory(server.pid, key)
                    for name, key in (("rss", "VmRSS"), ("heap", "RssAnon"), ("rss_peak", "VmHWM"))}
        told = await self.change(routers[-1], database, lambda folder, router: write_session(folder, router, 0, 4))
        before = cpu([server.pid])
        structure_told = await self.change(
            routers[-1], database, lambda folder, router: write_router(folder, self.routers, router, "192.0.2.2"))
        structure_cost = cpu([server.pid]) - before
        for task in tasks:
            task.cancel()
        idle = None
        if self.options.idle:
            _, idle = await self.used(self.options.idle, server, database)
        for task in waits:
            task.cancel()
        all_times = sorted(value for values in self.times.values() for value in values)

        def quantile(values, share):
            return round(values[min(len(values) - 1, int(len(values) * share))], 1) if values else None
        return {
            "routers": self.routers, "store": self.options.store, "speed": self.speed,
            "requests_per_s": round((len(all_times) + answered) / passed, 1), "waits_per_s": round(answered / passed, 1),
            "p50_ms": quantile(all_times, 0.5), "p99_ms": quantile(all_times, 0.99),
            "by_call_p50_p99": {what: (quantile(sorted(values), 0.5), quantile(sorted(values), 0.99))
                                for what, values in sorted(self.times.items())},
            **memories, "open_files": connections, "cpu": used, "first_calls_s": round(first, 1),
            "first_calls_cpu_s": first_used, "change_told_after_s": told, "changes_otherwise": changes,
            "router_file_told_after_s": structure_told, "router_file_cpu_s": round(structure_cost, 2), "cpu_of_waits": idle,
            "rss_end_mb": memory(server.pid, "VmRSS"), "rss_peak_end_mb": memory(server.pid, "VmHWM"), "errors": self.errors,
            "load": os.getloadavg()[0]}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("agent")
    options.add_argument("routers", nargs="?", default="100,1000,10000")
    options.add_argument("--store", choices=["directory", "postgres"], default="directory")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--settle", type=float, default=WAIT + 10)
    options.add_argument("--idle", type=float, default=0)
    options.add_argument("--speed", type=float, default=1)
    options = options.parse_args()
    options.agent = os.path.abspath(options.agent)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for routers in map(int, options.routers.split(",")):
        folder, database, server = tempfile.mkdtemp(), None, None
        try:
            if options.store == "postgres":
                os.mkdir(f"{folder}/db")
                os.chmod(folder, 0o755)
                database = Database(f"{folder}/db")
            fleet(f"{folder}/fleet", routers)
            # Until the files count as quiet.
            time.sleep(1.5)
            bench = Bench(options, routers, folder)
            server = bench.serve(database)
            print(json.dumps(asyncio.run(bench.run(server, database))), flush=True)
        finally:
            if server:
                server.terminate()
                server.wait()
            if database:
                database.stop()
            shutil.rmtree(folder, ignore_errors=True)


main()
