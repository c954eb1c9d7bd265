#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""SIPp as both ends of calls through a front: plain and with digest, over UDP, TCP and IPv6, and what can go wrong in a call."""
import re

from _interop import (CALLEE, CALLEE6, CALLER, CALLER6, DOMAIN, FRONT, FRONT6, Caller, Front, Net, Sipp, answering, answering_then_bye, at_least,
                      cancelled, digest, expect, expect_request, hangs_up, say, version)
from _lab import main, ok, skip
from walnutlab.processes import wait_for

SERVICES = f"""      - {{ name: open, route: "udp:{CALLEE}:5060", authenticate: false }}
      - {{ name: closed, route: "udp:{CALLEE}:5060" }}
      - {{ name: open6, route: "udp:[{CALLEE6}]:5060", authenticate: false }}
      - {{ name: closed6, route: "udp:[{CALLEE6}]:5060" }}
      - {{ name: opentcp, route: "tcp:{CALLEE}:5060", authenticate: false }}
      - {{ name: closedtcp, route: "tcp:{CALLEE}:5060" }}
"""
MORE = f"""also_listen:
  - "udp:[{FRONT6}]:5060"
  - "tcp:{FRONT}:5060"
"""


def uri(service):
    return f"sip:{service}@{DOMAIN}"


def played(net, front, name, caller, callee, want, calls=1, six=False, transport="u1", far="u1", more=(), seconds=15):
    """Both ends play their part, and the front counted at least so much. Returns the caller."""
    with front.counting(**want) as got:
        uas = callee and Sipp(net, "callee", "uas", callee, CALLEE6 if six else CALLEE, transport=far, calls=calls, more=more, seconds=seconds)
        if far == "t1":
            wait_for("the front to connect to its next hop", lambda: net.connected("callee", 5060), 8)
        uac = Sipp(net, "caller", "uac", caller, CALLER6 if six else CALLER, f"[{FRONT6}]:5060" if six else f"{FRONT}:5060",
                   transport=transport, calls=calls, more=more, seconds=seconds)
        ends = uac.done(seconds + 3), uas.done(3) if callee else 0
    ok(ends == (0, 0) and at_least(got, **want), name, f"{ends} {got}\n{uac.said()}\n== callee\n{uas.said() if callee else ''}")
    return uac


def basic(net, front, secret):
    played(net, front, "a call to a service that asks for no proof", [(c := Caller(uri("open"))).invite(), c.connected(), c.bye()],
           [answering(), hangs_up()], {"forwarded_open": 1, "forwarded_in_dialog": 2})
    played(net, front, "five calls, each with a challenge", [(c := Caller(uri("closed"), secret=secret)).challenged(), c.connected(), c.bye()],
           [answering(), hangs_up()], {"challenged": 5, "forwarded": 5, "ack_absorbed": 5, "forwarded_in_dialog": 10}, calls=5)
    played(net, front, "a callee that hangs up", [(c := Caller(uri("closed"), secret=secret)).challenged(), c.connected(), c.hung_up()],
           [answering_then_bye()], {"forwarded": 1, "relayed_request": 1, "relayed_response": 3})
    played(net, front, "a refusal", [(c := Caller(uri("closed"), secret=secret)).challenged(), c.refused(486)],
           [expect_request("INVITE"), say(486, "Busy Here"), expect_request("ACK")], {"forwarded": 1, "ack_absorbed": 2})
    played(net, front, "CANCEL while it rings",
           [(c := Caller(uri("closed"), secret=secret)).challenged(), expect(100, True), expect(180), c.cancel(), expect(200), c.refused(487)],
           [cancelled()], {"forwarded": 1, "cancelled": 1})
    played(net, front, "a re-INVITE",
           [(c := Caller(uri("closed"), secret=secret)).challenged(), c.connected(), c.invite(again=True), c.connected(), c.bye()],
           [answering(), answering(ring=False, tag=False), hangs_up()], {"forwarded": 1, "forwarded_in_dialog": 4})
    played(net, front, "a wrong secret is challenged again", [(c := Caller(uri("closed"), secret="wrong")).challenged(), c.refused(407)],
           None, {"challenged": 1, "digest": 1})


