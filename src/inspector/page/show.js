// Elements, text, times and charts. Whatever comes from outside becomes text nodes, never markup.

export const get = (id) => document.getElementById(id);

/** An element with a class, properties and children; strings become text. */
export function make(tag, { class: name, on, data, ...properties } = {}, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const [event, act] of Object.entries(on ?? {})) element.addEventListener(event, act);
  Object.assign(element.dataset, data);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Changes a text only if it differs, which spares the browser a layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

const escape = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** Text with control characters and direction marks written as escapes. */
export const readable = (text) =>
  String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, escape);

/** JSON with invisible characters and direction marks written as escapes. */
export const json = (value) =>
  JSON.stringify(value, null, 2).replace(/[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, escape);

/** Text from outside, isolated so that its direction does not affect its neighbours. */
export const foreign = (text, name = "") => make("bdi", { class: name, dir: "auto" }, readable(text));

const pad = (number, width = 2) => String(number).padStart(width, "0");

/** 14:03:22, with the date unless it is today. */
export function clock(time) {
  const date = new Date(time);
  const hours = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return date.toDateString() === new Date().toDateString()
    ? hours
    : `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${hours}`;
}

/** 1:24, or 1:02:03. */
export function length(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0
    ? `${hours}:${pad(minutes)}:${pad(seconds % 60)}`
    : `${minutes}:${pad(seconds % 60)}`;
}

/** 850 ms, 3.2 s, 4 min, 2 h. */
export function span(ms) {
  if (ms < 1) return "<1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

export function rate(value) {
  return value >= 9.95 || value === 0 ? String(Math.round(value)) : value.toFixed(1);
}

export const whole = (number) => number.toLocaleString("en");

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 40;

/** A line over a filled area, of up to five minutes; the width stands for at least one minute. */
export function chart(svg, values) {
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const name of ["area", "line"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      path.setAttribute("vector-effect", "non-scaling-stroke");
      svg.append(path);
    }
  }
  const most = Math.max(1, ...values);
  const step = WIDTH / Math.max(60, values.length);
  const points = values.map((value, index) => {
    const x = WIDTH - (values.length - 1 - index) * step;
    return `${x.toFixed(1)} ${(HEIGHT - 1 - (value / most) * (HEIGHT - 4)).toFixed(1)}`;
  });
  const [area, line] = svg.children;
  const path = points.length > 0 ? `M${points.join("L")}` : "";
  line.setAttribute("d", path);
  const left = (WIDTH - (values.length - 1) * step).toFixed(1);
  area.setAttribute("d", path && `${path}L${WIDTH} ${HEIGHT}L${left} ${HEIGHT}Z`);
}

/** Offers these names in a select, and one for all of them; changes nothing that is as it should be. */
export function choices(select, all, names, chosen) {
  const offered = [...select.options].slice(1).map(({ value }) => value);
  if (select.options.length === 0 || offered.join() !== names.join()) {
    select.replaceChildren(new Option(all, ""), ...names.map((name) => new Option(name, name)));
  }
  if (select.value !== chosen) select.value = chosen;
}

/** Shows a text for five seconds. */
export function toast(text, isBad = false) {
  const box = get("toast");
  box.textContent = readable(text);
  box.className = isBad ? "toast bad" : "toast";
  box.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { box.hidden = true; }, 5000);
}

/** Asks the user; resolves to whether they agree. */
export function confirmed(title, text, yes, isHarmful = false) {
  const dialog = get("confirm");
  setText(get("confirm-title"), title);
  setText(get("confirm-text"), text);
  setText(get("confirm-yes"), yes);
  get("confirm-yes").classList.toggle("harm", isHarmful);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => {
    get("confirm-yes").onclick = () => dialog.close("yes");
    get("confirm-no").onclick = () => dialog.close();
    dialog.onclose = () => answer(dialog.returnValue === "yes");
  });
}
