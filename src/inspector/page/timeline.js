// One call: its events in order, how each reached each receiver, and what was asked about it meanwhile. A live one is
// ended from here.

import { ask } from "/api.js";
import { REASONS, lengthOf, parties, pillOf } from "/calls.js";
import { choices, clock, confirmed, foreign, get, json, make, readable, setText, span, toast } from "/show.js";

const AT_MOST_EVERY = 400;
const STATES = {
  waiting: "waiting", delivered: "delivered", dead: "dead letter", deleted: "deleted", dropped: "not sent",
};
/** Of several receivers, the one that tells most about the event is first. */
const GRAVEST = ["dead", "waiting", "delivered", "deleted", "dropped"];
const ASKERS = { agent: "Agent", inspector: "Inspector" };
const REQUESTS = { hang_up: "asks to hang up", transfer: "asks to transfer to", variables: "asks what was announced" };
const ANSWERS = {
  taken: "taken",
  not_allowed: "refused: TRANSFER_TO does not list it",
  no_next: "refused: the dialplan never asks where to",
  not_live: "refused: the call was not live",
  too_many: "refused: too many requests",
};

let uuid = null;
let shown = null;
let items = new Map();
/** The receiver whose lane is shown; empty for all. */
let only = "";
let timer = null;
let failed = () => {};

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
export function refresh() {
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
    // The button stays the same element, so that an update in mid-click does not lose the click.
    body.append(
      make("button", { type: "button", class: "hang-up", on: { click: () => hangUp().catch(failed) } }, "Hang up"),
      make("div", { class: "head" }), laneChoice(), make("p", { class: "omitted" }), make("ol", { class: "events" }));
  }
  const [button, head, choice, omitted, list] = body.children;
  button.hidden = !(call.bridged && call.state === "live");
  head.replaceChildren(...headOf(call));
  const names = call.receivers.map(({ name }) => name);
  if (!names.includes(only)) only = "";
  choice.hidden = names.length < 2;
  choices(choice.lastElementChild, "Every receiver", names, only);
  const forgotten = omittedOf(call);
  omitted.hidden = forgotten === "";
  setText(omitted, forgotten);
  const begun = Date.parse(call.timeline[0]?.accepted_at ?? call.first_at);
  const seen = new Map();
  for (const { key, item, show } of inOrder(call)) {
    const text = JSON.stringify(item);
    let known = items.get(key);
    if (known?.text !== text) {
      const element = show(item, call, begun);
      for (const details of known?.element.querySelectorAll("details[open]") ?? []) openAgain(element, details.dataset.of);
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

function openAgain(element, of) {
  for (const details of element.querySelectorAll("details")) if (details.dataset.of === of) details.open = true;
}

function laneChoice() {
  const change = ({ target }) => {
    only = target.value;
    paint(shown);
  };
  return make("label", { class: "of" }, make("span", {}, "Receiver"), make("select", { on: { change } }));
}

/** Asks the user, then the server, to end the call that is shown. */
async function hangUp() {
  const wanted = uuid;
  const text = "Its agent may say goodbye first. The caller is not sent on, unless a transfer was asked for already.";
  if (!await confirmed("Hang up this call?", text, "Hang up", true)) return;
  const { message } = await ask("POST", `/api/calls/${encodeURIComponent(wanted)}/hangup`);
  toast(message);
}

function omittedOf(call) {
  const said = [];
  if (call.events_omitted > 0) said.push(`${call.events_omitted} older events of this long call are not remembered.`);
  if (call.requests_omitted > 0) said.push(`${call.requests_omitted} older requests about this call are not remembered.`);
  return said.join(" ");
}

/** The events, and between them the requests: each after what was there when it came. */
function inOrder(call) {
  const requests = call.requests.map((item, index) =>
    ({ key: `request ${call.requests_omitted + index}`, item, show: requestOf }));
  const ordered = [];
  for (const item of eventsOf(call)) {
    const at = Date.parse(item[0].accepted_at);
    while (requests.length > 0 && Date.parse(requests[0].item.at) < at) ordered.push(requests.shift());
    ordered.push({ key: `${item[0].id} ${item[0].accepted_at}`, item, show: eventOf });
  }
  return ordered.concat(requests);
}

/** Each event as its items, one for each receiver that is shown. */
function eventsOf(call) {
  const events = [];
  const latest = new Map();
  for (const item of call.timeline) {
    const event = latest.get(item.id);
    // A sender may use an id again, much later.
    if (event && event.every(({ receiver }) => receiver !== item.receiver)) {
      event.push(item);
    } else {
      events.push([item]);
      latest.set(item.id, events.at(-1));
    }
  }
  const isShown = ({ receiver }) => only === "" || receiver === only;
  return events.map((event) => event.filter(isShown)).filter((event) => event.length > 0);
}

/** "+3.2 s", or the time of day of what comes first. */
function when(time, title, begun) {
  const offset = Date.parse(time) - begun;
  return make("time", { dateTime: time, title }, offset < 50 ? clock(time) : `+${span(offset)}`);
}

function waitsOf(call) {
  const facts = [];
  if (call.first_audio_ms !== null) facts.push(["First audio", `after ${span(call.first_audio_ms)}`]);
  else if (call.bridged) facts.push(["First audio", call.state === "live" ? "none yet" : "none"]);
  if (call.responses === 1) facts.push(["Response", span(call.last_response_ms)]);
  if (call.responses > 1) {
    facts.push(["Responses", `last ${span(call.last_response_ms)}, worst ${span(call.worst_response_ms)} of ${call.responses}`]);
  }
  return facts;
}

function headOf(call) {
  const facts = [
    ["Began", clock(call.first_at)],
    ["Routed", call.routed_to ? foreign(call.routed_to) : "not by the receiver"],
    ["Audio", call.bridged ? "through callhook" : "elsewhere"],
  ];
  facts.push(...waitsOf(call));
  if (call.reason) facts.push(["Ended", REASONS[call.reason] ?? call.reason]);
  return [
    make("a", { class: "back", href: "#calls" }, "← All calls"),
    make("h1", {}, ...parties(call)),
    make("p", { class: "line" }, pillOf(call), make("span", { class: "length" }, lengthOf(call)),
      make("code", { class: "uuid" }, call.uuid)),
    make("dl", { class: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
  ];
}

function requestOf({ at, by, asked, next, answer }, call, begun) {
  const words = `${ASKERS[by] ?? by} ${REQUESTS[asked] ?? asked}`;
  const isTaken = answer === "taken";
  const said = isTaken && asked === "variables" ? "answered" : ANSWERS[answer] ?? answer;
  return make("li", { class: isTaken ? "event request" : "event request refused" },
    when(at, at, begun),
    make("div", { class: "card" },
      make("p", { class: "title" },
        make("b", {}, words),
        next === null ? null : foreign(next),
        make("span", { class: isTaken ? "mark" : "mark dead" }, said))));
}

function eventOf(items, call, begun) {
  const [first] = items;
  const state = GRAVEST.find((grave) => items.some((item) => item.state === grave));
  const isOne = call.receivers.length === 1 || state === "dropped";
  return make("li", { class: `event ${state}`, data: { id: first.id } },
    when(first.accepted_at, first.timestamp, begun),
    make("div", { class: "card" },
      make("p", { class: "title" }, make("b", {}, readable(first.type)), ...(isOne ? marks(first) : [])),
      gist(first),
      ...(isOne ? [more(first, call)] : [...items.map((item) => lane(item, call)), sent(first)])));
}

const marks = (item) => [
  make("span", { class: `mark ${item.state}` }, STATES[item.state]),
  item.replays > 0 ? make("span", { class: "mark" }, `replayed ${item.replays}×`) : null,
];

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

/** The main one for what is not delivered. */
const receiverOf = (item, call) => call.receivers.find(({ name }) => name === item.receiver) ?? call.receivers[0];

function attempts(item, call) {
  if (item.state === "dropped") {
    const why = call.receivers.length === 1 ? "its type is not in WEBHOOK_EVENTS" : "no receiver takes its type";
    return [make("span", { class: "chip" }, why)];
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
    chips.push(make("span", { class: "chip wait" }, `next of ${receiverOf(item, call).attempts_allowed}`));
  }
  if (chips.length > 0) return chips;
  return [make("span", { class: "chip wait" }, item.state === "dead" ? "no room in the queue" : "not sent yet")];
}

/** All about an event that goes to one receiver at most. */
function more(item, call) {
  return make("details", {},
    make("summary", {}, ...attempts(item, call), toggle("details")),
    make("pre", { class: "payload" }, json(item.payload)),
    table([["event id", item.id], ["timestamp", item.timestamp], ...requestRows(item, call)]),
    failures(item));
}

/** How an event reached one of several receivers. */
function lane(item, call) {
  return make("details", { class: "lane", data: { of: item.receiver } },
    make("summary", {}, make("b", {}, item.receiver), ...marks(item), ...attempts(item, call), toggle("details")),
    table([["sequence", item.sequence], ...requestRows(item, call)]),
    failures(item));
}

/** What is the same for all of them. */
function sent(item) {
  return make("details", {},
    make("summary", {}, toggle("payload")),
    make("pre", { class: "payload" }, json(item.payload)),
    table([["event id", item.id], ["timestamp", item.timestamp]]));
}

const toggle = (text) => make("span", { class: "toggle" }, text);

const requestRows = (item, call) => [["POST", receiverOf(item, call).url], ...(item.headers ?? [])];

const table = (rows) => make("table", {}, ...rows.map(([name, value]) =>
  make("tr", {}, make("th", {}, readable(name)), make("td", {}, readable(value)))));

function failures(item) {
  const failed = item.attempts.filter((attempt) => attempt.code !== null);
  return failed.length === 0 ? null : make("table", {}, ...failed.map((attempt) =>
    make("tr", {}, make("th", {}, `attempt ${attempt.number}${attempt.probe ? " (probe)" : ""}, ${clock(attempt.at)}`),
      make("td", {}, make("b", {}, attempt.code), " ", readable(attempt.error)))));
}

/** `tell` is told of errors. */
export function begin(tell) {
  failed = tell;
}
