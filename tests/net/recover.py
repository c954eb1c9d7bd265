#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of any process, in any order, then its restart: the lab recovers by itself, and flows that were accepted live on."""
import os
import random
import subprocess
import threading

from _lab import everything, main, ok
from walnutlab import claims
from walnutlab.processes import Process, find, run, wait_for


class Flow:
    """An ssh session that echoes, through walnut connect."""

    def __init__(self, lab, services, walnut):
        argv = ["env", "WALNUT_HOME=" + walnut.home, *services.ssh("ssh.example.org", "-o", f"ProxyCommand={find('walnut')} connect %h %p"), "cat"]
        self.p = subprocess.Popen(lab.inside("me", *argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
                                  start_new_session=True)
        self.n = 0

    def echo(self, seconds=8):
        """Whether a line comes back in time."""
        self.n += 1
        got = []
        if self.p.poll() is not None:
            return False
        self.p.stdin.write(f"line {self.n}\n")
        self.p.stdin.flush()
        reader = threading.Thread(target=lambda: got.append(self.p.stdout.readline()), daemon=True)
        reader.start()
        reader.join(seconds)
        return got == [f"line {self.n}\n"]

    def close(self):
        self.p.kill()
        self.p.wait()


def dig(lab):
    status, out, _ = run(lab, "me", ["dig", "+short", "+tries=4", "+time=2", "-p", "5300", "@127.0.0.1", "walnut.lab.test"], 12)
    return status == 0 and out.strip() == "198.18.0.99"


def test():
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"# seed {seed}")
    order = random.Random(seed)
    with everything() as (lab, services, walnut):
        flow = Flow(lab, services, walnut)
        ok(flow.echo(15), "an ssh session is open", flow.p.poll())
        Process(lab, "me", "forward", [find("walnut"), "forward", "--udp", "127.0.0.1:5300", "dns.example.org"], env=walnut.env())
        wait_for("walnut forward to listen", lambda: ":5300 " in run(lab, "me", ["ss", "-Hlun"])[1])
        ok(dig(lab), "a UDP service answers through walnut forward")

        daemons = list(walnut.all)
        order.shuffle(daemons)
        for d in daemons:
            d.kill()
            ok(flow.echo(), f"{d.name} killed: the open session goes on")
            d.start().ready()
            walnut.connected()
            ok(flow.echo(), f"{d.name} restarted: the open session goes on")
            ok(dig(lab), f"{d.name} restarted: so does the UDP service")
            worked, seconds, said = claims.connect(lab, walnut)
            ok(worked, f"{d.name} restarted: a new client gets in", f"{seconds:.1f} s {said}")

        order.shuffle(daemons)
        for d in daemons:
            d.kill()
        ok(flow.echo(), "all killed (" + ", ".join(d.name for d in daemons) + "): the open session goes on")
        order.shuffle(daemons)
        for d in daemons:
            d.start()
        for d in daemons:
            d.ready()
        walnut.connected()
        ok(flow.echo(), "all restarted (" + ", ".join(d.name for d in daemons) + "): the open session goes on")
        worked, seconds, said = claims.connect(lab, walnut)
        ok(worked, "and a new client gets in", f"{seconds:.1f} s {said}")
        flow.close()


main(test)
