"""How a report looks, on a screen that is light or dark and on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --paper: #fff; --faint: #6f6f6b; --line: #d9d9d5;
  --bar: rgba(59, 111, 182, .45); }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececea; --paper: #191918; --faint: #a3a39e; --line: #3d3d3a;
    --bar: rgba(94, 146, 217, .5); } }
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
p, small { color: var(--faint); }
a { color: inherit; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.curves { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; text-align: left; font-weight: normal; }
thead th { color: var(--faint); vertical-align: bottom; border-bottom: 1px solid var(--line); }
.matrix td { text-align: center; min-width: 2.4rem; border: 1px solid var(--line); }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 10rem;
  overflow: hidden; }
.matrix tbody th { text-align: right; white-space: nowrap; }
.classes td { text-align: right; }
.classes .bar { position: relative; width: 14rem; text-align: left; }
.bar i { position: absolute; left: 0; top: 15%; height: 70%; background: var(--bar); }
.bar b { position: relative; font-weight: normal; }
.wrong { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { display: block; width: 160px; height: 160px; object-fit: contain; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; margin-top: .3rem; }
.gone { display: block; width: 160px; height: 160px; border: 1px solid var(--line); padding: .5rem;
  overflow-wrap: anywhere; }
details { margin-top: 2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { details { display: none; } }
"""
