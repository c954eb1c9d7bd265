# SPDX-License-Identifier: Apache-2.0
"""The host's real servers: nginx with a 20 MB file and a folder that takes uploads, OpenSSH, and dnsmasq as the DNS server."""
import hashlib
import os
import shutil
import subprocess

from .processes import Process, run, wait_for

FILE_BYTES = 20_000_000
UPLOAD_BYTES = 8_000_000
NAME = "walnut.lab.test"
NAME_ADDRESS = "198.18.0.99"

NGINX = """
worker_processes 1;
daemon off;
user root;
pid {run}/nginx.pid;
error_log {run}/log/nginx-error.log;
events {{ worker_connections 256; }}
http {{
	access_log off;
	sendfile on;
	client_max_body_size 64m;
	client_body_temp_path {run}/www/incoming;
	proxy_temp_path {run}/www/t1; fastcgi_temp_path {run}/www/t2; uwsgi_temp_path {run}/www/t3; scgi_temp_path {run}/www/t4;
	server {{
		listen 80;
		root {run}/www;
		location /small {{ return 200 "small\\n"; }}
		location /up/ {{ dav_methods PUT; client_body_buffer_size 16k; }}
	}}
}}
"""

SSHD = """
Port 22
ListenAddress 0.0.0.0
HostKey {run}/ssh/host
AuthorizedKeysFile {run}/ssh/user.pub
PidFile {run}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM {pam}
UseDNS no
LogLevel ERROR
"""


class Services:
    def __init__(self, lab):
        self.lab = lab
        self.procs = []
        self.digest = None

    def start(self):
        lab = self.lab
        for d in ("www", "www/up", "www/incoming", "ssh"):
            os.makedirs(lab.path(d), exist_ok=True)
        self._file()
        with open(lab.path("nginx.conf"), "w", encoding="utf-8") as f:
            f.write(NGINX.format(run=lab.run))
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", lab.path("ssh", name)], check=True)
        with open("/etc/shadow", encoding="utf-8") as f:
            locked = any(line.startswith("root:!") for line in f)
        with open(lab.path("sshd.conf"), "w", encoding="utf-8") as f:
            # sshd refuses an account that is locked unless PAM decides.
            f.write(SSHD.format(run=lab.run, pam="yes" if locked else "no"))
        with open(lab.path("ssh", "host.pub"), encoding="utf-8") as f:
            key = " ".join(f.read().split()[:2])
        with open(lab.path("ssh", "known_hosts"), "w", encoding="utf-8") as f:
            f.write(f"lab-service {key}\n")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.procs = [
            Process(lab, "host", "nginx", [shutil.which("nginx") or "/usr/sbin/nginx", "-e", lab.path("log", "nginx-error.log"), "-c",
                                           lab.path("nginx.conf"), "-p", lab.run]),
            Process(lab, "host", "sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", lab.path("sshd.conf")]),
            Process(lab, "host", "dnsmasq", [
                "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--group=root",
                "--pid-file=" + lab.path("dnsmasq.pid"), f"--address=/{NAME}/{NAME_ADDRESS}", "--cache-size=0", "--log-facility=-"]),
        ]
        for port in (80, 22, 53):
            wait_for(f"the server on port {port}", lambda p=port: self._listens(p))

    def _listens(self, port):
        for p in self.procs:
            if not p.running():
                raise RuntimeError(f"{p.name} ended: {p.last_log()}")
        return f":{port} " in run(self.lab, "host", ["ss", "-Hltn"])[1]

    def _file(self):
        """20 MB that nothing on the way can compress."""
        block = hashlib.shake_256(b"walnut lab").digest(1_000_000)
        digest = hashlib.sha256()
        with open(self.lab.path("www", "file"), "wb") as f:
            for i in range(FILE_BYTES // len(block)):
                part = i.to_bytes(8, "big") + block[8:]
                f.write(part)
                digest.update(part)
        self.digest = digest.hexdigest()
        with open(self.lab.path("upload"), "wb") as f:
            f.write(block * (UPLOAD_BYTES // len(block)))

    def uploaded(self, name):
        """Bytes of an upload that have come so far: what the server has written."""
        try:
            return os.stat(self.lab.path("www", "up", name)).st_size
        except OSError:
            pass
        sizes = [0]
        for folder, _, files in os.walk(self.lab.path("www", "incoming")):
            for f in files:
                try:
                    sizes.append(os.stat(os.path.join(folder, f)).st_size)
                except OSError:
                    pass
        return max(sizes)

    def upload_good(self, name):
        def digest(path):
            with open(path, "rb") as f:
                return hashlib.file_digest(f, "sha256").hexdigest()
        try:
            return digest(self.lab.path("www", "up", name)) == digest(self.lab.path("upload"))
        except OSError:
            return False

    def ssh(self, target, *more):
        """An ssh command line that trusts nothing but the lab's keys."""
        return ["ssh", "-F", "none", "-i", self.lab.path("ssh", "user"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", "UserKnownHostsFile=" + self.lab.path("ssh", "known_hosts"), "-o", "GlobalKnownHostsFile=none",
                "-o", "HostKeyAlias=lab-service", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR", *more, f"root@{target}"]
