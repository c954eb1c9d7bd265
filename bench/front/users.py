# SPDX-License-Identifier: Apache-2.0
"""A million users: what they take and how long reading them takes."""
import json
import re

import servers
import world
from inside import Failure


def measure(w, out):
    """bytes_per_user: two whole fronts, a million users against a thousand, and the table alone; the worse. load_s: the same file read and verified
    by itself, each round."""
    few, many = w.server("walnut"), w.server("walnut_many")
    file = f"{w.dir}/walnut_many.state/{servers.DOMAIN}.users"
    rounds = [json.loads(w.on_core("front-users", "--measure", file, "--domain", servers.DOMAIN, "--seed", world.SEED)) for _ in range(w.o.runs)]
    rss = [sum(world.resident(pid) for pid in s.pids()) for s in (few, many)]
    front = (rss[1] - rss[0]) / (many.users - few.users)
    out.add("bytes_per_user", [max(front, r["bytes_per_user"]) for r in rounds])
    out.add("bytes_per_user_front", [front], "a whole front with a million users less one with a thousand")
    out.add("bytes_per_user_table", [r["bytes_per_user"] for r in rounds], "the table alone")
    out.add("load_s", [r["load_s"] for r in rounds])
    out.add("load_cpu_s", [r["load_cpu_s"] for r in rounds], "CPU-seconds of it")
    said = re.search(r"read from disk.* in (\d+) ms", w.log("walnut_many"))
    if not said:
        raise Failure("the front does not say how long it read")
    out.add("load_front_s", [int(said.group(1)) / 1000], "the front's own word, at its start")
    out.add("lookup_ns_1000", [r["lookup_ns_1000"] for r in rounds], "the bare look-up among 1,000, ns")
    out.add("lookup_ns_1000000", [r["lookup_ns_1000000"] for r in rounds], "among 1,000,000")
