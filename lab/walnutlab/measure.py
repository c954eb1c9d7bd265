# SPDX-License-Identifier: Apache-2.0
"""Transfers with goodput over time, and the floods beside them."""
import os
import re
import time

from . import topology as t
from .processes import Process, find, run, wait_for
from .services import FILE_BYTES, NAME, NAME_ADDRESS, UPLOAD_BYTES

FLOOD_RATE = 9000   # datagrams a second
FLOOD_SIZE = 1400   # bytes of payload: together 100 Mbit/s, ten times the link
BAD_INVITES = 25000 # a second and front
SAMPLE = 0.25

# What a front does with a call that is good; all else are refusals.
ACCEPTED = {"forwarded", "forwarded_in_dialog", "relayed_response", "retransmission", "cancelled", "ack_absorbed", "keepalive"}


class Plain:
    """The service as everyone reaches it."""

    def __init__(self, lab, services):
        self.lab, self.services = lab, services

    def curl(self):
        return ["curl", "-sS", "--connect-timeout", "20"], f"http://{t.HOST_PLAIN}"

    def ssh(self):
        return self.services.ssh(t.HOST_PLAIN, "-o", "ConnectTimeout=10")

    def dig(self):
        return ["dig", "+short", "+tries=2", "+time=3", f"@{t.HOST_PLAIN}", NAME]

    def drops(self):
        down, up = self.lab.link_drops()
        return {"link queue, towards the service": down, "link queue, from the service": up}


class ThroughWalnut:
    """The same commands behind Walnut: SOCKS for curl, ProxyCommand for ssh, a forwarded port for dig."""

    def __init__(self, lab, services, walnut):
        self.lab, self.services, self.walnut = lab, services, walnut
        self.helpers = []
        self.base = {}

    def start(self):
        program = find("walnut")
        self.helpers = [Process(self.lab, "me", "proxy", [program, "proxy", "--listen", "127.0.0.1:1080"], env=self.walnut.env()),
                        Process(self.lab, "me", "forward", [program, "forward", "--udp", "127.0.0.1:5300", "dns.example.org"],
                                env=self.walnut.env())]
        wait_for("walnut proxy to listen", lambda: ":1080 " in run(self.lab, "me", ["ss", "-Hltn"])[1])
        wait_for("walnut forward to listen", lambda: ":5300 " in run(self.lab, "me", ["ss", "-Hlun"])[1])
        self.base = self._now()
        return self

    def stop(self):
        for p in self.helpers:
            p.stop()

    def curl(self):
        return ["curl", "-sS", "--connect-timeout", "20", "--socks5-hostname", "127.0.0.1:1080"], "http://web.example.org"

    def ssh(self):
        return ["env", "WALNUT_HOME=" + self.walnut.home, *self.services.ssh(
            "ssh.example.org", "-o", f"ProxyCommand={find('walnut')} connect %h %p", "-o", "ConnectTimeout=10")]

    def dig(self):
        return ["dig", "+short", "+tries=2", "+time=3", "-p", "5300", "@127.0.0.1", NAME]

    def _now(self):
        found = {f"gate: {k}": v for k, v in self.walnut.gate_drops().items()}
        for k, v in self.walnut.front_outcomes().items():
            if k not in ACCEPTED:
                found[f"front: {k}"] = v
        down, up = self.lab.link_drops()
        found["link queue, towards the service"], found["link queue, from the service"] = down, up
        return found

    def drops(self):
        return {k: v - self.base.get(k, 0) for k, v in self._now().items()}


class Recorder:
    """Goodput samples and acts on one time axis."""

    def __init__(self):
        self.start = time.monotonic()
        self.samples, self.acts = [], []

    def now(self):
        return time.monotonic() - self.start


def transfer(lab, name, argv, total, arrived, seconds, rec, display, direction, drops):
    """Runs one transfer, sampling what has arrived. Returns {bytes, seconds, mbit, complete, status}."""
    begin = time.monotonic()
    p = Process(lab, "me", name, argv)
    last_t, last_b, last_drops, seen = begin, 0, 0.0, {}
    rate = 0.0
    rec.samples.append((rec.now(), direction, 0.0))
    while p.running() and time.monotonic() - begin < seconds:
        try:
            p.wait(SAMPLE)
        except Exception:  # pylint: disable=broad-except
            pass
        now, got = time.monotonic(), min(arrived(), total)
        if p.running() and now > last_t:
            rate = max(0, got - last_b) * 8 / (now - last_t) / 1e6
            rec.samples.append((rec.now(), direction, rate))
            last_t, last_b = now, got
        if now - last_drops > 1.0:
            seen, last_drops = drops(), now
        display.progress(direction, got, total, rate, seen)
    end = time.monotonic()
    got = min(arrived(), total)
    complete = not p.running() and p.popen.returncode == 0
    if not complete:
        end = max(end, begin + 0.001)
    p.stop()
    rec.samples.append((rec.now(), direction, 0.0))
    took = end - begin
    return {"bytes": got, "seconds": round(took, 2), "mbit": round(got * 8 / took / 1e6, 3), "complete": complete,
            "curl": p.popen.returncode, "error": p.last_log(1)}


