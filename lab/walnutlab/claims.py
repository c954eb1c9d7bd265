# SPDX-License-Identifier: Apache-2.0
"""The claims. Each function measures one on a running lab and returns its evidence; none judges."""
import json
import re
import secrets
import signal
import socket
import subprocess
import threading
import time

from . import topology as t
from .daemons import USER
from .measure import Floods
from .processes import Process, find, run, wait_for
from .sip import Client, Packet, Refusals, Sniffer, Spoofer, inside, sdp
from .topology import LabError

GET = "GET /small HTTP/1.0\r\n\r\n"
DELAY_MS = 50
REPLAYS = 1000


def connect(lab, walnut, seconds=12, more=()):
    """A whole use of the service by a client just started. Returns (worked, seconds, what it said)."""
    begin = time.monotonic()
    status, out, err = run(lab, "me", [find("walnut"), "connect", *more, "web.example.org", "80"], seconds, env=walnut.env(), stdin=GET)
    return status == 0 and out.endswith("small\n"), time.monotonic() - begin, err.strip()


class Held:
    """Sessions that stay open: an ssh connection's beginning, and a UDP port in use."""

    def __init__(self, lab, walnut):
        self.lab, self.walnut = lab, walnut

    def __enter__(self):
        program = find("walnut")
        self.tcp = subprocess.Popen(self.lab.inside("me", program, "connect", "ssh.example.org", "22"), stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environ(self.walnut), start_new_session=True)
        self.udp = Process(self.lab, "me", "held", [program, "forward", "--udp", "127.0.0.1:5399", "dns.example.org"], env=self.walnut.env())
        wait_for("walnut forward to listen", lambda: ":5399 " in run(self.lab, "me", ["ss", "-Hlun"])[1])
        run(self.lab, "me", ["dig", "+tries=3", "+time=2", "-p", "5399", "@127.0.0.1", "walnut.lab.test"])
        wait_for("two holes to be open", lambda: len(self.walnut.holes()) >= 2)
        return self

    def __exit__(self, *exc):
        self.tcp.terminate()
        self.tcp.wait(5)
        self.udp.stop()


def _environ(walnut):
    import os
    return dict(os.environ, **walnut.env())


def live_call(lab, walnut):
    """A use of the service watched by somebody on the way. Returns (source, port, front, the INVITE that was accepted)."""
    done = threading.Event()
    worked = []

    def use():
        worked.append(connect(lab, walnut))
        done.set()

    with Sniffer(lab, "inet", "home") as sniffer:
        thread = threading.Thread(target=use)
        thread.start()
        found = None
        for _, outgoing, frame in sniffer.packets(12, done.is_set):
            p = Packet(frame)
            if p.ok and not outgoing and p.proto == 17 and p.dport == 5060 and p.payload.startswith(b"INVITE ") and b"Proxy-Authorization" in p.payload:
                found = (p.src, p.sport, p.dst, p.payload)
        thread.join()
    if not worked[0][0] or not found:
        raise LabError(f"the live call failed: {worked[0][2] or 'no INVITE with credentials was seen'}")
    return found


def quiet(lab, walnut, seconds=40):
    """Waits until there is no call, no hole, no connection of a session that still wants to end, and nothing of one on the link."""
    wait_for("all holes to be closed", lambda: not walnut.holes(), seconds)
    wait_for("all calls to have ended", lambda: (walnut.agent.status() or {}).get("calls") == 0, seconds)
    try:
        wait_for("the service's connections to have ended", lambda: not lingering(lab), seconds)
    except LabError as e:
        raise LabError(f"{e}: {lingering(lab)}") from None
    with Watch(lab) as w:
        last, since = None, time.monotonic()
        end = since + seconds
        while time.monotonic() - since < 1.5:
            now = w.now()["other"]["frames"], application_bytes(walnut)
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() > end:
                raise LabError("the link does not become quiet: " + json.dumps(w.now()["shown"]))
            time.sleep(0.1)


