# SPDX-License-Identifier: Apache-2.0
"""What one core's time went to."""
import os
import subprocess
import time

from inside import Failure, with_us


class Core:
    """All time that a core was not idle, and how much of it went to processes of no concern or was stolen by the host. Idle time is kept exactly
    where the tick stops in idleness; the other columns are sampled. The kernel's own threads, soft interrupts and the processes `ours` are of
    concern."""

    def __init__(self, build, cpu, ours):
        self.cpu = cpu
        self.counter = subprocess.Popen([f"{build}/bench/gate/gate-others", str(cpu), *map(str, ours)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, preexec_fn=with_us)

    def close(self):
        self.counter.stdin.close()
        self.counter.wait(5)

    def __enter__(self):
        self.began, self.other = time.monotonic(), self.others()
        self.idle, self.stolen = self.read()
        return self

    def __exit__(self, *exc):
        self.seconds = time.monotonic() - self.began
        idle, stolen = self.read()
        self.idle, self.stolen = idle - self.idle, stolen - self.stolen
        self.all = max(self.seconds - self.idle, 0)
        self.other = self.others() - self.other
        self.busy = max(self.all - self.other - self.stolen, 0)

    def others(self):
        try:
            self.counter.stdin.write("\n")
            self.counter.stdin.flush()
            return int(self.counter.stdout.readline()) / 1e9
        except (OSError, ValueError):
            raise Failure("gate-others ended") from None

    def read(self):
        with open("/proc/stat", encoding="ascii") as f:
            for line in f:
                if line.startswith(f"cpu{self.cpu} "):
                    v = [int(x) for x in line.split()[1:]]
                    tick = os.sysconf("SC_CLK_TCK")
                    return (v[3] + v[4]) / tick, v[7] / tick # idle and waiting; stolen
        raise Failure(f"no core {self.cpu}")
