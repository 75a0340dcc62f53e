// The receivers: how each of them stands. One alone is a card among the others; several have a row of their own, and so
// has what is kept for those that are not in the settings any more.

import { get, make, readable, setClass, setText, span, whole } from "/show.js";

const STATES = { up: "Up", down: "Down", paused: "Paused", none: "None" };

/** The cards that are shown, by name. */
let cards = new Map();

/** The state in words; `skew` is how far the server's clock is ahead. */
function noteOf(receiver, skew) {
  const wait = (time) => span(Math.max(0, Date.parse(time) - Date.now() - skew));
  if (receiver.state === "none") return "WEBHOOK_URL=none: no event goes there";
  if (receiver.state === "paused") return `asked for a pause; resumes in ${wait(receiver.paused_until)}`;
  if (receiver.state === "down") {
    return receiver.next_probe_at ? `next probe in ${wait(receiver.next_probe_at)}` : "a probe is under way";
  }
  if (receiver.routing_broken) return "up, but its routing keeps failing";
  if (receiver.unanswered > 0) return `${receiver.unanswered} attempts in a row without an answer`;
  return readable(receiver.url);
}

/** Which of them are down, and what that means to callers, whom only the main one's state affects. */
export function alarmOf(receivers) {
  const down = receivers.filter(({ state }) => state === "down").map(({ name }) => name);
  if (down.length === 0) return null;
  if (receivers.length === 1) return "The receiver is down: events wait, and callers are routed to STS_URL.";
  const who = down.length === 1
    ? `The receiver ${down[0]} is down: its events wait`
    : `The receivers ${down.slice(0, -1).join(", ")} and ${down.at(-1)} are down: their events wait`;
  return receivers[0].state === "down" ? `${who}, and callers are routed to STS_URL, as main decides.` : `${who}; callers are not affected.`;
}

function paintState(pill, note, receiver, skew, size = "") {
  setClass(pill, `pill ${size}${receiver.state}${receiver.routing_broken ? " broken" : ""}`);
  setText(pill, STATES[receiver.state]);
  setText(note, noteOf(receiver, skew));
  note.title = receiver.url ?? "";
}

function lettersOf({ dead_letters: many }) {
  if (many === null) return "dead letters cannot be read";
  return many === 0 ? "no dead letters" : `${whole(many)} dead letter${many === 1 ? "" : "s"}`;
}

function cardOf({ name, isRetired }, isMain) {
  const parts = {
    pill: make("span", { class: "pill" }),
    note: make("p", { class: "note" }),
    waiting: make("span"),
    letters: make("a", { href: `#dead=${name}` }),
  };
  const decides = make("span", { class: "mark", title: "Its answers decide where calls go; the others get copies." }, "decides");
  parts.card = make("article", { class: isRetired ? "vital receiver retired" : "vital receiver", data: { name } },
    make("h2", {}, make("span", { class: "name" }, name), isMain ? decides : null, parts.pill),
    parts.note,
    make("p", { class: "holds" }, parts.waiting, " · ", parts.letters));
  if (isRetired) {
    setText(parts.pill, "Not in the settings");
    parts.note.append("drop with ", make("code", {}, `callhook dead purge --receiver ${name}`));
  }
  return parts;
}

/** Takes how they stand. */
export function paint({ receivers, retired }, skew) {
  const isOne = receivers.length === 1;
  document.body.classList.toggle("several", !isOne);
  get("receiver").hidden = !isOne;
  if (isOne) {
    paintState(get("receiver-state"), get("receiver-note"), receivers[0], skew, "big ");
  }
  const kept = retired.filter(({ waiting, dead_letters: letters }) => waiting > 0 || letters !== 0);
  const shown = (isOne ? [] : receivers).concat(kept.map((receiver) => ({ ...receiver, isRetired: true })));
  const isSame = shown.length === cards.size
    && shown.every(({ name, isRetired }) => cards.get(name)?.card.classList.contains("retired") === Boolean(isRetired));
  if (!isSame) {
    cards = new Map(shown.map((receiver) => [receiver.name, cardOf(receiver, receiver === receivers[0])]));
    get("receivers").replaceChildren(...[...cards.values()].map(({ card }) => card));
    get("receivers").hidden = shown.length === 0;
  }
  for (const receiver of shown) {
    const { pill, note, waiting, letters } = cards.get(receiver.name);
    if (!receiver.isRetired) paintState(pill, note, receiver, skew);
    setText(waiting, `${whole(receiver.waiting)} waiting`);
    setText(letters, lettersOf(receiver));
    letters.classList.toggle("red", Boolean(receiver.dead_letters));
  }
}
