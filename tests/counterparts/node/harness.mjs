// What every suite in Node needs: the gateway as a process, counterparts as processes, tests with names, and the
// versions of what passed.
import { execFileSync, spawn } from "node:child_process";
import { createServer, request as forward } from "node:http";
import { createWriteStream, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startProvider, MODEL, PROVIDER_KEY } from "./scripted-provider.mjs";

export { MODEL, PROVIDER_KEY };
export const SCRATCH = required("TOOLGATE_TEST_DIR");
export const SOURCES = join(import.meta.dirname, "..");
export const PACKAGES = join(SCRATCH, "node", "node_modules");
export const PYTHON = join(SCRATCH, "python", "bin", "python");
const LOGS = join(SCRATCH, "logs");
const processes = new Set();
const cleanups = [];
process.on("exit", () => processes.forEach((child) => child.kill(child.ownServer ? "SIGTERM" : "SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

function required(name) {
  if (!process.env[name]) throw new Error(`${name} is not set`);
  return process.env[name];
}

/** The version of an installed npm package. */
export const npmVersion = (name) => JSON.parse(readFileSync(join(PACKAGES, name, "package.json"), "utf8")).version;

/** Seconds that a server may take to start: many start at the same time. */
const STARTING = 120;

/** Asks `condition` until it gives something; fails after `seconds`, naming `what`. */
export async function until(what, condition, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  let last;
  do {
    try {
      const value = await condition();
      if (value) return value;
    } catch (failure) { last = failure; }
    await new Promise((resolve) => setTimeout(resolve, 15));
  } while (Date.now() < end);
  throw new Error(`${what} did not happen within ${seconds} s${last ? ` (${last.message})` : ""}`);
}

/** Starts a process whose output goes into the scratch directory's logs; it is ended when the suite ends. */
export function start(name, command, args, options = {}) {
  mkdirSync(LOGS, { recursive: true });
  const file = join(LOGS, `${name}.log`);
  const log = createWriteStream(file);
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  processes.add(child);
  child.text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => { child.text += data; });
    stream.pipe(log, { end: false });
  }
  child.ended = new Promise((resolve) => child.on("exit", (code, signal) => { processes.delete(child); resolve(code ?? signal); }));
  child.on("error", (failure) => { child.text += `\n${failure}`; });
  return child;
}

/** Ends a process this suite started, and waits for it. */
export async function end(child, signal = "SIGTERM") {
  child.kill(signal);
  const patience = setTimeout(() => child.kill("SIGKILL"), 5000);
  await child.ended;
  clearTimeout(patience);
}

/** Runs something when the suite ends. */
export const atEnd = (cleanup) => cleanups.push(cleanup);

/** A loopback port that nobody uses at the moment. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A gateway in local mode whose provider `scripted` is the scripted one; `config` is more of its file. */
export async function startGateway({ name = "gateway", config = "", listen = 0 } = {}) {
  const provider = await startProvider();
  const directory = mkdtempSync(join(SCRATCH, `${name}-`));
  const file = join(directory, "config.toml");
  writeFileSync(file, `${config}
[[providers]]
name = "scripted"
base_url = "${provider.url}"
api_key = "${PROVIDER_KEY}"
models = ["${MODEL}"]
quirks = { images = "user", max_tools = 128 }
`);
  const environment = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/_API_KEY$|^TOOLGATE_/.test(key)));
  const flags = ["--config", file, "--data", directory];
  const options = { env: { ...environment, RUST_LOG: "debug" } };
  let beginnings = 0;
  const gateway = {
    provider, model: `scripted/${MODEL}`, directory,
    /** What all of its processes said so far. */
    said: () => readdirSync(LOGS).filter((file) => file === `${name}.log` || file.startsWith(`${name}-`)).map((file) => readFileSync(join(LOGS, file), "utf8")).join(""),
    async begin(at) {
      beginnings += 1;
      const child = start(beginnings > 1 ? `${name}-${beginnings}` : name, required("TOOLGATE_BIN"), ["serve", ...flags, "--listen", `127.0.0.1:${at}`], options);
      const port = await until("the gateway's first line", () => {
        if (child.exitCode !== null) throw new Error(`it ended: ${child.text}`);
        return child.text.match(/127\.0\.0\.1:(\d{2,5})/)?.[1];
      });
      Object.assign(gateway, { child, port, url: `http://127.0.0.1:${port}` });
      await until("GET /healthz", async () => (await fetch(`${gateway.url}/healthz`, { signal: AbortSignal.timeout(2000) })).ok);
    },
    /** The same gateway as a new process. */
    async restart() { await end(gateway.child); await gateway.begin(gateway.port); },
    /** What another command of the program prints, with this gateway's configuration and data. */
    run: (...args) => execFileSync(required("TOOLGATE_BIN"), [...args, ...flags], { ...options, stdio: ["ignore", "pipe", "pipe"], timeout: 20_000 }).toString(),
    async stop() { await end(gateway.child); await provider.stop(); rmSync(directory, { recursive: true, force: true }); },
  };
  await gateway.begin(listen);
  atEnd(() => gateway.stop());
  return gateway;
}

