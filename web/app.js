// The dashboard. It has two sources: the status of projections, requested every few
// seconds, and the rows of one table, over the feed.
//
// Text from projections is hostile: it is put into the page only by textContent, never
// as markup, and never into an address without encoding.
"use strict";

/** The interval between status requests, in milliseconds. */
const STATUS_MS = 2000;
/** The maximum number of rows shown at once; all are kept in memory. */
const ROWS_SHOWN_MAX = 400;
/** The maximum number of characters in a cell. */
const CELL_CHARS_MAX = 200;
/** The number of data frames after which they are acknowledged. */
const ACK_EVERY = 8;
/** The longest delay of an acknowledgement, in milliseconds. */
const ACK_MS = 250;
/** The first and the longest wait before a reconnect to the feed. */
const RETRY_MS = 500;
const RETRY_MS_MAX = 15000;
/** The silence after which rows may be out of date; the server sends at least every 15 s. */
const STALE_MS = 30000;

const $ = (id) => document.getElementById(id);

/** An element with a class, text or children. */
function el(tag, { className, text, ...rest } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(rest)) element.setAttribute(name, value);
  element.append(...children.filter(Boolean));
  return element;
}

/** Changes the text only if it differs, so that a selection stays. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const some = new Intl.NumberFormat(undefined, { maximumFractionDigits: 3 });
const rate = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });

function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${some.format(Math.round(seconds / 360) / 10)} h`;
}

function behind(events, ms) {
  return events === 0 ? "nothing" : `${whole.format(events)} events, ${duration(ms / 1000)}`;
}

function moment(us) {
  const date = new Date(us / 1000);
  return Number.isNaN(date.getTime()) ? "–" : date.toISOString().replace("T", " ").slice(0, 19);
}

// ----------------------------------------------------------------- numbers

/** Marks a number that JavaScript cannot represent exactly. A projection cannot write
 * this name itself, because it is random. */
const AS_WRITTEN = `number ${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
/** Strings, which are skipped, and numbers. */
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/** Like JSON.parse, but numbers that would change (9007199254740993, 1e400, 0.10)
 * become objects with their text under AS_WRITTEN. */
function parse(text) {
  return JSON.parse(text.replace(TOKENS, (token) => {
    if (token[0] === '"' || String(Number(token)) === token) return token;
    return `{"${AS_WRITTEN}":"${token}"}`;
  }));
}

/** The text of a number that JavaScript cannot represent exactly, otherwise undefined. */
function written(value) {
  return typeof value === "object" && value !== null ? value[AS_WRITTEN] : undefined;
}

/** Like JSON.stringify, with numbers exactly as they were written. */
function stringify(value) {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const number = written(value);
  if (number !== undefined) return number;
  if (Array.isArray(value)) return `[${value.map(stringify).join(",")}]`;
  const members = Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}:${stringify(member)}`);
  return `{${members.join(",")}}`;
}

/** A number for people; no digit changes. */
function figure(kind, value) {
  const text = written(value);
  if (text === undefined) return (kind === "integer" ? whole : some).format(value);
  if (/^-?\d+$/.test(text)) return whole.format(BigInt(text));
  const rounded = Number(text);
  return Number.isFinite(rounded) && kind === "number" ? some.format(rounded) : text;
}

// ------------------------------------------------------------- projections

let projections = [];

async function get(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw new Error(`${body.detail ?? response.statusText} (${body.code ?? response.status})`);
  return body;
}

async function refresh() {
  try {
    const [list, status] = await Promise.all([get("/v1/projections"), get("/v1/status")]);
    projections = list.projections;
    $("api-error").hidden = true;
    showLog(status);
    showProjections();
    choose();
  } catch (error) {
    $("api-error").hidden = false;
    say($("api-error"), `the status cannot be read: ${error.message}`);
  }
  setTimeout(refresh, STATUS_MS);
}

let logBefore;

