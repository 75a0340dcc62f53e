// The inspector's page in a real browser: what an operator sees, and what nobody may do to them.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { enter, newCall, pause, speech } from "./stage.js";

const LIMIT = { timeout: 60_000 };
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;

/** A test on a stage of its own; the page must not have complained. */
function scene(name, options, play) {
  test(name, LIMIT, async () => {
    const stage = await enter(options);
    stage.page.setDefaultTimeout(15_000);
    try {
      await play(stage);
      const expected = options.expected ?? /$^/;
      assert.deepEqual(stage.faults.filter((fault) => !expected.test(fault)), [], "the page complains of nothing");
    } finally {
      await stage.leave();
    }
  });
}

const row = (page, uuid) => page.locator(`#rows a[href="#call=${uuid}"]`);
const ring = (stage, uuid, from, to) => stage.send(uuid, "call_initiated", { from, to });

scene("a call appears by itself, and its events while it is looked at", {}, async (stage) => {
  const { page } = stage;
  await page.goto(stage.url);
  await page.getByText("No calls yet").waitFor();
  const call = newCall();
  await ring(stage, call, "+39 055 1", "2000");
  await row(page, call).getByText("Ringing").waitFor();
  await stage.send(call, "call_started");
  await row(page, call).getByText("Live").waitFor();
  await row(page, call).focus();
  await page.keyboard.press("Enter");
  await page.locator("#detail h1", { hasText: "+39 055 1 → 2000" }).waitFor();
  await stage.send(call, "transcription", { role: "user", text: "A table for two, please." });
  await page.locator("#detail .speech", { hasText: "A table for two, please." }).waitFor();
  await stage.send(call, "call_ended");
  await row(page, call).getByText("Ended").waitFor();
  await page.locator("#detail .event.delivered").nth(3).waitFor();
});

scene("each attempt is shown, and the secret is not", {
  answer: (event) => (event.type === "call_started" ? [422] : [200]),
  settings: { WEBHOOK_SECRET: "hush-hush" },
}, async (stage) => {
  const { page } = stage;
  const call = newCall();
  await stage.send(call, "call_started");
  await page.goto(`${stage.url}#call=${call}`);
  const event = page.locator("#detail .event.dead");
  await event.locator(".chip.poor", { hasText: "1 · 422" }).waitFor();
  await event.locator("summary").click();
  await event.getByText("Request failed with status code 422").waitFor();
  await event.locator("tr", { hasText: "x-avr-webhook-secret" }).getByText("••••").waitFor();
  assert.ok(!(await page.content()).includes("hush-hush"));
});

scene("the filter finds a number, a uuid and a type", {}, async (stage) => {
  const { page } = stage;
  const [one, two] = [newCall(), newCall()];
  await ring(stage, one, "+39055111", "2000");
  await ring(stage, two, "+44207222", "alice");
  await stage.send(two, "dtmf_digit", { digit: "1" });
  await page.goto(stage.url);
  await row(page, one).waitFor();
  await row(page, two).waitFor();
  const finds = async (name, value, wanted, other) => {
    const field = page.locator(`#filter [name=${name}]`);
    if (name === "type") await field.selectOption(value); else await field.fill(value);
    await row(page, other).waitFor({ state: "detached" });
    await row(page, wanted).waitFor();
    if (name === "type") await field.selectOption(""); else await field.fill("");
    await row(page, other).waitFor();
  };
  await finds("number", "ALI", two, one);
  await finds("uuid", one.slice(9, 18), one, two);
  await finds("type", "dtmf_digit", two, one);
  // What comes in while it is set is filtered too.
  await page.locator("#filter [name=number]").fill("055");
  await row(page, two).waitFor({ state: "detached" });
  const [three, four] = [newCall(), newCall()];
  await ring(stage, three, "+44", "x");
  await ring(stage, four, "+39055333", "x");
  await row(page, four).waitFor();
  assert.equal(await row(page, three).count(), 0);
  await page.locator("#filter [name=number]").fill("nobody");
  await page.getByText("No remembered call matches").waitFor();
});