/** A server in Node that is told where to listen by `loopback.cjs`; gives its base address. */
export async function startNodeServer(name, script, args = [], { env = {}, nodeArgs = [] } = {}) {
  const directory = mkdtempSync(join(SCRATCH, "port-"));
  const file = join(directory, "port");
  const child = start(name, process.execPath, ["--require", join(import.meta.dirname, "loopback.cjs"), ...nodeArgs, script, ...args],
    { env: { ...process.env, COUNTERPART_PORT_FILE: file, ...env } });
  const port = await until(`${name} listening`, () => {
    if (child.exitCode !== null) throw new Error(`it ended: ${child.text.slice(-800)}`);
    return existsSync(file) && readFileSync(file, "utf8");
  }, STARTING);
  atEnd(async () => { await end(child, "SIGKILL"); rmSync(directory, { recursive: true, force: true }); });
  return { url: `http://127.0.0.1:${port}`, child };
}

/** Starts a server of `servers/` in Node; gives the process and the address it prints behind `word`. */
export async function startOwnServer(name, script, args = [], { env = {}, word = "LISTENING" } = {}) {
  const child = start(name, process.execPath, ["--import", join(import.meta.dirname, "resolve.mjs"), join(import.meta.dirname, "servers", script), ...args],
    { env: { ...process.env, ...env } });
  child.ownServer = true; // it may have processes of its own to end
  const url = await until(`${name} listening`, () => {
    if (child.exitCode !== null) throw new Error(`it ended: ${child.text.slice(-800)}`);
    return child.text.match(new RegExp(`^${word} (\\S+)$`, "m"))?.[1];
  }, STARTING);
  atEnd(() => end(child));
  return { url, child };
}

/** A server in Python that prints its address as its first line. */
export async function startPythonServer(name, script, args = []) {
  const child = start(name, PYTHON, ["-u", join(SOURCES, "python", "servers", script), ...args], { env: { ...process.env, PYTHONUNBUFFERED: "1" } });
  const url = await until(`${name} listening`, () => {
    if (child.exitCode !== null) throw new Error(`it ended: ${child.text.slice(-800)}`);
    return child.text.match(/^LISTENING (\S+)$/m)?.[1];
  }, STARTING);
  atEnd(() => end(child, "SIGKILL"));
  return { url, child };
}

/** Stands between the gateway and a server, changes nothing, and notes how the server is spoken to. */
export async function startWitness(server) {
  const target = new URL(server);
  const heard = [];
  const witness = createServer((request, response) => {
    const chunks = [];
    const onward = forward({ host: target.hostname, port: target.port, method: request.method, path: request.url, headers: { ...request.headers, host: target.host } }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
      answer.on("error", () => response.destroy());
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.on("data", (chunk) => { chunks.push(chunk); onward.write(chunk); });
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      heard.push({ method: request.method, path: request.url.split("?")[0], headers: request.headers, message: text ? JSON.parse(text) : undefined });
      onward.end();
    });
  });
  await new Promise((resolve) => witness.listen(0, "127.0.0.1", resolve));
  atEnd(() => { witness.close(); witness.closeAllConnections(); });
  return { url: `http://127.0.0.1:${witness.address().port}${target.pathname}`, heard };
}

