#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Refusals put no byte on the narrow link; and a single message that does is noticed."""
import os

from _lab import everything, main, ok
from walnutlab import claims, topology
from walnutlab.processes import run, wait_for
from walnutlab.sip import Client

# What must have been refused at least once, or the claim says nothing about it.
KINDS = ("size", "first_bytes", "start_line", "malformed", "response", "unknown_tenant", "method", "in_dialog_no_token", "in_dialog_bad_token",
         "ack_absorbed", "cancel_ignored", "challenged", "challenge_too_large", "realm", "algorithm", "nonce_malformed", "nonce_foreign",
         "unknown_user", "digest", "uri_mismatch", "replay", "user_budget", "service_budget", "too_many_hops")
# Budgets that four calls in a row exceed, one after the other.
BUDGETS = "    user_calls_per_s: 3\n    service_calls_per_s: 2\n"
CALLS = 4
MAX_AGE_S = 6


def nothing_on_link(found, name):
    return ok(found["denied_bytes_on_link"] == 0, name, found)


def seen(found, kinds, name):
    missing = [k for k in kinds if not found["refusals"].get(k)]
    return ok(not missing, name, f"not seen: {missing}\n{found['refusals']}")


def test():
    with everything(front_more=f"feed_max_age_s: {MAX_AGE_S}\n", tenant_more=BUDGETS, agent_more="heartbeat_s: 1\n") as (lab, _, walnut):
        # The one who is let through: alice's calls are used up.
        bob = os.path.join(walnut.home, "bob")
        walnut.enrol("bob", bob)
        wait_for("the fronts to know bob", lambda: all(f.status()["users"] == 2 for f in walnut.fronts))
        found = claims.denied_bytes(lab, walnut, seconds=8, rate=2000, calls=CALLS)
        nothing_on_link(found, "8 s of refusals put nothing on the link")
        ok(found["frames_lost_by_counter"] == 0, "the counter saw every frame", found)
        seen(found, KINDS, "every kind of refusal was among them")
        ok(found["link"]["front_tls"]["bytes"] > 0, "and it counted the agent's heartbeats", found["link"])

        def datagram():
            run(lab, "gate", ["bash", "-c", f"echo -n leak >/dev/udp/{topology.HOST_INSIDE}/9"])

        leaked = claims.denied_bytes(lab, walnut, seconds=2, rate=500, leak=datagram)
        ok(leaked["frame_bytes_other"] > 0 and leaked["denied_bytes_on_link"] > 0, "one datagram from the gate's side turns it red", leaked)

        def invite():
            c = Client(lab, "attack", topology.FRONTS[0], "bob", walnut.secret(bob), service="nosuch")
            c.call(seconds=2)
            c.close()

        leaked = claims.denied_bytes(lab, walnut, seconds=3, rate=500, leak=invite)
        ok(leaked["application_bytes"] > 0 and leaked["denied_bytes_on_link"] > 0, "so does one INVITE that a front lets through", leaked)

        walnut.agent.kill()
        wait_for("the fronts to have lost their agent", lambda: not any(walnut.front_has_agent(f) for f in walnut.fronts))
        found = claims.refused_bytes(lab, walnut, (), MAX_AGE_S + 3, 500)
        nothing_on_link(found, "nor without an agent")
        seen(found, ("no_agent", "feed_stale"), "not even when what a front knows of its users is too old")


main(test)
