// The dead letters: why each was given up, and at which receiver; replay, and deletion.

import { ask } from "/api.js";
import { choices, clock, confirmed, foreign, get, json, make, readable, setText, toast, whole } from "/show.js";

const PAGE = 100;
const NOTHING = "Nothing was given up. An event becomes a dead letter when the receiver refuses it, or fails too often.";

let next = null;
let known = null;
let asked = 0;
/** The receiver whose letters are shown; empty for every one. */
let wanted = "";
/** What there is to choose from, with the number of letters of each. */
let numbers = new Map();
let failed = () => {};

/** Shows those of one receiver, or all of them. */
export async function open(receiver) {
  wanted = receiver;
  offer();
  await load();
}

/** Fetches the first page again. */
async function load() {
  const mine = ++asked;
  const page = await ask("GET", "/api/dead", { receiver: wanted, limit: PAGE });
  // Another receiver was chosen meanwhile.
  if (mine !== asked) return;
  get("letters").replaceChildren(...page.items.map(letter));
  settle(page);
}

/** Takes their number. Where it changed, and they are shown, fetches them again. */
export function count({ receivers, retired, dead_letters: number }) {
  numbers = new Map(receivers.concat(retired).map((receiver) => [receiver.name, receiver.dead_letters]));
  offer();
  const changed = number !== known;
  known = number;
  const badge = get("dead-count");
  badge.hidden = !number;
  setText(badge, whole(number ?? 0));
  if (changed && !get("dead-pane").hidden) load().catch(failed);
}

/** With several receivers, one of them can be chosen, and each letter says whose it is. */
function offer() {
  const names = [...numbers.keys()];
  if (wanted !== "" && !names.includes(wanted)) names.push(wanted);
  get("dead-pane").classList.toggle("named", names.length > 1);
  get("dead-of").hidden = names.length < 2;
  choices(get("dead-receiver"), "Every receiver", names, wanted);
}

function settle(page) {
  next = page.next;
  const many = get("letters").childElementCount;
  get("dead-empty").hidden = many > 0;
  setText(get("dead-empty"), wanted === "" ? NOTHING : `Nothing that ${wanted} should get was given up.`);
  get("replay-all").hidden = many === 0;
  get("dead-more").hidden = next === null;
  setText(get("dead-note"), many === 0 ? "" : "Oldest first. A replay keeps the event’s id and its place within the call.");
}

function letter(item) {
  const id = encodeURIComponent(item.id);
  const element = make("li", { class: "letter", data: { id: item.id, receiver: item.receiver } },
    make("div", { class: "why" },
      make("p", { class: "title" }, make("b", {}, readable(item.type)),
        make("span", { class: "tag" }, item.receiver),
        make("span", { class: "mark dead" }, item.status ?? item.code)),
      make("p", {}, readable(item.error)),
      make("p", { class: "note" },
        `${clock(item.last_at)} · ${item.attempts} attempt${item.attempts === 1 ? "" : "s"} · call `,
        make("a", { href: `#call=${item.uuid}` }, item.uuid.slice(0, 8)))),
    make("div", { class: "actions" },
      make("button", { type: "button", class: "replay", on: { click: () => act(element, item, "POST", `/api/dead/${id}/replay`, "Queued again") } }, "Replay"),
      make("button", { type: "button", class: "delete", on: { click: () => remove(element, item, id) } }, "Delete")),
    make("details", {}, make("summary", {}, make("span", { class: "toggle" }, "payload")),
      make("p", { class: "note" }, "id ", foreign(item.id)),
      make("pre", { class: "payload" }, json(item.payload))));
  return element;
}

async function remove(element, item, id) {
  const who = numbers.size > 1 ? item.receiver : "The receiver";
  const text = `${who} will never get this ${readable(item.type)} of call ${item.uuid}.`;
  if (await confirmed("Delete this dead letter?", text, "Delete", true)) {
    await act(element, item, "DELETE", `/api/dead/${id}`, "Deleted");
  }
}

/** The same event may be a dead letter of another receiver, which stays. */
async function act(element, { receiver }, method, path, done) {
  const buttons = element.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  try {
    await ask(method, path, { receiver });
    element.remove();
    toast(done);
    if (get("letters").childElementCount === 0) await load();
  } catch (error) {
    for (const button of buttons) button.disabled = false;
    failed(error);
  }
}

async function replayAll() {
  const receiver = wanted;
  const [of, number] = receiver === "" ? ["", known] : [` of ${receiver}`, numbers.get(receiver)];
  const many = number == null ? "all" : whole(number);
  const text = `Sends ${many} again, in order within each call. What fails again returns here.`;
  if (!await confirmed(`Replay all dead letters${of}?`, text, "Replay all")) return;
  const { replayed, left } = await ask("POST", "/api/dead/replay", { receiver });
  toast(left > 0 ? `${whole(replayed)} queued again; ${whole(left)} found no room` : `${whole(replayed)} queued again`);
  await load();
}

async function loadMore() {
  const mine = asked;
  const page = await ask("GET", "/api/dead", { receiver: wanted, limit: PAGE, cursor: next });
  if (mine !== asked) return;
  get("letters").append(...page.items.map(letter));
  settle(page);
}

/** `tell` is told of errors. */
export function begin(tell) {
  failed = tell;
  get("replay-all").addEventListener("click", () => replayAll().catch(failed));
  get("dead-receiver").addEventListener("change", ({ target }) => {
    location.hash = target.value === "" ? "#dead" : `#dead=${target.value}`;
  });
  get("dead-more").addEventListener("click", () => loadMore().catch(failed));
}