function showLog(status) {
  const events = status.partitions.reduce((sum, p) => sum + p.end, 0);
  const times = status.partitions.map((p) => p.event_time_us).filter((us) => us !== null);
  const at = performance.now();
  say($("log-events"), whole.format(events));
  say($("log-time"), times.length ? moment(Math.max(...times)) : "–");
  if (logBefore) {
    const perSecond = (1000 * (events - logBefore.events)) / (at - logBefore.at);
    say($("log-rate"), rate.format(Math.max(0, perSecond)));
  }
  logBefore = { events, at };
}

function showProjections() {
  $("none").hidden = projections.length > 0;
  $("cards").replaceChildren(...projections.map(card));
}

function card(projection) {
  const active = projection.versions.find((v) => v.id === projection.active);
  const shown = active ?? projection.versions.at(-1);
  const { badge, text } = badgeOf(projection, shown);
  const tables = (shown?.tables ?? []).filter((t) => t.public);
  // The newest first; retired versions are not listed.
  const versions = projection.versions.filter((v) => v === active || v.state !== "retired").reverse();
  return el("article", { className: "card" },
    el("div", { className: "head" }, el("h3", { text: projection.name }), el("span", { className: `badge ${badge}`, text })),
    shown?.description && el("p", { className: "about", text: shown.description }),
    tables.length > 0 && el("ul", { className: "tables" }, ...tables.map((t) => el("li", {}, link(projection, t)))),
    ...versions.map(version),
  );
}

/** Problems come before the current activity. */
function badgeOf(projection, shown) {
  const activity = projection.paused ? "paused" : shown?.activity ?? "empty";
  if (activity === "halted" || activity === "faulted" || activity === "paused") return { badge: activity, text: activity };
  if (shown?.differs.length > 0) return { badge: "attention", text: "differs" };
  if (projection.versions.some((v) => v.not_activated)) return { badge: "attention", text: "not activated" };
  if (shown?.parked > 0) return { badge: "attention", text: `${whole.format(shown.parked)} parked` };
  return { badge: activity, text: activity === "idle" ? "up to date" : activity };
}

function link(projection, table) {
  const name = `${projection.name}/${table.name}`;
  const a = el("a", { text: table.name, href: `#${encodeURI(name)}`, title: table.description });
  if (name === feed.table) a.setAttribute("aria-current", "true");
  return a;
}

function version(v) {
  const sum = (field) => v.shards.reduce((total, shard) => total + shard[field], 0);
  // If the log's end is unknown, the lag is unknown as well.
  const known = v.shards.every((shard) => shard.lag_events !== null);
  const lagMs = Math.max(0, ...v.shards.map((shard) => shard.lag_ms));
  const facts = [
    ["applied", whole.format(sum("applied"))],
    ["events/s", rate.format(v.events_per_s)],
    ["behind", known ? behind(sum("lag_events"), lagMs) : "unknown"],
  ];
  if (v.eta_s > 0 && v.percent < 100) facts.push(["ready in", duration(v.eta_s)]);
  if (v.eta_s === null && v.events_per_s > 0 && v.intake_per_s > v.events_per_s) facts.push(["falls behind by", `${rate.format(v.intake_per_s - v.events_per_s)}/s`]);
  if (sum("late") > 0) facts.push(["late", whole.format(sum("late"))]);
  const list = el("dl", {}, ...facts.map(([name, value]) => fact(name, value)));
  if (v.parked > v.waiting) list.append(fact("failed", whole.format(v.parked - v.waiting), "parked"));
  if (v.waiting > 0) list.append(fact("waiting behind", whole.format(v.waiting), "parked"));
  const bar = v.percent < 100 && el("progress", { max: "100", value: String(v.percent), "aria-label": `${some.format(v.percent)} % folded` });
  return el("div", { className: "version" },
    el("div", { className: "head" }, el("span", { className: "id", text: `${v.id.slice(0, 8)} · ${v.plugin_version} · ${v.state}` }),
      v.percent < 100 && el("span", { text: ` ${some.format(Math.floor(v.percent * 10) / 10)} %` })),
    bar,
    list,
    v.reason && el("p", { className: "error", text: v.reason }),
    v.not_activated && el("p", { className: "error", text: `Not activated: ${v.not_activated}` }),
    ...v.differs.map((why) => el("p", { className: "error", text: `Differs from the log: ${why}` })),
  );
}