def lingering(lab):
    """Connections at the host, the agent's own apart, that have not ended. Those of the plain acts had another address, which is gone."""
    rows = [line.split() for line in run(lab, "host", ["ss", "-Htan"])[1].splitlines()]
    return [r for r in rows if r[0] not in ("LISTEN", "TIME-WAIT") and r[3].startswith(lab.service + ":") and not r[4].endswith((":7061", ":7443"))]


class Watch:
    """lab-watch on the narrow link, while the block runs."""

    def __init__(self, lab):
        self.lab = lab

    def __enter__(self):
        self.process = Process(self.lab, "link", "watch-" + secrets.token_hex(2), [
            find("lab-watch"), self.lab.upper, "to-host", "--agent", t.HOST_INSIDE, *(a for f in t.FRONTS for a in ("--front", f"{f}:7061")),
            "--gate", f"{t.GATE_INSIDE}:7443", "--interval", "100"])
        wait_for("lab-watch to count", self.process.json)
        return self

    def now(self):
        return self.process.json()

    def __exit__(self, *exc):
        self.process.stop()
        self.last = self.process.json()


def application_bytes(walnut):
    """Other than heartbeats, as the agent and the fronts count them."""
    return walnut.link_bytes()


def denied_bytes(lab, walnut, seconds=30, rate=5000, leak=None, calls=1):
    """Every kind of refusal at both fronts while nobody is signed in. `leak`: called once in the middle, to see whether it is noticed.
    `calls`: as in Refusals."""
    src, sport, front, datagram = live_call(lab, walnut)
    quiet(lab, walnut)
    # Both fronts know the link and have their users: from here on only heartbeats.
    walnut.connected()
    with Watch(lab) as idle:
        time.sleep(min(6, seconds))
    found = refused_bytes(lab, walnut, [(src, sport, front, datagram), (src, sport % 65000 + 500, front, datagram)], seconds, rate, leak, calls)
    return found | {"link_idle": {k: idle.last[k] for k in ("front_tls", "gate_tls", "neighbour", "other")}}


def refused_bytes(lab, walnut, replay, seconds, rate, leak=None, calls=1):
    """What the link carries, other than what the parts say to each other, while everything is refused."""
    outcomes = walnut.front_outcomes()
    agent0, fronts0 = application_bytes(walnut)
    with Watch(lab) as watch:
        refusals = Refusals(lab, USER, walnut.secret(), replay, calls)
        floods = Floods(lab, seconds + 5).sip(USER, rate=rate)
        refusals.start()
        time.sleep(seconds / 2)
        if leak:
            leak()
        time.sleep(seconds / 2)
        said = floods.stop()
        refusals.stop()
        wait_for("the fronts to have read what was sent", lambda: walnut.front_outcomes() is not None)
        time.sleep(0.3)
    agent1, fronts1 = application_bytes(walnut)
    after = walnut.front_outcomes()
    other = watch.last["other"]["bytes"]
    application = max(agent1 - agent0, fronts1 - fronts0)
    return {
        "denied_bytes_on_link": other + application, "frame_bytes_other": other, "application_bytes": application,
        "frames_lost_by_counter": watch.last["lost"], "other_frames": watch.last["shown"], "seconds": seconds,
        "link": {k: watch.last[k] for k in ("front_tls", "gate_tls", "neighbour", "other")},
        "refusals": {k: v - outcomes.get(k, 0) for k, v in after.items() if v != outcomes.get(k, 0)},
        "generator": said.get("sip"), "rounds_of_the_rest": refusals.rounds, "t": watch.last["t"],
    }


