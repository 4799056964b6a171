"use strict";
const METHODS = ["get", "post", "put", "patch", "delete"];
const TEXT_MAX = 200000;
const at = (id) => document.getElementById(id);
let spec = {};
let token = "";
// What the next example is filled in with: the newest job of this page, a handler that exists.
const known = {};

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Descriptions mark code by backticks; everything stays text, nothing becomes markup.
function prose(text) {
  return text.split("`").map((part, number) => (number % 2 ? make("code", {}, part) : part));
}

// Schemas

function follow(schema) {
  let found = schema ?? {};
  while (found.$ref) {
    const steps = found.$ref.slice(2).split("/").map((step) => decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~"));
    found = steps.reduce((value, step) => value?.[step], spec) ?? {};
  }
  return found;
}

// One object for what may be spread over references, `allOf`, or a choice between a thing and null.
function whole(schema) {
  const found = follow(schema);
  const choices = (found.anyOf ?? found.oneOf ?? []).filter((choice) => choice.type !== "null");
  if (choices.length === 1) return { ...found, ...whole(choices[0]) };
  if (!found.allOf) return found;
  const parts = found.allOf.map(whole);
  const properties = Object.assign({}, ...parts.map((part) => part.properties));
  return { ...found, type: "object", properties, required: parts.flatMap((part) => part.required ?? []) };
}

function kind(schema) {
  if (schema === true || !schema || !Object.keys(schema).length) return "any JSON";
  if (schema.$ref) return decodeURIComponent(schema.$ref.split("/").pop());
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(kind).join(" | ");
  if (schema.allOf) return schema.allOf.map(kind).join(" & ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") {
    const item = kind(schema.items);
    return /[ |]/.test(item) ? `(${item})[]` : `${item}[]`;
  }
  if (Array.isArray(schema.type)) return schema.type.join(" | ");
  return schema.format ? `${schema.type} (${schema.format})` : (schema.type ?? "any JSON");
}

function bounds(schema) {
  const one = whole(schema);
  const told = [
    ["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"],
    ["minLength", "length ≥"], ["maxLength", "length ≤"], ["minItems", "items ≥"], ["maxItems", "items ≤"],
    ["pattern", "matches"],
  ].filter(([name]) => name in one).map(([name, words]) => `${words} ${one[name]}`);
  const standard = schema?.default ?? one.default;
  if (standard !== undefined && standard !== null) told.push(`default ${JSON.stringify(standard)}`);
  return told.join(", ");
}

function notes(schema, description) {
  const limit = bounds(schema);
  const node = make("span", { class: "note" }, ...prose(description ?? ""));
  if (limit) node.append(description ? "; " : "", limit);
  return node;
}

function later(details, fill) {
  details.addEventListener("toggle", () => details.open && fill(details), { once: true });
  return details;
}

function fields(schema) {
  const one = whole(schema);
  const isDue = (name) => (one.required ?? []).includes(name);
  // What has to be given comes first, then what the job is about, then what may be said besides.
  const rank = (name) => (isDue(name) ? 0 : name === "input" ? 1 : 2);
  const sorted = Object.entries(one.properties ?? {}).sort(([a], [b]) => rank(a) - rank(b));
  const rows = sorted.map(([name, value]) => make("div", { class: "field" },
    make("code", isDue(name) ? { class: "must" } : {}, name),
    make("code", { class: "kind" }, kind(value)),
    notes(value, value.description ?? follow(value).description),
    nested(value)));
  return make("div", { class: "fields" }, ...rows);
}

function inner(schema) {
  const one = whole(schema);
  if (one.type === "array") return inner(one.items);
  if (Object.keys(one.properties ?? {}).length) return one;
  return (one.anyOf ?? one.oneOf ?? []).map(inner).find(Boolean) ?? null;
}

function nested(schema) {
  const one = inner(schema);
  if (!one) return null;
  return later(make("details", { class: "nested" }, make("summary", {}, "its fields")), (node) => node.append(fields(one)));
}

function example(schema, name) {
  if (name in known) return known[name];
  const one = whole(schema);
  if (one.examples?.length) return one.examples[0];
  if (one.default !== undefined && one.default !== null) return one.default;
  if (one.enum) return one.enum[0];
  if ("const" in one) return one.const;
  if (one.properties || one.type === "object") {
    const wanted = [...new Set([...(one.required ?? []), "input"])].filter((key) => key in (one.properties ?? {}));
    return Object.fromEntries(wanted.map((key) => [key, example(one.properties[key], key)]));
  }
  if (one.type === "array") return name === "jobs" || one.minItems ? [example(one.items)] : [];
  if (one.type === "string") return one.format === "date-time" ? new Date().toISOString() : "text";
  if (one.type === "integer" || one.type === "number") return one.minimum ?? 1;
  if (one.type === "boolean") return true;
  return one.anyOf ? example(one.anyOf[0]) : {};
}

// One route

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function question(method, path, parameters, body, streams) {
  const query = new URLSearchParams();
  const headers = {};
  let target = path;
  for (const { of, input } of parameters) {
    const value = input.value.trim();
    if (of.in === "path") target = target.replace(`{${of.name}}`, encodeURIComponent(value));
    else if (!value) continue;
    else if (of.in === "header") headers[of.name] = value;
    else if (of.schema.type === "object") query.append(`${of.name}.${value.split("=")[0]}`, value.split("=").slice(1).join("="));
    else if (of.schema.type === "array") value.split(",").forEach((one) => query.append(of.name, one.trim()));
    else query.append(of.name, value);
  }
  const text = body?.value.trim() ?? "";
  if (text) headers["Content-Type"] = body.dataset.type;
  const url = location.origin + target + (query.size ? `?${query}` : "");
  return { url, method: method.toUpperCase(), headers, body: text || undefined, streams };
}

function curl(asked) {
  const verb = asked.method === (asked.body ? "POST" : "GET") ? "" : `-X ${asked.method} `;
  const words = [`curl ${asked.streams ? "-sN" : "-s"} ${verb}${quoted(asked.url)}`];
  if (spec.security) words.push('-H "Authorization: Bearer $RUNNER_TOKEN"');
  for (const [name, value] of Object.entries(asked.headers)) words.push("-H " + quoted(`${name}: ${value}`));
  if (asked.body) words.push("--data-binary " + quoted(asked.body));
  return words.join(" \\\n     ");
}

async function show(answer, began, status, output) {
  const type = answer.headers.get("content-type") ?? "";
  status.className = answer.ok ? "status" : "status bad";
  status.textContent = `${answer.status} ${answer.statusText}`;
  const took = () => `${Math.round(performance.now() - began)} ms`;
  output.hidden = false;
  output.textContent = "";
  if (type.startsWith("text/event-stream")) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return `stream ended after ${took()}`;
      output.textContent = (output.textContent + value).slice(-TEXT_MAX);
      output.scrollTop = output.scrollHeight;
    }
  }
  const text = await answer.text();
  const note = [took(), `${text.length} characters`, answer.headers.get("location")].filter(Boolean).join(", ");
  const isJson = /[/+]json/.test(type);
  if (!isJson && type && !type.startsWith("text/")) output.textContent = type;
  else output.textContent = (isJson && text ? JSON.stringify(JSON.parse(text), null, 2) : text).slice(0, TEXT_MAX) || "(no body)";
  if (isJson && answer.ok && text && /^[0-9a-f-]{36}$/.test(JSON.parse(text).id ?? "")) known.job_id = JSON.parse(text).id;
  return note;
}

