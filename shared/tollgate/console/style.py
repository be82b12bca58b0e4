"""Style and icon of the pages: system fonts, light and dark, nothing from elsewhere."""

STYLE = """\
:root {
  color-scheme: light dark;
  --page: #fbfbf9; --card: #ffffff; --ink: #1d2127; --soft: #5b6470; --line: #e2e3de;
  --accent: #0b6b57; --tint: #e5f2ee; --code: #f3f4f0; --warn: #8a4b08;
  --get: #0b6b57; --post: #1f5fae; --put: #8a4b08; --delete: #a3262f;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f23; --ink: #e8eaed; --soft: #a2abb5; --line: #2e343a;
    --accent: #5fd3b5; --tint: #18312b; --code: #101315; --warn: #f0b36a;
    --get: #5fd3b5; --post: #86b7f5; --put: #f0b36a; --delete: #f58b92;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); }
main, header.top > div, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header.top { border-bottom: 1px solid var(--line); background: var(--card); }
header.top > div { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: center;
  padding-top: .9rem; padding-bottom: .9rem; }
header.top .name { display: flex; align-items: center; gap: .6rem; font-weight: 650;
  font-size: 1.1rem; color: var(--ink); text-decoration: none; margin-right: auto; }
header.top img { width: 1.6rem; height: 1.6rem; display: block; }
nav a { margin-left: 1.1rem; }
nav a:first-child { margin-left: 0; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, pre:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 2.5rem 0 .5rem; letter-spacing: -.015em; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead, .soft { color: var(--soft); }
.lead { font-size: 1.1rem; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr));
  gap: .75rem; margin: 1.5rem 0 0; padding: 0; }
dl.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem; }
dl.facts dt { color: var(--soft); font-size: .85rem; }
dl.facts dd { margin: .1rem 0 0; font-weight: 600; overflow-wrap: anywhere; }
pre, code { font: .875rem/1.55 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
pre { background: var(--code); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1rem; overflow-x: auto; margin: .5rem 0; }
code.inline, td code, li code { background: var(--code); border-radius: 5px; padding: .1em .35em; }
ol.steps { padding: 0; margin: 0; list-style: none; counter-reset: step; }
ol.steps > li { counter-increment: step; margin-top: 1.4rem; }
ol.steps > li > p:first-child::before { content: counter(step); display: inline-block;
  width: 1.6rem; height: 1.6rem; line-height: 1.6rem; margin-right: .6rem; border-radius: 50%;
  text-align: center; background: var(--tint); color: var(--accent);
  font-weight: 650; font-size: .9rem; }
ul.links { padding: 0; margin: .75rem 0 0; list-style: none; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
ul.links a { display: block; height: 100%; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .8rem 1rem; text-decoration: none; color: var(--ink); }
ul.links a:hover { border-color: var(--accent); }
ul.links b { color: var(--accent); display: block; }
ul.links span { color: var(--soft); font-size: .925rem; }
footer { color: var(--soft); font-size: .875rem; padding-top: 2.5rem; padding-bottom: 2rem; }
details.operation { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: .5rem 0; }
details.operation > summary { cursor: pointer; padding: .6rem .9rem; display: flex; flex-wrap: wrap;
  gap: .2rem .75rem; align-items: baseline; list-style: none; border-radius: 10px; }
details.operation > summary::-webkit-details-marker { display: none; }
details.operation > summary:hover { background: var(--tint); }
details.operation .body { padding: 0 .9rem .9rem; border-top: 1px solid var(--line); }
.method { font-weight: 700; font-size: .8rem; width: 4rem; flex: none; }
.get { color: var(--get); } .post { color: var(--post); }
.put, .patch { color: var(--put); } .delete { color: var(--delete); }
.path { font-family: ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace;
  font-size: .9rem; overflow-wrap: anywhere; }
summary .soft { margin-left: auto; font-size: .925rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .925rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
tr:last-child td { border-bottom: 0; }
td:first-child { white-space: nowrap; }
.required { color: var(--warn); font-size: .8rem; font-weight: 600; margin-left: .35rem; }
ul.tags { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; margin: 1.25rem 0 0;
  list-style: none; }
ul.tags a { display: block; padding: .2rem .75rem; border-radius: 99px; background: var(--tint);
  text-decoration: none; font-size: .925rem; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
@media (max-width: 40rem) { summary .soft { margin-left: 0; width: 100%; } }
"""

ICON = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#0b6b57"/>
<path d="M7 25V8" stroke="#fff" stroke-width="4" stroke-linecap="round"/>
<path d="M7 12L26 7" stroke="#8fe3cb" stroke-width="4" stroke-linecap="round"/>
<path d="M14 25h11" stroke="#fff" stroke-width="4" stroke-linecap="round"/>
</svg>
"""
