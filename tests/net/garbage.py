#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Garbage is counted by its reason and costs nothing else."""
import json

from _lab import everything, main, ok
from walnutlab import claims, topology
from walnutlab.processes import find, run

COUNT = 5000


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def test():
    with everything() as (lab, _, walnut):
        load = find("lab-load")
        before = {f.name: f.status()["outcomes"] for f in walnut.fronts}
        memory = {f.name: resident(f.process.pid) for f in walnut.fronts}
        status, out, err = run(lab, "attack", [load, "garbage", "--to", f"{topology.FRONTS[0]}:5060", "--to", f"{topology.FRONTS[1]}:5060", "--rate",
                                               "2000", "--count", str(2 * COUNT), "--seconds", "20"])
        ok(status == 0, "garbage was sent to both fronts", err)
        sent = json.loads(out)["sent"]
        claims._settled(walnut)
        for f in walnut.fronts:
            after = f.status()["outcomes"]
            delta = {k: v - before[f.name].get(k, 0) for k, v in after.items() if v != before[f.name].get(k, 0)}
            got = sum(delta.values())
            ok(0.99 * sent / 2 <= got <= 1.01 * sent / 2 + 10, f"{f.name} has counted each datagram once", f"{got} of {sent / 2}: {delta}")
            ok(not delta.get("challenged") and not delta.get("forwarded"), f"{f.name} has answered none", delta)
            ok(len(delta) >= 4, f"{f.name} tells the reasons apart: {', '.join(sorted(delta))}", delta)
            ok(resident(f.process.pid) < memory[f.name] + 4096, f"{f.name} has not grown", (memory[f.name], resident(f.process.pid)))

        before = walnut.gate_drops()
        status, out, err = run(lab, "attack", [load, "udp", "--to", topology.GATE_PUBLIC, "--rate", "2000", "--count", "2000", "--size", "300"])
        ok(status == 0, "and to the gate", err)
        after = walnut.gate_drops()
        delta = {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}
        ok(sum(delta.values()) >= 1980, "which has dropped and counted it", delta)
        worked, seconds, said = claims.connect(lab, walnut)
        ok(worked, f"a user gets in all the same ({seconds:.2f} s)", said)


main(test)
