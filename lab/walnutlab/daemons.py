# SPDX-License-Identifier: Apache-2.0
"""Walnut's own daemons in the lab: their keys, files, starts, ends and restarts, and the person's enrolment."""
import json
import os
import re
import signal
import subprocess

from . import topology as t
from .processes import Process, ctl, find, run, wait_for
from .topology import LabError

DOMAIN = "example.org"
USER = "alice"
SERVICES = (("ssh", "tcp", 22), ("web", "tcp", 80), ("dns", "udp", 53))


class Daemon:
    """One of ours: killed and started again as often as a test likes."""

    def __init__(self, lab, name, host, program, config):
        self.lab, self.name, self.host, self.program, self.config = lab, name, host, program, config
        self.socket = lab.path(name + ".sock")
        self.process = None

    def start(self):
        self.process = Process(self.lab, self.host, self.name, [find(self.program), "--config", self.config])
        return self

    def ready(self, seconds=8.0):
        wait_for(f"{self.name} to answer on its socket ({self.process.log})", self._answers, seconds)
        return self

    def _answers(self):
        if not self.process.running():
            raise LabError(f"{self.name} ended with status {self.process.popen.returncode}: {self.process.last_log()}")
        return self.status() is not None

    def status(self):
        """What it says of itself; None when it does not."""
        try:
            return ctl(self.socket, "status")
        except (OSError, ValueError):
            return None

    def kill(self):
        """SIGKILL to all of it: a parent and its parsing child alike."""
        pid = self.process.pid
        for child in children(pid):
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()
        self.process.wait(5)

    def stop(self):
        if self.process:
            self.process.stop()


def children(pid):
    """Its descendants, deepest last."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as f:
                    parents.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(name))
            except OSError:
                pass
    found, todo = [], [pid]
    while todo:
        for child in parents.get(todo.pop(), ()):
            found.append(child)
            todo.append(child)
    return found


class Walnut:
    """Two fronts, a gate, an agent, one user with an enrolment in `me`."""

    def __init__(self, lab, epoch_s=86400, hole_lifetime_s=1800, front_more="", tenant_more="", agent_more="", service_more=""):
        self.lab = lab
        self.epoch_s, self.hole_lifetime_s, self.front_more, self.agent_more = epoch_s, hole_lifetime_s, front_more, agent_more
        self.tenant_more, self.service_more = tenant_more, service_more
        self.home = lab.path("me")
        self.f1 = Daemon(lab, "f1", "f1", "walnut-front", lab.path("f1.yaml"))
        self.f2 = Daemon(lab, "f2", "f2", "walnut-front", lab.path("f2.yaml"))
        self.gate = Daemon(lab, "gate", "gate", "walnut-gate", lab.path("gate.yaml"))
        self.agent = Daemon(lab, "agent", "host", "walnut-agent", lab.path("agent.yaml"))
        self.all = (self.gate, self.f1, self.f2, self.agent)
        self.fronts = (self.f1, self.f2)

    def keys(self, role, name):
        """Makes them afresh. Returns what is printed: pins and public halves."""
        folder = self.lab.path("keys", name)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        r = subprocess.run([find("walnut"), "keys", "init", role, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        pin = re.search(r"sha256:[A-Za-z0-9_=+/-]+", r.stdout)
        if r.returncode != 0 or not pin:
            raise LabError(f"walnut keys init {role}: {r.stdout.strip()}")
        sign = re.search(r"ed25519:[A-Za-z0-9_=+/-]+", r.stdout)
        return folder, pin.group(0), sign.group(0) if sign else None

    def configure(self):
        run_, q = self.lab.run, self.lab.path
        os.makedirs(q("db"), mode=0o700, exist_ok=True)
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        agent_keys, agent_pin, signing = self.keys("agent", "agent")
        gate_keys, gate_pin, _ = self.keys("gate", "gate")
        pins = {}
        for name, addr in zip(("f1", "f2"), t.FRONTS):
            folder, pins[name], _ = self.keys("front", name)
            self.write(name, f"""listen: {addr}:5060
agents: {addr}:7061
keys: {folder}
socket: {run_}/{name}.sock
user: nobody
threads: 1
{self.front_more}tenants:
  - domain: {DOMAIN}
    agent_pin: "{agent_pin}"
    signing_key: "{signing}"
{self.tenant_more}""")
        self.write("gate", f"""outside: {{ interface: wan, addresses: [{t.GATE_PUBLIC}], ports: 1024-65535 }}
