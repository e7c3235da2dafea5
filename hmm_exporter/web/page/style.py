# SPDX-License-Identifier: Apache-2.0
"""How the page looks, and the policy that allows this style and nothing else."""

from __future__ import annotations

import base64
import hashlib

from hmm_exporter.web.page.markup import Html

STYLE = Html(
    """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #566074; --line: #e1e5ec; --link: #0b5cad;
  --whole: #7895c2; --new: #0a3f7a;
  --good: #17703c; --good-bg: #dcf3e4; --bad: #a3211b; --bad-bg: #fbe3e1;
  --warn: #7d5200; --warn-bg: #fbeecb; --none: #566074; --none-bg: #eaedf2; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161d; --card: #1a2029; --ink: #e4e8ef; --soft: #a2acbd; --line: #2d3542; --link: #7db7f5;
  --whole: #566f96; --new: #a5d0ff;
  --good: #7fdba3; --good-bg: #163524; --bad: #ff9d95; --bad-bg: #43201f;
  --warn: #f0c566; --warn-bg: #3c3016; --none: #a2acbd; --none-bg: #29303b; } }
* { box-sizing: border-box; margin: 0; }
body { margin: 0 auto; max-width: 88rem; padding: 1.4rem 1.5rem 3rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; letter-spacing: -.01em; }
h1 small { margin-left: .3rem; font-size: 1rem; font-weight: 400; color: var(--soft); }
h2 { margin: 1.8rem 0 .6rem; font-size: 1.1rem; letter-spacing: -.005em; }
h3 { font-size: .95rem; font-weight: 600; }
h3 small { font-weight: 400; color: var(--soft); }
a { color: var(--link); }
header, nav { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; }
header { justify-content: space-between; }
nav a { padding: .3rem .75rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--card);
  text-decoration: none; font-size: .9rem; font-weight: 500; }
nav a:hover, nav a[aria-current] { border-color: var(--link); }
.soft, .legend, .since { color: var(--soft); font-size: .9rem; }
.now { margin: .9rem 0; padding: .6rem 1rem; border-radius: .5rem; }
tr.alarming th, tr.alarming td { color: var(--warn); }
.now b { margin-right: .5rem; }
.now ul { padding-left: 1.2rem; }
.tiles, .who, .health { display: grid; gap: .75rem; }
.tiles { grid-template-columns: repeat(4, minmax(0, 1fr)); margin-top: .6rem; }
.tile, .card, .health > div { min-width: 0; padding: .65rem .9rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; }
.tile h3 { color: var(--soft); font-size: .85rem; font-weight: 500; }
.tile .value { font-size: 1.6rem; font-weight: 600; line-height: 1.25; letter-spacing: -.02em; white-space: nowrap; }
.tile .note { color: var(--soft); font-size: .8rem; }
.alarming { border-color: var(--warn) !important; background: var(--warn-bg) !important; }
.alarming .value { color: var(--warn); }
.who { grid-template-columns: minmax(0, 7fr) minmax(0, 5fr); align-items: start; }
.who h2 { margin-top: 1.4rem; }
.cards { columns: 25rem; column-gap: .75rem; margin-top: .6rem; }
.card { break-inside: avoid; margin-bottom: .75rem; }
.metric { color: var(--soft); font: .75rem/1.4 ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace; }
figure { margin-top: .6rem; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: .8rem; font-size: .78rem; }
figcaption b { font-size: .85rem; }
figcaption div { margin-left: auto; color: var(--soft); text-align: right; }
figcaption .new { color: var(--new); }
figcaption i { font-style: normal; font-weight: 600; }
.histogram { display: block; overflow: visible; }
.histogram text { fill: var(--soft); font-size: 10.5px; }
.histogram .grid { stroke: var(--line); }
.histogram .tick { stroke: var(--soft); }
rect.whole { fill: var(--whole); }
rect.new, .bar rect { fill: var(--new); }
g:hover rect.whole { fill: var(--soft); }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin: 0 .35rem 0 .8rem; border-radius: 2px; }
.swatch:first-child { margin-left: 0; }
.legend span:not(.swatch) { display: inline-block; margin-left: 1.2rem; }
.swatch.whole { background: var(--whole); }
.swatch.new { background: var(--new); }
table { width: 100%; border-collapse: separate; border-spacing: 0; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; font-size: .9rem; }
th, td { padding: .4rem .8rem; text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap; }
thead a { color: inherit; }
thead a[aria-current] { color: var(--ink); font-weight: 700; text-decoration: none; }
thead a[aria-current]::after { content: " \\2193"; }
tbody th { min-width: 10.5rem; font: 500 .85rem/1.5 ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace; }
.processes tbody th { min-width: 13rem; }
th small, td small { display: block; font-size: .75rem; font-weight: 400; color: var(--soft); }
tbody th, tbody td { border-top: 1px solid var(--line); }
th.figure, td.figure { text-align: right; white-space: nowrap; }
.bar { display: block; width: 100%; max-width: 9rem; height: 3px; margin: .2rem 0 0 auto;
  transform: scaleX(-1); }
.health { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
dt { color: var(--soft); font-size: .85rem; }
td.kind { white-space: nowrap; color: var(--soft); }
td.reason { color: var(--soft); }
.state { display: inline-block; padding: 0 .6rem; border-radius: 1rem; white-space: nowrap; }
.good { color: var(--good); background: var(--good-bg); }
.bad { color: var(--bad); background: var(--bad-bg); }
.warn { color: var(--warn); background: var(--warn-bg); }
.none { color: var(--none); background: var(--none-bg); }
@media (max-width: 64rem) { .who { grid-template-columns: minmax(0, 1fr); gap: 0; } }
@media (max-width: 44rem) {
  body { padding: 1rem .9rem 2rem; }
  nav a { padding: .3rem .6rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem; }
  .tile { padding: .5rem .7rem; }
  .tile .value { font-size: 1.3rem; }
  .figures thead, .probes thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .figures, .probes, .figures tbody, .probes tbody, .probes tr, .probes th, .probes td { display: block; }
  .figures thead.sorts { position: static; display: block; width: auto; height: auto; clip-path: none; }
  .sorts tr { display: flex; flex-wrap: wrap; column-gap: .8rem; padding: .35rem .8rem; }
  .sorts th { padding: 0; }
  .sorts th:first-child { display: none; }
  .figures tbody tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .3rem .8rem;
    padding: .5rem .8rem; border-top: 1px solid var(--line); }
  .figures tbody tr:first-child { border-top: 0; }
  .figures tbody th { grid-column: 1 / -1; min-width: 0; padding: 0; border: 0; }
  .figures tbody td { padding: 0; border: 0; text-align: left; }
  .figures tbody td.soft { display: none; }
  .figures tbody td::before { content: attr(data-label); display: block; color: var(--soft); font-size: .75rem; }
  .figures .bar { margin-left: 0; transform: none; }
  figcaption div { margin-left: 0; text-align: left; }
  .probes { border: 0; background: none; }
  .probes tr { margin-bottom: .5rem; padding: .5rem .8rem; background: var(--card); border: 1px solid var(--line);
    border-radius: .5rem; }
  .probes tbody th, .probes tbody td { padding: .1rem 0; border: 0; white-space: normal; }
  .probes tbody td.kind, .probes tbody td.mark { display: inline-block; margin-right: .6rem; }
  .probes tbody td:empty, .probes tbody td.kind:empty { display: none; } }
"""
)

# Nothing from elsewhere, and no style but this one, whatever a name or a reason contains.
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