{
  let isFine = false;
  scene("a dead letter is replayed, and another deleted once that is confirmed", {
    answer: () => (isFine ? [200] : [422]),
  }, async (stage) => {
    const { page } = stage;
    const [one, two] = [newCall(), newCall()];
    await stage.send(one, "call_started");
    await stage.send(two, "call_ended");
    await page.goto(`${stage.url}#dead`);
    const letters = page.locator("#letters .letter");
    await letters.nth(1).waitFor();
    isFine = true;
    await letters.filter({ hasText: "call_started" }).getByRole("button", { name: "Replay" }).click();
    await page.getByText("Queued again").waitFor();
    await letters.nth(1).waitFor({ state: "detached" });
    await letters.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("button", { name: "Cancel" }).click();
    assert.equal(await letters.count(), 1);
    await letters.getByRole("button", { name: "Delete" }).click();
    await page.locator("#confirm-yes").click();
    await page.getByText("Nothing was given up").waitFor();
    await page.goto(`${stage.url}#call=${one}`);
    await page.locator("#detail .event.delivered", { hasText: "replayed 1×" }).waitFor();
    assert.equal(await page.locator("#detail .event .chip").count(), 2);
  });
}

scene("a hostile payload stays text", { settings: { WEBHOOK_EVENTS: "*" }, answer: (event) => (event.type === "evil" ? [400] : [200]) },
  async (stage) => {
    const { page } = stage;
    const call = newCall();
    await ring(stage, call, hostile, `\u202e${hostile}\u0000`);
    await stage.send(call, "transcription", { role: hostile, text: `${hostile} \u202etxt.exe` });
    await stage.send(call, "<b>bold</b>", { [hostile]: hostile, __proto__: 1 });
    await stage.send(call, "evil", { text: hostile });
    await page.goto(`${stage.url}#call=${call}`);
    await page.locator("#detail .event").nth(3).waitFor();
    for (const summary of await page.locator("#detail summary").all()) await summary.click();
    await page.locator("#detail h1", { hasText: "<img src=x" }).waitFor();
    await page.locator("#detail .event", { hasText: "<b>bold</b>" }).waitFor();
    // What turns text around is written out.
    await page.locator("#detail .speech", { hasText: "\\u202etxt.exe" }).waitFor();
    await page.locator("#tab-dead").click();
    await page.locator("#letters summary").click();
    await page.locator("#letters pre", { hasText: "<img src=x" }).waitFor();
    const made = await page.evaluate(() => document.querySelectorAll("main img, main script, main b b").length);
    assert.equal(made, 0, "no payload becomes an element");
    assert.equal(await page.title(), "callhook inspector");
  });

scene("nothing foreign is loaded or run, whatever slips through", { expected: /Content Security Policy|404/ }, async (stage) => {
  const { page } = stage;
  await page.goto(stage.url);
  const ran = await page.evaluate(async () => {
    const box = document.createElement("div");
    box.innerHTML = `<img src="x" onerror="document.title='owned'">`;
    document.body.append(box);
    const script = document.createElement("script");
    script.textContent = "document.title = 'owned'";
    document.body.append(script);
    await new Promise((later) => setTimeout(later, 300));
    const fetched = await fetch("http://127.0.0.1:1/").then(() => "yes", () => "no");
    return [document.title, fetched];
  });
  assert.deepEqual(ran, ["callhook inspector", "no"]);
});

for (const scheme of ["light", "dark"]) {
  scene(`the ${scheme} theme follows the system, and the button turns it over for good`,
    { context: { colorScheme: scheme } }, async (stage) => {
      const { page } = stage;
      const brightness = () => page.evaluate(() =>
        getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0));
      const isLight = async () => (await brightness()) > 380;
      await page.goto(stage.url);
      assert.equal(await isLight(), scheme === "light");
      await page.locator("#theme").click();
      assert.equal(await isLight(), scheme === "dark");
      await page.reload();
      assert.equal(await isLight(), scheme === "dark", "it is kept");
    });
}

scene("the token is asked for, kept in the tab, and sent to the stream too",
  { settings: { ADMIN_TOKEN: "open-sesame" }, expected: /401/ }, async (stage) => {
    const { page } = stage;
    const call = newCall();
    await page.goto(stage.url);
    const field = page.locator("#token");
    await field.fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("That is not the token.").waitFor();
    assert.equal(await page.locator("#rows li").count(), 0);
    await field.fill("open-sesame");
    await page.keyboard.press("Enter");
    await field.waitFor({ state: "hidden" });
    await page.locator("#link", { hasText: "live" }).waitFor();
    await stage.send(call, "call_started");
    await row(page, call).waitFor();
    await page.reload();
    await row(page, call).waitFor();
    assert.ok(await field.isHidden());
    await page.getByRole("button", { name: "Sign out" }).click();
    await field.waitFor();
  });

