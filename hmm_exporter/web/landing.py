# SPDX-License-Identifier: Apache-2.0
"""The page at ``/``, for a person: what this is, how it is, where to go. One file, no script.

What the probes' states mean is decided where they are attached; here they are shown.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from html import escape

from hmm_exporter.web.status import ProbeRow, Status

_STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #566074; --line: #dfe3ea; --link: #0b5cad;
  --good: #17703c; --good-bg: #dcf3e4; --bad: #a3211b; --bad-bg: #fbe3e1;
  --warn: #7d5200; --warn-bg: #fbeecb; --none: #566074; --none-bg: #eaedf2; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161d; --card: #1a2029; --ink: #e4e8ef; --soft: #a2acbd; --line: #2d3542;
  --link: #7db7f5;
  --good: #7fdba3; --good-bg: #163524; --bad: #ff9d95; --bad-bg: #43201f;
  --warn: #f0c566; --warn-bg: #3c3016; --none: #a2acbd; --none-bg: #29303b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.5rem 3rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; letter-spacing: -.01em; }
h1 small { margin-left: .4rem; font-size: 1rem; font-weight: 400; color: var(--soft); }
header p { margin: .2rem 0 0; color: var(--soft); }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.2rem 0; }
nav a { padding: .45rem .9rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); text-decoration: none; font-weight: 500; }
nav a:hover { border-color: var(--link); }
.now { margin: 1.2rem 0; padding: .7rem 1rem; border-radius: .5rem; overflow-wrap: anywhere; }
.now b { margin-right: .5rem; }
table { width: 100%; border-collapse: separate; border-spacing: 0; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; font-size: .92rem; }
caption { padding: .6rem 0; text-align: left; font-weight: 600; font-size: 1.1rem; }
th, td { padding: .5rem .8rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
tbody th small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
tbody th, tbody td { border-top: 1px solid var(--line); }
tbody th { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace;
  font-size: .86rem; }
td.kind { white-space: nowrap; color: var(--soft); }
td.reason { color: var(--soft); }
.state { display: inline-block; padding: 0 .6rem; border-radius: 1rem; white-space: nowrap; }
.good { color: var(--good); background: var(--good-bg); }
.bad { color: var(--bad); background: var(--bad-bg); }
.warn { color: var(--warn); background: var(--warn-bg); }
.none { color: var(--none); background: var(--none-bg); }
@media (max-width: 44rem) {
  body { padding: 1.2rem 1rem 2rem; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, caption, tbody, tr, tbody th, td { display: block; }
  table { border: 0; background: none; }
  tr { margin-bottom: .6rem; padding: .6rem .8rem; background: var(--card);
    border: 1px solid var(--line); border-radius: .5rem; }
  tbody th, tbody td { padding: .1rem 0; border: 0; white-space: normal; }
  tbody td.kind, tbody td.mark { display: inline-block; margin-right: .6rem; }
  tbody td:empty, tbody td.kind:empty { display: none; } }
"""

# Nothing from elsewhere, and no style but this one, whatever a name or a reason contains.
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# A probe that was asked for and is not there is bad; one that this kernel has not, or that is
# switched off, is not.
_COLOURS = {"attached": "good", "denied": "bad", "error": "bad"}


def page(status: Status, telemetry_path: str) -> bytes:
    """The page in UTF-8. Links are relative, so that it works behind a proxy's path prefix."""
    metrics = escape(telemetry_path.lstrip("/"))
    probes = list(status.probes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hmm-exporter</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>hmm-exporter <small>{escape(status.version)}</small></h1>
<p>Linux heterogeneous memory management, for Prometheus</p>
</header>
<nav>
<a href="{metrics}">Metrics</a>
<a href="-/healthy">Healthy</a>
<a href="-/ready">Ready</a>
</nav>
<main>
{_now(status, probes)}
{_table(probes)}
</main>
</body>
</html>
""".encode("utf-8", "backslashreplace")


def _now(status: Status, probes: list[ProbeRow]) -> str:
    """The state in one line."""
    states = Counter(probe.state for probe in probes)
    parts = [f"{count} {state}" for state, count in states.most_common()]
    said = [status.reason, "probes: " + ", ".join(parts) if parts else ""]
    if not status.ready:
        colour, word = "warn", "Not ready"
    elif not states["attached"]:
        colour, word = "bad", "Nothing attached"
    elif any(_COLOURS.get(state) == "bad" for state in states):
        colour, word = "warn", "Ready, in part"
    else:
        colour, word = "good", "Ready"
    text = escape("; ".join(part for part in said if part))
    return f'<p class="now {colour}"><b>{word}</b>{text}</p>'


def _table(probes: list[ProbeRow]) -> str:
    if not probes:
        return "<p>The probes have not been tried yet.</p>"
    rows = "\n".join(_row(*(escape(text) for text in probe)) for probe in probes)
    return f"""<table>
<caption>Probes</caption>
<thead><tr><th scope="col">Probe</th><th scope="col">Kind</th><th scope="col">State</th>\
<th scope="col">Reason</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>"""


def _row(name: str, function: str, kind: str, state: str, reason: str) -> str:
    colour = _COLOURS.get(state, "none")
    # Most probes are called what the function is; saying it twice would hide the others.
    other = f"<small>on {function}</small>" if function not in ("", name) else ""
    return (
        f'<tr><th scope="row">{name}{other}</th>'
        f'<td class="kind">{kind if kind != "none" else ""}</td>'
        f'<td class="mark"><span class="state {colour}">{state}</span></td>'
        f'<td class="reason">{reason}</td></tr>'
    )
