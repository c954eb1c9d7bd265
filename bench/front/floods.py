# SPDX-License-Identifier: Apache-2.0
"""Accepted callers beside floods. Both are on the generators' core; the callers come first there, so that what they suffer is the server's
doing and the kernel's in front of it."""
import json
import time
from statistics import median

import world
from inside import Failure

RATE = 300      # calls a second
ADDRESSES = 300  # of callers: each calls once a second
WARM, COUNTED, REST = 2, 5, 2  # seconds: without a flood, counted, until the flood ends
FLOOD_PORT = 40000


def beside(w, s, flood, *words, counted=COUNTED, rest=REST):
    """Calls, with a flood from when they are warm until `rest` seconds after the last has begun. flood: words of front-load, None for none.
    -> what the callers and the flood printed."""
    caller = w.begin("calls", s, "--uas", world.UAS, "--ports", 4, "--rate", RATE, "--retransmit", "--warm", WARM, *words, nice=world.FIRST,
                     seconds=WARM + counted)
    noise = None
    if flood:
        time.sleep(WARM - 0.2)
        noise = w.begin(flood[0], s, "--first-port", FLOOD_PORT, "--service", s.service, *flood[1:], nice=world.LAST, seconds=counted + rest)
    poured = json.loads(w.end(noise)) if noise else None
    calls = json.loads(w.end(caller))
    if calls["calls"] < 0.9 * RATE * counted:
        raise Failure(f"only {calls['calls']} calls could be made, {calls['missed']} were missed")
    return calls, poured


def good(calls):
    """Completed, and connected within the deadline, of those that were begun."""
    return min(calls["completed"], calls["in_time"]) / calls["calls"]


NEXT = ("--auth", "next", "--addresses", ADDRESSES, "--deadline", 2000)
LARGEST = ("flood",) # datagrams one by one, as from a wire, in batches of 64


def authenticated(w, out):
    """With nextnonce, beside the largest flood of strangers that the machine can make."""
    s, rounds, quiet = w.server("walnut"), [], []
    for _ in range(w.o.runs):
        rounds.append(beside(w, s, LARGEST, *NEXT, "--service", s.service))
        quiet.append(beside(w, s, None, *NEXT, "--service", s.service, counted=2)[0])
    out.add("flood_goodput", [good(c) for c, _ in rounds])
    out.add("flood_p99_ms", [c["p99_ms"] for c, _ in rounds])
    out.add("flood_per_s", [f["sent"] / f["seconds"] for _, f in rounds], "strangers' datagrams a second, all that the generators' core can send")
    out.add("flood_p50_ms", [c["p50_ms"] for c, _ in rounds], "INVITE to 200, median")
    out.add("flood_retransmits", [c["retransmits"] / c["calls"] for c, _ in rounds], "requests sent again, a call")
    out.add("flood_quiet_p99_ms", [c["p99_ms"] for c in quiet], "INVITE to 200 without a flood, 99th percentile")


def first_contact(w, out):
    """Callers without a nonce, beside 1.2 times as many strangers as the server can answer on a core of its own."""
    server, rounds, rates = w.server("walnut"), [], []
    for _ in range(w.o.runs):
        r, busy = w.work("strangers", server, "--service", server.service)
        rates.append(1.2 * r["answered"] / busy)
        rounds.append(beside(w, server, ("flood", "--rate", int(rates[-1])), "--auth", "challenge", "--service", server.service, "--deadline",
                             8000, counted=3, rest=9))
    sent = [f["sent"] / f["seconds"] for _, f in rounds]
    short = median(s / r for s, r in zip(sent, rates))
    out.add("flood_first_contact", [c["in_time"] / c["calls"] for c, _ in rounds],
            limit=f"the generator made {short:.0%} of the flood that was wanted" if short < 0.97 else None)
    out.add("first_contact_per_s", sent, f"strangers' datagrams a second; wanted {median(rates):,.0f}")
    out.add("first_contact_p50_ms", [c["p50_ms"] for c, _ in rounds], "first INVITE to 200, median")


def badnonce(w, out):
    s, rounds = w.server("walnut"), []
    for _ in range(w.o.runs):
        rounds.append(beside(w, s, ("badnonce", "--addresses", 1000, "--ports", 4), *NEXT, "--service", s.service))
    out.add("badnonce_flood_goodput", [good(c) for c, _ in rounds])
    out.add("badnonce_per_s", [f["with_nonce"] / f["seconds"] for _, f in rounds], "wrong digests with a nonce of the address, a second")
    out.add("badnonce_p99_ms", [c["p99_ms"] for c, _ in rounds], "INVITE to 200, 99th percentile")


def memory(w, out):
    """60 s of strangers at full speed."""
    s = w.server("walnut")
    noise = w.begin(*LARGEST[:1], s, *LARGEST[1:], "--service", s.service, seconds=61)
    seen, began = [], time.monotonic()
    while noise.poll() is None:
        seen.append((time.monotonic() - began, sum(world.resident(pid) for pid in s.pids())))
        time.sleep(1)
    poured = json.loads(w.end(noise))
    first = [b for t, b in seen if t >= 10]
    out.add("flood_rss_growth_kib", [(max(first) - first[0]) / 1024])
    out.add("flood_rss_mib", [first[0] / 1048576], f"RSS after 10 s of it, {poured['sent'] / poured['seconds']:,.0f} datagrams/s")