{
  let isAway = true;
  const options = { settings: { WEBHOOK_BREAKER: "1", WEBHOOK_RETRY: "3" }, answer: () => (isAway ? [503] : [200]) };
  scene("a receiver that is down is told, and that it is back", options, async (stage) => {
    const { page } = stage;
    const call = newCall();
    await page.goto(stage.url);
    await page.locator("#receiver-state", { hasText: "Up" }).waitFor();
    await stage.send(call, "call_started");
    await stage.send(call, "dtmf_digit", { digit: "1" });
    await page.locator("#receiver-state", { hasText: "Down" }).waitFor();
    await page.locator("#receiver-note", { hasText: /next probe in|probe is on its way/ }).waitFor();
    await page.getByRole("alert").getByText("events wait").waitFor();
    await row(page, call).getByText("2 retrying").waitFor();
    isAway = false;
    await page.locator("#receiver-state", { hasText: "Up" }).waitFor();
    await page.getByRole("alert").getByText("events wait").waitFor({ state: "hidden" });
    await row(page, call).locator(".health.ok").waitFor();
  });
}

const card = (page, name) => page.locator(`#receivers .receiver[data-name="${name}"]`);
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

{
  const away = { main: false, crm: true };
  const told = (name) => () => (away[name] ? [503] : [200]);
  const options = {
    answer: told("main"), copies: { crm: told("crm"), log: () => [200] },
    settings: { WEBHOOK_BREAKER: "1", WEBHOOK_RETRY: "3" },
  };
  scene("of several receivers each has a card, and the alarm says which is down and whether callers feel it", options,
    async (stage) => {
      const { page } = stage;
      await page.goto(stage.url);
      await card(page, "main").getByText("decides").waitFor();
      const names = await page.locator("#receivers .name").allTextContents();
      assert.deepEqual([names[0], names.toSorted()], ["main", ["crm", "log", "main"]]);
      assert.equal(await page.locator("#receivers").getByText("decides").count(), 1);
      assert.ok(await page.locator("#receiver").isHidden(), "the card of a single one");
      await stage.send(newCall(), "call_started");
      await card(page, "crm").locator(".pill.down").waitFor();
      await card(page, "crm").getByText("1 waiting").waitFor();
      await card(page, "main").getByText("0 waiting").waitFor();
      await page.getByRole("alert").getByText("The receiver crm is down: its events wait; callers are not affected.").waitFor();
      away.main = true;
      await stage.send(newCall(), "call_started");
      await page.getByRole("alert").getByText("main and crm are down: their events wait, and callers are routed to STS_URL").waitFor();
      away.crm = false;
      away.main = false;
      await page.getByRole("alert").waitFor({ state: "hidden" });
      assert.equal(await page.locator("#receivers .pill.up").count(), 3);
    });
}

{
  const seen = { main: [], crm: [] };
  const taken = (name) => (event) => {
    seen[name].push(event.type);
    return [event.type === "call_started" && seen[name].length < 3 ? 422 : 200];
  };
  const options = { answer: taken("main"), copies: { crm: taken("crm") } };
  scene("an event has a lane for each receiver, and a dead letter is replayed at its own alone", options, async (stage) => {
    const { page } = stage;
    const call = newCall();
    await stage.send(call, "call_started", { channel: "PJSIP/1" });
    await stage.send(call, "dtmf_digit", { digit: "7" });
    await page.goto(`${stage.url}#call=${call}`);
    const started = page.locator("#detail .event", { hasText: "call_started" });
    await started.locator(".lane", { hasText: "crm" }).locator(".chip.poor", { hasText: "1 · 422" }).waitFor();
    await page.locator("#detail .event.delivered .lane").nth(1).waitFor();
    assert.deepEqual(await started.locator(".lane summary b").allTextContents(), ["main", "crm"]);
    assert.equal(await started.locator(".payload").count(), 1, "the payload once");
    await started.locator(".lane", { hasText: "crm" }).locator("summary").click();
    await started.locator(".lane[open]").getByText("Request failed with status code 422").waitFor();
    await page.locator("#detail .of select").selectOption("crm");
    await page.locator("#detail .lane", { hasText: "main" }).first().waitFor({ state: "detached" });
    assert.equal(await page.locator("#detail .lane").count(), 2);

    await card(page, "crm").getByText("1 dead letter").click();
    const letters = page.locator("#letters .letter");
    await letters.waitFor();
    assert.equal(await letters.locator(".tag").textContent(), "crm");
    await page.locator("#dead-receiver").selectOption("");
    await letters.nth(1).waitFor();
    await letters.filter({ hasText: "crm" }).getByRole("button", { name: "Replay" }).click();
    await page.getByText("Queued again").waitFor();
    await page.locator("#letters .letter[data-receiver=crm]").waitFor({ state: "detached" });
    assert.equal(await letters.count(), 1, "that of the main one stays");
    await page.goto(`${stage.url}#call=${call}`);
    await started.locator(".lane", { hasText: "crm" }).getByText("replayed 1×").waitFor();
    assert.deepEqual(seen, {
      main: ["call_started", "dtmf_digit"], crm: ["call_started", "dtmf_digit", "call_started"],
    });
  });
}

