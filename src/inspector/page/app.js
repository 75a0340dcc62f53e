// The page as a whole: views, signing in, and the stream's updates.
//
// Updates are collected and painted once a frame, so that a busy callhook costs the browser no more
// than a quiet one.

import { Unauthorised, ask, hasToken, setToken, updates } from "/api.js";
import * as calls from "/calls.js";
import * as dead from "/dead.js";
import * as receivers from "/receivers.js";
import { chart, get, rate, readable, setClass, setText, span, toast, whole } from "/show.js";
import * as timeline from "/timeline.js";

const MOST_PENDING = 1000;
const RELOAD_EVERY = 1000;
const SECONDS = 300;

let pending = new Map();
let isPainting = false;
let reloading = null;
let state = null;
let skew = 0;
let samples = [];

function failed(error) {
  if (error instanceof Unauthorised) askForToken();
  else toast(error.message, true);
}

// ── The stream ──

function take({ name, data }) {
  if (name === "state") {
    state = data;
    skew = Date.parse(data.now) - Date.now();
    if (data.sample && data.sample.at > (samples.at(-1)?.at ?? 0)) samples.push(data.sample);
    samples = samples.slice(-SECONDS);
    paintSoon();
  } else if (name === "calls") {
    for (const call of data.items) pending.set(call.uuid, call);
    if (pending.size > MOST_PENDING) reloadSoon();
    paintSoon();
  } else if (name === "reload" || name === "open") {
    reloadSoon();
  }
}

/** Fetches everything again, at most once a second, and only while the page is visible. */
function reloadSoon() {
  pending = new Map();
  reloading ??= setTimeout(() => {
    if (document.hidden) {
      reloading = null;
      document.addEventListener("visibilitychange", reloadSoon, { once: true });
      return;
    }
    reload().catch(failed).finally(() => { reloading = null; });
  }, reload.last && performance.now() - reload.last < RELOAD_EVERY ? RELOAD_EVERY : 0);
}

async function reload() {
  reload.last = performance.now();
  const report = await ask("GET", "/api/state");
  ({ samples } = report);
  take({ name: "state", data: report });
  await calls.load();
  timeline.refresh();
}

function paintSoon() {
  if (isPainting) return;
  isPainting = true;
  requestAnimationFrame(() => {
    isPainting = false;
    const changed = [...pending.values()];
    pending = new Map();
    if (changed.length > 0) calls.change(changed);
    if (changed.some((call) => timeline.isShown(call.uuid))) timeline.refresh();
    if (state) paintState();
  });
}

// ── The state ──

function alarmOf({ receivers: standing, queue, journal, calls: remembered }) {
  if (journal.error) return `${journal.error}. New events are refused.`;
  if (queue.draining) return "callhook is stopping.";
  const down = receivers.alarmOf(standing);
  if (down !== null) return down;
  if (remembered.limit === 0) return "INSPECTOR_CALLS=0: calls are not remembered, so there are none to show.";
  return null;
}

function waitingNote({ receivers: { length }, queue }) {
  if (queue.oldest_ms !== null) return `oldest for ${span(queue.oldest_ms)}`;
  return length === 1 ? `of ${whole(queue.limit)}` : `for ${length} receivers`;
}

function paintState() {
  const { queue, rates } = state;
  receivers.paint(state, skew);
  setText(get("waiting"), whole(queue.waiting));
  setText(get("waiting-note"), waitingNote(state));
  setText(get("delivered"), rate(rates.delivered));
  setText(get("delivered-note"), `${rate(rates.accepted)}/s accepted`);
  setText(get("failed"), rate(rates.failed));
  const letters = state.dead_letters;
  setText(get("failed-note"), letters ? `${whole(letters)} dead letter${letters === 1 ? "" : "s"}` : "no dead letters");
  chart(get("waiting-chart"), samples.map((sample) => sample.waiting));
  chart(get("delivered-chart"), samples.map((sample) => sample.delivered));
  chart(get("failed-chart"), samples.map((sample) => sample.failed));
  const live = get("live-count");
  live.hidden = state.calls.live === 0;
  setText(live, `${whole(state.calls.live)} live`);
  dead.count(state);
  const alarm = alarmOf(state);
  get("alarm").hidden = alarm === null;
  setText(get("alarm"), readable(alarm ?? ""));
  document.title = state.receivers.some((receiver) => receiver.state === "down") ? "⚠ callhook inspector" : "callhook inspector";
}

// ── Views ──

function route() {
  const [, name, of] = /^#(dead|call)?(?:=([0-9a-z-]{1,36}))?$/.exec(location.hash) ?? [];
  const isDead = name === "dead";
  const uuid = isDead ? null : of ?? null;
  get("dead-pane").hidden = !isDead;
  get("calls-pane").hidden = isDead;
  get("detail").hidden = isDead;
  document.body.classList.toggle("has-call", Boolean(uuid));
  get(isDead ? "tab-dead" : "tab-calls").setAttribute("aria-current", "page");
  get(isDead ? "tab-calls" : "tab-dead").removeAttribute("aria-current");
  calls.select(uuid);
  if (isDead) dead.open(of ?? "").catch(failed);
  else timeline.open(uuid).catch(failed);
}

// ── Signing in ──

function askForToken() {
  const dialog = get("login");
  if (hasToken()) setText(get("login-wrong"), "That is not the token.");
  setToken(null);
  get("leave").hidden = true;
  if (!dialog.open) dialog.showModal();
  get("token").focus();
}

async function signIn(event) {
  event.preventDefault();
  setToken(get("token").value);
  try {
    await ask("GET", "/api/state");
  } catch (error) {
    if (error instanceof Unauthorised) return askForToken();
    setText(get("login-wrong"), readable(error.message));
    return;
  }
  get("token").value = "";
  setText(get("login-wrong"), "");
  get("login").close();
  route();
  follow();
}

async function follow() {
  get("leave").hidden = !hasToken();
  try {
    for await (const update of updates(linked)) take(update);
  } catch (error) {
    linked(false);
    failed(error);
  }
}

function linked(isLinked) {
  setClass(get("link"), isLinked ? "link on" : "link");
  setText(get("link").lastElementChild, isLinked ? "live" : "connecting");
}

function begin() {
  calls.begin(failed);
  dead.begin(failed);
  timeline.begin(failed);
  addEventListener("hashchange", route);
  get("login-form").addEventListener("submit", signIn);
  get("login").addEventListener("cancel", (event) => event.preventDefault());
  get("leave").addEventListener("click", () => { setToken(null); location.reload(); });
  setInterval(() => {
    calls.tick();
    timeline.tick();
    if (state) receivers.paint(state, skew);
  }, 1000);
  route();
  follow();
}

begin();
