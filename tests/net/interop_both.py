#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services of one tenant, told apart by their URI alone: an agent's behind its gate, and one with a plain SIP address."""
from _interop import Caller, Sipp, Within, answering, at_least, hangs_up, version
from _lab import everything, main, ok
from walnutlab import claims
from walnutlab import topology as t

UAS = "198.18.5.1"  # the router: any host that the fronts reach
PLAIN = f"""    services:
      - {{ name: plain, route: "udp:{UAS}:5080", authenticate: false }}
"""


def total(before, after):
    return {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}


def test():
    print("#", version("sip-tester"))
    with everything(tenant_more=PLAIN) as (lab, _, walnut), Within(lab) as net:
        before, calls = walnut.front_outcomes(), walnut.calls_total()
        uas = Sipp(net, "inet", "uas", [answering(), hangs_up()], UAS, port=5080, calls=2)
        for n, front in enumerate(t.FRONTS):
            c = Caller("sip:plain@example.org")
            uac = Sipp(net, "attack", "uac", [c.invite(), c.connected(), c.bye()], t.ATTACK, f"{front}:5060")
            ok(uac.done() == 0, f"a call to the plain service, front {n + 1}", uac.said())
        ok(uas.done() == 0, "arrived there", uas.said())
        got = total(before, walnut.front_outcomes())
        ok(at_least(got, forwarded_open=2, forwarded_in_dialog=4) and walnut.calls_total() == calls, "and not at the agent", got)
        worked, seconds, said = claims.connect(lab, walnut)
        ok(worked and walnut.calls_total() == calls + 1, "a call to the agent's service arrives at the agent", f"{seconds:.1f} s {said}")
        before = walnut.front_outcomes()
        c = Caller("sip:ssh@example.org")
        uac = Sipp(net, "attack", "uac", [c.invite(), c.refused(407)], t.ATTACK, f"{t.FRONTS[0]}:5060")
        end = uac.done()
        got = total(before, walnut.front_outcomes())
        ok(end == 0 and got.get("challenged") == 1 and "forwarded_open" not in got, "which asks everybody for a proof", f"{end} {got} {uac.said()}")


main(test)
