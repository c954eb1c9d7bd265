# SPDX-License-Identifier: Apache-2.0
"""Whole calls, with our generator and with SIPp: caller and respondent both on the generator's core."""
import os
import re
import subprocess
from statistics import median

import world
from inside import Failure, await_, with_us_first

HERE = os.path.dirname(os.path.abspath(__file__))
WINDOW = 256  # calls that our generator has open
SIPP_RATE = 8000  # a second; SIPp can do about 10,000 with both ends on one core
CALLER = "127.0.0.2"


def calls(w, s, *words, ports=4, **kw):
    """-> CPU-seconds a call, what was printed."""
    r, busy = w.work("calls", s, "--uas", world.UAS, "--ports", ports, "--retransmit", *words, **kw)
    if r["completed"] < 0.98 * r["calls"] or r["completed"] == 0:
        raise Failure(f"{s.kind}: {r}")
    return busy / r["completed"], r


def closed(w, s, *words):
    return calls(w, s, "--window", WINDOW, *words)[0]


def auth(how, alg, s):
    return ["--auth", how, "--alg", alg, "--service", s.service]


def sipp(w, s, scenario, secret=None):
    """-> CPU-seconds a call."""
    count = SIPP_RATE * w.o.seconds
    service = s.open_service if secret is None else s.service
    argv = ["taskset", "-c", str(w.o.rest), "sipp", s.address, "-sf", f"{HERE}/sipp/{scenario}.xml", "-i", CALLER, "-p", "5080", "-s", service, "-key",
            "caller", "u00000000000", "-r", str(SIPP_RATE), "-m", str(count), "-l", "15000", "-buff_size", "8388608", "-nostdin", "-timeout", "30s"]
    if secret:
        # of its own accord it puts the server's address there, which is not what was asked for (auth-int)
        argv += ["-au", "u00000000000", "-ap", secret, "-auth_uri", f"{service}@{s.domain}"]
    uas = w.start("sipp-uas", ["sipp", "-sf", f"{HERE}/sipp/uas.xml", "-i", "127.0.0.3", "-p", "5070", "-buff_size", "8388608", "-nostdin"], w.o.rest, world.NICE)
    try:
        await_("SIPp to listen", lambda: world.bound(5070))
        with w.timed() as core:
            p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               timeout=60, check=False, cwd=w.dir, env=dict(os.environ, TERM="dumb"), preexec_fn=with_us_first(world.NICE))
    finally:
        w.stop(uas)
    w.note(core)
    done = re.findall(r"Successful call\s*\|\s*\d+\s*\|\s*(\d+)", p.stdout)
    if not done or int(done[-1]) < 0.98 * count:
        raise Failure(f"{s.kind}: SIPp completed {done[-1:] or 'nothing'} of {count} calls: {p.stdout.strip()[-200:]}")
    return core.busy / int(done[-1])


def against(a, b):
    """How many times what b costs a call is what a costs, round by round."""
    return [y / x for x, y in zip(a, b)]


def worst(out, key, ways):
    """The way with the least median."""
    out.add(key, min((rounds for rounds in ways if rounds), key=median))


def per_s(costs):
    return [1 / c for c in costs]


def plain(w, out):
    """No authentication: 5 datagrams in, 6 out."""
    got = {}
    for _ in range(w.o.runs):
        for kind in ("walnut", "kamailio"):
            s = w.server(kind)
            got.setdefault((kind, "ours"), []).append(closed(w, s, "--service", s.open_service))
            w.attempt(got.setdefault((kind, "sipp"), []), sipp, w, s, "uac")
            got.setdefault((kind, "rate"), []).append(calls(w, s, "--service", s.open_service, "--rate", SIPP_RATE)[0])
    ours, sipps = against(got["walnut", "ours"], got["kamailio", "ours"]), against(got["walnut", "sipp"], got["kamailio", "sipp"])
    worst(out, "calls_ratio_kamailio", (ours, sipps))
    out.add("calls_ratio_ours", ours, f"… by our generator, {WINDOW} calls open")
    if sipps:
        out.add("calls_ratio_sipp", sipps, f"… by SIPp, {SIPP_RATE} calls/s")
    for kind in ("walnut", "kamailio"):
        out.add(f"calls_{kind}_per_cpu_s", per_s(got[kind, "ours"]), f"calls a CPU-second, {kind}, our generator")
        if got[kind, "sipp"]:
            out.add(f"calls_{kind}_sipp_per_cpu_s", per_s(got[kind, "sipp"]), f"… SIPp at {SIPP_RATE}/s")
            out.add(f"calls_{kind}_agree", against(got[kind, "sipp"], got[kind, "rate"]), "what a call costs by our generator at SIPp's rate / by SIPp")


def challenged(w, out):
    """A challenge a call: 7 in, 7 out. And calls that nextnonce spares it, against calls without authentication."""
    got, ratio = {}, {}
    secret = world.secret(w, 0)
    for _ in range(w.o.runs):
        for alg, kinds in (("sha-256", ("walnut", "kamailio_sha")), ("md5", ("walnut_md5", "kamailio"))):
            for kind in kinds:
                s = w.server(kind)
                got.setdefault((kind, alg), []).append(closed(w, s, *auth("challenge", alg, s)))
                if alg == "md5":
                    w.attempt(got.setdefault((kind, "sipp"), []), sipp, w, s, "uac_auth", secret)
    ratio["sha256"] = against(got["walnut", "sha-256"], got["kamailio_sha", "sha-256"])
    ratio["md5"] = against(got["walnut_md5", "md5"], got["kamailio", "md5"])
    ratio["md5_sipp"] = against(got["walnut_md5", "sipp"], got["kamailio", "sipp"])
    ratio = {name: rounds for name, rounds in ratio.items() if rounds}
    worst(out, "auth_calls_ratio_kamailio", ratio.values())
    for name, rounds in ratio.items():
        out.add(f"auth_calls_ratio_{name}", rounds, f"… {name}")
    for (kind, how), costs in got.items():
        if not costs:
            continue
        out.add(f"auth_calls_{kind}_{how.replace('-', '')}_per_cpu_s", per_s(costs), f"calls with a challenge each a CPU-second, {kind}, {how}")


def digest(w, out):
    got = {}
    s = w.server("walnut")
    for _ in range(w.o.runs):
        got.setdefault("none", []).append(closed(w, s, "--service", s.open_service))
        got.setdefault("next", []).append(closed(w, s, *auth("next", "sha-256", s), "--addresses", 512))
    out.add("digest_cost", [a / b - 1 for a, b in zip(got["next"], got["none"])])
    out.add("digest_next_ns", [1e9 * x for x in got["next"]], "a call with nextnonce, SHA-256, ns of the core")
    out.add("digest_none_ns", [1e9 * x for x in got["none"]], "a call without authentication, ns of the core")


def lookup(w, out):
    """An authenticated call, users drawn uniformly out of a million and out of a thousand. A challenge a call."""
    got = {}
    for _ in range(w.o.runs):
        for kind in ("walnut", "walnut_many"):
            s = w.server(kind)
            got.setdefault(kind, []).append(closed(w, s, *auth("challenge", "sha-256", s), "--users", s.users))
    out.add("lookup_growth", [a / b for a, b in zip(got["walnut_many"], got["walnut"])])
    out.add("lookup_many_ns", [1e9 * x for x in got["walnut_many"]], "an authenticated call among 1,000,000 users, ns of the core")
    out.add("lookup_few_ns", [1e9 * x for x in got["walnut"]], f"among {median([w.server('walnut').users]):,}")