function fact(name, value, className = "") {
  return el("div", { className }, el("dt", { text: name }), el("dd", { text: value }));
}

/** Goes to the table in the address, or to the first table. */
function choose() {
  let wanted = "";
  try {
    wanted = decodeURI(location.hash.slice(1));
  } catch {
    // If the address cannot be decoded, it names no table.
  }
  if (wanted === "") {
    const served = projections.find((p) => p.active);
    const first = served?.versions.find((v) => v.id === served.active)?.tables.find((t) => t.public);
    if (!first) return;
    wanted = `${served.name}/${first.name}`;
  }
  if (wanted !== feed.table) feed.show(wanted);
  for (const a of document.querySelectorAll(".tables a")) {
    if (a.getAttribute("href") === `#${encodeURI(feed.table)}`) a.setAttribute("aria-current", "true");
    else a.removeAttribute("aria-current");
  }
  const [name, table] = wanted.split("/");
  const projection = projections.find((p) => p.name === name);
  const serving = projection?.versions.find((v) => v.id === projection.active);
  say($("table-about"), serving?.tables.find((t) => t.name === table)?.description ?? "");
  // The feed sends the lag only while no rows change.
  if (serving && feed.commit !== null && serving.shards.every((s) => s.lag_events !== null)) {
    const events = serving.shards.reduce((sum, shard) => sum + shard.lag_events, 0);
    feed.lag({ events, ms: Math.max(0, ...serving.shards.map((shard) => shard.lag_ms)) });
  }
}

// -------------------------------------------------------------------- feed