function trial(method, path, operation) {
  const parameters = (operation.parameters ?? []).map((of) => ({
    of, input: make("input", { value: of.in === "path" ? (known[of.name] ?? "") : "", placeholder: of.schema.type === "object" ? "PATH=VALUE" : (of.schema.examples?.[0] ?? kind(of.schema)) }),
  }));
  const [type, media] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const body = type ? make("textarea", { spellcheck: "false", "data-type": type, "aria-label": "Body" }) : null;
  if (body && operation.requestBody.required) body.value = JSON.stringify(example(media.schema), null, 2);
  const [line, output] = [make("pre"), make("pre", { hidden: true, tabindex: "0" })];
  const [status, note] = [make("span"), make("span", { class: "note", role: "status" })];
  const [send, copy] = [make("button", { type: "submit" }, "Send"), make("button", { type: "button", class: "quiet" }, "Copy curl")];
  let sending = null;
  const streams = "text/event-stream" in (operation.responses?.["200"]?.content ?? {});
  const refresh = () => { line.textContent = curl(question(method, path, parameters, body, streams)); };
  const form = make("form", { class: "try" },
    ...parameters.map(({ of, input }) => make("label", {}, make("code", {}, of.name), input)),
    body, line, make("div", { class: "row" }, send, copy, status, note), output);
  form.addEventListener("input", refresh);
  copy.addEventListener("click", async () => {
    // A page that came over plain HTTP from another machine has no clipboard.
    if (navigator.clipboard) await navigator.clipboard.writeText(line.textContent);
    else getSelection().selectAllChildren(line);
    note.textContent = navigator.clipboard ? "copied" : "selected";
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending) return sending.abort();
    sending = new AbortController();
    send.textContent = "Stop";
    note.textContent = "";
    const { url, ...asked } = question(method, path, parameters, body, streams);
    if (token) asked.headers.Authorization = `Bearer ${token}`;
    const began = performance.now();
    try {
      note.textContent = await show(await fetch(url, { ...asked, signal: sending.signal }), began, status, output);
    } catch (error) {
      note.textContent = error.name === "AbortError" ? "stopped" : String(error);
    }
    sending = null;
    send.textContent = "Send";
  });
  refresh();
  return form;
}

