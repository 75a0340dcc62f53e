// The list of calls: newest first, updated in place, at most MOST_ROWS rows.

import { ask } from "/api.js";
import { clock, foreign, get, length, make, readable, setClass, setText, whole } from "/show.js";

const PAGE = 200;
const MOST_ROWS = 1000;
const RINGING = 10 * 60 * 1000;
const TYPING = 150;
const TYPES = ["call_initiated", "call_started", "transcription", "interruption", "dtmf_digit", "call_ended", "error"];
const STATES = { announced: "Ringing", live: "Live", ended: "Ended", abandoned: "Abandoned" };

/** The reasons why a call ended, in words. */
export const REASONS = {
  hangup: "caller hung up",
  agent_hangup: "agent said goodbye",
  transfer: "sent on by agent",
  sts_closed: "agent hung up",
  sts_failed: "no speech server",
  sts_lost: "speech server lost",
  protocol_error: "protocol error",
  idle: "went silent",
  max_duration: "lasted too long",
  shutdown: "callhook stopped",
  restart: "callhook restarted",
};

const rows = new Map();
let room = PAGE;
let next = null;
let asked = 0;
let selected = null;

/** A call that rings too long is abandoned, even though the server sends no update for it. */
export const stateOf = (call) =>
  call.state === "announced" && Date.now() - Date.parse(call.first_at) > RINGING ? "abandoned" : call.state;

export function pillOf(call, pill = make("span")) {
  const state = stateOf(call);
  setClass(pill, `pill ${state}`);
  setText(pill, STATES[state]);
  return pill;
}

/** The length so far, which grows while the call is live. */
export const lengthOf = (call) =>
  call.state === "live"
    ? length((call.duration_ms ?? 0) + Date.now() - call.heard)
    : call.duration_ms == null ? "–" : length(call.duration_ms);

/** The delivery of its events: a class, and a few words. */
export function healthOf(call) {
  if (call.dead > 0) return ["dead", `${whole(call.dead)} dead`];
  if (call.retrying > 0) return ["retrying", `${whole(call.waiting)} retrying`];
  if (call.waiting > 0) return ["waiting", `${whole(call.waiting)} waiting`];
  return ["ok", whole(call.events)];
}

function filter() {
  return Object.fromEntries(new FormData(get("filter")).entries());
}

function matches(call, wanted) {
  const holds = (text, part) => (text ?? "").toLowerCase().includes(part.toLowerCase());
  return holds(call.uuid, wanted.uuid)
    && (!wanted.number || holds(call.from, wanted.number) || holds(call.to, wanted.number))
    && (!wanted.type || call.types.includes(wanted.type))
    && (!wanted.state || stateOf(call) === wanted.state)
    && (!wanted.health || call.health === wanted.health);
}

/** Fetches the newest calls again. */
export async function load() {
  const mine = ++asked;
  const page = await ask("GET", "/api/calls", { ...filter(), limit: Math.max(PAGE, room) });
  // The filter changed meanwhile.
  if (mine !== asked) return;
  const listed = new Set(page.items.map((call) => call.uuid));
  for (const uuid of [...rows.keys()]) if (!listed.has(uuid)) remove(uuid);
  for (const call of page.items) put(call);
  next = page.next;
  settle();
}

async function loadOlder() {
  const page = await ask("GET", "/api/calls", { ...filter(), limit: PAGE, cursor: next });
  room = Math.min(MOST_ROWS, room + PAGE);
  for (const call of page.items) put(call);
  next = page.next;
  settle();
}

/** Calls that changed. */
export function change(calls) {
  const wanted = filter();
  for (const call of calls) {
    if (matches(call, wanted)) put(call); else remove(call.uuid);
  }
  settle();
}

/** Marks the call whose details are shown. */
export function select(uuid) {
  rows.get(selected)?.line.removeAttribute("aria-current");
  selected = uuid;
  rows.get(uuid)?.line.setAttribute("aria-current", "true");
}

