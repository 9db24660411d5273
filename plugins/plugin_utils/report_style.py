# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the report looks: light and dark, on a wide screen, on a phone and on paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --muted: #5b6675; --line: #d9dee5;
  --low: #2b7a5f; --medium: #a9690a; --high: #c2352b; --none: #8a94a3; --link: #1f5fbf; --edge: #7d8896;
  --good: #e5f3ec; --bad: #fbe6e4; --depth: #3f6fb5; --dependents: #8a5bb0; --volume: #2b8a8a; --type: #9aa3ae;
  --p_fail: #c2352b; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b2129; --ink: #e4e9ef; --muted: #9aa6b4;
  --line: #323b47; --low: #4fb591; --medium: #e0a44a; --high: #f0776c; --none: #6f7b8a; --link: #7fb0f5;
  --edge: #8b97a6; --good: #17332a; --bad: #40211f; --depth: #6f9be0; --dependents: #b58bdb; --volume: #4fb8b8;
  --type: #6f7b8a; --p_fail: #f0776c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 20px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 6px; }
p { margin: 4px 0; }
header { margin-bottom: 14px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  margin: 12px 0; }
a { color: var(--link); }
small, .muted { color: var(--muted); font-size: 13px; }
ul { margin: 0; padding-left: 20px; }
summary { cursor: pointer; font-weight: 600; }
.gate { overflow-wrap: anywhere; }
.gate.passed { background: var(--good); border-color: var(--low); }
.gate.refused { background: var(--bad); border-color: var(--high); }
.sign { font-size: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; padding: 0; border: 0;
  background: none; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile span { display: block; color: var(--muted); font-size: 13px; }
.tile strong { font-size: 24px; font-weight: 650; }
.scroll { overflow-x: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--muted); margin-bottom: 10px; }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
.tiermark { vertical-align: -2px; }
.mark.low { fill: var(--low); } .mark.medium { fill: var(--medium); } .mark.high { fill: var(--high); }
.stroke { width: 26px; border-top: 2px solid var(--edge); } .stroke.claimed { border-top-style: dashed; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .detail, svg .wave { fill: var(--muted); font-size: 11px; }
svg .host { font-weight: 600; }
svg a { text-decoration: none; }
.band { fill: var(--page); stroke: var(--line); }
.box { fill: var(--card); stroke-width: 1.5; }
.box.low { stroke: var(--low); } .box.medium { stroke: var(--medium); } .box.high { stroke: var(--high); }
.box.looped { stroke-dasharray: 5 3; }
a:hover .box, a:focus .box, g:hover > .box { stroke-width: 3; }
.line { fill: none; stroke: var(--edge); stroke-width: 1.4; marker-end: url(#tip); }
.reach { fill: none; stroke: transparent; stroke-width: 11; }
.claimed .line { stroke-dasharray: 6 4; }
.cyclic .line { stroke: var(--high); }
.edge:hover .line { stroke: var(--ink); stroke-width: 2.6; }
.tip { fill: var(--edge); }
.chart { display: grid; grid-template-columns: minmax(120px, 260px) 1fr; align-items: center; gap: 0 12px;
  position: relative; }
.chart .label { font-size: 13px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; grid-column: 1; }
.track { grid-column: 2; position: relative; height: 22px; border-bottom: 1px solid var(--line); }
.track b { position: absolute; top: 5px; height: 12px; border-radius: 3px; min-width: 2px; }
.track b.light { opacity: .32; }
.track .low { background: var(--low); }
.track .medium { background: var(--medium); }
.track .high { background: var(--high); }
.track .none { background: var(--none); }
.rules { grid-column: 2; position: absolute; inset: 0 0 20px; pointer-events: none; }
.rule { position: absolute; top: 0; bottom: 0; border-left: 2px solid var(--ink); }
.key { display: inline-block; height: 14px; border-left: 2px solid var(--ink); }
.p90 { border-left-style: dashed; }
.limit { border-left-color: var(--high); border-left-width: 3px; }
.axis { grid-column: 2; position: relative; height: 20px; font-size: 12px; color: var(--muted); }
.axis span { position: absolute; top: 2px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--muted); padding: 4px 10px 4px 0;
  white-space: nowrap; }
td { border-top: 1px solid var(--line); padding: 6px 10px 6px 0; vertical-align: top; white-space: nowrap; }
td:first-child, td.needs { white-space: normal; overflow-wrap: anywhere; min-width: 180px; }
tr:target td { background: var(--good); }
.score { display: flex; align-items: center; gap: 8px; }
.score span { width: 38px; text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: flex; width: 110px; height: 10px; background: var(--line); border-radius: 3px; overflow: hidden;
  margin-top: 2px; }
.factor { display: inline-block; height: 10px; } .legend .factor { width: 12px; border-radius: 2px; }
.factor.depth { background: var(--depth); } .factor.dependents { background: var(--dependents); }
.factor.volume { background: var(--volume); } .factor.type { background: var(--type); }
.factor.p_fail { background: var(--p_fail); }
@media (max-width: 640px) { main { padding: 10px; } section { padding: 12px; }
  .chart { grid-template-columns: 1fr; } .chart .label, .track, .axis, .rules { grid-column: 1; }
  .track { height: 18px; margin-bottom: 6px; } .track b { top: 2px; } }
@media print { section { break-inside: avoid; } .scroll { overflow: visible; } }
"""
