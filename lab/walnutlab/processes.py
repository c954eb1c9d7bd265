# SPDX-License-Identifier: Apache-2.0
"""Programs in the lab's hosts, each with its log in the lab's folder, stopped by the pid they were started with."""
import json
import os
import signal
import socket
import subprocess
import time

from .topology import LabError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def find(program):
    """A program of ours in the build folder."""
    build = os.environ.get("WALNUT_BUILD", os.path.join(ROOT, "build"))
    part = {"walnut": "console"}.get(program, program.split("-")[-1])
    for place in (f"src/{part}", "src/console", "lab", "src", "."):
        path = os.path.join(build, place, program)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise LabError(f"{program}: not in {build}; run make first")


def wait_for(what, test, seconds=5.0, step=0.02):
    """Asks until the answer is true; returns it. \\raises LabError after that time."""
    end = time.monotonic() + seconds
    while True:
        answer = test()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise LabError(f"waited {seconds:g} s for {what}")
        time.sleep(step)


class Process:
    """A started program. stdout goes to `name`.out, stderr to `name`.log."""

    def __init__(self, lab, host, name, argv, env=None, nice=0, stdin=subprocess.DEVNULL, cwd=None):
        self.name = name
        self.out = lab.path("log", name + ".out")
        self.log = lab.path("log", name + ".log")
        environ = dict(os.environ, **(env or {}))
        prefix = ["nice", "-n", str(nice)] if nice else []
        with open(self.out, "w", encoding="utf-8") as out, open(self.log, "a", encoding="utf-8") as log:
            self.popen = subprocess.Popen(lab.inside(host, *prefix, *argv), stdin=stdin, stdout=out, stderr=log, env=environ, cwd=cwd,
                                          start_new_session=True)
        self.pid = self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def kill(self, sig=signal.SIGKILL):
        if self.running():
            self.popen.send_signal(sig)

    def stop(self, patience=3.0):
        """Asks, then insists. Returns the exit status."""
        self.kill(signal.SIGTERM)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.popen.wait(3)

    def wait(self, seconds):
        return self.popen.wait(seconds)

    def text(self):
        with open(self.out, encoding="utf-8", errors="replace") as f:
            return f.read()

    def last_log(self, lines=5):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:]).strip()

    def json(self):
        """The last complete line of its output that is an object, or None."""
        for line in reversed(self.text().split("\n")[:-1]):
            if line.startswith("{"):
                return json.loads(line)
        return None


def run(lab, host, argv, seconds=30, env=None, stdin=None):
    """Runs a command in a host to its end. Returns (status, output, errors); status 124 when it took too long."""
    p = subprocess.Popen(lab.inside(host, *argv), stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=dict(os.environ, **(env or {})),
                         start_new_session=True)
    try:
        out, err = p.communicate(stdin, timeout=seconds)
        return p.returncode, out, err
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, err = p.communicate()
        return 124, out, err


def ctl(path, cmd, timeout=3.0, **args):
    """Asks a daemon over its socket. \\raises OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        s.connect(path)
        s.sendall(json.dumps(dict(args, cmd=cmd)).encode() + b"\n")
        got = b""
        while not got.endswith(b"\n"):
            more = s.recv(65536)
            if not more:
                break
            got += more
    return json.loads(got)
