// One call: its events in order, and how each reached the receiver.

import { ask } from "/api.js";
import { REASONS, lengthOf, parties, pillOf } from "/calls.js";
import { clock, foreign, get, json, make, readable, setText, span } from "/show.js";

const AT_MOST_EVERY = 400;
const STATES = {
  waiting: "waiting", delivered: "delivered", dead: "dead letter", deleted: "deleted", dropped: "not sent",
};

let uuid = null;
let shown = null;
let items = new Map();
let timer = null;

/** Shows this call, or none. */
export async function open(wanted) {
  if (wanted === uuid) return;
  uuid = wanted;
  [shown, items] = [null, new Map()];
  clearTimeout(timer);
  timer = null;
  get("detail-body").replaceChildren();
  get("detail-body").hidden = true;
  get("detail-empty").hidden = false;
  setText(get("detail-empty"), wanted
    ? "Loading …"
    : "Choose a call to see its events, every attempt, and what was sent.");
  if (wanted) await load();
}

/** The call that is shown has changed. Many changes in a short time are one fetch. */
export function refresh(failed) {
  if (!uuid || timer !== null) return;
  timer = setTimeout(() => {
    timer = null;
    load().catch(failed);
  }, AT_MOST_EVERY);
}

export const isShown = (call) => call === uuid;

/** Updates the length of a live call. */
export function tick() {
  const cell = get("detail-body").querySelector(".length");
  if (cell && shown?.state === "live") setText(cell, lengthOf(shown));
}

async function load() {
  const wanted = uuid;
  try {
    const call = await ask("GET", `/api/calls/${encodeURIComponent(wanted)}`);
    if (wanted !== uuid) return;
    call.heard = Date.now();
    shown = call;
    paint(call);
  } catch (error) {
    if (wanted !== uuid || shown) throw error;
    setText(get("detail-empty"), readable(error.message));
  }
}

function paint(call) {
  const body = get("detail-body");
  get("detail-empty").hidden = true;
  body.hidden = false;
  if (!body.firstChild) {
    body.append(make("div", { class: "head" }), make("p", { class: "omitted" }), make("ol", { class: "events" }));
  }
  const [head, omitted, list] = body.children;
  head.replaceChildren(...headOf(call));
  omitted.hidden = call.events_omitted === 0;
  setText(omitted, `${call.events_omitted} older events of this long call are not remembered.`);
  const begun = Date.parse(call.timeline[0]?.accepted_at ?? call.first_at);
  const seen = new Map();
  for (const item of call.timeline) {
    const key = `${item.id} ${item.accepted_at}`;
    const text = JSON.stringify(item);
    let known = items.get(key);
    if (known?.text !== text) {
      const element = eventOf(item, call, begun);
      const details = known?.element.querySelector("details");
      if (details?.open) element.querySelector("details").open = true;
      known?.element.replaceWith(element);
      known = { text, element };
    }
    seen.set(key, known);
  }
  for (const [key, { element }] of items) if (!seen.has(key)) element.remove();
  items = seen;
  [...seen.values()].forEach(({ element }, index) => {
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
}

function headOf(call) {
  const facts = [
    ["Began", clock(call.first_at)],
    ["Routed", call.routed_to ? foreign(call.routed_to) : "not by the receiver"],
    ["Audio", call.bridged ? "through callhook" : "elsewhere"],
  ];
  if (call.reason) facts.push(["Ended", REASONS[call.reason] ?? call.reason]);
  return [
    make("a", { class: "back", href: "#calls" }, "← All calls"),
    make("h1", {}, ...parties(call)),
    make("p", { class: "line" }, pillOf(call), make("span", { class: "length" }, lengthOf(call)),
      make("code", { class: "uuid" }, call.uuid)),
    make("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
  ];
}

function eventOf(item, call, begun) {
  const offset = Date.parse(item.accepted_at) - begun;
  return make("li", { class: `event ${item.state}`, data: { id: item.id } },
    make("time", { dateTime: item.accepted_at, title: item.timestamp }, offset < 50 ? clock(item.accepted_at) : `+${span(offset)}`),
    make("div", { class: "card" },
      make("p", { class: "title" },
        make("b", {}, readable(item.type)),
        make("span", { class: `mark ${item.state}` }, STATES[item.state]),
        item.replays > 0 ? make("span", { class: "mark" }, `replayed ${item.replays}×`) : null),
      gist(item),
      more(item, call)));
}

/** What matters of a payload, at a glance. */
function gist({ type, payload }) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");
  if (type === "transcription" && payload.text !== undefined) {
    const who = payload.role === "user" ? "caller" : text(payload.role ?? "agent");
    const side = payload.role === "user" ? "caller" : "agent";
    return make("p", { class: `speech ${side}` }, make("small", {}, readable(who)), foreign(text(payload.text)));
  }
  if (type === "dtmf_digit") return make("p", { class: "gist" }, make("kbd", {}, readable(text(payload.digit))));
  const fields = Object.entries(payload);
  if (fields.length === 0) return null;
  return make("p", { class: "gist" }, ...fields.slice(0, 6).flatMap(([name, value]) =>
    [make("small", {}, readable(name)), foreign(text(value).slice(0, 120)), " "]));
}

function attempts(item, call) {
  if (item.state === "dropped") {
    return [make("span", { class: "chip" }, "its type is not in WEBHOOK_EVENTS")];
  }
  const chips = item.attempts.map((attempt) => {
    const result = attempt.status ?? attempt.code;
    const good = attempt.code === null;
    const title = [attempt.error ?? "delivered", attempt.answer].filter(Boolean).join("\n");
    return make("span", { class: good ? "chip good" : "chip poor", title: readable(title) },
      `${attempt.probe ? "probe" : attempt.number} · ${result} · ${span(attempt.duration_ms)}`);
  });
  if (item.attempts_omitted > 0) chips.splice(1, 0, make("span", { class: "chip" }, `… ${item.attempts_omitted} more`));
  if (item.state === "waiting" && item.attempts.length > 0) {
    chips.push(make("span", { class: "chip wait" }, `next of ${call.attempts_allowed}`));
  }
  if (chips.length > 0) return chips;
  return [make("span", { class: "chip wait" }, item.state === "dead" ? "no room in the queue" : "not sent yet")];
}

function more(item, call) {
  const failed = item.attempts.filter((attempt) => attempt.code !== null);
  return make("details", {},
    make("summary", {}, ...attempts(item, call), make("span", { class: "toggle" }, "details")),
    make("pre", { class: "payload" }, json(item.payload)),
    make("table", {}, ...[["event id", item.id], ["timestamp", item.timestamp], ["POST", call.url]]
      .concat(item.headers ?? [])
      .map(([name, value]) => make("tr", {}, make("th", {}, readable(name)), make("td", {}, readable(value))))),
    failed.length === 0 ? null : make("table", {}, ...failed.map((attempt) =>
      make("tr", {}, make("th", {}, `attempt ${attempt.number}${attempt.probe ? " (probe)" : ""}, ${clock(attempt.at)}`),
        make("td", {}, make("b", {}, attempt.code), " ", readable(attempt.error))))));
}
