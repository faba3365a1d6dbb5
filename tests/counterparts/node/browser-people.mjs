// People with browsers: Chromium as somebody would use it, and a picture of every page they see.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { SCRATCH, atEnd, npmVersion } from "./harness.mjs";

const PICTURES = join(SCRATCH, "screenshots");
const ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
mkdirSync(PICTURES, { recursive: true });

export const version = npmVersion("playwright-core");

/** A person in front of a browser of their own, with nothing in it. Our pages work without scripts, so it runs none. */
export async function person(name, options = {}) {
  const directory = mkdtempSync(join(SCRATCH, "browser-"));
  const context = await chromium.launchPersistentContext(directory, {
    executablePath: process.env.TOOLGATE_CHROMIUM ?? "/usr/bin/chromium", args: ARGUMENTS, ignoreDefaultArgs: ["--enable-automation"],
    viewport: { width: 1000, height: 720 }, javaScriptEnabled: false, ...options,
  });
  const page = context.pages()[0] ?? await context.newPage();
  page.setDefaultTimeout(8000);
  const complaints = [];
  // A page that a browser refuses a part of is broken for people, whatever its status.
  page.on("console", (message) => { if (/Content Security Policy|Refused to/.test(message.text())) complaints.push(message.text()); });
  const close = async () => { await context.close().catch(() => {}); rmSync(directory, { recursive: true, force: true }); };
  atEnd(close);
  return {
    name, page, context, complaints, close,
    text: () => page.locator("main").innerText(),
    heading: () => page.locator("h1").innerText(),
    press: (words) => page.getByRole("button", { name: words }).or(page.getByRole("link", { name: words })).first().click(),
    /** On a desktop and on a phone, by day and by night. */
    async picture(title) {
      const before = page.viewportSize();
      for (const [kind, width] of [["desktop", 1000], ["phone", 360]]) {
        await page.setViewportSize({ width, height: 720 });
        if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) throw new Error(`${title} is wider than a ${kind}`);
        const small = await page.evaluate(() => [...document.querySelectorAll("button, .button, nav a")].filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 44).map((one) => one.textContent));
        if (kind === "phone" && small.length) throw new Error(`${title}: too small for a finger: ${small}`);
        for (const colorScheme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme });
          await page.screenshot({ path: join(PICTURES, `${title}-${kind}-${colorScheme}.png`), fullPage: true });
        }
        await page.emulateMedia({ colorScheme: null });
      }
      await page.setViewportSize(before);
    },
    /** Signs in as `account` where oidc-provider asks, and agrees, until it sends on. */
    async agree(account) {
      await page.waitForURL(/\/interaction\//);
      while (/\/interaction\//.test(page.url())) {
        const asked = page.url();
        if (await page.locator("input[name=login]").count()) {
          await page.fill("input[name=login]", account);
          await page.fill("input[name=password]", "any");
        }
        await page.click("button[type=submit]");
        await page.waitForURL((url) => url.href !== asked);
      }
    },
  };
}