test("what is kept for a receiver that left the settings is shown with the command that drops it", LIMIT, async () => {
  const directory = mkdtempSync(join(tmpdir(), "callhook-journal-"));
  const settings = { JOURNAL_PATH: join(directory, "journal.redb"), WEBHOOK_RETRY: "9" };
  const call = newCall();
  try {
    const before = await enter({ copies: { old: ({ type }) => [type === "call_started" ? 422 : 503] }, settings });
    try {
      await before.page.goto(before.url);
      await before.send(call, "call_started");
      await card(before.page, "old").getByText("1 dead letter").waitFor();
      await before.send(call, "call_ended");
    } finally {
      await before.leave();
    }
    const stage = await enter({ settings });
    try {
      const { page } = stage;
      page.setDefaultTimeout(15_000);
      await page.goto(stage.url);
      await card(page, "old").getByText("1 waiting · 1 dead letter").waitFor();
      await card(page, "old").getByText("callhook dead purge --receiver old").waitFor();
      assert.equal(await page.locator("#receivers .receiver").count(), 1);
      await page.locator("#receiver-state", { hasText: "Up" }).waitFor();
      await card(page, "old").getByText("1 dead letter").click();
      await page.locator("#letters .letter").getByRole("button", { name: "Replay" }).click();
      await page.locator("#toast", { hasText: "the receiver old is not in the settings any more" }).waitFor();
      await fetch(`${stage.url}api/dead?receiver=old`, { method: "DELETE" });
      await card(page, "old").waitFor({ state: "detached" });
    } finally {
      await stage.leave();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

{
  const copies = Object.fromEntries(
    ["averylongnamedcopy01", "b", "c", "d", "e", "f", "g", "h"].map((name) => [name, () => [422]]));
  const options = { copies, context: { viewport: { width: 390, height: 760 } } };
  scene("nine receivers fit on a narrow screen", options, async (stage) => {
    const { page } = stage;
    const call = newCall();
    await stage.send(call, "call_started");
    await page.goto(stage.url);
    await card(page, "averylongnamedcopy01").getByText("1 dead letter").waitFor();
    await row(page, call).waitFor();
    assert.ok(await fits(page), "the cards fit");
    await row(page, call).click();
    await page.locator("#detail .lane").nth(8).waitFor();
    for (const summary of await page.locator("#detail summary").all()) await summary.click();
    assert.ok(await fits(page), "the lanes fit");
    await page.goto(`${stage.url}#dead`);
    await page.locator("#letters .letter").nth(7).waitFor();
    assert.ok(await fits(page), "the dead letters fit");
  });
}

{
  const server = await speech();
  const settings = { ADMIN_TOKEN: "open-sesame", STS_URL: `ws://127.0.0.1:${server.address().port}`, TRANSFER_TO: "people/100" };
  scene("what an agent asks is shown in its place, and a live call hung up once that is confirmed", { settings, expected: /401/ },
    async (stage) => {
      const { page } = stage;
      const call = newCall();
      await stage.announce(call, { from: "+39055", to: "2000" });
      stage.dial(call);
      await page.goto(`${stage.url}#call=${call}`);
      await page.locator("#token").fill("open-sesame");
      await page.keyboard.press("Enter");
      await page.locator("#detail .pill.live").waitFor();
      await page.locator("#detail .facts", { hasText: "none yet" }).waitFor();
      await stage.ask("/transfer", { uuid: call, exten: hostile });
      // What comes later is listed later.
      await pause(5);
      await stage.send(call, "dtmf_digit", { digit: "1" });
      await page.locator("#detail .event", { hasText: "dtmf_digit" }).waitFor();
      const events = page.locator("#detail .event");
      const listed = await events.locator(".title b").allTextContents();
      assert.deepEqual(listed, ["call_initiated", "call_started", "Agent asks to transfer to", "dtmf_digit"]);
      const refused = page.locator("#detail .event.request.refused");
      await refused.getByText("demo,<img src=x").waitFor();
      await refused.getByText("TRANSFER_TO does not list it").waitFor();
      const button = page.locator("#detail .hang-up");
      await button.click();
      await page.getByRole("button", { name: "Cancel" }).click();
      await button.click();
      await page.locator("#confirm-yes").click();
      await page.locator("#toast", { hasText: "the call ends as soon as its agent has said goodbye" }).waitFor();
      await page.locator("#detail .event.request", { hasText: "Inspector asks to hang up" }).getByText("taken").waitFor();
      await page.locator("#detail .pill.ended").waitFor();
      await page.locator("#detail .facts", { hasText: "agent said goodbye" }).waitFor();
      assert.ok(await button.isHidden(), "it is over");
      assert.equal(await page.locator("#detail .event.request").count(), 2, "a cancelled question asks nothing");
      assert.equal(await page.title(), "callhook inspector");
    });
}

scene("a narrow screen shows one thing at a time", { context: { viewport: { width: 390, height: 760 } } }, async (stage) => {
  const { page } = stage;
  const call = newCall();
  await ring(stage, call, "+390556671902", "+39055213344");
  await stage.send(call, "transcription", { role: "user", text: "x".repeat(300) });
  await page.goto(stage.url);
  await row(page, call).click();
  await page.locator("#detail .speech").waitFor();
  assert.ok(await fits(page), "a call fits");
  assert.ok(await page.locator("#rows").isHidden());
  await page.getByText("← All calls").click();
  await row(page, call).waitFor();
  assert.ok(await fits(page), "the list fits");
});

scene("two hundred events a second leave the page quick", {}, async (stage) => {
  const { page } = stage;
  await page.goto(stage.url);
  await page.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
    }).observe({ type: "longtask" });
  });
  let isOver = false;
  let sent = 0;
  const flood = (async () => {
    const live = [];
    while (!isOver) {
      // Two dozen a tenth of a second: calls begin, talk and end, two at a time.
    const due = pause(100);
      const events = [];
      for (let i = 0; i < 2; i++) {
        const uuid = newCall();
        live.push(uuid);
        events.push({ uuid, type: "call_initiated", payload: { from: `+39${sent + i}`, to: "2000" } }, { uuid, type: "call_started" });
      }
      for (const uuid of live.slice(-18)) events.push({ uuid, type: "transcription", payload: { role: "user", text: "Hello" } });
      if (live.length > 18) for (const uuid of live.splice(0, 2)) events.push({ uuid, type: "call_ended" });
      sent += events.length;
      await Promise.all([stage.sendAll(events), due]);
    }
  })();
  const begun = Date.now();
  const clicks = [];
  while (Date.now() - begun < 6000) {
    await pause(500);
    const at = Date.now();
    await page.locator("#theme").click();
    await page.locator("#rows a").first().evaluate((line) => line.click());
    await page.locator("#detail h1").waitFor();
    clicks.push(Date.now() - at);
  }
  isOver = true;
  await flood;
  const rate = sent / ((Date.now() - begun) / 1000);
  const longest = await page.evaluate(() => window.longest);
  const rows = await page.locator("#rows li").count();
  console.log(`${Math.round(rate)} events/s, longest task ${Math.round(longest)} ms, slowest click ${Math.max(...clicks)} ms, ${rows} rows`);
  assert.ok(rate > 170, `${rate} events a second were sent`);
  assert.ok(longest < 500, `a task of ${longest} ms blocked the page`);
  assert.ok(Math.max(...clicks) < 2000, `clicks took ${clicks} ms`);
  assert.ok(rows <= 200, `${rows} rows are too many`);
  // And it has kept up: the last call is there soon after.
  const last = newCall();
  await stage.send(last, "call_started");
  await row(page, last).waitFor({ timeout: 3000 });
});
