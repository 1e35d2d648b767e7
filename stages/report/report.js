"use strict";
// Sorting, the score curves and the viewer. The page says the same without it.

(() => {
  const { rows, sets, videos } = globalThis.REPORT;
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  document.documentElement.classList.remove("static");

  // ---- sorting: within each block of rows that are judged on the same frames; what is not known comes last
  for (const table of all("table.results:not(.plain)")) {
    for (const button of all("thead button", table)) {
      button.addEventListener("click", () => sort(table, button));
    }
  }

  function sort(table, button) {
    const { key, best } = button.dataset;
    const header = button.closest("th");
    const before = header.getAttribute("aria-sort");
    const first = best === "high" ? "descending" : "ascending";
    const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
    for (const other of all("thead [aria-sort]", table)) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", order);
    const text = key === "name" || key === "device";
    const value = (row) => {
      const found = one(key === "name" ? "th.name" : `td[data-key="${key}"]`, row).dataset.value;
      return text || found === "" ? found : Number(found);
    };
    const sign = order === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      const lines = all("tr:not(.about)", body).map((row) => [value(row), row]);
      lines.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (text ? a.localeCompare(b) : a - b);
      });
      body.append(...lines.map(([, row]) => row));
    }
  }

  // ---- the state of the score curves
  const state = { video: 0, protocol: "honest", set: sets[0] ?? "", frame: 0, same: false, hidden: new Set() };
  const chart = one("#chart");
  const GAP = 65535;
  let drawing = null; // what moving over the curves needs: see draw

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const html = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // 16 bits a value, low byte first, over the scale's range; not a number: not judged
  function unpacked(text, scale) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const range = scale.high - scale.low;
    return Float64Array.from(new Uint16Array(bytes.buffer), (value) =>
      value === GAP ? NaN : scale.low + (value / (GAP - 1)) * range);
  }

  // as many digits as 16 bits tell
  const digits = (scale) => clamp(Math.floor(-Math.log10((scale.high - scale.low) / 65534 || 1e-3)), 0, 3);
  const number = (value, scale) => value.toFixed(digits(scale)).replace("-", "−");
  const seconds = (time) => {
    const minutes = Math.floor(time / 60);
    return minutes ? `${minutes}:${(time - 60 * minutes).toFixed(2).padStart(5, "0")} min` : `${time.toFixed(2)} s`;
  };
  const overlaps = ([start, stop], others) => others.some(([a, b]) => start < b && a < stop);
  const inside = (frame, spans) => spans.some(([start, stop]) => start <= frame && frame < stop);

  // 1, 2 or 5 times a power of ten, about `count` of them
  function step(range, count) {
    const power = 10 ** Math.floor(Math.log10(range / count));
    return [1, 2, 5, 10].find((times) => (times * power * count) >= range) * power;
  }

  // a panel's axis: the video's own, or one for all its method's videos, which one that stands far out would flatten,
  // so it is linear up to `usual` and logarithmic beyond
  function axis(scale, values, bar) {
    const bend = state.same ? (value) => Math.asinh(value / scale.usual) : (value) => value;
    const known = state.same ? [scale.low, scale.high] : values.filter((value) => !Number.isNaN(value));
    const ends = bar === null ? known : [...known, bar];
    const low = ends.reduce((a, b) => Math.min(a, b), Infinity), high = ends.reduce((a, b) => Math.max(a, b), -Infinity);
    const height = (value) => (bend(value) - bend(low)) / (bend(high) - bend(low) || 1);
    const candidates = [];
    if (state.same) {
      for (let power = 10 ** Math.floor(Math.log10(scale.usual)); power <= 10 * Math.max(-low, high); power *= 10) {
        for (const times of [5, 2, 1]) candidates.unshift(times * power, -times * power);
      }
      candidates.unshift(0);
    }
    const apart = step(high - low || 1, 2);
    for (let tick = Math.ceil(low / apart) * apart; tick <= high; tick += apart) candidates.push(tick);
    const ticks = [];
    for (const value of candidates) {
      const far = ticks.every((other) => Math.abs(height(other) - height(value)) * PANEL >= 17);
      if (low <= value && value <= high && far) ticks.push(+value.toPrecision(6));
    }
    return { height, ticks };
  }

  const TITLE = 21, PANEL = 50, BELOW = 12, LEFT = 40, RIGHT = 6;

  function draw() {
    const video = videos[state.video];
    const truth = video.truth[state.set] ?? [];
    const width = chart.clientWidth;
    if (!width) return;
    const plot = width - LEFT - RIGHT;
    const x = (frame) => LEFT + (frame / video.frames) * plot;
    const shown = rows.filter((row) => video.rows[row.number] && !state.hidden.has(row.number));
    const height = shown.length * (TITLE + PANEL + BELOW);
    const whole = height + (video.fps ? 36 : 22);
    const picture = element("svg", { height: whole, viewBox: `0 0 ${width} ${whole}`, "aria-hidden": "true" });

    const hatch = element("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    hatch.append(element("line", { x1: 0, y1: 0, x2: 0, y2: 6, stroke: "var(--hatch)", "stroke-width": 1 }));
    picture.append(element("defs", {}, hatch));
    for (const [start, stop] of truth) {
      const place = { x: x(start), y: 0, width: x(stop) - x(start), height };
      picture.append(element("rect", { ...place, class: "shade" }), element("rect", { ...place, fill: "url(#hatch)" }));
      for (const edge of [start, stop]) {
        picture.append(element("line", { class: "truth-edge", x1: x(edge), x2: x(edge), y1: 0, y2: height }));
      }
    }

    const panels = shown.map((row, index) => {
      const scale = row.scales[state.protocol];
      const values = unpacked(video.rows[row.number][state.protocol], scale);
      const top = index * (TITLE + PANEL + BELOW) + TITLE;
      const bar = state.protocol === "honest" ? row.threshold : null;
      const { height: part, ticks } = axis(scale, values, bar);
      const y = (value) => top + PANEL - part(value) * PANEL;
      const panel = element("g", { class: row.style });
      for (const value of ticks) {
        const label = element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${value}`.replace("-", "−"));
        panel.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }), label);
      }
      panel.append(element("line", { class: "baseline", x1: LEFT, x2: width - RIGHT, y1: top + PANEL, y2: top + PANEL }));
      panel.append(element("path", { class: "line", d: outline(values, video.step, x, y) }));
      const auc = video.rows[row.number].auc[state.set]?.[state.protocol];
      const name = element("text", { class: "who halo", x: LEFT, y: top - 7 }, row.name);
      const more = [auc === undefined ? "" : `AUC ${(100 * auc).toFixed(1)}`, row.seed === null ? "" : `seed ${row.seed}`];
      if (bar !== null && plot > 560) more.push(`threshold ${number(bar, scale)}`);
      name.append(element("tspan", { dx: 8 }, more.filter(Boolean).join(", ")));
      panel.append(name);
      if (bar !== null) {
        const at = y(bar);
        panel.append(element("line", { class: "threshold", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
        for (const span of video.rows[row.number].alarms) {
          const vain = sets.length && !overlaps(span, truth);
          panel.append(element("rect", {
            class: vain ? "vain" : "hit", x: x(span[0]), width: Math.max(x(span[1]) - x(span[0]), 1.5), y: top + PANEL + 3, height: 5,
          }));
        }
      }
      const dot = element("circle", { class: "dot", r: 4, visibility: "hidden" });
      const now = element("text", { class: "now halo", x: width - RIGHT, y: top - 7, "text-anchor": "end" });
      panel.append(dot, now);
      picture.append(panel);
      return { row, scale, values, y, dot, now };
    });

    const apart = step(video.frames, Math.max(2, Math.floor(plot / 75)));
    for (let frame = 0; frame <= video.frames; frame += Math.max(1, apart)) {
      picture.append(element("line", { class: "baseline", x1: x(frame), x2: x(frame), y1: height, y2: height + 5 }));
      const anchor = x(frame) > width - 16 ? "end" : "middle";
      const at = anchor === "end" ? width : x(frame);
      const time = video.fps ? element("text", { x: at, y: height + 31, "text-anchor": anchor }, seconds(frame / video.fps).replace(/\.00| min/g, "")) : "";
      picture.append(element("text", { x: at, y: height + 17, "text-anchor": anchor }, frame ? `${frame}` : "frame 0"), time);
    }
    const cross = element("line", { class: "cross", y1: 0, y2: height, visibility: "hidden" });
    picture.append(cross);
    chart.replaceChildren(picture);
    drawing = { video, truth, panels, cross, x, plot };
    chart.setAttribute("aria-valuemax", video.frames - 1);
    keys(width, x);
    explain(shown, video);
    point(state.frame, false);
  }

  // a line through every value; with several frames a bin, from the lowest to the highest of each, so no peak is lost
  function outline(values, frames, x, y) {
    let path = "", open = false;
    const count = frames === 1 ? values.length : values.length / 2;
    for (let bin = 0; bin < count; bin += 1) {
      const low = frames === 1 ? values[bin] : values[2 * bin];
      if (Number.isNaN(low)) {
        open = false;
        continue;
      }
      const at = x((bin + 0.5) * frames).toFixed(1);
      path += `${open ? "L" : "M"}${at} ${y(low).toFixed(1)}`;
      if (frames > 1) path += `V${y(values[2 * bin + 1]).toFixed(1)}`;
      else if (!open && (bin + 1 === count || Number.isNaN(values[bin + 1]))) path += "h.1";
      open = true;
    }
    return path;
  }

  // what the scores are at a frame; `move`: someone points there
  function point(frame, move = true) {
    const { video, truth, panels, cross, x } = drawing;
    state.frame = clamp(Math.round(frame), 0, video.frames - 1);
    const at = x(state.frame + 0.5);
    const says = [`frame ${state.frame}`];
    if (video.fps) says.push(seconds(state.frame / video.fps));
    if (video.truth[state.set]) says.push(inside(state.frame, truth) ? "abnormal" : "normal");
    const scores = panels.map(({ row, scale, values, y, dot, now }) => {
      const bin = Math.floor(state.frame / video.step);
      const [low, high] = video.step === 1 ? [values[bin], values[bin]] : [values[2 * bin], values[2 * bin + 1]];
      const known = !Number.isNaN(high);
      const text = !known ? "not judged" : low === high ? number(high, scale) : `${number(low, scale)} to ${number(high, scale)}`;
      const alarm = state.protocol === "honest" && inside(state.frame, video.rows[row.number].alarms);
      now.textContent = move ? text + (alarm ? ", alarm" : "") : "";
      dot.setAttribute("visibility", move && known ? "visible" : "hidden");
      if (known) {
        dot.setAttribute("cx", at);
        dot.setAttribute("cy", y(high));
      }
      return `${row.name} ${text}${alarm ? ", alarm" : ""}`;
    });
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    cross.setAttribute("visibility", move ? "visible" : "hidden");
    one("#readout").textContent = move ? says.join(" · ") : "";
    chart.setAttribute("aria-valuenow", state.frame);
    chart.setAttribute("aria-valuetext", [...says, ...scores].join("; "));
    const near = video.keys.reduce((best, key) => Math.abs(key.frame - state.frame) < Math.abs(best - state.frame) ? key.frame : best, Infinity);
    for (const shot of all("#keys .shot")) shot.classList.toggle("now", move && Number(shot.dataset.frame) === near);
  }

  // the key frames under the curves, each with a line to its time
  function keys(width, x) {
    const video = videos[state.video];
    const room = one("#keys");
    const most = width < 560 ? 3 : Infinity;
    const even = video.keys.filter((key) => !key.highest);
    const kept = even.filter((_, index) => most >= even.length || index % Math.ceil(even.length / most) === 0);
    const found = video.keys.filter((key) => key.highest || kept.includes(key));
    if (!found.length) {
      room.replaceChildren();
      return;
    }
    const leaders = element("svg", { class: "leaders", height: 18, viewBox: `0 0 ${width} 18`, "aria-hidden": "true" });
    const thumbs = html("div", { class: "thumbs", "data-shots": "", style: `padding-left:${LEFT}px;padding-right:${RIGHT}px` });
    found.forEach((key, index) => {
      const middle = LEFT + ((index + 0.5) / found.length) * (width - LEFT - RIGHT);
      leaders.append(element("path", { d: `M${x(key.frame + 0.5)} 2V7L${middle} 14V18` }));
      const time = video.fps ? `, ${seconds(key.frame / video.fps)}` : "";
      const image = html("img", { src: key.source, width: key.width, height: key.height, alt: `frame ${key.frame} of ${video.name}` });
      const says = html("span", { class: "says" }, html("span", {}, `${key.frame}${time}`));
      if (key.highest) says.append(html("span", {}, html("b", {}, `▲ highest of ${key.highest}`)));
      const shot = html("a", { class: "shot", href: key.source, "data-frame": key.frame, "data-title": `${video.name}, frame ${key.frame}${time}` });
      shot.append(html("span", { class: "layers", style: `aspect-ratio:${key.width}/${key.height}` }, image), says);
      thumbs.append(shot);
    });
    room.replaceChildren(leaders, thumbs);
  }

  function explain(shown, video) {
    const sample = (...inner) => element("svg", { class: "sample", viewBox: "0 0 24 12", "aria-hidden": "true" }, ...inner);
    const parts = [`${video.name}: ${video.frames.toLocaleString("en")} frames`, video.fps ? ` at ${+video.fps.toFixed(2)} a second. ` : ", frames a second unknown. "];
    if (sets.length) {
      parts.push(sample(element("rect", { width: 24, height: 12, class: "shade" }), element("rect", { width: 24, height: 12, fill: "url(#hatch)" })), " abnormal. ");
    }
    if (state.protocol === "honest") {
      const line = element("line", { x1: 0, x2: 24, y1: 6, y2: 6, style: "stroke:var(--ink);stroke-dasharray:5 4" });
      parts.push(sample(line), " threshold from normal training scores. ");
      parts.push(sample(element("rect", { y: 3, width: 24, height: 6, style: "fill:var(--ink)" })), sets.length ? " alarm on an abnormal event, " : " alarm. ");
      if (sets.length) parts.push(sample(element("rect", { x: 1, y: 3, width: 22, height: 6, style: "fill:none;stroke:var(--warn);stroke-width:1.4" })), " false alarm. ");
      parts.push(`Heights do not compare between methods${state.same ? "; linear where most scores lie, logarithmic beyond" : ", nor between videos, but for what passes the threshold"}.`);
    } else parts.push("By the paper’s rule most methods stretch each video by itself, so heights compare neither between videos nor between methods; no threshold belongs to it.");
    if (video.step > 1) parts.push(` Drawn from the lowest to the highest of each ${video.step} frames.`);
    const absent = rows.filter((row) => !video.rows[row.number]).map((row) => row.name);
    if (absent.length) parts.push(` Not judged on this video: ${absent.join(", ")}.`);
    one("#explained").replaceChildren(...parts);
  }

  function choose(video) {
    state.video = clamp(video, 0, videos.length - 1);
    state.frame = 0;
    one("#video").value = state.video;
    one("#back").disabled = state.video === 0;
    one("#on").disabled = state.video === videos.length - 1;
    for (const card of all(".card")) card.setAttribute("aria-pressed", Number(card.dataset.video) === state.video);
    draw();
  }

  one("#back").addEventListener("click", () => choose(state.video - 1));
  one("#on").addEventListener("click", () => choose(state.video + 1));
  one("#video").addEventListener("change", (event) => choose(Number(event.target.value)));
  for (const card of all(".card")) card.addEventListener("click", () => choose(Number(card.dataset.video)));
  one("#same").addEventListener("change", (event) => {
    state.same = event.target.checked;
    draw();
  });
  for (const input of all("input[name=protocol]")) {
    input.addEventListener("change", () => {
      state.protocol = input.value;
      draw();
    });
  }
  for (const input of all("input[name=set]")) {
    input.addEventListener("change", () => {
      state.set = sets[Number(input.value)];
      draw();
    });
  }
  for (const row of rows.length > 1 ? rows : []) {
    const box = html("input", { type: "checkbox", checked: "", value: row.number });
    const swatch = element("svg", { class: `swatch ${row.style}`, viewBox: "0 0 28 8", "aria-hidden": "true" }, element("path", { class: "line", d: "M0 4H28" }));
    box.addEventListener("change", () => {
      if (box.checked) state.hidden.delete(row.number);
      else state.hidden.add(row.number);
      draw();
    });
    one("#toggles").append(html("label", {}, box, swatch, html("span", {}, row.name)));
  }

  const under = (event) => {
    const { video, plot } = drawing;
    return Math.floor(((event.clientX - chart.getBoundingClientRect().left - LEFT) / plot) * video.frames);
  };
  chart.addEventListener("pointermove", (event) => point(under(event)));
  chart.addEventListener("pointerdown", (event) => point(under(event)));
  chart.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && document.activeElement !== chart) point(state.frame, false);
  });
  chart.addEventListener("focus", () => point(state.frame));
  chart.addEventListener("blur", () => point(state.frame, false));
  chart.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 10 : 1;
    const last = videos[state.video].frames - 1;
    const to = {
      ArrowLeft: state.frame - far, ArrowDown: state.frame - far, ArrowRight: state.frame + far, ArrowUp: state.frame + far,
      PageDown: state.frame - 10, PageUp: state.frame + 10, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    point(to);
  });
  new ResizeObserver(() => {
    if (drawing === null || chart.clientWidth !== drawing.width) draw();
    drawing.width = chart.clientWidth;
  }).observe(chart);
  choose(0);

  // ---- the viewer
  const viewer = one("#viewer");
  let shots = [], current = 0;

  document.addEventListener("click", (event) => {
    const shot = event.target.closest("a.shot");
    if (!shot || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    shots = all("a.shot", shot.closest("[data-shots]"));
    show(shots.indexOf(shot));
    viewer.showModal();
    one("#viewer-close").focus();
  });

  function show(index) {
    current = clamp(index, 0, shots.length - 1);
    const shot = shots[current];
    const layers = one(".layers", shot).cloneNode(true);
    const image = one("img", layers);
    image.loading = "eager";
    layers.style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
    one("#viewer-picture").replaceChildren(layers);
    one("#viewer-title").textContent = shot.dataset.title;
    one("#viewer-says").replaceChildren(one(".says", shot).cloneNode(true));
    one("#viewer-back").disabled = current === 0;
    one("#viewer-on").disabled = current === shots.length - 1;
    one("#viewer-seen").hidden = !one(".seen", layers);
  }

  one("#viewer-back").addEventListener("click", () => show(current - 1));
  one("#viewer-on").addEventListener("click", () => show(current + 1));
  one("#viewer-close").addEventListener("click", () => viewer.close());
  one("#viewer-seen").addEventListener("click", (event) => {
    const bare = viewer.classList.toggle("unseen");
    event.currentTarget.setAttribute("aria-pressed", !bare);
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(current + by);
  });
  viewer.addEventListener("close", () => shots[current]?.focus());
})();
