#!/usr/bin/env python3
"""sessions.py N FOLDER: N sessions with keys that are the same in each run; X25519 is written out, so no tool is needed.

  sessions.json   what the control plane lists
  agent.key       the agent's private key
  agent.plan      the same tunnels for `limit`
  peers.plan      the far ends, for `limit -n peers`
The agent listens on 20000 + i, the far end on 30000 + i, both on 127.0.0.1.
"""
import base64
import hashlib
import json
import os
import sys

PRIME = 2**255 - 19
AGENT = "fe80::998:302:1:1"


def clamped(seed):
    key = bytearray(hashlib.sha256(f"bench {seed}".encode()).digest())
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)


def public(private):
    """X25519 with the base point (RFC 7748, section 5)."""
    scalar = int.from_bytes(private, "little")
    x1, x2, z2, x3, z3, swap = 9, 1, 0, 9, 1, 0
    for bit in reversed(range(255)):
        now = scalar >> bit & 1
        if swap ^ now:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = now
        a, b, c, d = (x2 + z2) % PRIME, (x2 - z2) % PRIME, (x3 + z3) % PRIME, (x3 - z3) % PRIME
        aa, bb, da, cb = a * a % PRIME, b * b % PRIME, d * a % PRIME, c * b % PRIME
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        e = aa - bb
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def text(key):
    return base64.b64encode(key).decode()


def main(count, folder):
    os.makedirs(folder, exist_ok=True)
    agent = clamped("agent")
    agent_public = text(public(agent))
    sessions, peers, links = [], [], []
    for i in range(count):
        peer = clamped(f"peer{i}")
        key, asn, address = text(public(peer)), 4201270000 + i, f"fe80::2:{i + 1:x}"
        sessions.append({
            "uuid": f"00000000-0000-4000-8000-{i:012x}", "asn": asn, "name": f"peer{i}", "status": 4, "mtu": 1420,
            "interface": f"dn42w{i:04d}", "endpoint": f"127.0.0.1:{30000 + i}", "ipv6LinkLocal": address,
            "listenPort": 20000 + i, "credential": {"publicKey": key}})
        links.append(f"dn42w{i:04d} {text(agent)} {20000 + i} {key} 127.0.0.1 {30000 + i} 25 {AGENT} 1420 {asn} {address}")
        peers.append(f"p{i:04d} {text(peer)} {30000 + i} {agent_public} - 0 0 {address} 1420 {asn} -")
    for name, content in (("sessions.json", json.dumps(sessions)), ("agent.key", text(agent)),
                          ("agent.plan", "\n".join(links)), ("peers.plan", "\n".join(peers))):
        with open(f"{folder}/{name}", "w") as file:
            file.write(content + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
