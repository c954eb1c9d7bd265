#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""doc/nat-requirements.md against the tests: every requirement has a row, every row a verdict, every test that is named is there and is run."""
import os
import re
import sys

ROOT = sys.argv[1]
REQUIRED = {
    "RFC 4787": "1 2 3 3a 4 5 5a 5b 5c 6 6a 7 8 8a 9 9a 10 10a 11 12 12a 12b 13 13a 14 14a",
    "RFC 5382": "1 2 2a 3 3a 3b 4 4a 5 5a 6 7 8 9 10",
    "RFC 5508": "1 1a 2 2a 3 3a 3b 3c 3d 4 5 6 7 7a 8 9 10a 10b 10c 10d 10e 10f 11",
    "RFC 7857": "2 2.1 2.2 3 4 5 6 7 7.1 8 9 10 11 12",
}
NAMED = re.compile(r"`([a-z_]+)/([a-z_0-9]+)`")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def rows(page):
    """[(chapter, first word that numbers the row, verdict, the rest)]"""
    chapter, out = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            chapter = line[3:].split(",")[0]
        cell = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("|") and len(cell) == 3 and not cell[0].startswith("-") and cell[1] != "verdict":
            out.append((chapter, cell[0].removeprefix("REQ-").split()[0], cell[1], cell[2]))
    return out


def missing_test(where, name):
    """Why a named test does not count, or None."""
    net = where.startswith("gate_")
    path = ("tests", "net", where + ".py") if net else ("tests", "unit", "gate", f"test_{where}.c")
    if not os.path.exists(os.path.join(ROOT, *path)):
        return "/".join(path) + " is not there"
    text = read(*path)
    if net:
        defined = re.search(rf"^def {name}\(", text, re.M)
        used = len(re.findall(rf"\b{name}\b", text)) > 1
        return None if defined and used else f"{'/'.join(path)} runs no {name}"
    run = re.search(rf"\b(FX_TEST|T|W|cmocka_unit_test\w*)\({name}\b", text)
    stem = where.replace("_", "-", 1) if where.startswith("model") else where
    built = re.search(rf"'({where}|{stem}|{where.replace('_', '-')}|test_{where}.c)'", read("tests", "unit", "gate", "meson.build"))
    return None if run and built else f"{'/'.join(path)} runs no {name}, or is not built"


def main():
    page = rows(read("doc", "nat-requirements.md"))
    wrong = []
    for rfc, numbers in REQUIRED.items():
        have = [n for chapter, n, _, _ in page if chapter == rfc]
        if have != numbers.split():
            wrong.append(f"{rfc}: rows {' '.join(have)}")
    for chapter, n, verdict, how in page:
        if verdict not in ("tested", "declined"):
            wrong.append(f"{chapter} {n}: verdict {verdict}")
        named = NAMED.findall(how)
        if verdict == "tested" and not named:
            wrong.append(f"{chapter} {n}: tested by nothing")
        if verdict == "declined" and not NAMED.sub("", how).strip(" :,"):
            wrong.append(f"{chapter} {n}: declined for no reason")
        for where, name in named:
            why = missing_test(where, name)
            if why:
                wrong.append(f"{chapter} {n}: {why}")
    print("1..1")
    print(("not ok" if wrong else "ok") + " 1 - the table of NAT requirements is held against the tests")
    for w in wrong:
        print("# " + w)
    return 1 if wrong else 0


sys.exit(main())
