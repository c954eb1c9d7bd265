# SPDX-License-Identifier: Apache-2.0
"""Namespaces, wires and addresses of one lab, and their removal whoever made them.

A lab is the folder /run/walnut-lab-ID (0700) and the namespaces /run/netns/wl-ID-HOST. Nothing else of it exists outside them
but the gate's pinned maps in /sys/fs/bpf/walnut-lab-ID. What runs in it is found by the namespace it is in, so that nothing has to be
remembered: a lab whose owner was killed is removed as completely as any other."""
import json
import os
import secrets
import shutil
import signal
import subprocess
import time

RUN = "/run"
PREFIX = "walnut-lab-"
BPFFS = "/sys/fs/bpf"
HOSTS = ("inet", "f1", "f2", "gate", "link", "host", "wire", "home", "me", "attack")

FRONTS = ("198.18.1.2", "198.18.2.2")
GATE_PUBLIC = "198.18.3.2"
GATE_INSIDE = "198.18.100.1"
HOME_PUBLIC = "198.18.4.2"
ME = "198.18.104.2"
ATTACK = "198.18.5.2"
HOST_PLAIN = "198.18.7.2"
HOST_INSIDE = "198.18.100.2"
LINK_RATE = "10mbit"


class LabError(Exception):
    """Said to the user as it stands."""


def sh(*argv, check=True):
    """Runs a command to its end; its output."""
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL, check=False)
    if check and r.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {r.stdout.strip() or r.returncode}")
    return r.stdout


def start_time(pid):
    """When that process began, in ticks since boot; None when there is none. With the pid it names a process for good."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def mount_bpffs():
    with open("/proc/mounts", encoding="utf-8") as f:
        if any(line.split()[1:3] == [BPFFS, "bpf"] for line in f):
            return
    sh("mount", "-t", "bpf", "bpf", BPFFS)


def pids_in(inodes):
    """Processes that are in one of these network namespaces."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino in inodes:
                    found.append(int(name))
            except OSError:
                pass
    return found


