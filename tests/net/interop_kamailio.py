#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Kamailio as a front's next hop, and as the proxy that callers send to and that sends to the front."""
from _interop import (CALLEE, CALLER, DOMAIN, FRONT, PROXY, Caller, Front, Net, Sipp, answering, answering_then_bye, at_least, cancelled, expect,
                      expect_request, hangs_up, say, version)
from _lab import main, ok, skip
from walnutlab.processes import wait_for

SERVICES = f"""      - {{ name: direct, route: "udp:{CALLEE}:5060" }}
      - {{ name: behind, route: "udp:{PROXY}:5070" }}
      - {{ name: behindtcp, route: "tcp:{PROXY}:5070" }}
"""

# One port a role: 5060 is the callers' proxy, what comes to 5070, over UDP or TCP, goes to the callee.
KAMAILIO = f"""#!KAMAILIO
debug=0
log_stderror=yes
children=1
tcp_children=1
dns=no
auto_aliases=no
listen=udp:{PROXY}:5060
listen=udp:{PROXY}:5070
listen=tcp:{PROXY}:5070
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "siputils.so"
request_route {{
	if (has_totag()) {{
		if (loose_route() || t_check_trans())
			t_relay();
		exit;
	}}
	if ($rm == "CANCEL") {{
		if (t_check_trans())
			t_relay();
		exit;
	}}
	t_check_trans();
	record_route();
	if ($Rp == 5060)
		$du = "sip:{FRONT}:5060";
	else
		$du = "sip:{CALLEE}:5060";
	$fs = "udp:{PROXY}:" + $Rp;
	t_relay();
}}
"""


def kamailio(net):
    file = net.write("kamailio.cfg", KAMAILIO)
    p = net.start("proxy", "kamailio", ["kamailio", "-DD", "-E", "-f", file, "-Y", net.run, "-P", net.path("kamailio.pid"), "-m", "32", "-M", "8"],
                  cwd=net.run)
    wait_for("kamailio to listen", lambda: net.listens("proxy", "u", 5060) and net.listens("proxy", "u", 5070) or not p.running())
    if not p.running():
        raise RuntimeError("kamailio ended: " + p.last_log())
    return p


def played(net, front, name, caller, callee, want, proxy, calls=1):
    with front.counting(**want) as got:
        uas = callee and Sipp(net, "callee", "uas", callee, CALLEE, calls=calls)
        uac = Sipp(net, "caller", "uac", caller, CALLER, f"{proxy}:5060", calls=calls)
        ends = uac.done(), uas.done(3) if callee else 0
    ok(ends == (0, 0) and at_least(got, **want), name, f"{ends} {got}\n{uac.said()}\n== callee\n{uas.said() if callee else ''}")
    return uac


def calls(net, front, secret, service, proxy, what, vias=3):
    def caller():
        return Caller(f"sip:{service}@{DOMAIN}", secret=secret)

    uac = played(net, front, f"{what}: three calls", [(c := caller()).challenged(), c.connected(), c.bye()], [answering(), hangs_up()],
                 {"challenged": 3, "forwarded": 3, "ack_absorbed": 3, "forwarded_in_dialog": 6}, proxy, calls=3)
    played(net, front, f"{what}: the callee hangs up", [(c := caller()).challenged(), c.connected(), c.hung_up()], [answering_then_bye()],
           {"forwarded": 1, "relayed_request": 1}, proxy)
    played(net, front, f"{what}: a refusal", [(c := caller()).challenged(), c.refused(486)],
           [expect_request("INVITE"), say(486, "Busy Here"), expect_request("ACK")], {"forwarded": 1, "ack_absorbed": 2}, proxy)
    played(net, front, f"{what}: CANCEL",
           [(c := caller()).challenged(), expect(100, True), expect(180), c.cancel(), expect(200), c.refused(487)],
           [cancelled(vias)], {"forwarded": 1, "cancelled": 1}, proxy)
    played(net, front, f"{what}: a re-INVITE",
           [(c := caller()).challenged(), c.connected(), c.invite(again=True), c.connected(), c.bye()],
           [answering(), answering(ring=False, tag=False), hangs_up()], {"forwarded": 1, "forwarded_in_dialog": 4}, proxy)
    return uac


def in_route(uac, who):
    return any(who in line for line in uac.messages().splitlines() if line.startswith("Record-Route:"))


def test():
    print("#", version("kamailio"), "#", version("sip-tester"))
    with Net() as net:
        front = Front(net, SERVICES, more=f"also_listen: [\"tcp:{FRONT}:5060\"]\n")
        secret = front.add("alice")
        kamailio(net)
        uac = calls(net, front, secret, "behind", FRONT, "Kamailio as the next hop")
        ok(in_route(uac, f"<sip:{PROXY}:5070;lr"), "it stands in the route", uac.said())
        uac = calls(net, front, secret, "direct", PROXY, "Kamailio as the callers' proxy")
        ok(in_route(uac, f"<sip:{PROXY};lr"), "it stands in the route", uac.said())
        calls(net, front, secret, "behind", PROXY, "Kamailio on both sides", vias=4)
        if net.listens("front", "t", 5060):
            calls(net, front, secret, "behindtcp", FRONT, "Kamailio as the next hop over TCP")
        else:
            skip("Kamailio as the next hop over TCP", "the front does not listen on TCP")


if __name__ == "__main__":
    main(test)