function answers(operation) {
  const [good, bad] = [[], []];
  for (const [status, answer] of Object.entries(operation.responses ?? {})) (status < 400 ? good : bad).push([status, answer]);
  const rows = good.map(([status, answer]) => {
    const [type, media] = Object.entries(answer.content ?? {})[0] ?? ["", {}];
    const told = media.schema && Object.keys(media.schema).length ? kind(media.schema) : type;
    return make("div", { class: "field" }, make("span", { class: "status" }, status), make("span", {}, answer.description),
      told ? make("code", { class: "kind" }, told) : null, nested(media.schema));
  });
  const problem = bad.map(([, answer]) => Object.values(answer.content ?? {})[0]?.schema).find(Boolean);
  if (bad.length) rows.push(make("div", { class: "field" }, make("span", { class: "status bad" }, bad.map(([status]) => status).join(" ")),
    make("span", { class: "note" }, "problems (RFC 9457)"), nested(problem)));
  return rows;
}

function fill(node, method, path, operation) {
  const inside = make("div", { class: "inside" });
  if (operation.description) inside.append(make("p", {}, ...prose(operation.description)));
  if (operation.parameters?.length) {
    inside.append(make("h3", {}, "Parameters"), make("div", { class: "fields" }, ...operation.parameters.map((of) =>
      make("div", { class: "field" }, make("code", of.required ? { class: "must" } : {}, of.name),
        make("code", { class: "kind" }, kind(of.schema)), notes(of.schema, [of.in, of.description].filter(Boolean).join(": "))))));
  }
  for (const [type, media] of Object.entries(operation.requestBody?.content ?? {})) {
    inside.append(make("h3", {}, `Body, ${type}`));
    if (media.schema?.$ref) inside.append(fields(media.schema));
  }
  inside.append(make("h3", {}, "Answers"), make("div", { class: "fields" }, ...answers(operation)));
  inside.append(make("h3", {}, "Try it"), trial(method, path, operation));
  node.append(inside);
}

// The whole

function draw() {
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const method of METHODS.filter((name) => methods[name])) {
      const group = methods[method].tags?.[0] ?? "other";
      groups.set(group, [...(groups.get(group) ?? []), [method, path, methods[method]]]);
    }
  }
  at("version").textContent = spec.info.version;
  at("index").replaceChildren();
  at("routes").replaceChildren();
  for (const [group, operations] of groups) {
    const [links, cards] = [make("section", {}, make("h2", {}, group)), make("section", {}, make("h2", {}, group))];
    for (const [method, path, operation] of operations) {
      const id = operation.operationId ?? `${method}${path}`;
      const about = (operation.description ?? operation.summary ?? "").split("\n")[0];
      const words = `${method} ${path} ${about}`.toLowerCase();
      const badge = () => make("span", { class: `method ${method}` }, method);
      links.append(make("a", { href: `#${id}`, "data-words": words, title: path }, badge(), make("span", { class: "mono" }, path)));
      const summary = make("summary", {}, badge(), make("code", {}, path), make("span", { class: "about" }, ...prose(about)));
      cards.append(later(make("details", { class: "operation", id, "data-words": words }, summary),
        (node) => fill(node, method, path, operation)));
    }
    at("index").append(links);
    at("routes").append(cards);
  }
  known.handler = Object.keys(spec.paths).map((path) => path.match(/^\/v1\/handlers\/([^/{]+)\/jobs$/)?.[1]).find(Boolean) ?? "NAME";
  jump();
}

function jump() {
  const node = at(decodeURIComponent(location.hash.slice(1)) || "routes");
  if (node?.tagName === "DETAILS") {
    node.open = true;
    node.scrollIntoView();
  }
}

function sift() {
  const wanted = at("filter").value.toLowerCase().split(/\s+/);
  for (const node of document.querySelectorAll("[data-words]")) node.hidden = !wanted.every((word) => node.dataset.words.includes(word));
  for (const node of document.querySelectorAll("section")) node.hidden = !node.querySelector("[data-words]:not([hidden])");
}

async function load() {
  try {
    const answer = await fetch("/openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
    const document = await answer.json();
    at("access").hidden = answer.status !== 401 && !document.security;
    if (!answer.ok) throw new Error(answer.status === 401 ? "Enter the server's token to view the API." : document.detail);
    spec = document;
    draw();
  } catch (error) {
    at("routes").replaceChildren(make("p", { role: "status" }, error.message));
  }
}

at("filter").addEventListener("input", sift);
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  load();
});
addEventListener("hashchange", jump);
load();
