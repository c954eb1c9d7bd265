# SPDX-License-Identifier: Apache-2.0
"""The figures and their bars."""
# key: (bar, "most" or "least", what it is)
BARS = {
    "challenge_ratio_echo": (0.8, "least", "407s for strangers a CPU-second / datagrams echoed by a bare loop"),
    "challenge_ratio_kamailio": (3.3, "least", "the same / Kamailio's"),
    "drop_ratio_bare": (0.75, "least", "refused without an answer a CPU-second / received and dropped by a bare loop; the worst kind"),
    "calls_ratio_kamailio": (3.5, "least", "calls without authentication a CPU-second / Kamailio's, the worse generator"),
    "auth_calls_ratio_kamailio": (4, "least", "calls with a challenge each / Kamailio's, the worst of algorithms and generators"),
    "digest_cost": (0.10, "most", "what nextnonce and digest add to a call's cost"),
    "flood_goodput": (0.99, "least", "300 calls/s with a valid nonce beside the largest flood: share completed"),
    "flood_p99_ms": (50, "most", "the same: INVITE to 200, 99th percentile"),
    "flood_first_contact": (0.95, "least", "300 first contacts/s beside 1.2x the challenge rate: connected within 8 s"),
    "badnonce_flood_goodput": (0.95, "least", "300 calls/s beside wrong digests with valid nonces from 1,000 addresses"),
    "tcp_ratio_kamailio": (3, "least", "calls, a new socket each, a CPU-second / Kamailio's"),
    "tcp_overload_goodput": (0.9, "least", "authenticated calls over TCP at twice saturation and more / the peak"),
    "bytes_per_user": (128, "most", "1,000,000 users, RSS"),
    "load_s": (1.5, "most", "the same from the signed snapshot on disk, verified"),
    "lookup_growth": (1.1, "most", "an authenticated call among 1,000,000 users / among 1,000"),
    "flood_rss_growth_kib": (64, "most", "60 s of strangers, after their first 10 s"),
}
