// The try-it page: the lines below the form say what is entered. They quote as the server does.
"use strict";

const form = document.getElementById("try");

/** One word of a shell's command line. */
function inShell(text) {
  return /^[A-Za-z0-9/:._-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function lines() {
  const value = (name) => form.elements[name]?.value.trim() ?? "";
  const base = form.dataset.base;
  const local = "local" in form.dataset;
  const model = value("other_model") || value("model");
  const messages = [{ role: "user", content: value("message") || form.elements.message.placeholder }];
  const tools = value("servers").split(/\s+/).filter(Boolean).map((server_url) => ({ type: "mcp", server_url }));
  const json = JSON.stringify;
  const fields = Object.entries({ model, messages, store: true, ...(tools.length ? { tools } : {}) });
  const body = `{\n${fields.map(([name, value]) => `    "${name}": ${json(value)}`).join(",\n")}\n  }`;
  const curl = [
    `curl ${inShell(`${base}/chat/completions`)}`,
    ...(local ? [] : [`  -H "Authorization: Bearer $TOOLGATE_KEY"`]),
    `  -H "Content-Type: application/json"`,
    `  -d ${inShell(body)}`,
  ].join(" \\\n");
  const python = `${local ? "" : "import os\n"}from openai import OpenAI

client = OpenAI(base_url=${json(base)}, api_key=${local ? '"local"' : 'os.environ["TOOLGATE_KEY"]'})
completion = client.chat.completions.create(
    model=${json(model)},
    messages=${json(messages)},
    store=True,${tools.length ? `\n    tools=${json(tools)},` : ""}
)
print(completion.choices[0].message.content)`;
  const javascript = `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${json(base)}, apiKey: ${local ? '"local"' : "process.env.TOOLGATE_KEY"} });
const completion = await client.chat.completions.create({
  model: ${json(model)},
  messages: ${json(messages)},
  store: true,${tools.length ? `\n  tools: ${json(tools)},` : ""}
});
console.log(completion.choices[0].message.content);`;
  return { curl, python, javascript };
}

function write() {
  for (const [name, text] of Object.entries(lines())) {
    // Not there where more goes along than the form shows.
    const sample = document.querySelector(`[data-sample="${name}"]`);
    if (sample) sample.textContent = text;
  }
}

form.addEventListener("input", write);
// Ctrl+Enter sends, as it does elsewhere.
form.elements.message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
write();
