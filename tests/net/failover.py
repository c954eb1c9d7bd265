#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Losing a front costs a client that starts afterwards a moment."""
from _lab import everything, main, ok
from walnutlab import claims


def test():
    with everything() as (lab, _, walnut):
        found = claims.failover(lab, walnut)
        for trial in found["trials"]:
            worst = max(trial["seconds"])
            ok(trial["worked"] and worst <= 3, f"{trial['front']}, {trial['how']}: the worst start took {worst:.2f} s", trial)
            ok(trial["recovered_s"] <= 5, f"and the agent had it again {trial['recovered_s']:.2f} s after its return", trial)


main(test)
