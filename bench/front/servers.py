# SPDX-License-Identifier: Apache-2.0
"""The servers: the front, Kamailio, and bare loops over a socket."""
import hashlib
import os
import re
import subprocess

import world
from inside import Failure, await_, sh

HERE = os.path.dirname(os.path.abspath(__file__))
DOMAIN = "example.org"
UAS = "127.0.0.3:5070"
SEED = "bench"
USERS = 1000
MANY = 1000000


class Server:
    """One of them, on the measured core."""

    port = 0
    domain, service, open_service = DOMAIN, "all", "uas"

    def __init__(self, w, kind):
        self.w, self.kind, self.process = w, kind, None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def run(self, argv, ready, seconds=20):
        self.process = self.w.start(self.kind, argv, self.w.o.cpu)

        def is_ready():
            if self.process.poll() is not None:
                raise Failure(f"{self.kind} ended: {self.w.log(self.kind)[-300:]}")
            return ready()
        await_(f"{self.kind} to listen", is_ready, seconds)
        await_(f"{self.kind} to answer", self.answers, seconds)

    def listens(self):
        return world.bound(self.port)

    def answers(self):
        """Bound is not yet served."""
        r = self.w.load("strangers", self, "--service", self.service, "--count", "16", "--window", "16", "--ports", "1", seconds=1)
        return r["answered"] + r["other"] > 0

    def pids(self):
        return world.descendants(self.process.pid)

    def down(self):
        self.w.stop(self.process)


class Echo(Server):
    port, mode = 5061, "echo"

    def up(self):
        self.run([self.w.program("front-bare"), self.mode, self.address], self.listens)


class Drop(Echo):
    port, mode = 5062, "drop"

    def answers(self):
        return True


class Kamailio(Server):
    """MD5 or SHA-256; bench/front/kamailio/front.cfg."""

    port, algorithm, transport, tcp, uas = 5063, "MD5", "disable_tcp=yes", False, UAS

    def up(self):
        names = [line.split() for line in sh(self.w.program("front-load"), "users", "--users", str(USERS), "--seed", SEED).splitlines()]
        hashed = hashlib.md5 if self.algorithm == "MD5" else hashlib.sha256
        users = "\n".join(f'\t$sht(ha1=>{n}) = "{hashed(f"{n}:{DOMAIN}:{s}".encode()).hexdigest()}";' for n, s in names)
        with open(f"{HERE}/kamailio/front.cfg", encoding="ascii") as f:
            text = f.read()
        for key, value in (("TRANSPORT", self.transport), ("ALGORITHM", self.algorithm), ("UAS", self.uas), ("USERS", users)):
            text = text.replace(f"@{key}@", value)
        path = f"{self.w.dir}/{self.kind}.cfg"
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        listen = ["-l", f"udp:{self.address}"] + (["-l", f"tcp:{self.address}"] if self.tcp else [])
        self.run(["kamailio", "-f", path, "-x", "tlsf", "-X", "tlsf", "-n", "1", "-m", "3072", "-M", "16", "-DD", "-E", "-Y", self.w.dir, *listen],
                 self.listens, 30)


class KamailioSha(Kamailio):
    port, algorithm = 5064, "SHA-256"


class KamailioTcp(Kamailio):
    """One process takes connections, one serves them."""

    port, tcp, uas = 5069, True, UAS + ";transport=udp"
    transport = "disable_tcp=no\ntcp_children=1\ntcp_max_connections=60000\ntcp_connection_lifetime=60\ntcp_accept_no_cl=no"


class Walnut(Server):
    """The front with a thousand users that have SHA-256 keys."""

    port, algorithm, users, more = 5065, "sha-256", USERS, ""

    def up(self):
        w, name = self.w, self.kind
        walnut = f"{w.o.build}/src/console/walnut"
        keys, state = f"{w.dir}/{name}.keys", f"{w.dir}/{name}.state"
        os.makedirs(state, mode=0o700)
        sh(walnut, "keys", "init", "front", keys)
        signing = sh(w.program("front-users"), "--state", state, "--domain", DOMAIN, "--users", str(self.users), "--seed", SEED,
                     "--algorithms", self.algorithm, seconds=120).strip()
        self.config = f"{w.dir}/{name}.yaml"
        with open(self.config, "w", encoding="ascii") as f:
            f.write(f"""listen: {self.address}
keys: {keys}
socket: {w.dir}/{name}.sock
user: root
threads: 1
state: {state}
nonce_lifetime_s: 3600
feed_max_age_s: 86400
{self.more}tenants:
  - domain: {DOMAIN}
    signing_key: "{signing}"
    algorithms: [{self.algorithm}]
    max_calls: 1000000
    user_calls_per_s: 0
    service_calls_per_s: 0
    services:
      - {{ name: uas, route: "udp:{UAS}", authenticate: false }}
      - {{ name: "*", route: "udp:{UAS}" }}
""")
        self.run([w.o.front, "--config", self.config], self.ready, 30)

    def ready(self):
        return self.listens() and "listening" in self.w.log(self.kind)

    def outcomes(self):
        """Counters by outcome."""
        import json
        text = sh(f"{self.w.o.build}/src/console/walnut", "status", "--socket", f"{self.w.dir}/{self.kind}.sock", "--json")
        return json.loads(text)["outcomes"]


class WalnutMd5(Walnut):
    port, algorithm = 5066, "md5"


class WalnutMany(Walnut):
    port, users = 5067, MANY


class WalnutTcp(Walnut):
    port = 5068
    more = "also_listen: [\"tcp:127.0.0.1:5068\"]\n"


KINDS = {"echo": Echo, "drop": Drop, "kamailio": Kamailio, "kamailio_sha": KamailioSha, "walnut": Walnut, "walnut_md5": WalnutMd5,
         "walnut_many": WalnutMany, "walnut_tcp": WalnutTcp, "kamailio_tcp": KamailioTcp}
