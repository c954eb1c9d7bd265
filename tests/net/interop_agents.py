#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""baresip, linphonec and sipsak make what call they can through a front, and be called; what they cannot is held here too, so that
doc/interoperability.md stays true."""
import re
import socket
import time

from _interop import (CALLEE, CALLER, DOMAIN, FRONT, Baresip, Caller, Front, Linphone, Net, Sipp, Wire, answering, answering_then_bye, at_least,
                      first, hangs_up, sipsak, version)
from _lab import main, ok, skip
from walnutlab.processes import wait_for

SERVICES = f"""      - {{ name: uas, route: "udp:{CALLEE}:5060" }}
      - {{ name: open, route: "udp:{CALLEE}:5060", authenticate: false }}
"""
UAS = f"sip:uas@{DOMAIN}"
ONE_CALL = {"challenged": 1, "forwarded": 1, "forwarded_in_dialog": 2, "relayed_response": 2}

SHOT = f"""INVITE {UAS} SIP/2.0
Via: SIP/2.0/UDP {CALLER}:5060;branch=z9hG4bKsipsak;rport
From: <sip:alice@{DOMAIN}>;tag=sipsak
To: <{UAS}>
Call-ID: sipsak@{CALLER}
CSeq: 1 INVITE
Contact: <sip:alice@{CALLER}:5060>
Max-Forwards: 70
%sContent-Length: 0

