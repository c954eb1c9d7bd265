#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of doc/quickstart.md, word for word, on four fresh hosts.

A host is a namespace of the network with mounts of its own: empty /etc/walnut, /var/lib/walnut, /run/walnut, /usr/local and /root/.ssh, so that nothing of this machine's is
there and nothing stays. Where there is no systemd, `systemctl enable --now` is played by a few lines that run the installed unit's ExecStart."""
import fcntl
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lab"))
if os.geteuid() != 0:
    print("1..0 # SKIP needs root")
    sys.exit(0)

from walnutlab.processes import wait_for  # noqa: E402
from walnutlab.services import Services  # noqa: E402
from walnutlab.topology import Lab  # noqa: E402

GUIDE = os.path.join(ROOT, "doc", "quickstart.md")
PLACES = {"router": "gate", "service": "host", "public": "f1", "person": "me"}
HOME = "/usr/local/test/home"
BLOCK = re.compile(r"^```sh on=(\w+)\n(.*?)^```", re.M | re.S)

MOUNTS = """
set -e
mount --make-rprivate /
for d in /etc/walnut /var/lib/walnut /run/walnut; do mount -t tmpfs tmpfs $d; done
mount -t tmpfs tmpfs /usr/local
mount -t tmpfs tmpfs /root/.ssh
mount -t bpf bpf /sys/fs/bpf
mkdir /usr/local/test /usr/local/test/home
echo ready
exec sleep 300
"""

SYSTEMCTL = """#!/usr/bin/python3
# systemctl enable --now UNIT, as far as the quickstart needs it: runs the installed unit's ExecStart and waits until it says that it is ready.
import os, socket, subprocess, sys
if len(sys.argv) != 4 or sys.argv[1:3] != ["enable", "--now"]:
    sys.exit(2)
with open(f"/usr/local/lib/systemd/system/{sys.argv[3]}.service") as f:
    unit = dict(line.strip().split("=", 1) for line in f if "=" in line and line[0] != "#")
assert unit["Type"] == "notify"
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("/run/walnut/notify")
manager.settimeout(10)
with open(f"/run/walnut/{sys.argv[3]}.log", "a") as log:
    subprocess.Popen(unit["ExecStart"].split(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                     env=dict(os.environ, NOTIFY_SOCKET="/run/walnut/notify"))
try:
    sys.exit(0 if manager.recv(64) == b"READY=1" else 1)
finally:
    os.unlink("/run/walnut/notify")
"""