inside: {{ interface: lan }}
control: {t.GATE_INSIDE}:7443
keys: {gate_keys}
socket: {run_}/gate.sock
user: nobody
state: {self.lab.pins}
tenants:
  - {{ name: {DOMAIN}, agent_pin: "{agent_pin}", prefixes: [198.18.100.0/24], holes: 4096 }}
""")
        services = "".join(f"  - {{ name: {n}, protocol: {p}, address: {t.HOST_INSIDE}:{port}{self.service_more} }}\n" for n, p, port in SERVICES)
        self.write("agent", f"""domain: {DOMAIN}
keys: {agent_keys}
database: {run_}/db/users
socket: {run_}/agent.sock
user: nobody
epoch_s: {self.epoch_s}
hole_lifetime_s: {self.hole_lifetime_s}
{self.agent_more}enrol_fronts: [{t.FRONTS[0]}:5060, {t.FRONTS[1]}:5060]
gate: {{ address: {t.GATE_INSIDE}:7443, pin: "{gate_pin}" }}
fronts:
  - {{ address: {t.FRONTS[0]}:7061, pin: "{pins['f1']}" }}
  - {{ address: {t.FRONTS[1]}:7061, pin: "{pins['f2']}" }}
services:
{services}""")

    def write(self, name, text):
        with open(self.lab.path(name + ".yaml"), "w", encoding="utf-8") as f:
            f.write(text)

    def start(self):
        for d in self.all:
            d.start()
        for d in self.all:
            d.ready()
        self.connected()

    def connected(self, seconds=15.0):
        """Waits until the agent has its gate and both fronts, and they its users."""
        wait_for("the agent to be connected everywhere", self.is_connected, seconds)

    def is_connected(self):
        s = self.agent.status()
        return bool(s and s["gate"]["connected"] and all(f["connected"] for f in s["fronts"]) and len(s["fronts"]) == 2 and
                    all(self.front_has_agent(f) for f in self.fronts))

    @staticmethod
    def front_has_agent(front):
        s = front.status()
        return bool(s and any(a.get("connected") for a in s["agents"]))

    def enrol(self, user=USER, home=None):
        """Makes a user and joins with the line that is printed."""
        home = home or self.home
        os.makedirs(home, mode=0o700, exist_ok=True)
        r = subprocess.run([find("walnut"), "user", "add", user, "--socket", self.agent.socket], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, check=False)
        line = next((w for w in r.stdout.split() if w.startswith("walnut1:")), None)
        if r.returncode != 0 or not line:
            raise LabError(f"walnut user add: {(r.stderr or r.stdout).strip()}")
        status, _, err = run(self.lab, "me", [find("walnut"), "join"], env=self.env(home), stdin=line + "\n")
        if status != 0:
            raise LabError(f"walnut join: {err.strip()}")
        wait_for("the fronts to know the user", lambda: all((f.status() or {}).get("users", 0) >= 1 for f in self.fronts))
        return line

    def env(self, home=None):
        return {"WALNUT_HOME": home or self.home, "HOME": home or self.home}

    def secret(self, home=None):
        """The person's enrolment as stored, for the tests that speak SIP themselves."""
        with open(os.path.join(home or self.home, f"{DOMAIN}.json"), encoding="utf-8") as f:
            return json.load(f)["secret"]

    def up(self):
        self.configure()
        self.start()
        self.enrol()

    # counters

    def front_outcomes(self):
        """Summed over the fronts that answer."""
        total = {}
        for f in self.fronts:
            for k, v in ((f.status() or {}).get("outcomes") or {}).items():
                total[k] = total.get(k, 0) + v
        return total

    def gate_drops(self):
        return dict((self.gate.status() or {}).get("drops") or {})

    def calls_total(self):
        return (self.agent.status() or {}).get("calls_total", 0)

    def holes(self):
        answer = ctl(self.gate.socket, "holes")
        return answer.get("holes") or []

    def link_bytes(self):
        """Application bytes on the agent's connections other than heartbeats, by its own count and by that of fronts and gate."""
        own = (self.agent.status() or {}).get("link") or {}
        agent = sum(v for k, v in own.items() if not k.endswith("heartbeat_bytes"))
        fronts = 0
        for f in self.fronts:
            link = (f.status() or {}).get("link") or {}
            fronts += sum(v for k, v in link.items() if not k.endswith("heartbeat_bytes"))
        link = (self.gate.status() or {}).get("link") or {}
        return agent, fronts + link.get("bytes", 0)