/** Updates what changes with time alone. */
export function tick() {
  for (const { call, cells } of rows.values()) {
    if (call.state === "live") setText(cells.length, lengthOf(call));
    if (call.state === "announced") pillOf(call, cells.state);
  }
}

function put(call) {
  call.heard = Date.now();
  const known = rows.get(call.uuid);
  // A call that was forgotten and then seen again has a new place.
  if (known && known.call.place !== call.place) remove(call.uuid);
  const row = rows.get(call.uuid) ?? insert(call);
  row.call = call;
  fill(row);
}

function insert(call) {
  const cells = {
    state: make("span", { class: "pill" }),
    who: make("span", { class: "who" }),
    what: make("span", { class: "what" }),
    began: make("span", { class: "began" }),
    length: make("span", { class: "length" }),
    health: make("span", { class: "health" }),
  };
  const line = make("a", { class: "row", href: `#call=${call.uuid}` },
    make("span", { class: "state" }, cells.state),
    make("span", { class: "call" }, cells.who, cells.what),
    cells.began, cells.length, cells.health);
  const item = make("li", {}, line);
  item.dataset.place = call.place;
  if (call.uuid === selected) line.setAttribute("aria-current", "true");
  // Nearly always it is the newest, and the loop ends at once.
  const list = get("rows");
  let before = list.firstElementChild;
  while (before && Number(before.dataset.place) > call.place) before = before.nextElementSibling;
  list.insertBefore(item, before);
  const row = { item, line, cells, call, who: null };
  rows.set(call.uuid, row);
  return row;
}

function fill({ call, cells }) {
  pillOf(call, cells.state);
  const who = JSON.stringify([call.from, call.to]);
  if (cells.who.dataset.who !== who) {
    cells.who.dataset.who = who;
    cells.who.replaceChildren(...parties(call));
  }
  const what = [call.uuid.slice(0, 8)];
  if (call.routed_to) what.push(`via ${readable(call.routed_to)}`);
  if (call.reason) what.push(REASONS[call.reason] ?? call.reason);
  setText(cells.what, what.join(" · "));
  setText(cells.began, clock(call.first_at));
  setText(cells.length, lengthOf(call));
  const [kind, text] = healthOf(call);
  setClass(cells.health, `health ${kind}`);
  setText(cells.health, text);
  offerTypes(call.types);
}

/** From → to, as text. */
export function parties(call) {
  const name = (text) => (text ? foreign(text) : make("i", {}, "unknown"));
  return call.from || call.to
    ? [name(call.from), make("span", { class: "arrow" }, " → "), name(call.to)]
    : [make("i", {}, "not announced")];
}

function remove(uuid) {
  rows.get(uuid)?.item.remove();
  rows.delete(uuid);
}

function settle() {
  const list = get("rows");
  while (list.childElementCount > room) {
    const last = list.lastElementChild;
    remove(last.firstElementChild.hash.slice("#call=".length));
    next = Number(list.lastElementChild.dataset.place);
  }
  get("calls-more").hidden = next === null || room >= MOST_ROWS;
  const isFiltered = Object.values(filter()).some((value) => value !== "");
  get("calls-empty").hidden = rows.size > 0;
  setText(get("calls-empty"), isFiltered
    ? "No remembered call matches this filter."
    : "No calls yet. They appear here as they come in.");
}

const offered = new Set();

function offerTypes(types) {
  for (const type of types) {
    if (offered.has(type) || offered.size > 50) continue;
    offered.add(type);
    get("filter").elements.type.append(new Option(readable(type), type));
  }
}

/** `failed` is told of errors. */
export function begin(failed) {
  offerTypes(TYPES);
  const again = () => { room = PAGE; load().catch(failed); };
  let typing;
  get("filter").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(again, TYPING);
  });
  get("filter").addEventListener("submit", (event) => { event.preventDefault(); again(); });
  get("calls-more").addEventListener("click", () => loadOlder().catch(failed));
  get("rows").addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    const other = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling }[event.key];
    if (!other) return;
    event.preventDefault();
    other.firstElementChild.focus();
  });
}
