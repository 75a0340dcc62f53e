// The dead letters: why each was given up, replay, and deletion.

import { ask } from "/api.js";
import { clock, confirmed, foreign, get, json, make, readable, setText, toast, whole } from "/show.js";

const PAGE = 100;

let next = null;
let known = null;
let failed = () => {};

/** Fetches the first page again. */
export async function load() {
  const page = await ask("GET", "/api/dead", { limit: PAGE });
  get("letters").replaceChildren(...page.items.map(letter));
  settle(page);
}

/** Takes their number. Where it changed, and they are shown, fetches them again. */
export function count(number) {
  const changed = number !== known;
  known = number;
  const badge = get("dead-count");
  badge.hidden = !number;
  setText(badge, whole(number ?? 0));
  if (changed && !get("dead-pane").hidden) load().catch(failed);
}

function settle(page) {
  next = page.next;
  const many = get("letters").childElementCount;
  get("dead-empty").hidden = many > 0;
  get("replay-all").hidden = many === 0;
  get("dead-more").hidden = next === null;
  setText(get("dead-note"), many === 0 ? "" : "Oldest first. A replay keeps the event’s id and its place within the call.");
}

function letter(item) {
  const id = encodeURIComponent(item.id);
  const element = make("li", { class: "letter", data: { id: item.id } },
    make("div", { class: "why" },
      make("p", { class: "title" }, make("b", {}, readable(item.type)),
        make("span", { class: "mark dead" }, item.status ?? item.code)),
      make("p", {}, readable(item.error)),
      make("p", { class: "note" },
        `${clock(item.last_at)} · ${item.attempts} attempt${item.attempts === 1 ? "" : "s"} · call `,
        make("a", { href: `#call=${item.uuid}` }, item.uuid.slice(0, 8)))),
    make("div", { class: "actions" },
      make("button", { type: "button", class: "replay", on: { click: () => act(element, "POST", `/api/dead/${id}/replay`, "Queued again") } }, "Replay"),
      make("button", { type: "button", class: "delete", on: { click: () => remove(element, item, id) } }, "Delete")),
    make("details", {}, make("summary", {}, make("span", { class: "toggle" }, "payload")),
      make("p", { class: "note" }, "id ", foreign(item.id)),
      make("pre", { class: "payload" }, json(item.payload))));
  return element;
}

async function remove(element, item, id) {
  const text = `The receiver will never get this ${readable(item.type)} of call ${item.uuid}.`;
  if (await confirmed("Delete this dead letter?", text, "Delete", true)) {
    await act(element, "DELETE", `/api/dead/${id}`, "Deleted");
  }
}

async function act(element, method, path, done) {
  const buttons = element.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  try {
    await ask(method, path);
    element.remove();
    toast(done);
    if (get("letters").childElementCount === 0) await load();
  } catch (error) {
    for (const button of buttons) button.disabled = false;
    failed(error);
  }
}

async function replayAll() {
  const many = known === null ? "all" : whole(known);
  const text = `Sends ${many} again, in order within each call. What fails again returns here.`;
  if (!await confirmed("Replay all dead letters?", text, "Replay all")) return;
  const { replayed, left } = await ask("POST", "/api/dead/replay");
  toast(left > 0 ? `${whole(replayed)} queued again; ${whole(left)} found no room` : `${whole(replayed)} queued again`);
  await load();
}

async function loadMore() {
  const page = await ask("GET", "/api/dead", { limit: PAGE, cursor: next });
  get("letters").append(...page.items.map(letter));
  settle(page);
}

/** `tell` is told of errors. */
export function begin(tell) {
  failed = tell;
  get("replay-all").addEventListener("click", () => replayAll().catch(failed));
  get("dead-more").addEventListener("click", () => loadMore().catch(failed));
}
