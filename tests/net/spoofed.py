#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Credentials that an observer moves onto an INVITE of its own open nothing for it, though it comes first."""
from _lab import everything, main, ok
from walnutlab import claims


def test():
    with everything() as (lab, _, walnut):
        found = claims.spoofed(lab, walnut)
        ok(all(a["sent"] for a in found["attempts"]), "every attack overtook a sign-in", found["attempts"])
        ok(all(a["client_worked"] for a in found["attempts"] if "client_worked" in a), "the user who was overtaken gets in all the same", found["attempts"])
        ok(found["spoofed_holes"] == 0, "no hole for an attacker's address", found)
        ok(found["outcomes"].get("digest", 0) >= 1, "a changed body fails the digest", found["outcomes"])
        ok(found["outcomes"].get("nonce_foreign", 0) >= 1, "the attacker's own address fails the nonce", found["outcomes"])
        only = found["attempts"][-1]
        ok(only["holes_open"] >= 1 and only["reached"] == 0, "with qop=auth the hole is the challenged address's, not the attacker's", only)
        worked, _, said = claims.connect(lab, walnut)
        ok(worked, "the user still gets in", said)


main(test)
