#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test that speaks TAP and adds up what they say.

Unit tests are those that meson declares in the build folder given with --unit; network tests are tests/net/*.py, run against the
programs in the build folder given with --net; --fuzz SECONDS runs each fuzz target for so long at most, and all of them for about a
minute. A test that dies, stalls or does not keep its plan has failed. The last line is
"N passed, N failed, N skipped" over everything; the exit status is 0 only when nothing failed and something passed.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?\s*-?\s*(.*)$")
NAMESPACE = re.compile(r"^t-[a-z]+-(\d+)-[a-z]+$")  # as tests/net names them: the number is the owner's
FUZZ_TOTAL = 60  # seconds, over all targets
PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?", re.I)


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.skips = []
        self.failures = []


def read_tap(text):
    """-> (plan or None, whole-file skip reason or None, [(ok, name, skip reason or None)])"""
    plan, skip_all, results = None, None, []
    for line in text.splitlines():
        m = PLAN.match(line.strip())
        if m:
            plan = (plan or 0) + int(m.group(1))
            if int(m.group(1)) == 0:
                skip_all = m.group(2) or "no reason given"
            continue
        m = RESULT.match(line.strip())
        if m:
            name, _, directive = m.group(3).partition("#")
            skip = re.match(r"\s*skip\S*\s*(.*)", directive, re.I)
            results.append((m.group(1) is None, name.strip(), skip.group(1) or "no reason given" if skip else None))
    return plan, skip_all, results


def run(label, command, cwd, env, limit, tally):
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    died = None
    try:
        out, err = process.communicate(timeout=limit)
        if process.returncode != 0:
            died = f"exit status {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
    except subprocess.TimeoutExpired:
        died = f"still running after {limit} s"
        os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
    out, err = out.decode(errors="replace"), err.decode(errors="replace")
    plan, skip_all, results = read_tap(out)
    if plan is None and not results:
        plan, skip_all, results = read_tap(err)
    bad = [name for ok, name, skip in results if not ok and skip is None]
    good = sum(1 for ok, _, skip in results if ok and skip is None)
    skips = [(name, skip) for _, name, skip in results if skip is not None]
    if skip_all is not None and not results:
        skips.append((label, skip_all))
    elif plan is None or plan != len(results):
        bad.append(f"{label}: planned {plan}, reported {len(results)}" + (f" ({died})" if died else ""))
    elif died and not bad:
        bad.append(f"{label}: {died}")
    if not results and skip_all is None and not bad:
        bad.append(f"{label}: reported nothing")
    tally.passed += good
    tally.failed += len(bad)
    tally.skipped += len(skips)
    tally.failures += [f"{label}: {name}" for name in bad]
    tally.skips += [f"{label}: {name}: {why}" if name != label else f"{label}: {why}" for name, why in skips]
    word = "FAIL" if bad else "skip" if skips and not good else "ok"
    print(f"{word:4} {label}  {good} passed, {len(bad)} failed, {len(skips)} skipped  ({time.monotonic() - began:.1f} s)", flush=True)
    if bad:
        for stream in (out, err):
            lines = stream.strip().splitlines()
            for line in lines[-120:]:
                print(f"     | {line}")
        sys.stdout.flush()


def unit_tests(build, tally, only):
    listed = json.loads(subprocess.check_output(["meson", "introspect", "--tests", build]))
    for test in listed:
        label = "/".join([s.split(":")[-1] for s in test["suite"][:1]] + [test["name"]])
        if only and not any(o in label for o in only):
            continue
        env = dict(os.environ)
        env.update(test["env"])
        env.update(CMOCKA_MESSAGE_OUTPUT="TAP", ASAN_OPTIONS="detect_leaks=1:abort_on_error=0",
                   UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
        run(label, test["cmd"], test.get("workdir") or build, env, max(test.get("timeout") or 0, 120), tally)


def clear_remains():
    """Network namespaces of tests that were killed: their owner runs no more."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        owner = NAMESPACE.match(name)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            subprocess.run(["ip", "netns", "del", name], check=False)


def net_tests(build, tally, only):
    clear_remains()
    folder = os.path.join(ROOT, "tests", "net")
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".py") or name.startswith("_"):
            continue
        label = f"net/{name[:-3]}"
        if only and not any(o in label for o in only):
            continue
        env = dict(os.environ, WALNUT_BUILD=os.path.abspath(build), PYTHONDONTWRITEBYTECODE="1")
        run(label, ["/usr/bin/python3", os.path.join(folder, name)], ROOT, env, 240, tally)


def fuzz_targets(seconds, tally):
    script = ["sh", os.path.join(ROOT, "tests", "fuzz", "run.sh")]
    targets = subprocess.check_output(script + ["--list"], text=True).split()
    each = max(1, min(seconds, FUZZ_TOTAL // len(targets)))
    run("fuzz/all", script + [str(each)], ROOT, dict(os.environ), 600, tally)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--unit", metavar="BUILD", help="build folder whose meson tests to run")
    p.add_argument("--net", metavar="BUILD", help="build folder whose programs the network tests use")
    p.add_argument("--fuzz", metavar="SECONDS", type=int, help="how long each fuzz target runs at most")
    p.add_argument("only", nargs="*", help="run only tests whose label holds one of these")
    a = p.parse_args()
    began, tally = time.monotonic(), Tally()
    if a.unit:
        unit_tests(os.path.join(ROOT, a.unit), tally, a.only)
    if a.fuzz and (not a.only or any(o in "fuzz/all" for o in a.only)):
        fuzz_targets(a.fuzz, tally)
    if a.net:
        net_tests(os.path.join(ROOT, a.net), tally, a.only)
    for line in tally.skips:
        print(f"skipped: {line}")
    for line in tally.failures:
        print(f"failed:  {line}")
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 0 if tally.failed == 0 and tally.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