/** The rows of one table, mirrored over the feed; the protocol is in docs/feed.md. */
const feed = {
  table: "",
  rows: new Map(),
  fields: [],
  commit: null,
  token: null,
  socket: null,
  sub: 0,
  channel: null,
  parts: null,
  received: 0,
  acknowledged: 0,
  failures: 0,
  heard: 0,
  changes: 0,

  /** Shows another table; the connection stays. */
  show(table) {
    this.table = table;
    this.forget();
    grid.reset();
    if (this.socket?.readyState === WebSocket.OPEN) {
      if (this.sub) this.send({ t: "unsub", id: this.sub });
      this.subscribe();
    }
  },

  forget() {
    this.rows = new Map();
    this.commit = this.token = this.channel = this.parts = null;
  },

  connect() {
    state("wait", "connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/feed`, "lantern.v1.json");
    this.socket = socket;
    this.received = this.acknowledged = 0;
    this.channel = null;
    this.sub = 0;
    socket.onopen = () => this.send({ t: "hello" });
    socket.onmessage = ({ data }) => {
      this.heard = performance.now();
      this.take(parse(data));
    };
    socket.onclose = ({ code, reason }) => this.closed(code, reason);
  },

  closed(code, reason) {
    this.parts = null;
    const refusal = (code >= 4400 && code < 4500 && code !== 4429) || [1002, 1003, 1007].includes(code);
    if (refusal) {
      state("down", `refused: ${reason || code}`);
      return;
    }
    const wait = Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** this.failures) * (0.5 + Math.random());
    this.failures += 1;
    state("down", `not connected, again in ${duration(wait / 1000)}`);
    setTimeout(() => this.connect(), wait);
  },

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  },

  subscribe() {
    if (!this.table) return;
    this.sub = nextId++;
    this.channel = this.parts = null;
    const ask = { t: "sub", id: this.sub, table: this.table, rate_ms: 100 };
    if (this.token) ask.resume = this.token;
    this.send(ask);
    state("wait", "catching up");
  },

  take(frame) {
    switch (frame.t) {
      case "welcome":
        this.failures = 0;
        state("live", "connected");
        return this.subscribe();
      case "ping":
        return this.send({ t: "pong" });
      case "ok":
        if (frame.id !== this.sub) return;
        this.channel = frame.ch;
        this.fail("");
        grid.columns(this.fields = frame.fields);
        if (frame.resumed) {
          this.commit = frame.commit;
          state("live", "live");
        }
        return;
      case "err":
        if (frame.id === this.sub) this.refused(frame);
        return;
      case "end":
        if (frame.id === this.sub) this.fail(`the subscription ended: ${frame.why}`);
        return;
      case "reset":
        if (frame.ch !== this.channel) return;
        this.parts = this.token = null;
        if (frame.fields) grid.columns(this.fields = frame.fields);
        state("wait", "catching up");
        return;
      case "snap":
      case "delta":
      case "tick":
        this.acknowledge();
        if (frame.ch === this.channel) this.data(frame);
    }
  },

  refused(frame) {
    this.fail(`${frame.msg} (${frame.code})`);
    state("live", "connected");
    // The table may come with a version that is still catching up.
    const { table, sub } = this;
    setTimeout(() => {
      if (this.table === table && this.sub === sub) this.subscribe();
    }, 2 * STATUS_MS);
  },

  data(frame) {
    if (frame.t === "snap") {
      this.parts ??= new Map();
      for (const [key, row] of Object.entries(frame.rows)) this.parts.set(key, row);
      if (frame.more) return;
      const before = this.rows;
      this.rows = this.parts;
      this.parts = null;
      grid.replaced(before);
    } else if (frame.from !== this.commit) {
      // A gap: the rows stay visible until a new snapshot replaces them.
      this.send({ t: "unsub", id: this.sub });
      this.token = null;
      return this.subscribe();
    } else if (frame.t === "delta") {
      this.parts ??= [];
      this.parts.push(frame);
      if (frame.more) return;
      for (const part of this.parts) this.apply(part);
      this.parts = null;
    }
    this.commit = frame.t === "snap" ? frame.commit : frame.to;
    this.token = frame.tok ?? this.token;
    if (frame.lag) this.lag(frame.lag);
    state("live", "live");
    grid.draw();
  },

  apply({ up = {}, del = [] }) {
    for (const [key, row] of Object.entries(up)) {
      grid.changed(key, this.rows.has(key));
      this.rows.set(key, row);
      this.changes += 1;
    }
    for (const key of del) {
      if (this.rows.delete(key)) grid.removed();
      this.changes += 1;
    }
  },

  lag({ events, ms }) {
    say($("feed-lag"), behind(events, ms));
  },

  /** Every received frame counts, even if its channel is unknown. */
  acknowledge() {
    this.received += 1;
    if (this.received - this.acknowledged >= ACK_EVERY) this.acknowledgeAll();
  },

  acknowledgeAll() {
    if (this.received === this.acknowledged) return;
    this.acknowledged = this.received;
    this.send({ t: "ack", n: this.received });
  },

  fail(message) {
    $("table-error").hidden = message === "";
    say($("table-error"), message);
  },
};

let nextId = 1;

function state(className, text) {
  $("link").className = className;
  say($("link-text"), text);
}

// -------------------------------------------------------------------- grid

