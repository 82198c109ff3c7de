#!/usr/bin/env python3
"""control_plane.py SESSIONS.json COUNT [broken]: a Control Plane for the benchmark, on 127.0.0.1:18080 (Bearer token
"t"). `broken`: every tenth session cannot be applied, in ten ways that take turns.

Agent side:  GET /agent/NAME/sessions | mesh | config | bird-config, POST .../modify | heartbeat | report
Test side:   GET /admin/stats   calls, reported sessions, and times (time.monotonic of this machine)
             POST /admin/edit   {"index": i, "set": {...}}
"""
import collections
import json
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

with open(sys.argv[1]) as source:
    SESSIONS = json.load(source)[:int(sys.argv[2])]
# What breaks a session: fields that the agent refuses, that other objects or programs have, or that nothing answers.
WAYS = ({"credential": {"publicKey": "not a key"}}, {"endpoint": "nowhere.invalid:51820"}, {"asn": 0},
        {"asn": 4242420998}, {"interface": "bad/name"}, {"mtu": 70000}, {"ipv6LinkLocal": "not an address"},
        {"interface": "lo"}, {"listenPort": 0}, {"status": 99})
BROKEN = set()
if sys.argv[3:] == ["broken"]:
    for place, broken in enumerate(SESSIONS[9::10]):
        broken.update(WAYS[place % len(WAYS)])
        BROKEN.add(broken["uuid"])
# A search for each of a thousand reports would hold up the agent.
PLACE = {session["uuid"]: session for session in SESSIONS}
LOCK = threading.Lock()
CALLS, ERRORS = collections.Counter(), []
ACTIVE = {}  # the first report of each session that it is active: its time

NODE = {"id": 1, "name": "bench", "region": "x", "asn": 4242420998, "loopbackIpv4": "172.22.188.4",
        "loopbackIpv6": "fd00:4242:7777::4"}
LISTS = {
    "mesh": {"peers": []},
    "config": {"node": NODE},
    "bird-config": {
        "configHash": "1", "ibgpPeers": [],
        "node": {"id": 1, "name": "bench", "type": "edge", "bandwidth": "1G", "regionCode": 101},
        "policy": {"dn42As": 4242420998, "dn42Ipv4Prefix": "172.22.188.0/26", "dn42Ipv6Prefix": "fd00:4242:7777::/48",
                   "rejectUnknownRoa": False, "rpkiServers": [], "ebgpImportLimit": 10000, "ebgpExportLimit": 10000,
                   "asPathMaxLen": 10}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write for each answer

    def log_message(self, *_):
        pass

    def answer(self, value, code=200):
        body = json.dumps(value).encode()
        self.send_response_only(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_allowed(self):
        if self.headers.get("Authorization") == "Bearer t":
            return True
        self.answer({"error": "no such token", "code": "INVALID_TOKEN"}, 401)
        return False

    def do_GET(self):
        what = self.path.rsplit("/", 1)[-1]
        if self.path == "/admin/stats":
            with LOCK:
                self.answer({"calls": CALLS, "errors": ERRORS[:5], "active": len(ACTIVE),
                             "last_active": max(ACTIVE.values(), default=None)})
            return
        if not self.is_allowed():
            return
        with LOCK:
            CALLS["GET " + what] += 1
            answer = {"sessions": SESSIONS} if what == "sessions" else LISTS.get(what)
        self.answer(answer or {"error": "no such endpoint", "code": "NOT_FOUND"}, 200 if answer else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        what = self.path.rsplit("/", 1)[-1]
        if self.path == "/admin/edit":
            with LOCK:
                SESSIONS[body["index"]].update(body["set"])
            self.answer({})
            return
        if not self.is_allowed():
            return
        with LOCK:
            CALLS["POST " + what] += 1
            session = PLACE.get(body.get("uuid")) if what == "modify" else None
            if session is not None:
                session["status"] = body["status"]
                if body["status"] == 1 and body["uuid"] not in BROKEN:
                    ACTIVE.setdefault(body["uuid"], time.monotonic())
                if body.get("error"):
                    ERRORS.append(body["error"])
        if what == "modify" and session is None:
            self.answer({"error": "no such session", "code": "SESSION_NOT_FOUND"}, 404)
        else:
            self.answer({"status": "ok"})


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", 18080), Handler).serve_forever()