def open_ports(lab, walnut):
    """A scan of the gate's public address, with holes open; the same scanner at a front, as control."""
    scan = [find("lab-load"), "scan", "--rate", "20000", "--seconds", "30"]
    with Held(lab, walnut):
        holes = walnut.holes()
        ports = sorted({p for hole in holes for p in _public_ports(hole)})
        before = walnut.gate_drops()
        status, out, err = run(lab, "attack", [*scan, "--to", t.GATE_PUBLIC, *(a for p in ports for a in ("--udp-port", str(p)))], 40)
        after = walnut.gate_drops()
    if status != 0:
        raise LabError(f"the scan failed: {err.strip()}")
    control = json.loads(run(lab, "attack", [*scan, "--to", t.FRONTS[0], "--tcp", "7100", "--udp", "0"], 40)[1])
    if not control["answered"]:
        raise LabError("the scanner hears no answers, not even a front's")
    found = json.loads(out)
    return {"open_ports": found["answered"] or (1 if found["frames_back"] else 0), "scan": found, "holes": len(holes), "hole_ports": ports,
            "control_answered": control["answered"], "gate_drops": {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}}


def _public_ports(hole):
    text = str(hole.get("public", ""))
    return [int(text.rsplit(":", 1)[1])] if ":" in text and text.rsplit(":", 1)[1].isdigit() else []


class LongWire:
    """The person's wire with a delay each way."""

    def __init__(self, lab, ms):
        self.lab, self.ms = lab, ms

    def __enter__(self):
        self.lab.ip("wire", "link", "set", "br0", "down")
        self.process = Process(self.lab, "wire", "delay", [find("lab-delay"), "in", "out", "--ms", str(self.ms)])
        wait_for("lab-delay", lambda: "ready" in self.process.text())
        return self

    def __exit__(self, *exc):
        self.process.stop()
        self.lab.ip("wire", "link", "set", "br0", "up")


