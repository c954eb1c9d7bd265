#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A flood of strangers at a front that answers few of them: who carries a nonce is served as if there were none, and the strangers' budget holds."""
import time

from _lab import everything, main, ok
from walnutlab import topology as t
from walnutlab.daemons import USER
from walnutlab.measure import Floods
from walnutlab.processes import wait_for
from walnutlab.sip import Client

CALLS = 6
PER_S = 40  # of all workers
FLOOD = 3000
WAIT_S = 10


def test():
    with everything(front_more=f"strangers_max: 64\nstrangers_per_s: {PER_S}\n") as (lab, _, walnut):
        front = walnut.fronts[0]

        def count(key):
            return front.status()["outcomes"][key]

        callers = [Client(lab, "me", t.FRONTS[0], USER, walnut.secret()) for _ in range(CALLS)]
        nonces = [c.challenge() for c in callers]
        before, began = {k: count(k) for k in ("forwarded", "challenged", "stranger_budget")}, time.monotonic()
        floods = Floods(lab, 60).sip(USER, rate=FLOOD, fronts=t.FRONTS[:1])
        wait_for("strangers to be refused", lambda: count("stranger_budget") > before["stranger_budget"] + FLOOD / 10)

        # each is sent once: among the strangers one in a hundred would be answered
        statuses = []
        for c, (realm, nonce) in zip(callers, nonces):
            c.cseq, body = 1, ""
            c.send(c.request(body=body, credentials=c.credentials(realm, nonce, body)))
            m = c.receive(WAIT_S, lambda m: m.status >= 200)
            statuses.append(m.status if m else None)
        ok(statuses == [statuses[0]] * CALLS and statuses[0] is not None, "every call beside the flood is answered by the agent", statuses)
        ok(count("forwarded") - before["forwarded"] == CALLS, "and went to it once", front.status()["outcomes"])
        challenged, seconds = count("challenged") - before["challenged"], time.monotonic() - began
        ok(challenged > 0, "some strangers are challenged", challenged)
        ok(challenged <= PER_S * (seconds + 1), "no more than the budget of strangers", f"{challenged} in {seconds:.1f} s")
        ok(floods.running(), "the flood was still on")
        floods.stop()

        late = Client(lab, "me", t.FRONTS[0], USER, walnut.secret())
        ok(late.challenge(tries=20) is not None, "afterwards a first contact is challenged")
        for c in [*callers, late]:
            c.close()


main(test)