class Lab:
    """One lab. `owner`: it goes when this process does; otherwise it stays until `down`."""

    def __init__(self, ident=None, owner=True):
        self.id = ident or secrets.token_hex(3)
        if not (self.id.isalnum() and len(self.id) <= 8):
            raise LabError(f"{self.id}: a lab's id is one to eight letters and digits")
        self.run = f"{RUN}/{PREFIX}{self.id}"
        self.owned = owner
        self.mode = None

    # names

    def ns(self, host):
        return f"wl-{self.id}-{host}"

    def ns_path(self, host):
        return f"/run/netns/{self.ns(host)}"

    def inside(self, host, *argv):
        """The command line that runs argv in that host. The mounts stay ours, so that bpffs is there."""
        return ["nsenter", f"--net={self.ns_path(host)}", "--", *argv]

    def path(self, *parts):
        return os.path.join(self.run, *parts)

    @property
    def pins(self):
        return f"{BPFFS}/{PREFIX}{self.id}"

    # making it

    def create(self):
        """Claims the id: the folder is the lock."""
        try:
            os.mkdir(self.run, 0o700)
        except FileExistsError:
            raise LabError(f"{self.run}: there is a lab of that name; lab/lab down {self.id} removes it") from None
        self._save()
        os.mkdir(self.path("log"), 0o700)

    def _save(self):
        state = {"id": self.id, "owner": os.getpid() if self.owned else None, "started": start_time(os.getpid()), "mode": self.mode,
                 "maker": os.getpid()}
        tmp = self.path("lab.json.new")
        with open(tmp, "w", encoding="utf-8") as f:
            json.dump(state, f)
        os.rename(tmp, self.path("lab.json"))

    def release(self):
        """From now on it stays until `down`."""
        self.owned = False
        self._save()

    def build(self):
        mount_bpffs()
        for host in HOSTS:
            sh("ip", "netns", "add", self.ns(host))
            self.sysctl(host, **{
                "net.ipv6.conf.all.disable_ipv6": 1, "net.ipv6.conf.default.disable_ipv6": 1, "net.ipv4.conf.all.rp_filter": 0,
                "net.ipv4.conf.default.rp_filter": 0, "net.ipv4.ip_forward": 1 if host in ("inet", "home") else 0})
            self.ip(host, "link", "set", "lo", "up")
        # device, host, address; the router's end of a host's wire bears the host's name
        self.wire("inet", "f1", "f1", "eth0")
        self.wire("inet", "f2", "f2", "eth0")
        self.wire("inet", "gate", "gate", "wan")
        self.wire("inet", "attack", "attack", "eth0")
        self.wire("inet", "plain", "link", "to-inet")
        self.wire("gate", "lan", "link", "to-gate")
        self.wire("link", "to-host", "host", "eth0")
        self.wire("inet", "home", "wire", "out")
        self.wire("wire", "in", "home", "wan")
        self.wire("home", "lan", "me", "eth0")
        for dev, net in (("f1", 1), ("f2", 2), ("gate", 3), ("home", 4), ("attack", 5), ("plain", 7)):
            self.address("inet", dev, f"198.18.{net}.1/24")
        # What is answered to made-up sources ends here, silently.
        self.ip("inet", "route", "add", "blackhole", "198.19.0.0/16")
        for host, net in (("f1", 1), ("f2", 2), ("attack", 5)):
            self.address(host, "eth0", f"198.18.{net}.2/24", f"198.18.{net}.1")
        self.address("gate", "wan", GATE_PUBLIC + "/24", "198.18.3.1")
        self.address("gate", "lan", GATE_INSIDE + "/24")
        self.address("home", "wan", HOME_PUBLIC + "/24", "198.18.4.1")
        self.address("home", "lan", "198.18.104.1/24")
        self.address("me", "eth0", ME + "/24", "198.18.104.1")
        self._masquerade()
        self.bridge("wire", "out", "in")
        self.bridge("link", "to-host")
        # The narrow link: each end's queue holds 50 packets, whatever their size, as a router's does.
        for dev in ("to-inet", "to-gate", "to-host"):
            self.tc("link", "qdisc", "add", "dev", dev, "root", "handle", "1:", "tbf", "rate", LINK_RATE, "burst", "16kb", "latency", "50ms")
            self.tc("link", "qdisc", "add", "dev", dev, "parent", "1:1", "handle", "10:", "pfifo", "limit", "50")
        # What XDP redirects to a veth arrives only when its peer polls: generic receive offload makes it. Merging stays off.
        for host, dev in (("link", "to-gate"), ("inet", "gate")):
            self.ethtool(host, dev, "gro", "on")
            self.ip(host, "link", "set", dev, "gro_max_size", "1500", check=False)
        # Both names of the loopback's forwarding: the gate's program looks routes up as if they came in there.
        self.plain()

    def _masquerade(self):
        rules = """
table ip lab {
	chain input {
		type filter hook input priority 0; policy drop;
		iifname "lo" accept
		iifname "lan" accept
		ct state established,related accept
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
		iifname "lan" accept
		ct state established,related accept
	}
	chain post {
		type nat hook postrouting priority 100;
		oifname "wan" masquerade
	}
}
"""
        r = subprocess.run(self.inside("home", "nft", "-f", "-"), input=rules, text=True, stderr=subprocess.PIPE, check=False)
        if r.returncode != 0:
            raise LabError("nft: " + r.stderr.strip())

    def wire(self, host, dev, other, peer):
        sh("ip", "link", "add", dev, "netns", self.ns(host), "type", "veth", "peer", "name", peer, "netns", self.ns(other))
        for h, d in ((host, dev), (other, peer)):
            # An XDP port must be sent whole frames with complete checksums, by every device on the way.
            self.ethtool(h, d, "tx", "off", "rx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")
            self.ip(h, "link", "set", d, "up")

    def bridge(self, host, *devs):
        self.ip(host, "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0", "forward_delay", "0")
        for dev in devs:
            self.ip(host, "link", "set", dev, "master", "br0")
        self.ip(host, "link", "set", "br0", "up")

    def address(self, host, dev, addr, gateway=None):
        self.ip(host, "addr", "add", addr, "dev", dev)
        if gateway:
            self.ip(host, "route", "add", "default", "via", gateway)

    def ip(self, host, *args, check=True):
        return sh("ip", "-n", self.ns(host), *args, check=check)

    def tc(self, host, *args):
        return sh("tc", "-n", self.ns(host), *args)

    def ethtool(self, host, dev, *args):
        sh(*self.inside(host, "ethtool", "-K", dev, *args))

    def sysctl(self, host, **values):
        sh(*self.inside(host, "sysctl", "-qw", *(f"{k}={v}" for k, v in values.items())))

    # its two shapes

    def plain(self):
        """The narrow link ends in the internet: the service has a public address."""
        self._link("to-gate", "to-inet", HOST_PLAIN, "198.18.7.1")
        self.mode = "plain"

    def walnut(self):
        """The narrow link ends in the gate."""
        self._link("to-inet", "to-gate", HOST_INSIDE, GATE_INSIDE)
        self.mode = "walnut"

    @property
    def upper(self):
        return "to-gate" if self.mode == "walnut" else "to-inet"

    @property
    def service(self):
        return HOST_INSIDE if self.mode == "walnut" else HOST_PLAIN

    def _link(self, off, on, addr, gateway):
        self.ip("link", "link", "set", off, "nomaster")
        self.ip("link", "link", "set", off, "down")
        self.ip("host", "addr", "flush", "dev", "eth0")
        self.ip("link", "link", "set", on, "up")
        self.ip("link", "link", "set", on, "master", "br0")
        self.address("host", "eth0", addr + "/24", gateway)

    def front_link(self, name, up):
        """A front's cable, pulled and put back."""
        self.ip(name, "link", "set", "eth0", "up" if up else "down")
        if up:
            self.ip(name, "route", "replace", "default", "via", "198.18.1.1" if name == "f1" else "198.18.2.1")

    # counting

    def link_drops(self):
        """Packets the narrow link's queues have dropped, towards the host and away from it."""
        drops = []
        for dev in ("to-host", self.upper):
            stats = json.loads(self.tc("link", "-j", "-s", "qdisc", "show", "dev", dev) or "[]")
            drops.append(next((q["drops"] for q in stats if q.get("kind") == "tbf"), 0))
        return tuple(drops)

    # taking it down

    def inodes(self):
        found = set()
        for host in HOSTS:
            try:
                found.add(os.stat(self.ns_path(host)).st_ino)
            except OSError:
                pass
        # A name that is left without its namespace is no namespace of ours.
        for pid in ("self", "1"):
            try:
                found.discard(os.stat(f"/proc/{pid}/ns/net").st_ino)
            except OSError:
                pass
        return found

    def down(self):
        """Removes all of it; may be called on any remains, any number of times. \\raises LabError when something is left."""
        inodes = self.inodes()
        for sig, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 3.0)):
            end = time.monotonic() + patience
            pids = pids_in(inodes)
            for pid in pids:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
            while pids and time.monotonic() < end:
                reap()
                pids = pids_in(inodes)
                time.sleep(0.02 if pids else 0)
            if not pids:
                break
        shutil.rmtree(self.pins, ignore_errors=True)
        for host in HOSTS:
            if os.path.exists(self.ns_path(host)):
                sh("ip", "netns", "del", self.ns(host), check=False)
        shutil.rmtree(self.run, ignore_errors=True)
        left = [p for p in (self.run, self.pins, *map(self.ns_path, HOSTS)) if os.path.exists(p)] + [f"process {p}" for p in pids]
        if left:
            raise LabError(f"lab {self.id}: could not remove " + ", ".join(left))

    def __enter__(self):
        sweep()
        self.create()
        try:
            self.build()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *exc):
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, signal.SIG_IGN)
        self.down()


