#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Callers over TCP and TLS: whole calls, over IPv4 and IPv6, through whichever worker; and what the kernel's and SIPp's idea of them is."""
import os
import ssl

from _lab import ROOT, main, ok
from _streams import FRONT, SIX, TCP, Caller, any_tls, streams
from walnutlab.daemons import USER
from walnutlab.processes import Process, find, run, wait_for

CALLERS = 8
WORKERS = 2
UAC = os.path.join(ROOT, "tests/net/sipp_uac.xml")
UAS = os.path.join(ROOT, "tests/net/sipp_uas.xml")


def one_call(name, caller):
    answer, _ = caller.call()
    good = ok(answer is not None and answer.status == 200, f"{name}: a call is answered", answer and answer.start)
    if not good:
        return
    route = answer.get("record-route") or ""
    ok(f";transport={caller.transport.lower()};lr" in route, f"{name}: Record-Route says how to come back", route)
    bye = caller.bye()
    ok(bye is not None and bye.status == 200, f"{name}: BYE is answered over the connection", bye and bye.start)


def sipp(lab, walnut, service, transport, port):
    """Stock SIPp at both ends."""
    respondent = Process(lab, "f1", "uas", ["sipp", "-sf", UAS, "-i", FRONT, "-p", str(port), "-t", transport, "-nd"])
    try:
        if transport == "t1":
            # Each worker has a connection of its own, and says 503 until it is up.
            wait_for("both workers to reach SIPp",
                     lambda: len(run(lab, "f1", ["ss", "-Htn", "state", "established", f"dport = :{port}"])[1].splitlines()) == WORKERS)
        else:
            wait_for("SIPp to listen", lambda: f"{FRONT}:{port} " in run(lab, "f1", ["ss", "-Hlun"])[1])
        for mode, what in (("t1", "one connection"), ("tn", "a connection per call")):
            before, outcomes = walnut.counts(), walnut.outcomes()
            status, out, err = run(lab, "attack", ["sipp", "-sf", UAC, "-s", service, f"{FRONT}:{TCP}", "-t", mode, "-m", "300", "-r", "100",
                                                   "-max_socket", "1000", "-timeout", "30", "-timeout_error", "-nd"], seconds=40)
            ok(status == 0, f"SIPp to {service}, {what}: 300 calls and no failure",
               (out[-400:], err[-400:], {k: v - outcomes[k] for k, v in walnut.outcomes().items() if v != outcomes[k]}))
            after = walnut.counts()
            n = after["accepted"] - before["accepted"]
            ok(n == (1 if mode == "t1" else 300), f"SIPp to {service}, {what}: {n} connections were accepted")
    finally:
        respondent.stop()


def no_hop(lab, walnut):
    """A hop over TCP that is not there: 503 at once."""
    c = Caller(lab, "me", service="hop")
    c.send(c.request())
    m = c.receive()
    ok(m is not None and m.status == 503 and m.get("retry-after"), "a hop that cannot be reached: 503", m and m.start)


def test():
    with streams() as (lab, _, walnut):
        secret = walnut.secret()
        one_call("TCP", Caller(lab, "me", USER, secret))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            c = Caller(lab, "me", USER, secret, tls=any_tls(version))
            one_call(c.sock.version(), c)
        verified = ssl.create_default_context(cafile=lab.path("tls.crt"))
        ok(Caller(lab, "me", USER, secret, tls=verified).challenge(), "the certificate is the operator's")

        six = Caller(lab, "f1", USER, secret, to=("::1", SIX))
        realm, nonce = six.challenge()
        ok(realm and nonce, "IPv6: a challenge over TCP")
        # the address in the offer is not what the hole goes by
        answer, _ = six.call()
        ok(answer is not None and answer.status != 407, "IPv6: the credentials are good", answer and answer.start)

        # a nonce is worth nothing on another connection of the same host
        a, b = Caller(lab, "me", USER, secret), Caller(lab, "me", USER, secret)
        realm, nonce = a.challenge()
        body = "v=0\r\n"
        b.send(b.request(body=body, credentials=b.credentials(realm, nonce, body)))
        m = b.receive()
        ok(m is not None and m.status == 407 and "stale=true" in m.get("proxy-authenticate"), "a nonce of another connection is stale", m and m.start)

        # the service's own requests find each caller's connection, whichever worker has it
        callers = [Caller(lab, "me", USER, secret) for _ in range(CALLERS)]
        answers = [c.call()[0] for c in callers]
        ok(all(m is not None and m.status == 200 for m in answers), f"{CALLERS} calls at once", [m and m.start for m in answers])
        status, _, err = run(lab, "host", [find("walnut"), "kick", USER, "--socket", walnut.agent.socket])
        ok(status == 0, "the user is kicked", err)
        byes = [c.receive(6, lambda m: m.start.startswith("BYE ")) for c in callers]
        ok(all(byes), "a BYE comes over each caller's connection", [b and b.start for b in byes])
        ok(all(f"SIP/2.0/TCP {FRONT}:{TCP}" in b.get("via") for b in byes if b), "and its Via says TCP", [b and b.get("via") for b in byes])

        # Keep-alives (RFC 5626 4.4.1)
        callers[0].send(b"\r\n\r\n")
        callers[0].sock.settimeout(4)
        ok(callers[0].sock.recv(2) == b"\r\n", "a ping gets a pong")
        seen = walnut.counts()
        ok(seen["keepalives"] == 1 and seen["tls_done"] == 3 and seen["tls_failed"] == 0, "and all of that is counted", seen)
        ok(walnut.f1.status()["unsent"] == 0, "nothing was left unsent")

        sipp(lab, walnut, "plain", "u1", 5070)
        no_hop(lab, walnut)
        sipp(lab, walnut, "hop", "t1", 5071)


main(test)