"""


def sizes(who, seen):
    """Never an amplifier, and the numbers for the documentation."""
    asked, answered = first(seen, f"INVITE {UAS}"), first(seen, "SIP/2.0 407")
    if ok(asked and answered and len(answered) <= len(asked), f"{who}: the challenge is no longer than the INVITE", (asked, answered)):
        print(f"# {who}: INVITE {len(asked)} bytes, 407 {len(answered)} bytes")


def baresip_calls(net, front, phone, name):
    with front.counting(**ONE_CALL) as got:
        uas = Sipp(net, "callee", "uas", [answering(), hangs_up()], CALLEE)
        phone.tell("dial", UAS)
        up = phone.await_event("CALL_ESTABLISHED")
        phone.tell("hangup")
        down = phone.await_event("CALL_CLOSED")
        end = uas.done(5)
    ok(up and down and end == 0 and at_least(got, **ONE_CALL), f"{name} calls, with MD5, and hangs up",
       f"{up} {down} {end} {got}\n{phone.said()}\n{uas.said()}")
    with front.counting(relayed_request=1) as got:
        uas = Sipp(net, "callee", "uas", [answering_then_bye()], CALLEE)
        phone.tell("dial", UAS)
        up = phone.await_event("CALL_ESTABLISHED")
        down = phone.await_event("CALL_CLOSED")
        end = uas.done(5)
    ok(up and down and end == 0 and at_least(got, forwarded=1, relayed_request=1), f"{name} calls again, and the callee hangs up",
       f"{up} {down} {end} {got}\n{phone.said()}\n{uas.said()}")


def baresip_is_called(net, front, secret):
    phone = Baresip(net, "callee", CALLEE, "uas")
    c = Caller(UAS, secret=secret)
    with front.counting(**ONE_CALL) as got:
        uac = Sipp(net, "caller", "uac", [c.challenged(), c.connected(), c.bye()], CALLER, f"{FRONT}:5060")
        end = uac.done()
    ok(end == 0 and at_least(got, **ONE_CALL) and phone.await_event("CALL_CLOSED"), "SIPp calls baresip, which answers", f"{end} {got}\n{uac.said()}")
    caller = Baresip(net, "caller", CALLER, "alice", secret)
    with front.counting(forwarded=1, relayed_request=1) as got:
        caller.tell("dial", UAS)
        up = caller.await_event("CALL_ESTABLISHED")
        phone.tell("hangup")
        down = caller.await_event("CALL_CLOSED")
    ok(up and down and at_least(got, forwarded=1, relayed_request=1), "baresip calls baresip, and the callee hangs up",
       f"{up} {down} {got}\n{caller.said()}\n{phone.said()}")
    caller.close()
    linphone(net, front, secret, None, "with baresip at the other end, linphonec")
    phone.close()


def linphone_calls(net, front, phone, name, steps):
    """steps None: somebody answers already."""
    with front.counting(**ONE_CALL) as got:
        uas = steps and Sipp(net, "callee", "uas", steps, CALLEE)
        phone.tell("call " + UAS)
        up = phone.await_text("Media streams established")
        phone.tell("terminate")
        down = phone.await_text("ended (No error)")
        end = uas.done(5) if steps else 0
    ok(up and down and end == 0 and at_least(got, **ONE_CALL), f"{name} calls and hangs up",
       f"{up} {down} {end} {got}\n{phone.said()}\n{uas.said() if steps else ''}")


def linphone(net, front, secret, steps, name, algorithm="MD5"):
    wire = Wire(net, "caller")
    phone = Linphone(net, "caller", "alice", secret)
    linphone_calls(net, front, phone, name, steps)
    phone.close()
    seen = wire.close()
    ok(any(b"algorithm=" + algorithm.encode() in d for d in seen if b"uthorization:" in d), f"{name}: with {algorithm}", seen)
    return seen


def linphone_is_called(net, front, secret):
    phone = Linphone(net, "callee", "uas", answer=True)
    caller = Baresip(net, "caller", CALLER, "alice", secret)
    with front.counting(**ONE_CALL) as got:
        caller.tell("dial", UAS)
        up = caller.await_event("CALL_ESTABLISHED")
        there = phone.await_text("Media streams established")
        caller.tell("hangup")
        down = phone.await_text("ended (No error)")
    ok(up and there and down and at_least(got, **ONE_CALL), "baresip calls linphonec, which answers", f"{up} {there} {down} {got}\n{phone.said()}")
    caller.close()
    phone.close()


def sipsak_shoots(net, front, secret):
    want = {"challenged": 1, "forwarded": 1, "forwarded_in_dialog": 1}
    wire = Wire(net, "caller")
    with front.counting(**want) as got:
        uas = Sipp(net, "callee", "uas", [answering()], CALLEE)
        status, said = sipsak(net, "caller", CALLER, secret, SHOT % ("X-Pad: " + "0" * 200 + "\n"))
        end = uas.done(5)
    ok(status == 0 and end == 0 and at_least(got, **want), "sipsak shoots an INVITE and answers the challenge, with MD5", f"{status} {end} {got}\n{said}")
    sizes("sipsak, padded", wire.close())
    with front.counting(challenge_too_large=1) as got, net.entered("caller"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto((SHOT % "").replace("\n", "\r\n").encode(), (FRONT, 5060))
    ok(got.get("challenge_too_large") == 1, "without the padding it is too short to be answered", got)


def with_md5():
    with Net() as net:
        front = Front(net, SERVICES)
        secret = front.add("alice")
        wire = Wire(net, "caller")
        phone = Baresip(net, "caller", CALLER, "alice", secret)
        baresip_calls(net, front, phone, "baresip")
        phone.close()
        sizes("baresip", wire.close())
        baresip_is_called(net, front, secret)
        sizes("linphonec", linphone(net, front, secret, [answering(), hangs_up()], "linphonec"))
        linphone_is_called(net, front, secret)
        sipsak_shoots(net, front, secret)


def over_streams():
    with Net() as net:
        crt, key = net.certificate(DOMAIN)
        front = Front(net, SERVICES, more=f"also_listen: [\"tcp:{FRONT}:5060\", \"tls:{FRONT}:5061\"]\ntls_certificate: {crt}\ntls_key: {key}\n")
        if not net.listens("front", "t", 5060):
            skip("agents over TCP and TLS", "the front does not listen on TCP")
            return
        secret = front.add("alice")
        for transport, port in (("tcp", 5060), ("tls", 5061)):
            phone = Baresip(net, "caller", CALLER, "alice", secret, transport, port)
            baresip_calls(net, front, phone, f"baresip over {transport.upper()}")
            phone.close()
            phone = Linphone(net, "caller", "alice", secret, transport=transport, port=port)
            linphone_calls(net, front, phone, f"linphonec over {transport.upper()}", [answering(), hangs_up()])
            phone.close()
        want = {"challenged": 1, "forwarded": 1, "forwarded_in_dialog": 1}
        with front.counting(**want) as got:
            uas = Sipp(net, "callee", "uas", [answering()], CALLEE)
            status, said = sipsak(net, "caller", CALLER, secret, (SHOT % "").replace("/UDP", "/TCP"), "--transport=tcp")
            end = uas.done(5)
        ok(status == 0 and end == 0 and at_least(got, **want), "sipsak over TCP, where a short INVITE is answered too", f"{status} {end} {got}\n{said}")


def with_both():
    """Both algorithms are offered, SHA-256 first: who knows it takes it, who does not gives up."""
    with Net() as net:
        front = Front(net, SERVICES, algorithms="[sha-256, md5]")
        secret = front.add("alice")
        seen = linphone(net, front, secret, [answering(), hangs_up()], "offered both, linphonec", "SHA-256")
        offered = re.findall(r"Proxy-Authenticate: .*algorithm=([A-Z0-9-]+)", first(seen, "SIP/2.0 407") or "")
        ok(offered == ["SHA-256", "MD5"], "both are there, SHA-256 first", offered)
        phone = Baresip(net, "caller", CALLER, "alice", secret)
        with front.counting(challenged=1) as got:
            phone.tell("dial", UAS)
            wait_for("baresip to give up", lambda: "session closed" in phone.said())
        ok(got.get("challenged") == 1 and "forwarded" not in got and "Function not implemented" in phone.said(),
           "offered both, baresip gives up: it reads the first challenge alone", f"{got}\n{phone.said()}")
        phone.close()
        with front.counting(challenged=1) as got:
            status, said = sipsak(net, "caller", CALLER, secret, SHOT % ("X-Pad: " + "0" * 400 + "\n"))
        ok(status != 0 and got.get("challenged") == 1 and "forwarded" not in got, "offered both, so does sipsak", f"{status} {got}\n{said}")
        c = Caller(UAS, secret=secret)
        with front.counting(challenged=1) as got:
            uac = Sipp(net, "caller", "uac", [c.challenged(), c.connected()], CALLER, f"{FRONT}:5060", seconds=5)
            end = uac.done()
        ok(end != 0 and got.get("challenged") == 1 and "forwarded" not in got, "offered both, so does SIPp", f"{end} {got}\n{uac.said()}")


def rotating():
    """The realm changes from one call to the next of a program that goes on running."""
    epoch_s = 8

    def epoch():
        return int(time.time()) // epoch_s

    with Net() as net:
        front = Front(net, SERVICES, epoch_s=epoch_s)
        secret = front.add("alice")
        baresip, phone = Baresip(net, "caller", CALLER, "alice", secret), Linphone(net, "proxy", "alice", secret, realm="")
        for n in range(2):
            wait_for("an epoch with room for two calls", lambda: time.time() % epoch_s < epoch_s - 2, 3)
            now, uas = epoch(), Sipp(net, "callee", "uas", [answering(), hangs_up()], CALLEE, calls=2 - n)
            with front.counting(forwarded=1) as got:
                baresip.tell("dial", UAS)
                up = baresip.await_event("CALL_ESTABLISHED")
                baresip.tell("hangup")
                baresip.await_event("CALL_CLOSED")
            ok(up and got.get("forwarded") == 1, "baresip " + ("calls" if n == 0 else "follows a changed realm"), f"{got}\n{baresip.said()}")
            with front.counting(challenged=1, ack_absorbed=1) as got:
                phone.tell("call " + UAS)
                up = phone.await_text(f"for call {n + 1} (audio)", 8 if n == 0 else 2)
                phone.tell("terminate")
                down = phone.await_text(f"Call {n + 1} with {UAS} ended")
                end = uas.done(5)
            if n == 0:
                ok(up and down and end == 0 and got.get("forwarded") == 1, "linphonec calls", f"{end} {got}\n{phone.said()}")
                wait_for("the next epoch", lambda e=now: epoch() > e, epoch_s + 1)
            else:
                ok(not up and end == 0 and got.get("challenged") == 1 and "forwarded" not in got, "linphonec gives up on a changed realm",
                   f"{end} {got}\n{phone.said()}")
        baresip.close()
        phone.close()


def test():
    for package in ("baresip-core", "linphone-cli", "sipsak", "sip-tester"):
        print("#", version(package))
    with_md5()
    with_both()
    rotating()
    over_streams()


if __name__ == "__main__":
    main(test)