def reap():
    """Children that were killed by their namespace are no Popen's any more."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def labs():
    """(id, state) of every lab on this machine, whole or in remains. state: "live" (its owner runs), "kept", "stale"."""
    ids = {n[len(PREFIX):] for n in os.listdir(RUN) if n.startswith(PREFIX)}
    for folder, cut in (("/run/netns", "wl-"), (BPFFS, PREFIX)):
        try:
            ids |= {n[len(cut):].split("-")[0] for n in os.listdir(folder) if n.startswith(cut)}
        except OSError:
            pass
    found = []
    for ident in sorted(ids):
        try:
            with open(f"{RUN}/{PREFIX}{ident}/lab.json", encoding="utf-8") as f:
                s = json.load(f)
        except (OSError, ValueError):
            # Between mkdir and the first write there is no file for a moment: only remains that are not new are stale.
            found.append((ident, "live" if _young(f"{RUN}/{PREFIX}{ident}") else "stale"))
            continue
        if s.get("owner") is None:
            found.append((ident, "kept"))
        else:
            found.append((ident, "live" if start_time(s["owner"]) == s.get("started") else "stale"))
    return found


def _young(path):
    try:
        return time.time() - os.stat(path).st_mtime < 2
    except OSError:
        return False


def sweep():
    """Removes what crashed labs have left."""
    for ident, state in labs():
        if state == "stale":
            Lab(ident).down()
