// The picture in README: an evening's calls, as an operator sees them. `node picture.js FILE.png`

import { enter, newCall, pause, speech } from "./stage.js";

const [, , file = "inspector.png", theme = "light", tempo = "1"] = process.argv;
const wait = (ms) => pause(ms * Number(tempo));

const PLACES = { "+39055213344": 6030, "+442079460018": 6031, "+4930901820": 6032 };
const ours = Object.keys(PLACES);

for (const port of Object.values(PLACES)) await speech(port);

let isBusy = false;
const answer = ({ type, payload }) => {
  if (type === "call_initiated") return [200, { sts_url: `ws://localhost:${PLACES[payload.to]}` }];
  if (payload.text?.startsWith("And a high chair")) return [422, { error: "text is too long" }];
  if (isBusy && payload.text?.startsWith("I can offer")) return [500];
  return [200];
};

const stage = await enter({
  answer,
  settings: {
    WEBHOOK_SECRET: "not-for-the-picture", WEBHOOK_RETRY: "6", WEBHOOK_BACKOFF: "4000", WEBHOOK_BREAKER: "0",
    AGENT_ID: "front-desk", CALL_ENDED_DETAILS: "true", WEBHOOK_EVENTS: "*",
  },
  context: { colorScheme: theme, deviceScaleFactor: 1, timezoneId: "Europe/Rome" },
});

async function ring(from, to) {
  const uuid = newCall();
  await stage.announce(uuid, { from, to, channel: `PJSIP/trunk-${uuid.slice(0, 8)}`, recording: false });
  return uuid;
}

const say = (uuid, role, text) => stage.send(uuid, "transcription", { role, text });

/** A call from its first ring to its end. */
async function whole(from, to, lines, talk) {
  const uuid = await ring(from, to);
  await wait(600);
  const hangUp = stage.dial(uuid);
  for (const [role, text] of lines) {
    await wait(talk / lines.length);
    if (role === "digit") await stage.send(uuid, "dtmf_digit", { digit: text });
    else await say(uuid, role, text);
  }
  hangUp();
  return uuid;
}

try {
  const many = [];
  const small = [["agent", "Good evening, how can I help?"], ["user", "Are you open on Sunday?"], ["agent", "From noon to eleven."]];
  for (let i = 0; i < 9; i++) {
    many.push(whole(`+39 347 22${i}8 41${i}`.replaceAll(" ", ""), ours[i % 3], small.concat(i % 2 ? small : []), 14000 + i * 4200));
    await wait(1700);
  }
  many.push(ring("+393331180442", ours[0]));
  await wait(4000);
  const booking = await ring("+390556671902", ours[0]);
  await wait(900);
  const hangUp = stage.dial(booking);
  await wait(1200);
  await say(booking, "agent", "Trattoria da Nonna, good evening. How can I help you?");
  await wait(2600);
  await say(booking, "user", "Hi, a table for six on Saturday at eight, please.");
  await wait(1900);
  await say(booking, "user", "And a high chair for the little one.");
  await wait(1500);
  await stage.send(booking, "interruption");
  await wait(700);
  const clinic = await ring("+447700900461", ours[1]);
  await wait(900);
  stage.dial(clinic);
  await wait(1500);
  await say(clinic, "agent", "Riverside Clinic. Press 1 for appointments, or tell me what you need.");
  await wait(1700);
  await stage.send(clinic, "dtmf_digit", { digit: "1" });
  await wait(1600);
  await say(clinic, "user", "I need to see Dr Okafor, and it cannot wait until Monday.");
  await wait(1400);
  isBusy = true;
  await say(clinic, "agent", "I can offer tomorrow at 9:40, or on Friday at noon.");
  await say(booking, "agent", "Six people, Saturday at eight, with a high chair. May I have a name?");
  await wait(2500);
  const last = await ring("+4915112384471", ours[2]);
  await wait(700);
  stage.dial(last);
  await wait(900);
  await say(last, "agent", "Service desk, guten Tag!");
  await ring("+390558870135", ours[0]);
  await Promise.all(many);
  await wait(1500);
  const { page } = stage;
  await page.goto(`${stage.url}#call=${booking}`);
  await page.locator(".event .speech").first().waitFor();
  await pause(3500);
  await page.screenshot({ path: file });
  hangUp();
  if (stage.faults.length > 0) throw new Error(stage.faults.join("\n"));
} finally {
  await stage.leave();
  // The speech servers hold nothing open.
  process.exitCode ??= 0;
}