/** A suite: tests that belong to a subject, whose version is written down when all of its tests passed. */
export function suite(name) {
  const results = [];
  const subjects = new Map();
  return {
    /** What is tested: `kind` is client, provider, server, authorization or referee. */
    subject(kind, title, version, registry, note = "") {
      const subject = { kind, title, version, registry, note, passed: 0, failed: 0 };
      subjects.set(title, subject);
      return subject;
    },
    async test(subject, title, run, seconds = 30) {
      let timer;
      const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`not finished after ${seconds} s`)), seconds * 1000); });
      try {
        await Promise.race([run(), late]);
        subject.passed += 1;
        results.push(true);
        console.log(`PASS ${name}: ${title}`);
      } catch (failure) {
        subject.failed += 1;
        results.push(false);
        const reason = String(failure?.message ?? failure).replace(/\s+/g, " ").slice(0, 1500);
        console.log(`FAIL ${name}: ${title}: ${reason}`);
      } finally { clearTimeout(timer); }
    },
    async finish() {
      await Promise.all(cleanups.map((cleanup) => cleanup()));
      mkdirSync(join(SCRATCH, "versions"), { recursive: true });
      writeFileSync(join(SCRATCH, "versions", `${name}.json`), JSON.stringify([...subjects.values()], null, 1));
      process.exit(results.every(Boolean) && results.length > 0 ? 0 : 1);
    },
  };
}

let scripts = 0;
/** The user message that makes the scripted provider play `turns`. */
export function script(turns, key = `script-${process.pid}-${++scripts}`) {
  return { key, message: { role: "user", content: JSON.stringify(Array.isArray(turns) ? { key, turns } : { key, ...turns }) } };
}

/** A completion whose stream is read to its end and checked for everything a stream must be. */
export async function streamed(gateway, body, headers = {}) {
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: "POST", headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ model: gateway.model, stream: true, stream_options: { include_usage: true }, ...body }),
  });
  const text = await response.text();
  if (!response.ok) return { status: response.status, error: JSON.parse(text).error, headers: response.headers };
  const data = text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
  if (data.pop() !== "[DONE]") throw new Error(`the stream does not end with [DONE]: …${text.slice(-300)}`);
  return { status: response.status, headers: response.headers, text, ...inspect(data.map((line) => JSON.parse(line))) };
}

/** Puts chunks together and complains about whatever a client would stumble over. */
export function inspect(chunks) {
  const broken = chunks.find((chunk) => chunk.error);
  if (broken) return { error: broken.error };
  const wrong = (what) => { throw new Error(`${what} in ${JSON.stringify(chunks).slice(0, 1500)}`); };
  if (new Set(chunks.map((chunk) => chunk.id)).size !== 1) wrong("more than one id");
  if (chunks.some((chunk) => chunk.object !== "chat.completion.chunk" || !chunk.created || !chunk.model)) wrong("a chunk without object, created or model");
  const choices = chunks.flatMap((chunk) => chunk.choices);
  if (choices.some((choice) => choice.index !== 0)) wrong("a choice with another index");
  if (choices.filter((choice) => choice.delta?.role).length !== 1) wrong("not exactly one role");
  if (!choices[0]?.delta?.role) wrong("the role is not first");
  const reasons = choices.filter((choice) => choice.finish_reason);
  if (reasons.length !== 1) wrong("not exactly one finish_reason");
  if (choices.at(-1) !== reasons[0]) wrong("something after the finish_reason");
  const calls = [];
  for (const call of choices.flatMap((choice) => choice.delta.tool_calls ?? [])) {
    if (call.index > calls.length) wrong("a gap in the tool call indices");
    if (call.index === calls.length) calls.push({ id: call.id, name: call.function.name, arguments: "" });
    calls[call.index].arguments += call.function?.arguments ?? "";
  }
  const usages = chunks.filter((chunk) => chunk.usage);
  if (usages.length > 1 || (usages.length && chunks.at(-1) !== usages[0])) wrong("usage not exactly once and last");
  return {
    chunks, calls, usage: usages[0]?.usage, finish: reasons[0].finish_reason,
    content: choices.map((choice) => choice.delta.content ?? "").join(""),
    events: chunks.map((chunk) => chunk.toolgate).filter(Boolean),
  };
}

/** The same without a stream. */
export async function completed(gateway, body, headers = {}) {
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify({ model: gateway.model, ...body }),
  });
  const value = await response.json();
  if (!response.ok) return { status: response.status, error: value.error, headers: response.headers };
  const choice = value.choices[0];
  return {
    status: response.status, headers: response.headers, value, content: choice.message.content ?? "", finish: choice.finish_reason,
    calls: choice.message.tool_calls ?? [], usage: value.usage, toolgate: value.toolgate,
  };
}
