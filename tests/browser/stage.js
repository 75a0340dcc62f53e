// The stage: a receiver, the callhook binary, and a browser, all on loopback; all of it ends with `leave`.

import { spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const { CALLHOOK, BROWSER_MODULES, CHROMIUM } = process.env;
if (!CALLHOOK || !BROWSER_MODULES || !CHROMIUM) throw new Error("scripts/browser.sh sets what this needs");
// The modules are kept outside the source tree.
const require = createRequire(join(BROWSER_MODULES, "package.json"));
const { chromium } = require("playwright-core");

const USUAL = {
  HTTP_HOST: "127.0.0.1", HTTP_PORT: "0", AUDIOSOCKET_HOST: "127.0.0.1", PORT: "0", ADMIN_PORT: "0",
  JOURNAL_PATH: "none", DRAIN_TIMEOUT: "500",
};

/** A receiver that answers each event `[status, body, headers]`, as told. */
async function receiver(answer) {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const [status, object, headers] = answer(JSON.parse(body)) ?? [200];
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(object ?? {}));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { server, url: `http://127.0.0.1:${server.address().port}/events` };
}

/** callhook with these settings, once it listens. */
async function callhook(settings) {
  const directory = mkdtempSync(join(tmpdir(), "callhook-browser-"));
  const child = spawn(CALLHOOK, ["serve"], {
    cwd: directory, env: { ...USUAL, ...settings }, stdio: ["ignore", "ignore", "pipe"],
  });
  const ports = {};
  const log = [];
  const names = { "admin port": "admin", "AVR AudioSocket Server": "audio", "AVR HTTP Server": "front" };
  await new Promise((ready, failed) => {
    child.on("exit", (code) => failed(new Error(`callhook ended with ${code}:\n${log.join("\n")}`)));
    child.on("error", failed);
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      const said = /(admin port|AVR AudioSocket Server|AVR HTTP Server) listening on port (\d+)/.exec(line);
      if (said) ports[names[said[1]]] = Number(said[2]);
      if (ports.front) ready();
    });
  });
  return { child, directory, ports, log };
}

/** A speech server that listens, and says nothing. */
export async function speech(port = 0) {
  const server = createServer();
  server.on("upgrade", (request, socket) => {
    // https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2
    const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = createHash("sha1").update(key).digest("base64");
    socket.on("error", () => {});
    socket.on("data", () => {});
    socket.on("end", () => socket.end());
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  });
  await new Promise((listening, failed) => server.on("error", failed).listen(port, "127.0.0.1", listening));
  server.unref();
  return server;
}

/** One stage for a test: what answers, at the main receiver and at copies by their names, with which settings. */
export async function enter({ answer = () => [200], copies = {}, settings = {}, context = {} } = {}) {
  const served = await Promise.all([answer, ...Object.values(copies)].map(receiver));
  const urls = Object.keys(copies).map((name, index) => [`RECEIVER_${name.toUpperCase()}_URL`, served[index + 1].url]);
  const service = await callhook({ WEBHOOK_URL: served[0].url, ...Object.fromEntries(urls), ...settings });
  const browser = await chromium.launch({
    executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 }, ...context })).newPage();
  const faults = [];
  page.on("pageerror", (fault) => faults.push(String(fault)));
  page.on("console", (said) => { if (said.type() === "error") faults.push(said.text()); });
  const lines = [];
  const url = `http://127.0.0.1:${service.ports.admin}/`;
  const front = `http://127.0.0.1:${service.ports.front}`;

  const post = async (path, body) => {
    const answered = await fetch(front + path, { method: "POST", body: JSON.stringify(body) });
    if (!answered.ok) throw new Error(`${path}: ${answered.status} ${await answered.text()}`);
    return answered.json();
  };
  return {
    page, url, faults, log: service.log,
    /** An event, as AVR Core sends it. */
    send: (uuid, type, payload = {}) => post("/events", { uuid, type, payload }),
    sendAll: (events) => post("/events", events),
    announce: (uuid, payload) => post("/call", { uuid, payload }),
    /** What a tool of the call's agent asks. */
    ask: (path, body) => post(path, body),
    /** A caller on AudioSocket, who stays on the line until told to hang up. */
    dial: (uuid) => {
      const line = connect(service.ports.audio, "127.0.0.1");
      line.on("error", () => {});
      const frame = Buffer.concat([Buffer.from([1, 0, 16]), Buffer.from(uuid.replaceAll("-", ""), "hex")]);
      line.write(frame);
      lines.push(line);
      return () => line.end(Buffer.from([0, 0, 0]));
    },
    leave: async () => {
      for (const line of lines) line.destroy();
      await browser.close();
      const gone = new Promise((done) => service.child.once("exit", done));
      service.child.kill("SIGKILL");
      await gone;
      for (const { server } of served) {
        server.closeAllConnections();
        server.close();
      }
      rmSync(service.directory, { recursive: true, force: true });
    },
  };
}

export const newCall = () => randomUUID();
export const pause = (ms) => new Promise((over) => setTimeout(over, ms));
