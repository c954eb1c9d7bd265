# SPDX-License-Identifier: Apache-2.0
"""What the demo shows while it runs: a few lines rewritten in place on a terminal, one line every two seconds elsewhere."""
import shutil
import sys
import time


class Display:
    def __init__(self, out=None):
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.lines = 0
        self.last = 0.0
        self.started = time.monotonic()

    def title(self, text):
        self._clear()
        head = f"[{time.monotonic() - self.started:5.0f} s] "
        print(f"\n\033[1m{head}{text}\033[0m" if self.live else f"\n{head}{text}", file=self.out, flush=True)
        self.last = 0.0

    def note(self, text):
        self._clear()
        print("  " + text, file=self.out, flush=True)

    def progress(self, what, done, total, mbit, drops):
        """`drops`: {reason: count}; the largest are shown."""
        now = time.monotonic()
        if now - self.last < (0.2 if self.live else 2.0):
            return
        self.last = now
        share = min(1.0, done / total) if total else 0.0
        top = sorted(((v, k) for k, v in drops.items() if v), reverse=True)
        if not self.live:
            reasons = ", ".join(f"{k} {short(v)}" for v, k in top[:5])
            print(f"  {what:<9} {100 * share:3.0f} %  {mbit:5.2f} Mbit/s" + (f"  drops: {reasons}" if reasons else ""), file=self.out, flush=True)
            return
        width = min(100, shutil.get_terminal_size().columns)
        bar = int(share * 30)
        lines = [f"  {what:<9} [{'#' * bar}{'.' * (30 - bar)}] {100 * share:3.0f} %  {mbit:5.2f} Mbit/s"]
        lines += [f"    dropped {short(v):>8}  {k}" for v, k in top[:6]]
        self._clear()
        self.out.write("\n".join(line[:width] for line in lines) + "\n")
        self.out.flush()
        self.lines = len(lines)

    def _clear(self):
        if self.live and self.lines:
            self.out.write(f"\033[{self.lines}A\033[J")
            self.out.flush()
        self.lines = 0


def short(n):
    for unit in ("", "k", "M", "G"):
        if n < 1000 or unit == "G":
            return f"{n:.0f}{unit}" if n >= 100 or unit == "" else f"{n:.1f}{unit}"
        n /= 1000
    return str(n)
