// Curves as SVG.

const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [560, 200, 46, 26, 22];

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// Points are [x, y]; without `high` the axis ends at the largest y.
export function chart(title, points, { high = null, unit = "", ticks = null, dots = false } = {}) {
  const top = high ?? Math.max(...points.map(([, y]) => y), 1e-9);
  const [first, last] = [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))];
  const x = (value) => LEFT + (WIDTH - LEFT - 14) * (last > first ? (value - first) / (last - first) : 0.5);
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": title });
  root.append(svg("text", { x: LEFT, y: 14 }, title));
  for (const value of [0, top / 2, top]) {
    root.append(svg("line", { x1: LEFT, x2: WIDTH - 14, y1: y(value), y2: y(value), class: "axis" }));
    const text = value.toFixed(top >= 10 ? 0 : 2) + unit;
    root.append(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  for (const [value, text] of ticks ?? [[first, String(first)], [last, String(last)]]) {
    root.append(svg("text", { x: x(value), y: HEIGHT - 6, "text-anchor": "middle" }, text));
  }
  const path = points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
  root.append(svg("polyline", { points: path }));
  if (dots) for (const [px, py] of points) root.append(svg("circle", { cx: x(px), cy: y(py), r: 3.5 }));
  return root;
}
