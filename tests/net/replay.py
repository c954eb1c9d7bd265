#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An accepted INVITE is worth nothing the second time."""
from _lab import everything, main, ok
from walnutlab import claims


def test():
    with everything() as (lab, _, walnut):
        found = claims.replay(lab, walnut, 1000)
        sent = found["sent"]
        ok(all(sent.get(k, 0) >= 1000 for k in ("exact", "port", "address", "front", "body")), "1,000 of each variant were sent", sent)
        ok(found["seconds"] < 25, "within the nonce's life", found["seconds"])
        ok(found["calls_at_agent"] == 1, "the agent has seen the one live call", found)
        ok(found["replay_calls_seen"] == 1, "and the fronts have forwarded one INVITE", found)
        seen = found["outcomes"]
        ok(seen.get("replay", 0) >= 990, "from another port: counted as replays", seen)
        ok(seen.get("nonce_foreign", 0) >= 1980, "from another address and at another front: the nonce is foreign", seen)
        holes = walnut.holes()
        ok(len(holes) <= 1, "no further hole", holes)
        worked, seconds, said = claims.connect(lab, walnut)
        ok(worked, f"the user still gets in ({seconds:.2f} s)", said)


main(test)
