# SPDX-License-Identifier: Apache-2.0
"""The figures and their bars."""
# key: (bar, "most" or "least", what it is)
BARS = {
    "miss_ns": (60, "most", "a stranger's packet dropped, ns"),
    "miss_mpps": (8, "least", "the same from live frames on one core, million a second"),
    "miss_ratio_parse": (2, "most", "the same against a program that parses and drops"),
    "nat_ratio_lookup": (1.5, "most", "NAT and every check against a bare look-up and redirect, the worse way"),
    "tcp_window_ratio": (2, "most", "with against without TCP tracking, hot"),
    "tag_ratio_64": (2, "most", "tagged datagram against SipHash-2-4 alone, 64 bytes"),
    "tag_ratio_512": (1.4, "most", "512 bytes"),
    "tag_ratio_1400": (1.3, "most", "1400 bytes"),
    "growth_ratio": (1.2, "most", "cost at a million flows / at one, against the same of a bare look-up, the worse way"),
    "flood_goodput": (0.95, "least", "goodput of an accepted flow under flood / without"),
    "cpu_ratio_conntrack": (2.5, "least", "CPU a flood packet costs nftables' connection tracking / costs the gate"),
    "grants_per_s": (20000, "least", "grants a second over one connection"),
}
