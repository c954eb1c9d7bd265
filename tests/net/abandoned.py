#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client that is killed says no BYE: its holes end all the same, long before they expire. One that is in use stays."""
import os
import signal
import subprocess
import time

from _lab import everything, main, ok
from walnutlab.processes import Process, find, run, wait_for
from walnutlab.topology import LabError

IDLE_S = 3


def gone(walnut, left):
    """Whether no more than `left` holes remain, well before the lifetime of 1800 s."""
    try:
        wait_for("holes to end", lambda: len(walnut.holes()) <= left, IDLE_S + 5)
    except LabError:
        return False
    return True


def connect(lab, walnut):
    return subprocess.Popen(lab.inside("me", "env", "WALNUT_HOME=" + walnut.home, find("walnut"), "connect", "ssh.example.org", "22"),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def test():
    with everything(service_more=f", idle_s: {IDLE_S}") as (lab, _, walnut):
        killed = connect(lab, walnut)
        ok(killed.stdout.readline().startswith(b"SSH-2.0"), "a TCP session is open")
        forward = Process(lab, "me", "forward", [find("walnut"), "forward", "--udp", "127.0.0.1:5300", "dns.example.org"], env=walnut.env())
        wait_for("walnut forward to listen", lambda: ":5300 " in run(lab, "me", ["ss", "-Hlun"])[1])
        run(lab, "me", ["dig", "+tries=4", "+time=2", "-p", "5300", "@127.0.0.1", "walnut.lab.test"], 12)
        ok(len(walnut.holes()) == 2, "two holes are open", walnut.holes())
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        forward.kill()
        forward.wait(5)
        ok(gone(walnut, 0), "both clients killed: their holes end", walnut.holes())

        used = Process(lab, "me", "forward2", [find("walnut"), "forward", "--udp", "127.0.0.1:5301", "dns.example.org"], env=walnut.env())
        wait_for("walnut forward to listen", lambda: ":5301 " in run(lab, "me", ["ss", "-Hlun"])[1])
        dig = ["dig", "-b", "127.0.0.1#5999", "+tries=4", "+time=2", "-p", "5301", "@127.0.0.1", "walnut.lab.test"]
        run(lab, "me", dig, 12)
        first = walnut.holes()
        for _ in range(8):
            time.sleep(IDLE_S / 4)
            run(lab, "me", dig, 12)
        now = walnut.holes()
        ok(len(now) == 1 and now[0]["hole"] == first[0]["hole"], "one that is in use stays", (first, now))
        used.stop()


main(test)
