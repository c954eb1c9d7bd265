# SPDX-License-Identifier: Apache-2.0
"""Grants a second: the real daemon, one mutual-TLS connection, the records that an agent sends, as many under way as it allows itself."""
import json
import os

import world

COUNT = 30000


def measure(o, out):
    opens, closes, cpu = [], [], []
    with world.Net() as net:
        gate = world.Gate(net, o.build)
        for _ in range(o.runs):
            before = gate.cpu_s()
            text = gate.client("bench", str(COUNT), f"{world.SERVICE}:7", "198.18.9.9")
            got = json.loads(text.strip().splitlines()[-1])
            if got["opened"] != COUNT:
                raise world.Failure(f"{COUNT} holes asked for, {got['opened']} opened: {text.strip()}")
            cpu.append(2 * COUNT / (gate.cpu_s() - before))
            opens.append(got["opens_per_s"])
            closes.append(got["closes_per_s"])
        gate.stop()
    out.add("grants_per_s", opens, limit=f"the gate's two processes and the client share {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    out.add("closes_per_s", closes, "holes closed a second, the same connection")
    out.add("grants_per_cpu_s", cpu, "grants and closes for each second of the CPU that the gate's two processes used")
