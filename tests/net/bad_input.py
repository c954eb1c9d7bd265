#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A wrong option, key file or configuration gets one line that names file, line and key, and exit status 2."""
import os
import re
import shutil
import subprocess

from _lab import main, ok
from walnutlab.daemons import Walnut
from walnutlab.processes import find
from walnutlab.topology import Lab


def say(argv, stdin=None):
    try:
        r = subprocess.run(argv, input=stdin, stdin=None if stdin else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=8, check=False)
        return r.returncode, r.stderr
    except subprocess.TimeoutExpired:
        return "still running", ""


# part, host, program, its key file, a line of its file, another in its place, the key that must be named
WRONG = (
    ("front", "f1", "walnut-front", "f1", "front.key", (
        ("unknown key", "threads: 1", "thread: 1", "thread"),
        ("wrong type", "threads: 1", "threads: many", "threads"),
        ("out of range", "threads: 1", "threads: -1", "threads"),
        ("bad address", "listen: 198.18.1.2:5060", "listen: 198.18.1:5060", "listen"),
        ("bad pin", 'agent_pin: "sha256:', 'agent_pin: "md5:', "agent_pin"),
        ("list expected", "tenants:", "tenants: none\nrest:", "tenants"),
    )),
    ("gate", "gate", "walnut-gate", "gate", "gate.key", (
        ("unknown key", "user: nobody", "usr: nobody", "usr"),
        ("wrong type", "inside: { interface: lan }", "inside: lan", "inside"),
        ("bad range", "ports: 1024-65535", "ports: 65535-1024", "ports"),
        ("bad prefix", "198.18.100.0/24", "198.18.100.0/40", "prefixes"),
        ("wrong number", "holes: 4096", "holes: many", "holes"),
    )),
    ("agent", "host", "walnut-agent", "agent", "agent.key", (
        ("unknown key", "epoch_s: 86400", "epoch: 86400", "epoch"),
        ("wrong type", "epoch_s: 86400", "epoch_s: daily", "epoch_s"),
        ("bad protocol", "protocol: tcp", "protocol: sctp", "protocol"),
        ("bad address", "198.18.100.2:22 ", "198.18.100.2 ", "address"),
        ("missing pin", 'pin: "sha256:', 'pin: "', "pin"),
    )),
)


def one_line(err, file, key):
    """Exactly one line, that names the file, a line of it and the key."""
    return len(err.strip().split("\n")) == 1 and re.search(rf"{re.escape(file)}:\d+: .*\b{re.escape(key)}\b", err) is not None


def test():
    with Lab() as lab:
        path = lab.run
        Walnut(lab).configure()
        for part, host, program, name, keyfile, changes in WRONG:
            program = lab.inside(host, find(program))
            good = os.path.join(path, name + ".yaml")
            keys = os.path.join(path, "keys", name)
            with open(good, encoding="utf-8") as f:
                text = f.read()
            status, err = say([*program, "--config", good, "--check"])
            ok(status == 0, f"{part}: the lab's own file is good", f"{status} {err}")
            status, err = say([*program, "--nonsense"])
            ok(status == 2 and len(err.strip().split("\n")) == 1 and "nonsense" in err, f"{part}: wrong option", f"{status} {err}")
            status, err = say([*program, "--config", path + "/absent.yaml"])
            ok(status == 2 and len(err.strip().split("\n")) == 1 and "absent.yaml" in err, f"{part}: no such file", f"{status} {err}")
            for what, old, new, key in changes:
                bad = os.path.join(path, "bad.yaml")
                if old not in text:
                    ok(False, f"{part}: {what}", f"the test is out of date: {old!r} is not in its file")
                    continue
                with open(bad, "w", encoding="utf-8") as f:
                    f.write(text.replace(old, new, 1))
                for argv in ([*program, "--config", bad], lab.inside(host, find("walnut"), "check", bad)):
                    status, err = say(argv)
                    ok(status == 2 and one_line(err, bad, key), f"{part}: {what}, {os.path.basename(argv[3])}", f"{status} {err}")
            key = os.path.join(keys, keyfile)
            os.chmod(key, 0o644)
            status, err = say([*program, "--config", good])
            ok(status == 2 and len(err.strip().split("\n")) == 1 and keyfile in err and good in err, f"{part}: a key file that others can read",
               f"{status} {err}")
            os.chmod(key, 0o600)
            shutil.move(key, key + ".away")
            status, err = say([*program, "--config", good])
            ok(status == 2 and len(err.strip().split("\n")) == 1 and keyfile in err and good in err, f"{part}: a key file that is not there",
               f"{status} {err}")
            shutil.move(key + ".away", key)
        walnut = find("walnut")
        for argv, stdin, word in (([walnut, "--nonsense"], None, "nonsense"), ([walnut, "nonsense"], None, "nonsense"),
                                  ([walnut, "connect"], None, ""), ([walnut, "join"], "walnut1:!!!\n", ""),
                                  ([walnut, "join", path + "/absent"], None, "absent"), ([walnut, "check", path + "/absent"], None, "absent")):
            status, err = say(argv, stdin)
            ok(status == 2 and err.strip() and word in err.split("\n")[0], f"walnut: {' '.join(argv[1:]).replace(path, '')}", f"{status} {err}")


main(test)
