// A person's browser as far as OAuth needs one: cookies, redirects one by one, forms as the pages have them. No
// JavaScript, as our pages need none. It remembers every address it was sent to.
import { request as plain } from "node:http";
import { request as secure } from "node:https";

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", "#x27": "'" };
const decoded = (text) => text.replace(/&(#?\w+);/g, (whole, name) => ENTITIES[name] ?? (/^#\d+$/.test(name) ? String.fromCodePoint(Number(name.slice(1))) : whole));
const attributes = (tag) => Object.fromEntries([...tag.matchAll(/([\w-]+)(?:="([^"]*)")?/g)].slice(1).map(([, name, value]) => [name.toLowerCase(), decoded(value ?? "")]));

export class Browser {
  /** Every address any of them was sent to. */
  static trails = [];

  /** `ca` is a certificate to trust besides the public ones. */
  constructor({ ca } = {}) {
    this.ca = ca;
    this.cookies = new Map();
    this.trail = [];
  }

  /** Opens an address and follows where it leads. */
  open(url) { return this.go("GET", new URL(url)); }

  /** Presses the button of a page whose `action` is `value`, or its only one; `fields` are typed in. */
  press(page, value, fields = {}) {
    const form = page.forms.find((form) => !value || form.buttons.some((button) => button.value === value));
    if (!form) throw new Error(`no button ${value} on ${page.url}: ${page.said.slice(0, 300)}`);
    const button = form.buttons.find((button) => button.value === value) ?? form.buttons[0];
    const body = new URLSearchParams({ ...form.fields, ...(button?.name ? { [button.name]: button.value } : {}), ...fields });
    const url = new URL(form.action || page.url, page.url);
    return form.method === "post" ? this.go("POST", url, body, page.url) : this.go("GET", new URL(`?${body}`, url));
  }

  /** Follows the page's link whose address contains `part`. */
  follow(page, part) {
    const link = page.links.find((href) => href.includes(part));
    if (!link) throw new Error(`no link ${part} on ${page.url}: ${page.said.slice(0, 300)}`);
    return this.open(new URL(link, page.url));
  }

  async go(method, url, body, from) {
    for (let hops = 0; hops < 20; hops += 1) {
      const answer = await this.send(method, url, body, from);
      const step = { method, url: url.href, status: answer.status };
      this.trail.push(step);
      Browser.trails.push(step);
      const onward = answer.status >= 300 && answer.status < 400 && answer.headers.location;
      const refreshed = !onward && (answer.headers.refresh ?? /<meta http-equiv="refresh" content="([^"]*)"/i.exec(answer.text)?.[1]);
      const target = onward || (refreshed && decoded(/url=['"]?([^'"]+)/i.exec(refreshed)?.[1] ?? ""));
      if (!target) return page(url, answer);
      if (answer.status !== 307 && answer.status !== 308) [method, body] = ["GET", undefined];
      [from, url] = [url, new URL(target, url)];
    }
    throw new Error(`it is sent on and on: ${this.trail.slice(-20).map(({ url }) => url).join(" ")}`);
  }

  send(method, url, body, from) {
    const cookie = [...(this.cookies.get(url.hostname)?.values() ?? [])].filter(({ path }) => url.pathname.startsWith(path)).map(({ name, value }) => `${name}=${value}`).join("; ");
    const text = body?.toString();
    const headers = {
      accept: "text/html,application/xhtml+xml", "user-agent": "counterpart browser", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document",
      "sec-fetch-site": from ? (new URL(from).origin === url.origin ? "same-origin" : "cross-site") : "none",
      ...(cookie ? { cookie } : {}),
      ...(text === undefined ? {} : { "content-type": "application/x-www-form-urlencoded", "content-length": Buffer.byteLength(text), origin: new URL(from).origin }),
    };
    return new Promise((resolve, reject) => {
      const onward = (url.protocol === "https:" ? secure : plain)(url, { method, headers, ca: this.ca, agent: false, timeout: 20_000 }, (answer) => {
        for (const line of answer.headers["set-cookie"] ?? []) this.keep(url, line);
        const chunks = [];
        answer.on("data", (chunk) => chunks.push(chunk));
        answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, text: Buffer.concat(chunks).toString() }));
        answer.on("error", reject);
      });
      onward.on("timeout", () => onward.destroy(new Error(`${url} does not answer`)));
      onward.on("error", reject);
      onward.end(text);
    });
  }

  keep(url, line) {
    const [pair, ...rest] = line.split(";").map((part) => part.trim());
    const [name, ...value] = pair.split("=");
    const jar = this.cookies.get(url.hostname) ?? new Map();
    const path = rest.find((part) => /^path=/i.test(part))?.slice(5) || "/";
    const gone = rest.some((part) => /^max-age=(0|-\d+)$/i.test(part) || (/^expires=/i.test(part) && Date.parse(part.slice(8)) < Date.now()));
    if (gone) jar.delete(`${name} ${path}`);
    else jar.set(`${name} ${path}`, { name, value: value.join("="), path });
    this.cookies.set(url.hostname, jar);
  }
}

function page(url, { status, headers, text }) {
  const forms = [...text.matchAll(/<form\b([^>]*)>(.*?)<\/form>/gis)].map(([, head, inside]) => {
    const { action = "", method = "get" } = attributes(`form ${head}`);
    const inputs = [...inside.matchAll(/<input\b[^>]*>/gi)].map(([tag]) => attributes(tag));
    const buttons = [...inside.matchAll(/<button\b[^>]*>/gi)].map(([tag]) => attributes(tag));
    return { action, method: method.toLowerCase(), fields: Object.fromEntries(inputs.filter(({ name }) => name).map(({ name, value = "" }) => [name, value])), buttons };
  });
  const links = [...text.matchAll(/<a\b[^>]*>/gi)].map(([tag]) => attributes(tag).href).filter(Boolean);
  const said = decoded(text.replace(/<style.*?<\/style>|<head>.*?<\/head>|<[^>]+>/gis, " ")).replace(/\s+/g, " ").trim();
  return { url: url.href, status, headers, text, forms, links, said };
}
