# SPDX-License-Identifier: Apache-2.0
"""Those who get nothing: strangers who are challenged, and what is refused without an answer."""
import time
from statistics import median

from inside import Failure
from world import UAS, drained, received

# What is refused without an answer: words of front-load, the outcome that the front counts.
DROPS = {
    "bye": (("nodialog", "--method", "BYE"), "in_dialog_no_token"),
    "ack": (("nodialog", "--method", "ACK"), "ack_absorbed"),
    "replay_over": (("replay",), "replay"),
    "replay_bytes": (("replay", "--other-bytes"), "replay"),
    "replay_port": (("replay", "--other-port"), "replay"),
}
SAVED = 1000
OVER_S = 7 # a transaction is over five seconds after its ACK
PORTS = 4
BURST = 8192


def challenge(w, out):
    """Closed loop, 1,024 unanswered at most, 4,096 addresses and 16 ports."""
    got = {}
    for _ in range(w.o.runs):
        for kind in ("walnut", "echo", "kamailio"):
            s = w.server(kind)
            r, busy = w.work("strangers", s, "--service", s.service)
            if kind != "echo" and (r["other"] > 0 or r["answered"] < 0.99 * r["sent"]):
                raise Failure(f"{kind}: {r}")
            got.setdefault(kind, []).append((r["answered"] + r["other"]) / busy)
    out.add("challenge_ratio_echo", [a / b for a, b in zip(got["walnut"], got["echo"])])
    limit = [a / b for a, b in zip(got["echo"], got["kamailio"])]
    out.add("challenge_ratio_kamailio", [a / b for a, b in zip(got["walnut"], got["kamailio"])],
            limit=f"the bare loop, which reads nothing, is {median(limit):.2f} times Kamailio here")
    out.add("challenge_limit_kamailio", limit, "a bare loop's echoes a CPU-second / Kamailio's 407s")
    for kind, what in (("walnut", "the front"), ("echo", "a bare loop that echoes"), ("kamailio", "Kamailio")):
        out.add(f"challenge_{kind}_per_cpu_s", got[kind], f"answers to strangers a CPU-second: {what}")


def poured(w, kind, mode, *words):
    """-> datagrams that the server took, a CPU-second, and in all."""
    s = w.server(kind)
    before = received()
    with w.timed() as core:
        # The generator is slower than the server. So that the server has always more to do, as in a flood, it finds bursts.
        w.load(mode, s, "--burst", BURST, "--pid", s.process.pid, *words)
        drained(s.port)
    w.note(core)
    taken = received() - before
    return taken / core.busy, taken


def saved(w, s, what, *words):
    """INVITEs of calls that were accepted. -> the file."""
    path = f"{w.dir}/{what}.invites"
    r = w.load("calls", s, "--uas", UAS, "--ports", PORTS, "--auth", "challenge", "--service", s.service, "--window", 64, "--count", SAVED, "--save", path,
               *words)
    if r["connected"] < SAVED:
        raise Failure(f"accepted calls to replay: {r}")
    return path


def drop(w, out):
    """Replays: nonces of calls that are over; and of calls that are open still, with other bytes, and from another port."""
    got, wrong = {}, set()
    s = w.server("walnut")
    over = saved(w, s, "over")
    time.sleep(OVER_S)
    for _ in range(w.o.runs):
        live = saved(w, s, "live", "--hold")
        for what, (words, outcome) in DROPS.items():
            if words[0] == "replay":
                words += ("--ports", PORTS, "--save", over if what == "replay_over" else live)
            before = s.outcomes()[outcome]
            taken = poured(w, "walnut", *words)
            got.setdefault(("walnut", what), []).append(taken[0])
            if s.outcomes()[outcome] - before < 0.98 * taken[1]:
                wrong.add(what)
            got.setdefault(("drop", what), []).append(poured(w, "drop", *words)[0])
    if wrong:
        raise Failure(f"counted as something else: {', '.join(sorted(wrong))}: {s.outcomes()}")
    ratio = {what: [a / b for a, b in zip(got["walnut", what], got["drop", what])] for what in DROPS}
    out.add("drop_ratio_bare", min(ratio.values(), key=median))
    for what in DROPS:
        out.add(f"drop_ratio_{what}", ratio[what], f"… {what.replace('_', ', ')}")
        out.add(f"drop_{what}_per_cpu_s", got["walnut", what], "refused without an answer a CPU-second")
        out.add(f"drop_{what}_bare_per_cpu_s", got["drop", what], "the same datagrams received and dropped")
