# SPDX-License-Identifier: Apache-2.0
"""What the tests with other people's programs share: a network in namespaces, a front with users in it, the programs, and what a front
counted.

caller, callee and proxy hang on a bridge of the front's host. caller and callee are isolated ports: what they say to each other goes
through a front (or a proxy), or nowhere."""
import base64
import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import _lab  # noqa: F401  (the path to walnutlab)
from walnutlab.processes import Process, ctl, find, run, wait_for
from walnutlab.topology import sh

FRONT, CALLER, CALLEE, PROXY = "198.18.1.2", "198.18.1.10", "198.18.1.20", "198.18.1.30"
FRONT6, CALLER6, CALLEE6 = "fd00:18::2", "fd00:18::10", "fd00:18::20"
HOSTS = {"caller": (CALLER, CALLER6), "callee": (CALLEE, CALLEE6), "proxy": (PROXY, "fd00:18::30")}
DOMAIN = "example.org"
_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def version(package):
    """What Debian calls it."""
    return sh("dpkg-query", "-W", "-f=${Package} ${Version}", package, check=False).strip()


class Net:
    """The namespaces and a folder; everything that was started in them ends with it."""

    def __init__(self):
        self.tag = f"t-interop-{os.getpid()}"
        self.run = None
        self.processes = []
        self.names = {}

    def __enter__(self):
        self.run = tempfile.mkdtemp(prefix="walnut-" + self.tag + "-")
        os.mkdir(self.path("log"))
        try:
            for host in ("front", *HOSTS):
                sh("ip", "netns", "add", self.ns(host))
                self.ip(host, "link", "set", "lo", "up")
            self.ip("front", "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0", "forward_delay", "0")
            self.ip("front", "link", "set", "br0", "up")
            self.address("front", "br0", FRONT, FRONT6)
            for host, addresses in HOSTS.items():
                self.ip("front", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", self.ns(host))
                self.ip("front", "link", "set", host, "master", "br0", "up")
                self.ip(host, "link", "set", "eth0", "up")
                self.address(host, "eth0", *addresses)
                self.ip(host, "route", "add", "default", "via", FRONT)  # leads nowhere, but there are programs that want one
                if host != "proxy":
                    self.ip("front", "link", "set", "dev", host, "type", "bridge_slave", "isolated", "on")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for p in reversed(self.processes):
            self.end(p)
        for host in ("front", *HOSTS):
            sh("ip", "netns", "del", self.ns(host), check=False)
        shutil.rmtree(self.run, ignore_errors=True)

    def ns(self, host):
        return f"{self.tag}-{host}"

    def path(self, *parts):
        return os.path.join(self.run, *parts)

    def inside(self, host, *argv):
        return ["nsenter", f"--net=/run/netns/{self.ns(host)}", "--", *argv]

    def ip(self, host, *args):
        return sh("ip", "-n", self.ns(host), *args)

    def address(self, host, dev, v4, v6):
        self.ip(host, "addr", "add", v4 + "/24", "dev", dev)
        self.ip(host, "addr", "add", v6 + "/64", "dev", dev, "nodad")

    def write(self, name, text, mode=0o600):
        with open(self.path(name), "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, mode)) as f:
            f.write(text)
        return self.path(name)

    def start(self, host, name, argv, **kw):
        n = self.names[name] = self.names.get(name, 0) + 1
        p = Process(self, host, name if n == 1 else f"{name}-{n}", argv, **kw)
        self.processes.append(p)
        return p

    @staticmethod
    def end(p, patience=2.0):
        """All of its process group, which it leads."""
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(p.pid, sig)
            except ProcessLookupError:
                pass
            try:
                p.popen.wait(patience)
                break
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    @contextlib.contextmanager
    def entered(self, host):
        """This thread in that host: for sockets of our own."""
        home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{self.ns(host)}", os.O_RDONLY)
        try:
            if _libc.setns(there, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            _libc.setns(home, CLONE_NEWNET)
            os.close(home)
            os.close(there)

    def certificate(self, host):
        """A fresh self-signed one: (certificate's file, key's file)."""
        files = self.path("tls.crt"), self.path("tls.key")
        sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
           "-out", files[0], "-keyout", files[1])
        os.chmod(files[1], 0o600)
        return files

    def listens(self, host, kind, port):
        """Whether somebody has that port there; kind is u or t."""
        return re.search(rf":{port}\s", sh(*self.inside(host, "ss", f"-Hln{kind}"), check=False)) is not None


    def connected(self, host, port):
        """Whether every worker's connection to that port there is up: as many as a front of these tests has."""
        return sh(*self.inside(host, "ss", "-Htn", "state", "established", f"sport = :{port}"), check=False).count("\n") >= 2


class Within(Net):
    """The same in the hosts of a lab."""

    def __init__(self, lab):
        super().__init__()
        self.lab, self.run = lab, lab.run

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in reversed(self.processes):
            self.end(p)

    def ns(self, host):
        return self.lab.ns(host)


class Wire:
    """What goes over a host's wire in UDP, whole datagrams, as the bridge's port on the front's host sees it."""

    def __init__(self, net, host):
        with net.entered("front"):
            self.s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.s.bind((host, 3))
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.s.settimeout(0.1)
        self.seen = []
        self.going = True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        parts = {}
        while self.going:
            try:
                b = self.s.recv(65536)
            except TimeoutError:
                continue
            if b[0] >> 4 == 4 and b[9] == 17:
                ident, flags = struct.unpack("!HH", b[4:8])
                body = b[(b[0] & 15) * 4:struct.unpack("!H", b[2:4])[0]]
                if flags & 0x3fff:
                    got = parts.setdefault((b[12:20], ident), {})
                    got[(flags & 0x1fff) * 8] = body
                    whole = b"".join(got[k] for k in sorted(got))
                    if not (0 in got and len(whole) == struct.unpack("!H", got[0][4:6])[0]):
                        continue
                    body = whole
                self.seen.append(body[8:])
            elif b[0] >> 4 == 6 and b[6] == 17:
                self.seen.append(b[48:40 + struct.unpack("!H", b[4:6])[0]])

    def close(self):
        self.going = False
        self.thread.join()
        self.s.close()
        return self.seen


def first(datagrams, begins):
    """The first that begins like this, as text; None: none does."""
    return next((d.decode(errors="replace") for d in datagrams if d.startswith(begins.encode())), None)


class Front:
    """A walnut-front that real programs talk to, and an agent for its users, whose gate is not there: it only knows users.

    services: lines of walnut-front(5) after "services:"; algorithms as there; epoch_s 0 is rotation off."""

    def __init__(self, net, services, algorithms="[md5]", epoch_s=0, more="", tenant_more="", threads=2):
        self.net = net
        self.socket = net.path("front.sock")
        self.agent_socket = net.path("agent.sock")
        agent_pin, signing, agent_keys = self._keys("agent")
        front_pin, _, front_keys = self._keys("front")
        net.write("front.yaml", f"""listen: {FRONT}:5060
agents: 127.0.0.1:7061
keys: {front_keys}
socket: {self.socket}
threads: {threads}
nonce_ring_bits: 16
{more}tenants:
  - domain: {DOMAIN}
    agent_pin: "{agent_pin}"
    signing_key: "{signing}"
    algorithms: {algorithms}
{tenant_more}    services:
{services}""")
        net.write("agent.yaml", f"""domain: {DOMAIN}
keys: {agent_keys}
database: {net.path('users')}
socket: {self.agent_socket}
epoch_s: {epoch_s}
gate: {{ address: "127.0.0.1:7443", pin: "{front_pin}" }}
enrol_fronts: ["{FRONT}:5060"]
fronts:
  - {{ address: "127.0.0.1:7061", pin: "{front_pin}" }}
services:
  - {{ name: agents-own, protocol: tcp, address: "127.0.0.1:9" }}
""")
        os.chmod(net.run, 0o755)
        self.process = net.start("front", "front", [find("walnut-front"), "--config", net.path("front.yaml")])
        self.agent = net.start("front", "agent", [find("walnut-agent"), "--config", net.path("agent.yaml")])
        wait_for(f"the front to have its agent: {self.process.last_log()} {self.agent.last_log()}",
                 lambda: any(a.get("connected") for a in (self.status() or {}).get("agents", [])), 10)

    def _keys(self, role):
        folder = self.net.path("keys-" + role)
        said = sh(find("walnut"), "keys", "init", role, folder)
        sign = re.search(r"ed25519:[A-Za-z0-9_=+/-]+", said)
        return re.search(r"sha256:[A-Za-z0-9_=+/-]+", said).group(0), sign and sign.group(0), folder

    def add(self, user, md5=True):
        """Makes a user; its secret."""
        said = sh(find("walnut"), "user", "add", *(["--md5"] if md5 else []), user, "--socket", self.agent_socket)
        line = next(w for w in said.split() if w.startswith("walnut1:"))[8:]
        return json.loads(base64.urlsafe_b64decode(line + "=" * (-len(line) % 4)))["secret"]

    def status(self):
        try:
            return ctl(self.socket, "status")
        except (OSError, ValueError):
            return None

    def outcomes(self):
        return self.status()["outcomes"]

    @contextlib.contextmanager
    def counting(self, **want):
        """A dictionary that is, after the block, what was counted in it and is not 0; a second is given for these to be counted."""
        before, got = self.outcomes(), {}
        yield got
        end = time.monotonic() + 1
        while True:
            got.update({k: v - before[k] for k, v in self.outcomes().items() if v != before[k]})
            if at_least(got, **want) or time.monotonic() > end:
                return
            time.sleep(0.02)


def at_least(got, **want):
    """Whether each of these was counted as often, or more often."""
    return all(got.get(k, 0) >= n for k, n in want.items())


def digest(user, realm, secret, nonce, uri):
    """What a caller answers to a challenge with MD5 and qop=auth."""
    def h(text):
        return hashlib.md5(text.encode()).hexdigest()
    response = h(f"{h(f'{user}:{realm}:{secret}')}:{nonce}:00000001:c0ffee:auth:{h('INVITE:' + uri)}")
    return (f'Digest username="{user}",realm="{realm}",nonce="{nonce}",uri="{uri}",response="{response}",algorithm=MD5,qop=auth,nc=00000001,'
            'cnonce="c0ffee"')


# SIPp

def scenario(*steps):
    return '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="t">\n' + "".join(steps) + "</scenario>\n"


def send(text, more="", retrans=True):
    head = ' retrans="500"' if retrans else ""
    return f"<send{head}{more}><![CDATA[\n{text}\n]]></send>\n"


def expect(status, optional=False, more=""):
    return f'<recv response="{status}"' + (' optional="true"' if optional else "") + f"{more}/>\n"


def expect_request(method, more=""):
    return f'<recv request="{method}"{more}/>\n'


SDP = """v=0
o=- 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[local_ip_type] [local_ip]
t=0 0
m=audio 6000 RTP/AVP 0
a=rtpmap:0 PCMU/8000"""


# A SIPp that has played its part answers no repetition, and one that has gone on does not repeat an ACK: these are not lost on purpose.
SURE = ' lost="0"'


class Caller:
    """Scenario steps of a SIPp that calls. secret: its answer to a challenge."""

    def __init__(self, uri, user="alice", secret=None):
        self.uri, self.user, self.secret = uri, user, secret
        self.cseq = self.branch = 0

    def _head(self, method, line, tag="", same=False):
        """same: of the transaction before."""
        if not same:
            self.branch += 1
        return f"""{method} {line} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-[call_number]-{self.branch};rport
From: "{self.user}" <sip:{self.user}@{DOMAIN}>;tag=t[call_number]
To: <{self.uri}>{tag}
Call-ID: [call_id]
CSeq: {self.cseq} {method}
Contact: <sip:{self.user}@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70
User-Agent: SIPp"""

    def invite(self, answer=False, again=False, head_more="", more=""):
        """again: within the dialog."""
        self.cseq += 1
        head = self._head("INVITE", "[next_url]", "[peer_tag_param]") + "\n[routes]" if again else self._head("INVITE", self.uri)
        if answer:
            head += f"\n[authentication username={self.user} password={self.secret}]"
        if head_more:
            head += "\n" + head_more
        return send(f"{head}\nContent-Type: application/sdp\nContent-Length: [len]\n\n{SDP}", more)

    def ack(self):
        return send(self._head("ACK", "[next_url]", "[peer_tag_param]") + "\n[routes]\nContent-Length: 0\n", SURE, retrans=False)

    def refused(self, status, more=""):
        """That final answer and its ACK, which is of the INVITE's own transaction."""
        return expect(100, True) + expect(180, True) + expect(status, more=more) + send(
            self._head("ACK", self.uri, "[peer_tag_param]", same=True) + "\nContent-Length: 0\n", retrans=False)

    def challenged(self):
        """INVITE, its 407, ACK, and the INVITE with credentials."""
        return self.invite() + self.refused(407, ' auth="true"') + self.invite(answer=True)

    def connected(self, more=""):
        return expect(100, True) + expect(180, True) + expect(200, more=' rrs="true"' + more) + self.ack()

    def cancel(self):
        return send(self._head("CANCEL", self.uri, same=True) + "\nContent-Length: 0\n")

    def bye(self):
        self.cseq += 1
        return send(self._head("BYE", "[next_url]", "[peer_tag_param]") + "\n[routes]\nContent-Length: 0\n") + expect(200, more=SURE)

    def hung_up(self):
        """The other side's BYE."""
        return expect_request("BYE") + say(200, "OK", tag=False)


def say(status, reason, tag=True, body=False, more="", rr=False, retrans=False):
    """A SIPp callee's answer to what it got last."""
    return send(f"""SIP/2.0 {status} {reason}
[last_Via:]
[last_From:]
[last_To:]{";tag=c[call_number]" if tag else ""}
[last_Call-ID:]
[last_CSeq:]
""" + ("[last_Record-Route:]\n" if rr else "") + ("Contact: <sip:[local_ip]:[local_port];transport=[transport]>\n" if tag or body else "") +
                ("Content-Type: application/sdp\nContent-Length: [len]\n\n" + SDP if body else "Content-Length: 0\n"), more, retrans)


def keep_header(name, variable, occurrence=1):
    return f'<ereg regexp=".*" search_in="hdr" header="{name}:" occurrence="{occurrence}" assign_to="{variable}"/>'


def cancelled(vias=2):
    """A callee that rings until the CANCEL. An answer to the INVITE has the INVITE's Vias, not the CANCEL's; it came over so many."""
    keep = "".join(keep_header("Via", f"via{n}", n) for n in range(1, vias + 1))
    return (f'<recv request="INVITE"><action>{keep}</action></recv>\n' + say(180, "Ringing") + expect_request("CANCEL") + say(200, "OK") +
            send("SIP/2.0 487 Request Terminated\n" + "".join(f"Via:[$via{n}]\n" for n in range(1, vias + 1)) + """[last_From:]
[last_To:];tag=c[call_number]
[last_Call-ID:]
CSeq: [last_cseq_number] INVITE
Content-Length: 0
""", retrans=False) + expect_request("ACK"))


def answering(ring=True, keep="", tag=True):
    """A callee up to the ACK. tag False: the request has its tag."""
    return (f'<recv request="INVITE" rrs="true">{keep}</recv>\n' + (say(180, "Ringing") if ring else "") +
            say(200, "OK", tag, body=True, rr=True, retrans=True) + expect_request("ACK", SURE))


def answering_then_bye():
    """A callee that hangs up."""
    return answering(keep=f"<action>{keep_header('From', 'from')}</action>") + send("""BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[routes]
From: <sip:callee@example.org>;tag=c[call_number]
To:[$from]
Call-ID: [call_id]
CSeq: 1 BYE
Max-Forwards: 70
Content-Length: 0
""") + expect(200)


def hangs_up():
    """The callee's end of the caller's BYE."""
    return expect_request("BYE") + say(200, "OK", tag=False, more=SURE)


class Sipp:
    """A SIPp that plays a scenario some times and ends."""

    def __init__(self, net, host, name, steps, address, to=None, port=5060, transport="u1", calls=1, rate=10, seconds=15, more=()):
        self.net, self.host = net, host
        file = net.write(f"{name}-{len(net.processes)}.xml", scenario(*steps))
        self.trace = net.path("log", f"{name}-{len(net.processes)}.messages")
        argv = ["sipp", "-sf", file, "-i", address, "-p", str(port), "-t", transport, "-m", str(calls), "-r", str(rate), "-nostdin",
                "-timeout", str(seconds), "-timeout_error", "-trace_msg", "-message_file", self.trace, "-trace_err",
                "-error_file", self.trace + ".errors", "-max_socket", "100", *more]
        if to:
            argv.append(to)
        self.p = net.start(host, name, argv, env={"TERM": "dumb"}, cwd=net.run)
        if not to:
            wait_for(f"{name} to listen", lambda: not self.p.running() or net.listens(host, transport[0], port))

    def done(self, seconds=18):
        """0 when all calls went as the scenario says."""
        try:
            return self.p.wait(seconds)
        except subprocess.TimeoutExpired:
            self.net.end(self.p)
            return "still running"

    def messages(self):
        with open(self.trace, encoding="utf-8", errors="replace") as f:
            return f.read()

    def said(self):
        text = ""
        for file in (self.trace + ".errors", self.trace):
            with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as f:
                text += f.read()[-6000:]
        return text or self.p.last_log(20)


# User agents. None has a sound device or a configuration of its own on the machine.

class Baresip:
    """A baresip with an account, told what to do over its control socket, and what happened."""

    def __init__(self, net, host, address, user, secret=None, transport="udp", port=5060):
        self.net, home, name = net, net.path(f"baresip-{len(net.processes)}"), f"baresip-{host}"
        os.mkdir(home)
        modules = "".join(f"module {m}.so\n" for m in ("account", "g711", "aubridge", "ctrl_tcp"))
        self.file(home, "config", f"module_path /usr/lib/baresip/modules\nsip_listen {address}:5060\n{modules}module_app menu.so\n"
                  "ctrl_tcp_listen 127.0.0.1:4444\naudio_player aubridge,a\naudio_source aubridge,a\naudio_alert aubridge,a\n"
                  "rtp_ports 10000-10100\n")
        login = f";auth_user={user};auth_pass={secret}" if secret else ""
        self.file(home, "accounts", f'<sip:{user}@{DOMAIN}>{login};outbound="sip:{FRONT}:{port};transport={transport}";regint=0;answermode=auto\n')
        self.file(home, "contacts", "")
        self.p = net.start(host, name, ["baresip", "-f", home], env={"HOME": home, "TERM": "dumb"})
        wait_for("baresip to listen", lambda: net.listens(host, "t", 4444) or not self.p.running())
        with net.entered(host):
            self.s = socket.socket()
        self.s.connect(("127.0.0.1", 4444))
        self.s.settimeout(10)
        self.got = b""

    @staticmethod
    def file(home, name, text):
        with open(os.path.join(home, name), "w", encoding="utf-8") as f:
            f.write(text)

    def tell(self, command, params=""):
        text = json.dumps({"command": command, "params": params, "token": command}).encode()
        self.s.sendall(b"%d:%s," % (len(text), text))

    def await_event(self, kind):
        """The event of that type; None when none comes in ten seconds, or the call has ended instead."""
        while True:
            n, colon, rest = self.got.partition(b":")
            if colon and len(rest) > int(n):
                self.got = rest[int(n) + 1:]
                event = json.loads(rest[:int(n)])
                if event.get("type") in (kind, "CALL_CLOSED"):
                    return event if event["type"] == kind else None
                continue
            try:
                more = self.s.recv(65536)
            except TimeoutError:
                return None
            if not more:
                return None
            self.got += more

    def close(self):
        self.tell("quit")
        self.s.close()
        self.net.end(self.p)

    def said(self):
        return self.p.text()[-3000:]


class Linphone:
    """A linphonec, told what to do on its standard input; sound comes from and goes to files."""

    def __init__(self, net, host, user, secret=None, realm=DOMAIN + "/0", answer=False, transport="udp", port=5060):
        self.net, home = net, net.path(f"linphone-{len(net.processes)}")
        for folder in (".local/share/linphone", ".config/linphone"):
            os.makedirs(os.path.join(home, folder))
        login = f"[auth_info_0]\nusername={user}\nuserid={user}\npasswd={secret}\nrealm={realm}\ndomain={DOMAIN}\n" if secret else ""
        param = "" if transport == "udp" else f";transport={transport}"
        rc = os.path.join(home, "rc")
        Baresip.file(home, "rc", "[sip]\nsip_port=5060\nsip_tcp_port=5060\nsip_tls_port=5061\nverify_server_certs=0\nverify_server_cn=0\nmedia_encryption=none\ndefault_proxy=0\n"
                     "[rtp]\naudio_rtp_port=10200\n[video]\nenabled=0\ncapture=0\ndisplay=0\n[proxy_0]\n"
                     f"reg_proxy=<sip:{FRONT}:{port}{param}>\nreg_route=<sip:{FRONT}:{port}{param};lr>\nreg_identity=sip:{user}@{DOMAIN}\n"
                     f"reg_expires=3600\nreg_sendregister=0\npublish=0\n{login}")
        self.p = net.start(host, f"linphone-{host}", ["stdbuf", "-oL", "linphonec", "-c", rc, *(["-a"] if answer else [])], env={"HOME": home},
                           stdin=subprocess.PIPE)
        self.tell("soundcard use files")
        wait_for("linphone to listen", lambda: (net.listens(host, "u", 5060) and "Using wav files" in self.p.text()) or not self.p.running(), 8)

    def tell(self, line):
        self.p.popen.stdin.write(line.encode() + b"\n")
        self.p.popen.stdin.flush()

    def await_text(self, text, seconds=10):
        """Whether it says so in time, before it says that a call has failed."""
        try:
            wait_for(text, lambda: text in self.p.text() or "error" in self.p.text() or not self.p.running(), seconds)
        except Exception:  # pylint: disable=broad-except
            pass
        return text in self.p.text()

    def close(self):
        with contextlib.suppress(OSError):
            self.tell("quit")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.p.wait(2)
        self.net.end(self.p)

    def said(self):
        return self.p.text()[-3000:] + self.p.last_log(20)


def sipsak(net, host, address, secret, request, more=""):
    """sipsak shoots a request from a file and answers a challenge. (status, what it said)"""
    file = net.write("sipsak.request", request)
    hosts = net.write("hosts", f"127.0.0.1 localhost\n{FRONT} {DOMAIN}\n")
    # It looks the domain up although it is told where to send, and its own host although it is told its name.
    command = (f"mount --bind {hosts} /etc/hosts && exec sipsak -vvv -i -f {file} -H {address} -l 5060 --symmetric --outbound-proxy={FRONT} "
               f"{more} -u alice -a {secret} -s sip:uas@{DOMAIN}")
    p = net.start(host, "sipsak", ["unshare", "--mount", "sh", "-c", command])
    try:
        status = p.wait(10)
    except subprocess.TimeoutExpired:
        net.end(p)
        status = "still running"
    return status, p.text() + p.last_log()
