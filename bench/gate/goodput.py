# SPDX-License-Identifier: Apache-2.0
"""What a flood does to an accepted flow: goodput of a TCP connection through a hole and over the narrow link, with and without."""
import json
import os
import subprocess
import sys
import time
from statistics import median

import world
from world import GATEWAY, PUBLIC, SERVICE, Failure, Net

PORT = 9
SECONDS = 3


class Transfers:
    def __init__(self, o, net):
        self.o, self.net = o, net
        self.gate = world.Gate(net, o.build, holes=4096)
        self.program = ["taskset", "-c", str(o.rest), sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "stream.py")]
        self.server = net.start("server", "in", [*self.program, "serve", str(PORT)], stdout=subprocess.PIPE)
        self.line()

    def line(self):
        text = self.server.stdout.readline()
        if not text:
            raise Failure("the service ended: " + self.net.log("server"))
        return text

    def goodput(self, way):
        """Mbit/s of one transfer through a hole of its own."""
        asked = f"open tcp {SERVICE}:{PORT} {GATEWAY} lifetime=60\n"
        answer = json.loads(self.gate.client("-", stdin=asked).splitlines()[0])
        port = answer["public"].rsplit(":", 1)[1]
        text = self.net.sh("out", *self.program, way, PUBLIC, port, str(SECONDS), seconds=40)
        got = json.loads(self.line() if way == "up" else text)
        if "error" in got:
            raise Failure(got["error"])
        self.gate.client("close", str(answer["hole"]))
        return got["mbit"]

    def flood(self, rate):
        argv = ["taskset", "-c", str(self.o.rest), f"{self.o.build}/lab/lab-load", "udp", "--dev", "eth0", "--to", PUBLIC, "--rate", str(rate),
                "--seconds", "60", "--spoof", "100", "--size", "18"]
        p = self.net.start("flood", "out", argv, stdout=subprocess.PIPE)
        time.sleep(0.3)
        if p.poll() is not None:
            raise Failure("the flood ended: " + self.net.log("flood"))
        return p

    def end_flood(self, p):
        p.terminate()
        text = p.communicate(timeout=10)[0]
        self.net.stop(p)
        return json.loads(text.strip().splitlines()[-1])["rate"]


def compare(o, narrow, ways):
    """-> ({way: Mbit/s without}, {way: with flood}, floods' rates)"""
    plain, flooded, rates = {w: [] for w in ways}, {w: [] for w in ways}, []
    with Net("goodput", narrow=narrow, busy=o.cpu, rest=o.rest) as net:
        t = Transfers(o, net)
        for _ in range(min(o.runs, 5)):
            for way in ways:
                plain[way].append(t.goodput(way))
                p = t.flood(o.rate)
                flooded[way].append(t.goodput(way))
                rates.append(t.end_flood(p))
        t.gate.stop()
    return plain, flooded, rates


def share(flooded, plain):
    return [f / p if p > 0 else 0 for f, p in zip(flooded, plain)]


def measure(o, out):
    plain, flooded, rates = compare(o, True, ("up", "down"))
    ratio = {way: share(flooded[way], plain[way]) for way in plain}
    out.add("flood_goodput", min(ratio.values(), key=median))
    for way, text in (("up", "towards the service"), ("down", "from the service")):
        out.add(f"flood_goodput_{way}", ratio[way], text)
        out.add(f"goodput_{way}_mbit", plain[way], f"{text}, over the narrow link of {world.LINK_RATE}, no flood")
        out.add(f"goodput_{way}_flood_mbit", flooded[way], "the same under flood")
    out.add("flood_pps", rates, "packets a second of that flood")
    plain, flooded, _ = compare(o, False, ("up",))
    out.add("flood_goodput_wide", share(flooded["up"], plain["up"]), "towards the service, without a narrow link",
            "both ends and the flood's generator share one core")
    out.add("goodput_wide_mbit", plain["up"], "towards the service, without a narrow link, no flood")
