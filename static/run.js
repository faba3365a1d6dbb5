// A run's page: goes on by itself while the run does, and copies. Without it the page shows the state so far.
"use strict";

const result = document.getElementById("result");
const shown = [];

/** One element from HTML that our own server has cleaned and escaped. */
function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

/** A button that copies what stands in a code block, at its corner. */
function decorate(node) {
  const blocks = node.matches("pre") ? [node] : node.querySelectorAll("pre");
  for (const block of blocks) {
    if (block.parentElement?.classList.contains("code")) continue;
    const frame = document.createElement("div");
    frame.className = "code";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(button, Promise.resolve(block.querySelector("code").textContent)));
    block.replaceWith(frame);
    frame.append(block, button);
  }
}

async function copy(button, text) {
  const words = button.dataset.words ??= button.textContent;
  try {
    await navigator.clipboard.writeText(await text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = words; }, 1500);
}

/** What the reader has opened stays open. */
function keepOpen(before, after) {
  const old = before.matches("details") ? [before] : [...before.querySelectorAll("details")];
  const fresh = after.matches("details") ? [after] : [...after.querySelectorAll("details")];
  fresh.forEach((details, number) => { if (old[number]) details.open ||= old[number].open; });
}

/** Puts the elements from `from` on in the place of what is there; those that are the same stay. */
function patch(from, elements) {
  elements.forEach((html, number) => {
    const at = from + number;
    if (shown[at] === html && result.children[at]) return;
    const node = element(html);
    if (!node) return;
    const before = result.children[at];
    shown[at] = html;
    if (before && shown.isFresh && before.isEqualNode(node)) return;
    if (before) {
      keepOpen(before, node);
      before.replaceWith(node);
    } else {
      result.append(node);
    }
    decorate(node);
  });
  const length = from + elements.length;
  shown.length = length;
  while (result.children.length > length) result.lastElementChild.remove();
}

/** After an answer that is no stream: the run is gone or not ours any more, or the gateway was away for a moment. */
async function again(address) {
  try {
    const answer = await fetch(location.pathname, { method: "HEAD" });
    if (answer.status === 404) location.reload(); else follow(address);
  } catch {
    setTimeout(() => again(address), 4000);
  }
}

function follow(address) {
  const words = document.getElementById("working-words");
  const source = new EventSource(address);
  shown.isFresh = true;
  source.addEventListener("message", ({ data }) => {
    const message = JSON.parse(data);
    const atBottom = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 48;
    const wasLong = document.documentElement.scrollHeight > window.innerHeight + 48;
    patch(message.from, message.elements);
    shown.isFresh = false;
    document.getElementById("facts").innerHTML = message.facts;
    if (words) words.textContent = message.waits ? "waiting for you" : "working";
    if (message.ended) {
      source.close();
      document.body.classList.remove("live");
      result.removeAttribute("aria-busy");
    }
    if (atBottom && wasLong) window.scrollTo({ top: document.documentElement.scrollHeight });
  });
  // The browser asks again by itself, and gets everything anew.
  source.addEventListener("error", () => {
    if (words) words.textContent = "connecting again";
    if (source.readyState === EventSource.CLOSED) setTimeout(() => again(address), 4000);
  });
}

for (const button of document.querySelectorAll("[data-copy], [data-copy-from]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const { copy: field, copyFrom: address } = button.dataset;
    const text = field
      ? Promise.resolve(document.querySelector(field).value)
      : fetch(address).then((answer) => (answer.ok ? answer.text() : result.innerText));
    copy(button, text);
  });
}

// Menus close as menus do.
document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
});
document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

if (result?.dataset.live) follow(result.dataset.live);
decorate(document.querySelector("main"));
