#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A front that keeps its users on disk, sandbox and all: killed and started again it serves with what it read, the agent sends only what it lacks, and
a folder that was emptied or damaged costs a snapshot and nothing else."""
import os
import re

from _lab import everything, main, ok
from walnutlab import claims
from walnutlab.processes import wait_for


def of_tenant(front, key):
    s = front.status()
    return s["agents"][0].get(key) if s else None


def test():
    with everything() as (lab, _services, walnut):
        f1, agent = walnut.f1, walnut.agent
        folder = lab.path("f1-users")
        users = os.path.join(folder, "example.org.users")
        with open(f1.config, encoding="utf-8") as f:
            text = f.read()
        with open(f1.config, "w", encoding="utf-8") as f:
            f.write(f"state: {folder}\n" + text)

        def snapshots():
            return agent.status()["counters"]["feed_snapshots"]

        def again(front):
            front.kill()
            front.start().ready()
            walnut.connected()

        def written(seq):
            wait_for(f"update {seq} to be on disk", lambda: of_tenant(f1, "disk_seq") == seq)

        again(f1)
        written(1)
        mode = os.stat(folder), os.stat(users)
        ok([m.st_mode & 0o777 for m in mode] == [0o700, 0o600] and all(m.st_uid == 65534 for m in mode), "the folder and the file are the front's alone", mode)

        # an agent that was restarted remembers no changes: whoever lacks one is sent everything
        again(agent)
        before = snapshots()
        again(f1)
        ok(of_tenant(f1, "users") == 1 and of_tenant(f1, "disk_seq") == 1, "a front that was killed knows its user again", f1.status())
        ok(snapshots() == before, "and was sent no snapshot", snapshots())
        walnut.f2.kill()
        worked, seconds, said = claims.connect(lab, walnut)
        ok(worked, "it serves", f"{seconds:.1f} s {said}")
        walnut.f2.start().ready()
        walnut.connected()

        walnut.enrol("bob", lab.path("bob"))
        written(2)
        agent.kill()
        f1.kill()
        f1.start().ready()
        ok(of_tenant(f1, "users") == 2 and of_tenant(f1, "seq") == 2, "without its agent it knows what came last", f1.status())
        agent.start().ready()
        walnut.connected()

        # nothing there, then nonsense: a snapshot each, gathered and renamed behind the sandbox
        for what in ("emptied", "damaged"):
            before = snapshots()
            f1.kill()
            if what == "emptied":
                os.unlink(users)
            else:
                with open(users, "r+b") as f:
                    f.seek(60)
                    f.write(b"\xff\xff\xff")
            f1.start().ready()
            walnut.connected()
            wait_for("the users to be there", lambda: of_tenant(f1, "users") == 2)
            written(2)
            ok(snapshots() == before + 1, f"{what}: the agent sends everything, once", snapshots() - before)
        ok(re.search("damaged at byte 8: ", f1.process.last_log(100)) and os.path.exists(users + ".damaged"), "and the log says what was wrong")
        again(f1)
        ok(of_tenant(f1, "users") == 2, "what was written is read again")
        worked, seconds, said = claims.connect(lab, walnut)
        ok(worked, "and serves", f"{seconds:.1f} s {said}")


main(test)