def nextnonce(net, front, secret):
    """SIPp cannot follow nextnonce by itself: what it would say the second time is computed here."""
    c = Caller(uri("closed"), secret=secret)
    uac = played(net, front, "a call that brings a nextnonce", [c.challenged(), c.connected(), c.bye()], [answering(), hangs_up()], {"forwarded": 1})
    nonce = re.findall(r'nextnonce="([^"]+)"', uac.messages())[-1:]
    if not ok(nonce, "which the caller has read"):
        return
    credentials = digest("alice", f"{DOMAIN}/0", secret, nonce[0], uri("closed"))
    again = Caller(uri("closed"))
    for name, want in (("and the next call needs no challenge", {"forwarded": 1}), ("a nonce serves one call", {"replay": 1})):
        steps = [again.invite(head_more="Proxy-Authorization: " + credentials)]
        steps += [again.connected(), again.bye()] if "forwarded" in want else []
        with front.counting() as got:
            played(net, front, name, steps, [answering(), hangs_up()] if "forwarded" in want else None, want)
        ok("challenged" not in got, name + ": no 407", got)


def loss(net, front, secret):
    """SIPp throws away a fifth of what it sends and gets, at both ends, and repeats as RFC 3261 says."""
    lossy = ["-lost", "20", "-max_retrans", "10", "-max_invite_retrans", "10", "-max_non_invite_retrans", "10"]
    played(net, front, "eight calls, a fifth of all datagrams lost at each end",
           [(c := Caller(uri("closed"), secret=secret)).challenged(), c.connected(), c.bye()], [answering(ring=False), hangs_up()],
           {"forwarded": 8}, calls=8, more=lossy, seconds=40)


def tcp(net, front, secret, transport, name):
    if not net.listens("front", "t", 5060):
        skip(name, "the front does not listen on TCP")
        return
    for service, far, how in (("closed", "u1", "to a hop over UDP"), ("closedtcp", "t1", "to a hop over TCP")):
        played(net, front, f"{name}, {how}", [(c := Caller(uri(service), secret=secret)).challenged(), c.connected(), c.bye()],
               [answering(), hangs_up()], {"challenged": 5, "forwarded": 5, "forwarded_in_dialog": 10}, calls=5, transport=transport, far=far)
        played(net, front, f"{name}, {how}: the callee hangs up",
               [(c := Caller(uri(service), secret=secret)).challenged(), c.connected(), c.hung_up()],
               [answering_then_bye()], {"forwarded": 1, "relayed_request": 1}, transport=transport, far=far)
        played(net, front, f"{name}, {how}: a refusal", [(c := Caller(uri(service), secret=secret)).challenged(), c.refused(486)],
               [expect_request("INVITE"), say(486, "Busy Here"), expect_request("ACK")], {"forwarded": 1}, transport=transport, far=far)


def test():
    print("#", version("sip-tester"))
    with Net() as net:
        front = Front(net, SERVICES, more=MORE)
        secret = front.add("alice")
        basic(net, front, secret)
        nextnonce(net, front, secret)
        loss(net, front, secret)
        for transport, name in (("t1", "TCP, one connection"), ("tn", "TCP, a connection a call")):
            tcp(net, front, secret, transport, name)
        played(net, front, "both ends over IPv6", [(c := Caller(uri("closed6"), secret=secret)).challenged(), c.connected(), c.bye()],
               [answering(), hangs_up()], {"forwarded": 3}, six=True, calls=3)
        played(net, front, "over IPv6 the callee hangs up", [(c := Caller(uri("closed6"), secret=secret)).challenged(), c.connected(), c.hung_up()],
               [answering_then_bye()], {"relayed_request": 1}, six=True)


if __name__ == "__main__":
    main(test)
