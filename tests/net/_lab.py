# SPDX-License-Identifier: Apache-2.0
"""What the network tests share: TAP, and a lab with everything running in it."""
import contextlib
import os
import signal
import sys
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lab"))
sys.dont_write_bytecode = True
from walnutlab.daemons import Walnut  # noqa: E402
from walnutlab.services import Services  # noqa: E402
from walnutlab.topology import Lab  # noqa: E402

_count = 0
_failed = 0


def ok(good, name, detail=None):
    """One result. `detail` is shown when it is bad."""
    global _count, _failed
    _count += 1
    print(f"{'ok' if good else 'not ok'} {_count} - {name}", flush=True)
    if not good:
        _failed += 1
        if detail is not None:
            for line in str(detail).splitlines():
                print("# " + line, flush=True)
    return good


def skip(name, why):
    """A result that could not be had here."""
    global _count
    _count += 1
    print(f"ok {_count} - {name} # SKIP {why}", flush=True)


def main(test):
    """Runs the test, prints the plan, exits. An exception is a failure."""
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root")
        sys.exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        test()
    except Exception as e:  # pylint: disable=broad-except
        ok(False, f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}", traceback.format_exc())
    print(f"1..{_count}")
    sys.exit(1 if _failed else 0)


@contextlib.contextmanager
def everything(**options):
    """(lab, services, walnut): all servers and daemons up, alice enrolled. What went wrong is shown from the daemons' logs."""
    with Lab() as lab:
        lab.walnut()
        services = Services(lab)
        services.start()
        walnut = Walnut(lab, **options)
        failed = _failed
        try:
            walnut.up()
            yield lab, services, walnut
        except BaseException:
            failed = -1
            raise
        finally:
            if failed != _failed:
                for d in walnut.all:
                    if d.process:
                        for line in d.process.last_log(12).splitlines():
                            print(f"# {d.name}: {line}")
