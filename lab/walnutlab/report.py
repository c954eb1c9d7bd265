# SPDX-License-Identifier: Apache-2.0
"""The demo's end: a table, report.json, and a picture of goodput over time."""
import json
import os

# key, what it is, how its bar reads, whether a value meets it
CLAIMS = (
    ("duration_s", "the whole demo, seconds", "<= 420", lambda v: v <= 420),
    ("flood_plain_goodput", "flooded, no Walnut: share of act 1", "< 0.3", lambda v: v < 0.3),
    ("flood_walnut_goodput", "flooded, behind Walnut: share of act 1", ">= 0.95", lambda v: v >= 0.95),
    ("ssh_ok", "a command over ssh, act 3", "true", lambda v: v is True),
    ("dns_ok", "a name resolved, act 3", "true", lambda v: v is True),
    ("denied_bytes_on_link", "bytes that 30 s of refusals put on the link", "0", lambda v: v == 0),
    ("open_ports", "ports of the gate that answered a scan", "0", lambda v: v == 0),
    ("signin_flights", "client's flights to the first payload", "4", lambda v: v == 4),
    ("signin_rtts", "round trips to the first answer's byte", "<= 4.5", lambda v: v <= 4.5),
    ("failover_s", "a front lost: worst start after it, seconds", "<= 3", lambda v: v <= 3),
    ("replay_calls_seen", "calls seen for one live call and its replays", "1", lambda v: v == 1),
    ("spoofed_holes", "holes for an attacker's candidates", "0", lambda v: v == 0),
)

COLOURS = {"download": "#1f5f8b", "upload": "#b5651d"}


def verdicts(report):
    """[(key, what, bar, value, good)]; what was not measured is not good."""
    rows = []
    for key, what, bar, test in CLAIMS:
        value = report.get(key)
        rows.append((key, what, bar, value, value is not None and bool(test(value))))
    return rows


def finish(report, folder, out):
    """Sets `ok`, writes report.json, prints the table. Returns ok."""
    rows = verdicts(report)
    others = [n for n, good in report.get("also", {}).items() if not good]
    report["ok"] = all(r[4] for r in rows) and not others
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "report.json"), "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2, sort_keys=False)
        f.write("\n")
    print(file=out)
    print(f"{'claim':<22} {'measured':>10}  {'bar':<8}        what it is", file=out)
    for key, what, bar, value, good in rows:
        shown = "-" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:.3g}" if isinstance(value, float) else str(value)
        print(f"{key:<22} {shown:>10}  {bar:<8} {'holds' if good else 'FAILS':<6} {what}", file=out)
    for name in others:
        print(f"FAILS: {name}", file=out)
    print(f"\n{'All of it holds.' if report['ok'] else 'NOT ok.'} Details: {folder}/report.json, {folder}/goodput.svg", file=out)
    return report["ok"]


def svg(samples, acts, path, title="Goodput of a 10 Mbit/s link"):
    """samples: [(seconds, "download" or "upload", Mbit/s)]; acts: [(begin, end, name)]."""
    width, height, left, right, top, bottom = 960, 360, 60, 20, 60, 50
    unknown = {s[1] for s in samples} - set(COLOURS)
    if unknown:
        raise ValueError(f"samples of {sorted(unknown)}: no curve would show them")
    last = max([s[0] for s in samples] + [a[1] for a in acts] + [1.0])
    most = max([s[2] for s in samples] + [10.0]) * 1.05
    x = lambda s: left + (width - left - right) * s / last
    y = lambda v: height - bottom - (height - top - bottom) * v / most
    tints = ("#eef4ee", "#f7ecec", "#ecf1f8")
    o = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
         f'<rect width="{width}" height="{height}" fill="#fff"/>', f'<text x="{left}" y="20" font-size="15">{escape(title)}</text>']
    for i, (begin, end, name) in enumerate(acts):
        o.append(f'<rect x="{x(begin):.1f}" y="{top}" width="{x(end) - x(begin):.1f}" height="{height - top - bottom}" fill="{tints[i % 3]}"/>')
        o.append(f'<text x="{x(begin) + 4:.1f}" y="{top - 8}" fill="#333">{i + 1} {escape(name)}</text>')
    step = 2
    for v in range(0, int(most) + 1, step):
        o.append(f'<line x1="{left}" x2="{width - right}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ccc" stroke-width="0.5"/>')
        o.append(f'<text x="{left - 8}" y="{y(v) + 4:.1f}" text-anchor="end" fill="#555">{v}</text>')
    tick = 10 if last <= 150 else 30
    for s in range(0, int(last) + 1, tick):
        o.append(f'<text x="{x(s):.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#555">{s} s</text>')
    o.append(f'<text x="16" y="{(top + height - bottom) / 2:.0f}" transform="rotate(-90 16 {(top + height - bottom) / 2:.0f})" '
             'text-anchor="middle" fill="#555">Mbit/s</text>')
    for direction, colour in COLOURS.items():
        run = []
        for i, (s, d, v) in enumerate(samples):
            if d == direction:
                run.append(f"{x(s):.1f},{y(v):.1f}")
            if run and (d != direction or i == len(samples) - 1):
                o.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{" ".join(run)}"/>')
                run = []
        o.append(f'<text x="{width - right - (150 if direction == "download" else 60)}" y="20" fill="{colour}">{direction}</text>')
    o.append("</svg>")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(o) + "\n")


def escape(s):
    return s.replace("&", "&amp;").replace("<", "&lt;")
