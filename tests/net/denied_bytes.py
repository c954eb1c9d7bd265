#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Refusals put no byte on the narrow link; and a single message that does is noticed."""
from _lab import everything, main, ok
from walnutlab import claims, topology
from walnutlab.daemons import USER
from walnutlab.processes import run
from walnutlab.sip import Client

# What must have been refused at least once, or the claim says nothing about it.
KINDS = ("size", "first_bytes", "start_line", "malformed", "response", "unknown_tenant", "method", "in_dialog_no_token", "in_dialog_bad_token",
         "ack_absorbed", "cancel_ignored", "challenged", "challenge_too_large", "realm", "algorithm", "nonce_malformed", "nonce_foreign",
         "unknown_user", "digest", "uri_mismatch", "replay", "too_many_hops")


def test():
    with everything() as (lab, _, walnut):
        found = claims.denied_bytes(lab, walnut, seconds=8, rate=2000)
        ok(found["denied_bytes_on_link"] == 0, "8 s of refusals put nothing on the link", found)
        ok(found["frames_lost_by_counter"] == 0, "the counter saw every frame", found)
        missing = [k for k in KINDS if not found["refusals"].get(k)]
        ok(not missing, "every kind of refusal was among them", f"not seen: {missing}\n{found['refusals']}")
        ok(found["link"]["front_tls"]["bytes"] > 0, "and it counted the agent's heartbeats", found["link"])

        def datagram():
            run(lab, "gate", ["bash", "-c", f"echo -n leak >/dev/udp/{topology.HOST_INSIDE}/9"])

        leaked = claims.denied_bytes(lab, walnut, seconds=2, rate=500, leak=datagram)
        ok(leaked["frame_bytes_other"] > 0 and leaked["denied_bytes_on_link"] > 0, "one datagram from the gate's side turns it red", leaked)

        def invite():
            c = Client(lab, "attack", topology.FRONTS[0], USER, walnut.secret(), service="nosuch")
            c.call(seconds=2)
            c.close()

        leaked = claims.denied_bytes(lab, walnut, seconds=3, rate=500, leak=invite)
        ok(leaked["application_bytes"] > 0 and leaked["denied_bytes_on_link"] > 0, "so does one INVITE that a front lets through", leaked)


main(test)
