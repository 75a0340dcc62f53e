// The admin port's API: the one place that sends the token and reads the stream.

const KEY = "callhook-token";
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8000;

/** The token is missing or wrong. */
export class Unauthorised extends Error {}

let token = null;
try { token = sessionStorage.getItem(KEY); } catch { /* storage is blocked */ }

export const hasToken = () => token !== null;

export function setToken(given) {
  token = given;
  try {
    if (given === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, given);
  } catch { /* then the user signs in again */ }
}

async function request(method, path, signal) {
  // fetch throws for a header that is not ASCII; such a token is as wrong as any other.
  if (token !== null && !/^[\x20-\x7e]+$/.test(token)) throw new Unauthorised("no token");
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  const answer = await fetch(path, { method, headers, signal, cache: "no-store" });
  if (answer.status === 401) throw new Unauthorised("the token is missing or wrong");
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error ?? `${method} ${path} was answered ${answer.status}`);
  }
  return answer;
}

/** Returns the JSON answer; throws the server's own error. */
export async function ask(method, path, parameters = {}) {
  const set = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(set).toString();
  return (await request(method, query ? `${path}?${query}` : path)).json();
}

/** The stream's updates, for ever: `{name, data}`. `linked` is told whether the stream is open. */
export async function* updates(linked) {
  let pause = FIRST_PAUSE;
  for (;;) {
    const ending = new AbortController();
    try {
      const answer = await request("GET", "/api/stream", ending.signal);
      linked(true);
      pause = FIRST_PAUSE;
      yield { name: "open", data: null };
      yield* parsed(answer.body);
    } catch (error) {
      if (error instanceof Unauthorised) throw error;
    } finally {
      ending.abort();
    }
    linked(false);
    await new Promise((resume) => setTimeout(resume, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }));
      yield { name: fields.get("event"), data: JSON.parse(fields.get("data")) };
    }
  }
}