def signin(lab, walnut, runs=3):
    """Flights and time of a sign-in over a long wire, by capture at the person's device. The worst flights, the median time."""
    seen = []
    with LongWire(lab, DELAY_MS):
        # The neighbours on the way know each other, as on any wire in use.
        ping = run(lab, "me", ["ping", "-c", "3", "-i", "0.2", "-q", t.FRONTS[0]], 10)[1]
        for _ in range(runs):
            done = threading.Event()
            worked = []

            def use():
                worked.append(connect(lab, walnut))
                done.set()

            with Sniffer(lab, "me", "eth0") as sniffer:
                thread = threading.Thread(target=use)
                thread.start()
                packets = [(when, out, Packet(frame)) for when, out, frame in sniffer.packets(15, done.is_set)]
                thread.join()
            seen.append(flights([p for p in packets if p[2].ok]) | {"worked": worked[0][0], "said": worked[0][2]})
    good = [s for s in seen if s["worked"] and s.get("answer_s")]
    rtt = 2 * DELAY_MS / 1000
    result = {"runs": seen, "ping": ping.strip().split("\n")[-1], "rtt_s": rtt}
    if len(good) == runs:
        result["signin_flights"] = max(s["flights"] for s in good)
        result["signin_rtts"] = round(sorted(s["answer_s"] for s in good)[runs // 2] / rtt, 2)
        result["payload_rtts"] = round(sorted(s["payload_s"] for s in good)[runs // 2] / rtt, 2)
    return result


def flights(packets):
    """Counts the client's flights from its first packet to its first TCP payload: a flight is what it sends without having
    heard anything since its last packet."""
    count, heard, first, payload, answer, log = 0, True, None, None, None, []
    for when, out, p in packets:
        if out and payload is None:
            first = first if first is not None else when
            if heard:
                count += 1
            heard = False
            log.append(f"{count}: {(when - first) * 1000:.1f} ms > {p.dst}:{p.dport} " + _what(p))
            if p.proto == 6 and p.payload:
                payload = when
        elif not out and first is not None:
            if payload is None:
                heard = True
                log.append(f"   {(when - first) * 1000:.1f} ms < {p.src}:{p.sport} " + _what(p))
            elif p.proto == 6 and p.payload and answer is None:
                answer = when
    if payload is None:
        return {"flights": 0, "log": log}
    return {"flights": count, "payload_s": round(payload - first, 4), "answer_s": round(answer - first, 4) if answer else None, "log": log}


def _what(p):
    if p.proto == 6:
        return "TCP " + ("SYN" if p.flags & 2 else "") + (f" {len(p.payload)} bytes" if p.payload else "")
    return p.payload[:40].split(b"\r\n")[0].decode(errors="replace")


def failover(lab, walnut, clients=6):
    """Each front in turn, by SIGKILL and by its cable pulled; the worst time in which a client started then uses the service.
    They choose a front at random: with six at once it is nearly certain that some meet the lost one."""
    trials = []
    for front in walnut.fronts:
        for how in ("kill", "link down"):
            if how == "kill":
                front.kill()
            else:
                lab.front_link(front.name, False)
            results = []
            threads = [threading.Thread(target=lambda: results.append(connect(lab, walnut))) for _ in range(clients)]
            for th in threads:
                th.start()
            for th in threads:
                th.join()
            trials.append({"front": front.name, "how": how, "seconds": [round(r[1], 2) for r in results], "worked": all(r[0] for r in results),
                           "said": sorted({r[2] for r in results if r[2]})})
            begin = time.monotonic()
            if how == "kill":
                front.start().ready()
            else:
                lab.front_link(front.name, True)
            walnut.connected(30)
            trials[-1]["recovered_s"] = round(time.monotonic() - begin, 2)
    worst = max(max(tr["seconds"]) if tr["worked"] else 99.0 for tr in trials)
    return {"failover_s": worst, "trials": trials}


def replay(lab, walnut, count=REPLAYS):
    """One live call, watched; its INVITE again, changed in one respect and not at all."""
    before, calls = walnut.front_outcomes(), walnut.calls_total()
    src, sport, front, datagram = live_call(lab, walnut)
    begin = time.monotonic()
    path = lab.path("captured")
    with open(path, "wb") as f:
        f.write(datagram)
    other = next(f for f in t.FRONTS if f != front)
    status, out, err = run(lab, "attack", [find("lab-load"), "replay", "--file", path, "--from", f"{src}:{sport}", "--to", f"{front}:5060", "--to",
                                           f"{other}:5060", "--count", str(count), "--rate", "2500", "--seconds", "20"], 25)
    took = time.monotonic() - begin
    if status != 0:
        raise LabError(f"the replays failed: {err.strip()}")
    wait_for("the fronts to have read them", lambda: _settled(walnut), 5)
    after = walnut.front_outcomes()
    delta = {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}
    seen = walnut.calls_total() - calls
    return {"replay_calls_seen": max(seen, delta.get("forwarded", 0)), "calls_at_agent": seen, "sent": json.loads(out), "seconds": round(took, 2),
            "outcomes": delta, "datagram": len(datagram)}


def _settled(walnut):
    a = walnut.front_outcomes()
    time.sleep(0.3)
    return a == walnut.front_outcomes()


def spoofed(lab, walnut):
    """An observer takes the credentials from a sign-in and is first with its own candidates, from the client's address.

    Victims: Walnut's client behind a long wire, whose INVITE is overtaken; and a user agent that only knows qop=auth, whose credentials
    do not cover the body. Attacker's holes are those for its addresses."""
    attempts, holes = [], []
    spoofer = Spoofer(lab)
    before = walnut.front_outcomes()
    try:
        with LongWire(lab, 150):
            for name, change in ATTACKS:
                done = threading.Event()
                worked = []

                def use():
                    worked.append(connect(lab, walnut, more=("--timeout", "4")))
                    done.set()

                sent = 0
                with Sniffer(lab, "home", "wan") as sniffer:
                    thread = threading.Thread(target=use)
                    thread.start()
                    for _, outgoing, frame in sniffer.packets(8, done.is_set):
                        p = Packet(frame)
                        if p.ok and outgoing and p.dport == 5060 and p.payload.startswith(b"INVITE ") and b"Proxy-Authorization" in p.payload:
                            spoofer.send(p.src if name != "own address" else t.ATTACK, p.sport, p.dst, p.dport, change(p.payload))
                            sent += 1
                        holes += _attackers(walnut)
                    thread.join()
                holes += _attackers(walnut)
                attempts.append({"attack": name, "sent": sent, "client_worked": worked[0][0], "client_s": round(worked[0][1], 2)})
                if not sent:
                    raise LabError("no sign-in was seen to be overtaken: " + worked[0][2])
        holes += _auth_only(lab, walnut, spoofer, attempts)
    finally:
        spoofer.close()
    reached = _reach(lab, walnut)
    after = walnut.front_outcomes()
    return {"spoofed_holes": len({json.dumps(x, sort_keys=True) for x in holes}) + reached, "attempts": attempts, "holes": holes,
            "reached_by_attacker": reached, "outcomes": {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}}


def _candidates(datagram):
    """The same, but the body names the attacker."""
    head, sep, body = datagram.partition(b"\r\n\r\n")
    for addr in (t.HOME_PUBLIC, t.ME):
        body = body.replace(addr.encode(), t.ATTACK.encode())
    return _length(head, len(body)) + sep + body


def _length(head, n):
    lines = [b"Content-Length: %d" % n if line.lower().startswith(b"content-length:") else line for line in head.split(b"\r\n")]
    return b"\r\n".join(lines)


ATTACKS = (
    ("candidates", _candidates),
    ("candidates, qop=auth", lambda d: _candidates(d).replace(b"qop=auth-int", b"qop=auth").replace(b'qop="auth-int"', b"qop=auth")),
    ("candidates, no body hash", lambda d: _candidates(d).replace(b"qop=auth-int,", b"").replace(b", qop=auth-int", b"")),
    ("another nonce", lambda d: re.sub(rb',nonce="(.)', lambda m: b',nonce="' + (b"B" if m[1] == b"A" else b"A"), _candidates(d), count=1)),
    ("own address", _candidates),
)


def _auth_only(lab, walnut, spoofer, attempts):
    """Credentials with qop=auth do not cover the body: the attacker's INVITE is accepted, the hole is the victim's all the same."""
    found = []
    victim = Client(lab, "me", t.FRONTS[0], USER, walnut.secret(), service="web")
    try:
        with Sniffer(lab, "inet", "home") as sniffer:
            realm, nonce = victim.challenge()
            port = next((Packet(f).sport for _, out, f in sniffer.packets(2) if not out and Packet(f).ok and Packet(f).dport == 5060), None)
        body = sdp(t.ATTACK, 4444)
        spoofer.send(t.HOME_PUBLIC, port, t.FRONTS[0], 5060, victim.request(body=body, credentials=victim.credentials(realm, nonce, body, "auth")))
        answer = victim.receive(3, lambda m: m.status >= 200 and m.status != 407)
        holes = walnut.holes()
        found = _attackers(walnut)
        reached = _reach(lab, walnut)
        attempts.append({"attack": "a user agent with qop=auth only", "sent": 1, "answer_to_victim": answer.start if answer else None,
                         "holes_open": len(holes), "reached": reached})
        found += [{"reached": n} for n in range(reached)]
        if answer and 200 <= answer.status < 300:
            victim.answer = answer
            victim.send(victim.in_dialog("ACK", victim.cseq))
            victim.bye()
    finally:
        victim.close()
    return found


def _attackers(walnut):
    """Holes that are open for any of the attacker's addresses."""
    return [hole for hole in walnut.holes() if t.ATTACK in str(hole.get("remote")) or "198.19." in str(hole.get("remote"))]


def _reach(lab, walnut):
    """Public ports of open holes that the attacker can connect to from its own address."""
    reached = 0
    for port in {p for hole in walnut.holes() for p in _public_ports(hole)}:
        with inside(lab, "attack"):
            s = socket.socket()
        s.settimeout(0.7)
        try:
            s.connect((t.GATE_PUBLIC, port))
            reached += 1
        except OSError:
            pass
        finally:
            s.close()
    return reached