/** The part of the rows that is on the screen. */
const grid = {
  keys: [],
  sorted: true,
  lines: new Map(),
  marks: new Map(),
  waiting: false,
  held: false,
  falling: false,

  reset() {
    this.keys = [];
    this.sorted = false;
    this.lines.clear();
    this.marks.clear();
    $("rows").replaceChildren();
    $("columns").replaceChildren();
    $("feed").hidden = $("view").hidden = false;
    say($("table-name"), feed.table.replace("/", " / "));
    feed.fail("");
    for (const id of ["feed-commit", "feed-lag", "feed-rows", "feed-rate"]) say($(id), "–");
    $("cut").hidden = true;
  },

  columns(fields) {
    const heads = fields.map((field) => {
      const unit = field.unit ? el("small", { text: field.unit }) : null;
      return el("th", { className: isNumber(field) ? "number" : "", scope: "col" }, field.name, unit);
    });
    $("columns").replaceChildren(el("tr", {}, el("th", { text: "key", scope: "col" }), ...heads));
    this.lines.clear();
    $("rows").replaceChildren();
    this.draw();
  },

  changed(key, known) {
    if (!known) this.sorted = false;
    if (this.marks.get(key) !== "added") this.marks.set(key, known ? "changed" : "added");
  },

  removed() {
    this.sorted = false;
  },

  /** All rows were replaced; unchanged rows are not marked. */
  replaced(before) {
    this.sorted = false;
    if (before.size === 0) {
      this.lines.clear();
      return;
    }
    for (const [key, row] of feed.rows) {
      const old = before.get(key);
      if (old === undefined || JSON.stringify(old) !== JSON.stringify(row)) this.changed(key, old !== undefined);
    }
  },

  draw() {
    if (this.waiting || this.held) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  },

  paint() {
    if (!this.sorted) {
      this.keys = [...feed.rows.keys()].sort();
      this.sorted = true;
    }
    const filter = $("filter").value;
    const wanted = filter === "" ? this.keys : this.keys.filter((key) => shownKey(key).includes(filter));
    const shown = this.falling ? wanted.slice(-ROWS_SHOWN_MAX).reverse() : wanted.slice(0, ROWS_SHOWN_MAX);
    const body = $("rows");
    const visible = new Set(shown);
    for (const [key, line] of this.lines) {
      if (!visible.has(key)) {
        line.remove();
        this.lines.delete(key);
      }
    }
    for (const key of shown) this.line(key);
    let place = body.firstElementChild;
    for (const key of shown) {
      const line = this.lines.get(key);
      if (line === place) place = place.nextElementSibling;
      else body.insertBefore(line, place);
    }
    this.marks.clear();
    say($("feed-commit"), feed.commit === null ? "–" : whole.format(feed.commit));
    say($("feed-rows"), whole.format(feed.rows.size));
    $("cut").hidden = shown.length === wanted.length;
    say($("cut"), `${whole.format(shown.length)} of ${whole.format(wanted.length)} rows are shown: look for keys to see others`);
  },

  line(key) {
    const known = this.lines.get(key);
    const mark = this.marks.get(key);
    if (known && !mark) return known;
    const line = el("tr", { className: mark === "added" ? "added" : "" });
    const row = feed.rows.get(key);
    // Use only own members: every object has a `constructor`.
    const member = (name) => (Object.hasOwn(Object(row), name) ? row[name] : undefined);
    const cells = feed.fields.map((field) => cell(field, member(field.name)));
    // Cells are new elements, so their animation starts again.
    if (known) cells.forEach((td, place) => td.classList.toggle("changed", td.textContent !== known.children[place + 1].textContent));
    line.append(el("td", { className: "key", text: shownKey(key), title: shownKey(key) }), ...cells);
    known?.replaceWith(line);
    this.lines.set(key, line);
    return line;
  },
};

function isNumber(field) {
  return field.kind === "integer" || field.kind === "number";
}

/** In a table by tenant, U+0000 separates the tenant from the rest of the key. */
function shownKey(key) {
  return key.replaceAll("\u0000", " · ");
}

function cell(field, value) {
  if (value === null || value === undefined) return el("td", { className: "none", text: "–" });
  if (isNumber(field) && (typeof value === "number" || written(value) !== undefined)) {
    return el("td", { className: "number", text: figure(field.kind, value) });
  }
  const text = typeof value === "string" ? value : stringify(value);
  const cut = text.length > CELL_CHARS_MAX ? `${text.slice(0, CELL_CHARS_MAX)}…` : text;
  return el("td", { text: cut, title: cut });
}

// ------------------------------------------------------------------ begin

function toggle(button, turn) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    turn(on);
    grid.draw();
  });
}

toggle($("order"), (on) => (grid.falling = on));
toggle($("hold"), (on) => (grid.held = on));
$("filter").addEventListener("input", () => grid.draw());
$("view").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", () => {
  choose();
  $("table").scrollIntoView({ block: "nearest" });
});

setInterval(() => feed.acknowledgeAll(), ACK_MS);
setInterval(() => {
  if (feed.commit !== null) say($("feed-rate"), rate.format(feed.changes));
  feed.changes = 0;
  const open = feed.socket?.readyState === WebSocket.OPEN;
  if (open && performance.now() - feed.heard > STALE_MS) state("wait", "stale: nothing heard for a while");
}, 1000);

feed.connect();
refresh();
