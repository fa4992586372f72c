"use strict";
// Draws the charts of a report from the JSON block of its page. Whatever comes from the data
// becomes a text node or an attribute's value, never markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const nClasses = data.classes.length;
  const all = Array.from({ length: nClasses }, (_, c) => c);
  const old = data.contenders[0];
  const after = data.contenders[data.after];

  // ---- numbers and words

  const recall = (hits, c, samples = data.samples) => (samples[c] ? (100 * hits[c]) / samples[c] : null);
  const one = (value) => (value === null ? "–" : value.toFixed(1));
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(1);
  const temperature = (value) => Number(value.toPrecision(4)).toString();
  const change = (c) => {
    const [before, now] = [recall(old.hits, c), recall(after.hits, c)];
    return before === null ? null : now - before;
  };

  /** 95 % interval of a proportion, in percent (Wilson 1927), as the table's. */
  function wilson(hits, n) {
    const z = data.z, share = hits / n, scale = 1 + (z * z) / n;
    const centre = share + (z * z) / (2 * n);
    const spread = z * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
    return [hits ? (100 * (centre - spread)) / scale : 0, hits < n ? (100 * (centre + spread)) / scale : 100];
  }

  function countText(hits, n) {
    if (!n) return "no images in this split";
    const [low, high] = wilson(hits, n);
    return `${hits} of ${n} = ${((100 * hits) / n).toFixed(1)} % (${low.toFixed(1)}–${high.toFixed(1)})`;
  }

  function classLines(c) {
    const group = data.groupWords[data.groups[c]].split(" ")[0];
    return [
      data.classes[c],
      `${data.train[c].toLocaleString("en")} training images (${group})`,
      ...data.contenders.map((k) => `${k.name}: ${countText(k.hits[c], data.samples[c])}`),
    ];
  }

  // ---- drawing

  const SVG = byId("drawing").namespaceURI;

  function svg(parent, name, attributes = {}, text = null) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  }

  /** An empty drawing of that size in the place of whatever is in the box. */
  function canvas(box, width, height) {
    box.replaceChildren();
    return svg(box, "svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  }

  const cross = (x, y, r) => `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
  const circle = (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;

  const tip = byId("tip");
  function showTip(lines, x, y) {
    tip.replaceChildren(...lines.map((line, i) => {
      const element = document.createElement(i ? "span" : "b");
      element.textContent = line;
      return element;
    }));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 14 + width > innerWidth ? x - width - 14 : x + 14;
    const top = y + 14 + height > innerHeight ? y - height - 14 : y + 14;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }
  const hideTip = () => { tip.hidden = true; };

  /** Show lines under the pointer; after a touch they stay until the next one, or a scroll. */
  function onPoint(element, lines, left = () => {}) {
    const show = (event) => {
      const found = lines(event);
      if (found) showTip(found, event.clientX, event.clientY);
      else hideTip();
    };
    element.addEventListener("pointermove", show);
    element.addEventListener("pointerdown", show);
    element.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "touch") return;
      left();
      hideTip();
    });
  }
  addEventListener("scroll", hideTip, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  /** Draw now, and again whenever the box gets another width. */
  function drawn(box, draw) {
    let width = 0;
    new ResizeObserver(() => {
      const now = Math.floor(box.clientWidth);
      if (now && now !== width) { width = now; draw(); }
    }).observe(box);
  }

  // ---- every class: one panel for each classifier above one axis

  const chart = byId("recalls");
  const view = { order: all, found: null, at: -1, place: null };
  const PANEL = 128, TITLE = 40, FOOT = 14, LEFT = 34, SLANTED = 100, UPRIGHT = 24, LETTERS = 18;

  const compare = (key) => (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return x < y ? -1 : x > y ? 1 : a - b;
  };
  const ORDERS = {
    train: (c) => -data.train[c],
    old: (c) => recall(old.hits, c),
    after: (c) => recall(after.hits, c),
    gain: (c) => (change(c) === null ? null : -change(c)),
    loss: change,
    name: (c) => data.classes[c].toLowerCase(),
  };

  const shortened = (name, most = LETTERS) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

  function drawRecalls() {
    const step = Math.max(3, (chart.clientWidth - LEFT - 4) / nClasses);
    const width = Math.max(chart.clientWidth, LEFT + 4 + Math.ceil(step * nClasses));
    const named = step >= 9, upright = step >= 70, NAMES = upright ? UPRIGHT : SLANTED;
    const panels = data.contenders.length;
    const height = panels * (PANEL + TITLE + FOOT) + (named ? NAMES : 8);
    const root = canvas(chart, width, height);
    const top = (k) => k * (PANEL + TITLE + FOOT) + TITLE;
    const x = (i) => LEFT + i * step;
    const y = (k, r) => top(k) + PANEL * (1 - r / 100);
    const shades = svg(root, "g");
    data.contenders.forEach((k, p) => drawPanel(root, k, { p, x, y, step, width, top }));
    if (byId("order").value === "train") shadeGroups(shades, svg(root, "g"), x, top, panels);
    if (named) {
      view.order.forEach((c, i) => svg(root, "text", {
        ...(upright ? { x: x(i) + step / 2, y: height - 6, "text-anchor": "middle" } : {
          class: "tiny", "text-anchor": "end",
          transform: `translate(${x(i) + step / 2 + 3} ${height - NAMES + 4}) rotate(-90)`,
        }),
        opacity: view.found && !view.found.has(c) ? 0.25 : 1,
      }, upright ? shortened(data.classes[c], Math.floor(step / 7)) : shortened(data.classes[c])));
    }
    const cursor = svg(root, "g");
    view.place = { root, cursor, x, y, step, top, height, width };
    drawCursor();
  }

  function drawPanel(root, k, { p, x, y, step, width, top }) {
    for (const r of [0, 50, 100]) {
      svg(root, "line", { class: r ? "axis" : "base", x1: LEFT, x2: width, y1: y(p, r), y2: y(p, r) });
      svg(root, "text", { class: "soft", x: LEFT - 5, y: y(p, r) + 4, "text-anchor": "end" }, r);
    }
    // Under 640 pixels only the name fits beside the axis.
    svg(root, "text", { class: "title", x: LEFT, y: top(p) - 24 }, chart.clientWidth < 640 ? k.name : `${k.name}: ${k.summary}`);
    const paths = { bars: "", faded: "", crosses: "", others: "", rings: "" };
    const gap = step > 5 ? 0.16 * step : 0;
    view.order.forEach((c, i) => {
      const r = recall(k.hits, c), middle = x(i) + step / 2, size = Math.min(3.5, Math.max(1.5, step / 2.6));
      const away = view.found !== null && !view.found.has(c);
      if (r === null) paths.rings += circle(middle, y(p, 0) + 7, size);
      else if (r === 0) paths[away ? "others" : "crosses"] += cross(middle, y(p, 0) + 7, size);
      else paths[away ? "faded" : "bars"] +=
        `M${x(i) + gap} ${y(p, 0)}V${y(p, r)}h${step - 2 * gap}V${y(p, 0)}z`;
    });
    svg(root, "path", { class: `bar-${k.key}`, d: paths.bars });
    svg(root, "path", { class: `bar-${k.key} faded`, d: paths.faded });
    svg(root, "path", { class: "crosses", d: paths.crosses });
    svg(root, "path", { class: "crosses faded", d: paths.others });
    svg(root, "path", { class: "rings", d: paths.rings });
  }

  function shadeGroups(shades, labels, x, top, panels) {
    data.groupWords.forEach((words, g) => {
      const places = view.order.flatMap((c, i) => (data.groups[c] === g ? [i] : []));
      if (!places.length) return;
      const [from, to] = [x(places[0]), x(places[places.length - 1] + 1)];
      for (let p = 0; p < panels; p += 1) {
        if (g === 1) svg(shades, "rect", { class: "shade", x: from, width: to - from, y: top(p) - 20, height: PANEL + 20 });
        const recalls = places.map((i) => recall(data.contenders[p].hits, view.order[i])).filter((r) => r !== null);
        if (!recalls.length) continue;
        const mean = recalls.reduce((sum, r) => sum + r, 0) / recalls.length;
        const short = words.split(" ")[0];
        const label = to - from > 150 ? `${short}: mean ${mean.toFixed(1)} %` : to - from > 60 ? short : "";
        svg(labels, "text", { class: "soft", x: (from + to) / 2, y: top(p) - 6, "text-anchor": "middle" }, label);
      }
    });
  }

  function drawCursor() {
    const { cursor, x, y, step, top, height } = view.place;
    cursor.replaceChildren();
    if (view.at < 0) return;
    const c = view.order[view.at], middle = x(view.at) + step / 2;
    svg(cursor, "rect", { class: "cursor", x: x(view.at), width: step, y: 0, height });
    data.contenders.forEach((k, p) => {
      if (!data.samples[c]) return;
      const [low, high] = wilson(k.hits[c], data.samples[c]);
      svg(cursor, "path", { class: "whisker", d: `M${middle} ${y(p, low)}V${y(p, high)}M${middle - 4} ${y(p, low)}h8M${middle - 4} ${y(p, high)}h8` });
      svg(cursor, "text", { class: "title", x: Math.max(LEFT + 14, middle), y: Math.max(top(p) - 6, y(p, high) - 5), "text-anchor": "middle" }, one(recall(k.hits, c)));
    });
  }

  function pointAt(i, spoken) {
    view.at = i;
    drawCursor();
    for (const row of document.querySelectorAll("#table tr.at")) row.classList.remove("at");
    if (i < 0) return;
    rows[view.order[i]].classList.add("at");
    if (spoken) byId("live").textContent = classLines(view.order[i]).join(". ");
  }

  onPoint(chart, (event) => {
    const { root, x, step } = view.place;
    const i = Math.floor((event.clientX - root.getBoundingClientRect().left - x(0)) / step);
    const inside = i >= 0 && i < nClasses;
    pointAt(inside ? i : -1, false);
    return inside ? classLines(view.order[i]) : null;
  }, () => pointAt(-1, false));
  chart.addEventListener("click", () => {
    if (view.at < 0) return;
    const table = byId("table").parentElement, row = rows[view.order[view.at]];
    table.scrollTo({ top: row.offsetTop - table.clientHeight / 2 });
  });
  chart.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -nClasses, End: nClasses }[event.key];
    if (!by) return;
    event.preventDefault();
    const i = Math.max(0, Math.min(nClasses - 1, (view.at < 0 && by > 0 ? -1 : view.at) + by));
    pointAt(i, true);
    const { x, root } = view.place, box = chart.getBoundingClientRect();
    if (chart.scrollWidth > chart.clientWidth) chart.scrollLeft = x(i) - chart.clientWidth / 2;
    showTip(classLines(view.order[i]), root.getBoundingClientRect().left + x(i), Math.max(8, box.top + 30));
  });
  chart.addEventListener("blur", () => { pointAt(-1, false); hideTip(); });

  // ---- the table: sorted by its headings, searched together with the chart

  const body = byId("table").tBodies[0];
  const rows = [];
  for (const row of body.rows) rows[Number(row.dataset.class)] = row;
  const KEYS = {
    name: ORDERS.name, train: (c) => data.train[c], change,
    ...Object.fromEntries(data.contenders.map((k, i) => [`k${i}`, (c) => recall(k.hits, c)])),
  };
  const headings = [...byId("table").tHead.querySelectorAll("button")];

  function sortTable(button) {
    const heading = button.parentElement;
    const words = button.dataset.sort === "name";
    const now = heading.getAttribute("aria-sort");
    const rising = now === "none" ? words || button.dataset.sort !== "train" : now === "descending";
    for (const other of headings) other.parentElement.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = KEYS[button.dataset.sort];
    const order = [...all].sort(compare(key));
    // Classes without a value stay at the end, whichever way.
    const [full, empty] = [order.filter((c) => key(c) !== null), order.filter((c) => key(c) === null)];
    if (!rising) full.reverse();
    body.append(...[...full, ...empty].map((c) => rows[c]));
  }
  for (const button of headings) button.addEventListener("click", () => sortTable(button));

  function search() {
    const words = byId("find").value.trim().toLowerCase();
    const groupOf = (c) => data.groupWords[data.groups[c]].split(" ")[0];
    const fits = (c) => data.classes[c].toLowerCase().includes(words) || groupOf(c) === words;
    view.found = words ? new Set(all.filter(fits)) : null;
    for (const c of all) rows[c].hidden = view.found !== null && !view.found.has(c);
    byId("found").textContent = words ? `${view.found.size} of ${nClasses} classes` : "";
    drawRecalls();
  }
  byId("find").addEventListener("input", search);

  function reorder() {
    view.order = [...all].sort(compare(ORDERS[byId("order").value]));
    view.at = -1;
    drawRecalls();
  }
  byId("order").addEventListener("change", reorder);

  // ---- before and after, side by side for a few classes

  const FEW = 24, SHOWN = 10;

  function pairLists() {
    const scored = all.filter((c) => data.samples[c]);
    if (scored.length <= FEW) return [["All classes, most training images first", [...scored].sort(compare(ORDERS.train))]];
    const worst = [...scored].sort(compare(ORDERS.old)).slice(0, SHOWN);
    const losers = [...scored].sort(compare(ORDERS.loss)).filter((c) => change(c) < 0).slice(0, SHOWN);
    return [
      [`The ${worst.length} lowest classes before`, worst.sort(compare(ORDERS.train))],
      [`The ${losers.length} classes that lost most`, losers.sort(compare(ORDERS.loss))],
    ].filter(([, classes]) => classes.length);
  }

  function drawPairs(box, classes) {
    const shown = data.contenders, BAR = 11, HEAD = 19, GAP = 8, RIGHT = 46;
    const each = HEAD + shown.length * BAR + GAP, foot = 20;
    const width = box.clientWidth, height = classes.length * each + foot;
    const root = canvas(box, width, height);
    const x = (r) => 2 + ((width - RIGHT) * r) / 100;
    for (const r of [0, 25, 50, 75, 100]) {
      svg(root, "line", { class: r ? "axis" : "base", x1: x(r), x2: x(r), y1: 0, y2: height - foot });
      svg(root, "text", { class: "soft", x: x(r), y: height - 5, "text-anchor": r ? "middle" : "start" }, r === 100 ? "100 %" : r);
    }
    classes.forEach((c, i) => {
      const y = i * each;
      const label = svg(root, "text", { x: 5, y: y + 14 }, data.classes[c]);
      svg(label, "tspan", { fill: "var(--soft)" }, `  ${data.train[c].toLocaleString("en")} training images`);
      shown.forEach((k, j) => drawBar(root, k, c, x, y + HEAD + j * BAR, BAR - 2));
      const area = svg(root, "rect", { x: 0, y, width, height: each, fill: "transparent" });
      onPoint(area, () => classLines(c));
    });
  }

  /** One horizontal bar with its interval; the old head's is an outline with stripes, not a fill. */
  function drawBar(root, k, c, x, y, height) {
    const r = recall(k.hits, c), [low, high] = wilson(k.hits[c], data.samples[c]), middle = y + height / 2;
    if (r > 0) {
      const [from, to] = [x(0), x(r)];
      svg(root, "rect", { class: k.key === "old" ? "outline" : `bar-${k.key}`, x: from, y, width: to - from, height });
      if (k.key === "old") {
        let stripes = "";
        for (let s = from + 4; s < to - 1; s += 5) stripes += `M${s} ${y}v${height}`;
        svg(root, "path", { class: "hatch", d: stripes });
      }
    } else svg(root, "path", { class: "crosses", d: cross(x(0) + 6, middle, 3) });
    svg(root, "path", { class: "whisker light", d: `M${x(low)} ${middle}H${x(high)}` });
    svg(root, "text", { x: x(Math.max(high, r)) + 5, y: middle + 4, style: "font-size:11px" }, one(r));
  }

  for (const [heading, classes] of pairLists()) {
    const part = document.createElement("div"), title = document.createElement("h3"), box = document.createElement("div");
    title.textContent = heading;
    box.className = "chart";
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `${heading}: ${classes.map((c) => `${data.classes[c]} ${data.contenders.map((k) => `${k.name} ${one(recall(k.hits, c))}`).join(", ")}`).join("; ")}`);
    part.append(title, box);
    byId("pairs").append(part);
    drawn(box, () => drawPairs(box, classes));
  }
  const key = document.createElement("p");
  key.className = "legend";
  key.textContent = `Each class from above: ${data.contenders.map((k) => k.name + (k.key === "old" ? " (striped)" : "")).join(", ")}. A cross is a recall of zero.`;
  byId("pairs").after(key);

  // ---- groups: each class as a dot

  const strips = byId("strips");

  function drawStrips() {
    const ROW = 26, HEAD = 24, RIGHT = 12, width = strips.clientWidth, narrow = width < 560, left = narrow ? 8 : 96;
    const groups = [0, 1, 2].filter((g) => all.some((c) => data.groups[c] === g && data.samples[c]));
    const each = HEAD + data.contenders.length * (ROW + (narrow ? 13 : 0)) + 8;
    const height = groups.length * each + 22;
    const root = canvas(strips, width, height);
    const x = (r) => left + ((width - left - RIGHT) * r) / 100;
    for (const r of [0, 25, 50, 75, 100]) {
      svg(root, "line", { class: "axis", x1: x(r), x2: x(r), y1: HEAD, y2: height - 22 });
      svg(root, "text", { class: "soft", x: x(r), y: height - 6, "text-anchor": r === 100 ? "end" : r ? "middle" : "start" }, r === 100 ? "100 %" : r);
    }
    groups.forEach((g, i) => {
      svg(root, "text", { class: "title", x: narrow ? left : 0, y: i * each + 15 }, data.groupWords[g]);
      data.contenders.forEach((k, j) => {
        const y = i * each + HEAD + j * (ROW + (narrow ? 13 : 0)) + (narrow ? 13 : 0);
        svg(root, "text", narrow ? { class: "soft", x: left, y: y + 1 } : { class: "soft", x: left - 10, y: y + ROW / 2 + 4, "text-anchor": "end" }, k.name);
        drawStrip(root, k, g, x, y, ROW);
      });
    });
  }

  function drawStrip(root, k, g, x, y, height) {
    const classes = all.filter((c) => data.groups[c] === g && data.samples[c]);
    let sum = 0;
    for (const c of classes) {
      const r = recall(k.hits, c);
      sum += r;
      // The golden ratio spreads neighbours apart, the same way each time.
      const at = y + 5 + (height - 10) * ((c * 0.618034) % 1);
      const dot = r ? svg(root, "circle", { class: `dot-${k.key}`, cx: x(r), cy: at, r: 3.2, opacity: 0.75 })
        : svg(root, "path", { class: "crosses", d: cross(x(0), at, 3) });
      onPoint(dot, () => classLines(c));
    }
    const mean = sum / classes.length;
    svg(root, "line", { x1: x(mean), x2: x(mean), y1: y + 1, y2: y + height - 1, stroke: "var(--ink)", "stroke-width": 3 });
  }
  drawn(strips, drawStrips);

  // ---- the temperature plane

  const CIVIDIS = ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"]
    .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

  function colour(share) {
    const place = Math.max(0, Math.min(1, share)) * (CIVIDIS.length - 1), i = Math.min(CIVIDIS.length - 2, Math.floor(place));
    return CIVIDIS[i].map((v, j) => Math.round(v + (place - i) * (CIVIDIS[i + 1][j] - v)));
  }

  function startPlane(plane) {
    const map = byId("map"), nOld = plane.tOld.length, nNew = plane.tNew.length;
    const nearest = (grid, t) => grid.reduce((best, value, i) =>
      (Math.abs(Math.log(value / t)) < Math.abs(Math.log(grid[best] / t)) ? i : best), 0);
    const cellOf = ([tOld, tNew]) => ({ i: nearest(plane.tOld, tOld), j: nearest(plane.tNew, tNew) });
    const state = { metric: plane.metrics[0], at: cellOf(plane.used), pinned: cellOf(plane.used), place: null };
    const hits = plane.hits && unpack(plane.hits, nOld * nNew * nClasses);
    for (const metric of plane.metrics) byId("metric").append(new Option(metric.label, metric.name));
    byId("metric").addEventListener("change", () => {
      state.metric = plane.metrics[byId("metric").selectedIndex];
      drawMap();
      describe(false);
    });

    /** Whole words for a temperature that lies in the grid; else the nearest cell's. */
    const isOne = (grid) => grid.some((t) => t === 1);

    function heat() {
      const picture = document.createElement("canvas");
      [picture.width, picture.height] = [nNew, nOld];
      const context = picture.getContext("2d"), pixels = context.createImageData(nNew, nOld);
      const values = state.metric.values, known = values.filter((v) => v !== null);
      const [low, high] = [Math.min(...known), Math.max(...known)];
      values.forEach((value, n) => {
        const [i, j] = [Math.floor(n / nNew), n % nNew];
        const rgb = value === null ? [128, 128, 128] : colour(high > low ? (value - low) / (high - low) : 0.5);
        pixels.data.set([...rgb, 255], 4 * ((nOld - 1 - i) * nNew + j));
      });
      context.putImageData(pixels, 0, 0);
      return { uri: picture.toDataURL(), low, high };
    }

    function drawMap() {
      const left = 52, bottom = 46, top = 34, width = Math.min(544, map.clientWidth), side = width - left - 8;
      const root = canvas(map, width, top + side + bottom);
      const { uri, low, high } = heat();
      const [dx, dy] = [side / nNew, side / nOld];
      const x = (j) => left + (j + 0.5) * dx, y = (i) => top + side - (i + 0.5) * dy;
      svg(root, "image", { href: uri, x: left, y: top, width: side, height: side, preserveAspectRatio: "none", style: "image-rendering:pixelated" });
      ticks(plane.tNew, side / 42, (j, text) => svg(root, "text", { class: "soft", x: x(j), y: top + side + 16, "text-anchor": "middle" }, text));
      ticks(plane.tOld, side / 28, (i, text) => svg(root, "text", { class: "soft", x: left - 6, y: y(i) + 4, "text-anchor": "end" }, text));
      svg(root, "text", { x: left + side / 2, y: top + side + 38, "text-anchor": "middle" }, "temperature of the new head");
      svg(root, "text", { transform: `translate(13 ${top + side / 2}) rotate(-90)`, "text-anchor": "middle" }, "temperature of the old head");
      drawScale(root, left, side, low, high);
      if (plane.noise) drawRegion(root, left, top, side, dx, dy);
      if (isOne(plane.tOld) && isOne(plane.tNew)) drawMark(root, cellOf([1, 1]), x, y, "plus");
      if (plane.chosenOn !== null) drawMark(root, cellOf(plane.chosen), x, y, "star");
      const cursor = svg(root, "g");
      state.place = { root, cursor, x, y, dx, dy, left, top, side };
      drawCell();
    }

    /** The border of the cells within the noise of the best one. */
    function drawRegion(root, left, top, side, dx, dy) {
      const inside = (i, j) => i >= 0 && j >= 0 && i < nOld && j < nNew && plane.noise[i * nNew + j] === 1;
      let path = "";
      for (let i = 0; i < nOld; i += 1) {
        for (let j = 0; j < nNew; j += 1) {
          if (!inside(i, j)) continue;
          const [x, y] = [left + j * dx, top + side - (i + 1) * dy];
          if (!inside(i + 1, j)) path += `M${x} ${y}h${dx}`;
          if (!inside(i - 1, j)) path += `M${x} ${y + dy}h${dx}`;
          if (!inside(i, j - 1)) path += `M${x} ${y}v${dy}`;
          if (!inside(i, j + 1)) path += `M${x + dx} ${y}v${dy}`;
        }
      }
      svg(root, "path", { class: "mark-halo region", d: path });
      svg(root, "path", { class: "mark-line region", d: path });
    }

    function drawScale(root, left, side, low, high) {
      const steps = 40, length = side / 2, ends = (value) => value.toFixed(state.metric.whole ? 0 : 1);
      for (let s = 0; s < steps; s += 1) {
        svg(root, "rect", { x: left + side / 4 + (s * length) / steps, y: 8, width: length / steps + 0.5, height: 10, fill: `rgb(${colour(s / (steps - 1))})` });
      }
      svg(root, "text", { class: "soft", x: left + side / 4 - 6, y: 17, "text-anchor": "end" }, ends(low));
      svg(root, "text", { class: "soft", x: left + (3 * side) / 4 + 6, y: 17 }, ends(high));
    }

    function drawMark(root, { i, j }, x, y, kind) {
      const [cx, cy] = [x(j), y(i)];
      let path = `M${cx - 6} ${cy}h12M${cx} ${cy - 6}v12`;
      if (kind === "star") {
        path = Array.from({ length: 10 }, (_, n) => {
          const r = n % 2 ? 3.6 : 8.5, a = (Math.PI * n) / 5 - Math.PI / 2;
          return `${n ? "L" : "M"}${(cx + r * Math.cos(a)).toFixed(1)} ${(cy + r * Math.sin(a)).toFixed(1)}`;
        }).join("") + "z";
      }
      svg(root, "path", { class: "mark-halo", d: path });
      svg(root, "path", { class: "mark-line", d: path });
    }

    /** Labels at powers of two where the grid has them, else at evenly spaced cells. */
    function ticks(grid, most, label) {
      const powers = grid.flatMap((t, i) => (Math.abs(Math.log2(t) % 1) < 1e-9 ? [i] : []));
      const few = grid.length <= most, places = few ? grid.map((_, i) => i) : powers.length > 1 ? powers : grid.map((_, i) => i);
      const every = Math.max(1, Math.ceil(places.length / most));
      places.forEach((i, n) => { if (n % every === 0) label(i, temperature(grid[i])); });
    }

    function drawCell() {
      const { cursor, left, top, side, dx, dy } = state.place;
      cursor.replaceChildren();
      const box = ({ i, j }, grow) => ({ x: left + j * dx - grow, y: top + side - (i + 1) * dy - grow, width: dx + 2 * grow, height: dy + 2 * grow });
      svg(cursor, "rect", { class: "mark-halo", ...box(state.at, 1) });
      svg(cursor, "rect", { class: "mark-line", ...box(state.at, 1) });
    }

    function describe(spoken) {
      const { i, j } = state.at, n = i * nNew + j;
      const names = [];
      if (plane.chosenOn !== null && same(cellOf(plane.chosen), state.at)) names.push(`chosen on ${plane.chosenOn}`);
      if (plane.tOld[i] === 1 && plane.tNew[j] === 1) names.push("the paper’s default");
      byId("cell-h").textContent = `Old ${temperature(plane.tOld[i])}, new ${temperature(plane.tNew[j])}${names.length ? ` (${names.join(", ")})` : ""}`;
      const lines = [...plane.metrics.map((m) => [m.label, m.whole ? String(m.values[n]) : one(m.values[n])]), ["Lowest class", data.classes[plane.lowestClass[n]]]];
      byId("cell").replaceChildren(...lines.map(([term, value]) => {
        const line = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
        [dt.textContent, dd.textContent] = [term, value];
        line.append(dt, dd);
        return line;
      }));
      if (spoken) byId("cell-live").textContent = `${byId("cell-h").textContent}. ${lines.map((l) => l.join(" ")).join(", ")}`;
    }
    const same = (a, b) => a.i === b.i && a.j === b.j;

    function move(cell, spoken) {
      state.at = cell;
      drawCell();
      describe(spoken);
    }

    function under(event) {
      const { root, left, top, side, dx, dy } = state.place, box = root.getBoundingClientRect();
      const j = Math.floor((event.clientX - box.left - left) / dx), i = Math.floor((top + side - (event.clientY - box.top)) / dy);
      return i >= 0 && i < nOld && j >= 0 && j < nNew ? { i, j } : null;
    }

    map.addEventListener("pointermove", (event) => { const cell = under(event); if (cell) move(cell, false); });
    map.addEventListener("pointerleave", () => move(state.pinned, false));
    map.addEventListener("click", (event) => { const cell = under(event); if (cell) pin(cell); });
    map.addEventListener("keydown", (event) => {
      const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, 0], ArrowDown: [-1, 0] }[event.key];
      if (by) {
        const cell = { i: Math.max(0, Math.min(nOld - 1, state.at.i + by[0])), j: Math.max(0, Math.min(nNew - 1, state.at.j + by[1])) };
        move(cell, true);
      } else if (event.key === "Enter" || event.key === " ") pin(state.at);
      else return;
      event.preventDefault();
    });

    function pin(cell) {
      state.pinned = cell;
      move(cell, true);
      showClasses();
    }

    /** The recall of every class in the pinned cell, over those of the cell in use. */
    function showClasses() {
      if (!hits) return;
      const { i, j } = state.pinned, at = hits.slice((i * nNew + j) * nClasses, (i * nNew + j + 1) * nClasses);
      const used = cellOf(plane.used), base = hits.slice((used.i * nNew + used.j) * nClasses, (used.i * nNew + used.j + 1) * nClasses);
      byId("cell-classes").hidden = false;
      byId("cell-classes-h").textContent = `Every class at old ${temperature(plane.tOld[i])}, new ${temperature(plane.tNew[j])}, on the ${plane.split} split`;
      const box = byId("cell-chart"), order = [...all].sort(compare(ORDERS.train)), samples = plane.hits.samples;
      const step = Math.max(3, (box.clientWidth - LEFT - 4) / nClasses), width = LEFT + 4 + step * nClasses, height = 160;
      const root = canvas(box, width, height), y = (r) => 12 + 128 * (1 - r / 100), x = (n) => LEFT + n * step;
      for (const r of [0, 50, 100]) {
        svg(root, "line", { class: r ? "axis" : "base", x1: LEFT, x2: width, y1: y(r), y2: y(r) });
        svg(root, "text", { class: "soft", x: LEFT - 5, y: y(r) + 4, "text-anchor": "end" }, r);
      }
      const paths = { bars: "", crosses: "", marks: "" };
      order.forEach((c, n) => {
        const r = recall(at, c, samples), b = recall(base, c, samples);
        if (r === 0) paths.crosses += cross(x(n) + step / 2, y(0) + 7, Math.min(3.5, step / 2.6));
        else if (r !== null) paths.bars += `M${x(n) + 0.1 * step} ${y(0)}V${y(r)}h${0.8 * step}V${y(0)}z`;
        if (b !== null) paths.marks += `M${x(n)} ${y(b)}h${step}`;
      });
      svg(root, "path", { class: "bar-ensemble", d: paths.bars });
      svg(root, "path", { class: "crosses", d: paths.crosses });
      svg(root, "path", { class: "whisker", d: paths.marks });
      onPoint(root, (event) => {
        const c = order[Math.floor((event.clientX - root.getBoundingClientRect().left - LEFT) / step)];
        if (c === undefined) return null;
        return [data.classes[c], `This cell: ${countText(at[c], samples[c])}`, `Cell in use: ${countText(base[c], samples[c])}`];
      });
      const worst = order.filter((c) => samples[c]).sort(compare((c) => recall(at, c, samples))).slice(0, 5);
      byId("cell-worst").textContent = `Most training images first; the short lines are the cell in use (old ${temperature(plane.tOld[used.i])}, new ${temperature(plane.tNew[used.j])}). Lowest here: ${worst.map((c) => `${data.classes[c]} ${one(recall(at, c, samples))}`).join(", ")}.`;
    }

    const legend = document.createElement("p");
    legend.className = "legend";
    const parts = [];
    if (isOne(plane.tOld) && isOne(plane.tNew)) parts.push("+ both temperatures 1");
    if (plane.chosenOn !== null) parts.push("☆ chosen");
    if (plane.noise) parts.push("line: within the noise of the best");
    parts.push(hits ? "Click a cell, or press Enter, to see its classes." : "The recalls of single cells would be too large for this page.");
    legend.textContent = parts.join(" · ");
    map.after(legend);
    drawn(map, () => { drawMap(); describe(false); showClasses(); });
  }

  /** Numbers from base64: single bytes, or little-endian groups of four. */
  function unpack({ bytes, width }, length) {
    const raw = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
    if (width === 1) return raw;
    const shown = new DataView(raw.buffer);
    return Uint32Array.from({ length }, (_, i) => shown.getUint32(4 * i, true));
  }

  // ---- light and dark, and the start

  const dark = matchMedia("(prefers-color-scheme: dark)"), button = byId("theme");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const nameButton = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameButton();
  });
  dark.addEventListener("change", nameButton);
  button.hidden = false;
  nameButton();
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });

  view.order = [...all].sort(compare(ORDERS.train));
  drawn(chart, drawRecalls);
  if (data.plane) startPlane(data.plane);
  document.documentElement.dataset.ready = "yes";
})();
