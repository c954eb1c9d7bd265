#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A lab leaves nothing behind, however its owner ends; two do not disturb each other; the generator stays inside."""
import os
import signal
import subprocess
import sys

from _lab import main, ok, ROOT
from walnutlab import topology
from walnutlab.processes import find, run
from walnutlab.topology import Lab

OWNER = """
import os, sys, time, signal
sys.path.insert(0, sys.argv[1])
from walnutlab.topology import Lab
from walnutlab.services import Services
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Lab() as lab:
    lab.walnut()
    Services(lab).start()
    os.makedirs(lab.pins)
    print(lab.id, flush=True)
    time.sleep(60)
"""


def owner():
    """A process that has a lab. Returns (process, its lab, the lab's processes)."""
    p = subprocess.Popen([sys.executable, "-B", "-c", OWNER, os.path.join(ROOT, "lab")], stdout=subprocess.PIPE, text=True)
    lab = Lab(p.stdout.readline().strip())
    return p, lab, topology.pids_in(lab.inodes())


def left(lab, pids):
    found = [p for p in (lab.run, lab.pins, *map(lab.ns_path, topology.HOSTS)) if os.path.exists(p)]
    return found + [f"process {p}" for p in pids if topology.start_time(p) is not None]


def state(lab):
    return dict(topology.labs()).get(lab.id)


def test():
    p, killed, pids = owner()
    q, other, other_pids = owner()
    ok(len(pids) >= 3 and len(other_pids) >= 3, "two labs run their servers at once", (pids, other_pids))
    ok(state(killed) == "live" and state(other) == "live", "both are known to be in use")
    p.kill()
    p.wait()
    ok(state(killed) == "stale" and len(left(killed, pids)) > 10, "a lab whose owner was killed is known to be stale", state(killed))
    topology.sweep()
    ok(not left(killed, pids), "the next one removes it", left(killed, pids))
    ok(state(other) == "live" and len(topology.pids_in(other.inodes())) == len(other_pids), "and not the one in use")
    status, out, _ = run(other, "me", ["ping", "-c", "1", "-W", "2", topology.FRONTS[0]])
    ok(status == 0, "which still works", out)
    q.send_signal(signal.SIGTERM)
    q.wait()
    ok(not left(other, other_pids), "SIGTERM to its owner removes a lab", left(other, other_pids))

    lab = [os.path.join(ROOT, "lab", "lab")]
    ident = "c" + os.urandom(2).hex()
    up = subprocess.run([*lab, "up", "--bare", "--id", ident], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    kept = Lab(ident)
    kept_pids = topology.pids_in(kept.inodes())
    ok(up.returncode == 0 and state(kept) == "kept" and "lab/lab down" in up.stdout and kept_pids, "lab up leaves it up with a hint", up.stdout)
    again = subprocess.run([*lab, "up", "--bare", "--id", ident], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    ok(again.returncode == 1 and again.stdout.count("\n") == 1 and state(kept) == "kept", "a second of that name is refused in a line", again.stdout)
    load = find("lab-load")
    for target in ("192.0.2.1", "198.18.5.1", "198.20.0.1", "8.8.8.8"):
        r = subprocess.run([load, "udp", "--to", target, "--seconds", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        ok(r.returncode == 3 and "refused" in r.stderr and not r.stdout, f"lab-load refuses {target} outside a lab", r)
    r = run(kept, "attack", [load, "udp", "--to", "192.0.2.1", "--seconds", "1"])
    ok(r[0] == 3, "and what is not the lab's inside one", r)
    r = run(kept, "attack", [load, "udp", "--to", "198.18.3.2", "--count", "100", "--rate", "1000", "--seconds", "5"])
    ok(r[0] == 0 and '"sent": 100,' in r[1], "there it sends what it was told and ends", r)
    r = run(kept, "attack", [load, "udp", "--to", "198.18.3.2", "--rate", "1000000"])
    ok(r[0] == 2, "no rate beyond the hard limit", r)
    down = subprocess.run([*lab, "down", ident], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    ok(down.returncode == 0 and not left(kept, kept_pids), "lab down leaves nothing", left(kept, kept_pids) or down.stdout)


main(test)