class Host:
    def __init__(self, lab, name, values):
        self.name, self.values = name, values
        self.holder = subprocess.Popen(lab.inside(PLACES[name], "unshare", "-m", "sh", "-c", MOUNTS), stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{name}: could not make its mounts")
        self.write("/usr/local/test/systemctl", SYSTEMCTL)
        self.run("chmod 755 /usr/local/test/systemctl")

    def run(self, script, stdin="", limit=60):
        env = dict(self.values, PATH="/usr/local/test:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", HOME=HOME, TERM="dumb")
        r = subprocess.run(["nsenter", "--net", "--mount", "-t", str(self.holder.pid), "--wd=" + ROOT, "sh", "-e", "-c", script], input=stdin, env=env,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit, check=False)
        return r.returncode, r.stdout, r.stderr

    def write(self, path, text):
        status, _, err = self.run(f"cat > {path}", stdin=text)
        if status != 0:
            raise RuntimeError(err)


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = False

    def check(self, good, what, evidence=""):
        self.count += 1
        print(f"{'ok' if good else 'not ok'} {self.count} - {what}", flush=True)
        if not good:
            self.failed = True
            for line in str(evidence).splitlines():
                print(f"# {line}")
        return good


def main():
    # One at a time on a machine: who ends takes away the places below, also from under another's mounts. Released at the end.
    etc = os.open("/etc", os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(etc, fcntl.LOCK_EX)
    # Places to mount on; those that were not there go again.
    made = [d for d in ("/etc/walnut", "/var/lib/walnut", "/run/walnut", "/root/.ssh") if not os.path.isdir(d)]
    for d in made:
        os.mkdir(d)
    try:
        return walk()
    finally:
        for d in made:
            os.rmdir(d)


def walk():
    with open(GUIDE, encoding="utf-8") as f:
        blocks = BLOCK.findall(f.read())
    tap, values = Tap(), {}
    tap.check(6 <= sum(1 for on, _ in blocks if on != "all") <= 12, "the guide has its blocks of commands", blocks)
    with Lab() as lab:
        lab.walnut()
        services = Services(lab)
        services.start()
        hosts = {name: Host(lab, name, values) for name in PLACES}
        person_keys(lab, hosts["person"])
        for number, (on, text) in enumerate(blocks):
            if on == "all":
                for name, host in hosts.items():
                    status, out, err = host.run(text, limit=300)
                    tap.check(status == 0, f"{name}: {first(text)}", out + err)
                continue
            host = hosts[on]
            if on == "person":
                _, line, _ = hosts["service"].run(f"cd {HOME}; cat alice.enrolment; rm alice.enrolment")
                host.write(HOME + "/alice.enrolment", line)
            work = f"cd {HOME}\n" + text
            if number == len(blocks) - 1:
                status, out, err = host.run(work, stdin="echo through-$((6*7))\nexit\n")
                tap.check("through-42" in out, "person: ssh reaches the service through Walnut", f"{status}\n{out}{err}{logs(hosts)}")
                tap.check(sessions_end(hosts["service"]), "the session ends with ssh", logs(hosts))
            else:
                status, out, err = host.run(work)
                tap.check(status == 0, f"{on}: {first(text)}", out + err + logs(hosts))
                note(on, out, values)
        plain = hosts["person"].run("ssh -o ConnectTimeout=3 -o BatchMode=yes root@198.18.3.2 true", limit=20)
        tap.check(plain[0] != 0, "without Walnut the public address answers no ssh", plain)
        status, out, err = hosts["service"].run("walnut user del alice")
        tap.check(status == 0, "service: walnut user del alice", out + err)
        status, out, err = hosts["person"].run("ssh -o ProxyCommand='walnut connect %h %p' root@ssh.example.org true", limit=30)
        tap.check(status != 0, "alice, removed, is refused", out + err)
        status, out, err = hosts["router"].run("walnut status --socket /run/walnut/gate.sock --json")
        tap.check(status == 0 and json.loads(out)["drops"].get("no_neighbour", 0) == 0, "the gate knew its gateway before the first packet", out + err)
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


def first(text):
    return text.strip().splitlines()[0][:70]


def note(on, out, values):
    """The operator notes what `keys init` printed."""
    pin = re.search(r"sha256:\S+", out)
    sign = re.search(r"ed25519:\S+", out)
    names = {"service": "AGENT_PIN", "router": "GATE_PIN", "public": "FRONT_PIN"}
    if pin and names.get(on) and names[on] not in values:
        values[names[on]] = pin.group(0).strip('"')
    if sign:
        values["SIGNING_KEY"] = sign.group(0).strip('"')


def person_keys(lab, person):
    """The person's own ssh key and the host key that she knows already."""
    with open(lab.path("ssh", "user"), encoding="utf-8") as f:
        person.write("/root/.ssh/id_ed25519", f.read())
    with open(lab.path("ssh", "host.pub"), encoding="utf-8") as f:
        key = " ".join(f.read().split()[:2])
    person.write("/root/.ssh/known_hosts", f"ssh.example.org {key}\n")
    person.run("chmod 700 /root/.ssh; chmod 600 /root/.ssh/*")


def sessions_end(service):
    def none_left():
        status, out, _ = service.run("walnut status --json")
        return status == 0 and '"calls": 0' in out.replace('":', '": ').replace(":  ", ": ")
    try:
        return wait_for("the session to end", none_left, 5)
    except Exception:
        return False


def logs(hosts):
    return "\n".join(host.run("tail -n 5 /run/walnut/*.log 2>/dev/null")[1] for host in hosts.values())


if __name__ == "__main__":
    sys.exit(main())