def size(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def act(lab, services, route, number, name, rec, display, bound):
    """One act: down, up, ssh, dig. Returns what was measured."""
    begin = rec.now()
    argv, base = route.curl()
    target, put = lab.path(f"got-{number}"), f"up-{number}"
    down = transfer(lab, f"curl-down-{number}", [*argv, "--max-time", str(bound), "-o", target, base + "/file"], FILE_BYTES,
                    lambda: size(target), bound + 2, rec, display, "download", route.drops)
    if down["complete"]:
        import hashlib
        with open(target, "rb") as f:
            down["hash_ok"] = hashlib.file_digest(f, "sha256").hexdigest() == services.digest
    else:
        down["hash_ok"] = False
    display.note(f"download {down['bytes'] / 1e6:.1f} MB in {down['seconds']:.1f} s: {down['mbit']:.2f} Mbit/s" +
                 ("" if down["complete"] else ", not finished"))
    up = transfer(lab, f"curl-up-{number}", [*argv, "--max-time", str(bound), "-H", "Expect:", "-o", "/dev/null", "-f", "-T", lab.path("upload"),
                                             f"{base}/up/{put}"], UPLOAD_BYTES, lambda: services.uploaded(put), bound + 2, rec, display, "upload",
                  route.drops)
    up["hash_ok"] = up["complete"] and services.upload_good(put)
    display.note(f"upload   {up['bytes'] / 1e6:.1f} MB in {up['seconds']:.1f} s: {up['mbit']:.2f} Mbit/s" +
                 ("" if up["complete"] else ", not finished"))
    for r in (down, up):
        r["direction"] = "down" if r is down else "up"
    ssh_ok, ssh_s = try_ssh(lab, route)
    dns_ok, dns_s = try_dig(lab, route)
    display.note(f"ssh {'works' if ssh_ok else 'fails'} ({ssh_s:.1f} s), dns {'works' if dns_ok else 'fails'} ({dns_s:.1f} s)")
    rec.acts.append((begin, rec.now(), name))
    return {"name": name, "down": down, "up": up, "ssh_ok": ssh_ok, "ssh_s": ssh_s, "dns_ok": dns_ok, "dns_s": dns_s,
            "drops": {k: v for k, v in route.drops().items() if v}}


def try_ssh(lab, route, seconds=15):
    begin = time.monotonic()
    status, out, _ = run(lab, "me", [*route.ssh(), "echo", "walnut-$((6*7))"], seconds)
    return status == 0 and out.strip() == "walnut-42", round(time.monotonic() - begin, 2)


def try_dig(lab, route, seconds=10):
    begin = time.monotonic()
    status, out, _ = run(lab, "me", route.dig(), seconds)
    return status == 0 and re.search(rf"^{re.escape(NAME_ADDRESS)}$", out, re.M) is not None, round(time.monotonic() - begin, 2)


def worst_share(measured, reference):
    """The worse direction's goodput as a share of the reference's same direction."""
    return min(measured[d]["mbit"] / reference[d]["mbit"] if reference[d]["mbit"] else 0.0 for d in ("down", "up"))


class Floods:
    """The attacker's generators; each ends by itself in time."""

    def __init__(self, lab, seconds):
        self.lab, self.seconds, self.procs = lab, seconds, {}

    def data(self, target):
        self.procs["data"] = Process(self.lab, "attack", "flood-data", [
            find("lab-load"), "udp", "--to", target, "--rate", str(FLOOD_RATE), "--size", str(FLOOD_SIZE), "--seconds", str(self.seconds)], nice=5)
        return self

    def sip(self, user, rate=BAD_INVITES, name="sip", fronts=t.FRONTS, more=()):
        self.procs[name] = Process(self.lab, "attack", f"flood-{name}", [
            find("lab-load"), "sip", *(a for f in fronts for a in ("--to", f"{f}:5060")), "--rate", str(rate), "--seconds", str(self.seconds),
            "--user", user, *more], nice=5)
        return self

    def running(self):
        return all(p.running() for p in self.procs.values())

    def stop(self):
        """Ends them; what each says it has sent."""
        for p in self.procs.values():
            p.kill(15)
        said = {}
        for name, p in self.procs.items():
            p.stop()
            said[name] = p.json() or {"error": p.last_log()}
        self.procs = {}
        return said
