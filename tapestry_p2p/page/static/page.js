/* The page's one script. Shows what the server tells; whatever came from elsewhere goes through
   textContent alone. The key of this start stands behind the # of the link: it is kept for this tab
   and sent in a header, so no other site, port or user of this machine can ask in its place. */
"use strict";

const LANGUAGES = { en: "English", fr: "Français", es: "Español", ar: "العربية", hi: "हिन्दी", zh: "中文" };
const MODELS = ["alone", "together", "sovereign"]; // each with a line of its own, also without colours
const LINES = { alone: { word: "model_alone", colour: "--idle", dash: [6, 4] }, together: { word: "model_together", colour: "--lead" },
  sovereign: { word: "model_sovereign", colour: "--warn", dash: [2, 3] } };
const KEY = "tapestry-key", CHOSEN = "tapestry-language";
const STEPS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((n) => n * 10 ** power)); // whole rounds
const RETRY_MS = [1000, 2000, 5000];
const $ = (id) => document.getElementById(id);
const shown = {}; // the newest of each part, to be drawn again in another language
const plots = {};
let words = {}, language = "en", failures = 0, writing = null;

// ---- words --------------------------------------------------------------------------------------

const number = (value, options) => new Intl.NumberFormat(language, options).format(value);
const percent = (value) => number(value, { style: "percent", maximumFractionDigits: 0 });
const percent1 = (value) => number(value, { style: "percent", maximumFractionDigits: 1 });
const figures = (value) => number(value, { maximumSignificantDigits: 3 });
const isolate = (text) => "\u2068" + text + "\u2069"; // keeps a name's direction to itself

function t(key, values = {}) {
  let text = words[language]?.[key] ?? words.en?.[key] ?? key;
  if (typeof text === "object")
    text = text[new Intl.PluralRules(language).select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name] ?? "";
    return typeof value === "number" ? number(value) : isolate(value);
  });
}

function bytes(value) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let step = 0;
  while (value >= 1000 && step < units.length - 1) { value /= 1000; step += 1; }
  return number(value, { style: "unit", unit: units[step], unitDisplay: "short", maximumSignificantDigits: 3 });
}

function duration(seconds) {
  const [value, unit] = seconds < 90 ? [seconds, "second"] : seconds < 5400 ? [seconds / 60, "minute"]
    : seconds < 172800 ? [seconds / 3600, "hour"] : [seconds / 86400, "day"];
  return number(Math.round(value), { style: "unit", unit, unitDisplay: "long" });
}

const time = (text) => {
  const at = new Date(text);
  return isNaN(at) ? "" : new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }).format(at);
};

function speak(chosen) {
  language = chosen in LANGUAGES ? chosen : "en";
  document.documentElement.lang = language;
  document.documentElement.dir = language === "ar" ? "rtl" : "ltr";
  $("language").value = language;
  for (const each of document.querySelectorAll("[data-w]")) each.textContent = t(each.dataset.w);
  for (const list of document.querySelectorAll("[data-meanings]"))
    list.replaceChildren(...list.dataset.meanings.split(" ").flatMap((name) =>
      [make("dt", {}, t("term_" + name)), make("dd", {}, t("mean_" + name))]));
  $("plot").setAttribute("aria-label", t("curve"));
  head();
  for (const name in shown) draw[name](shown[name]);
}

// ---- building -----------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (name.startsWith("data-") || name === "scope" || name === "lang" || name === "dir") made.setAttribute(name, value);
    else made[name] = value;
  made.append(...children); // strings become text, never markup
  return made;
}

function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function say(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }
function show(id, whether) { $(id).hidden = !whether; }

const called = (row) => [make("bdi", {}, row.name || t("nameless")), " ", make("code", { dir: "ltr" }, "…" + row.short)];

function term(name) {
  const meaning = t("mean_" + name);
  const button = make("button", { type: "button", className: "term", title: meaning }, t("term_" + name));
  button.addEventListener("click", () => { // the text stands below: lead there
    const box = button.closest("section").querySelector(".meanings");
    box.open = true;
    box.querySelector("summary").focus();
  });
  return button;
}

function head() {
  $("n-head").replaceChildren(
    make("th", { scope: "col" }, t("member")),
    make("th", { scope: "col" }, t("verdict")),
    ...["influence", "cut_share", "distance"].map((name) => make("th", { scope: "col" }, term(name))));
}

// ---- the parts ----------------------------------------------------------------------------------

const LOOKS = { together: "good", finished: "good", alone: "good", not_mixed: "good",
  degraded: "bad", stopped: "bad", no_daemon: "bad", slow: "warn", no_answer: "bad", key: "bad", lost: "bad", restarting: "warn", too_few: "warn" };

const draw = {
  state({ situation, me }) {
    const values = me ? { n: situation.code === "together" ? me.mixed : me.peers, tolerate: me.tolerate, needed: 3 * me.tolerate + 1, live: me.live, round: me.round } : {};
    $("now-title").firstElementChild.className = "dot " + (LOOKS[situation.code] ?? "");
    for (const part of ["what", "why", "next"]) {
      say("now-" + part, t(situation.code + "_" + part, values));
      show("now-" + part, $("now-" + part).textContent !== "-");
    }
    show("now-detail", situation.detail);
    say2($("now-detail").lastElementChild, situation.detail ?? "");
    document.title = t(situation.code + "_what", values) + " · Tapestry";
    show("pause", me);
    show("numbers", me);
    if (!me) return;
    say("my-name", me.name || t("nameless"));
    say("my-id", "…" + me.short);
    say("my-network", t("in_network", { network: me.network, id: "…" + me.network_short }));
    say("version", me.version);
    $("pause").textContent = t(me.paused_by_you ? "resume" : "pause");
    $("pause").dataset.verb = me.paused_by_you ? "resume" : "pause";
    const cells = [["round", number(me.round)], ["live", number(me.live)], ["uptime", duration(me.uptime_s)],
      ["isolated", t(me.isolated ? "isolated_yes" : me.trainer ? "isolated_no" : "isolated_none")]];
    if (me.loss !== null && me.steps) cells.splice(1, 0, ["loss", figures(me.loss)]);
    $("numbers").replaceChildren(...cells.map(([name, value]) =>
      make("div", {}, make("dt", { title: t("mean_" + name) }, t("term_" + name)), make("dd", {}, value))));
    say("l-sockets", t("sockets", { sent: bytes(me.bytes_sent), received: bytes(me.bytes_received) }));
  },

  neighbours({ rows, more }) {
    show("n-table", rows.length);
    show("n-none", !rows.length);
    show("n-more", more);
    if (more) say("n-more", t("more_members", { n: more }));
    const twins = rows.filter((row) => row.alike.length || row.mixed);
    show("alike", twins.length);
    const warned = language + JSON.stringify(twins.map((row) => [row.name, row.short, row.like_you, row.alike.length]));
    if ($("alike").dataset.warned !== warned) { // said aloud once, not each second
      $("alike").dataset.warned = warned;
      $("alike").replaceChildren(...twins.map((row) => make("p", {},
        "⚠ ", ...called(row), " ", t(row.like_you ? "alike_you" : row.alike.length ? "alike" : "mixed_letters"))));
    }
    $("n-body").replaceChildren(...rows.map((row) => {
      const good = row.verdict === "full", warn = row.verdict === "cut" || row.verdict === "unmixed";
      const languages = row.languages.length ? [make("span", { className: "why" }, isolate(row.languages.join(", ")))] : [];
      return make("tr", {},
        make("td", {}, ...called(row), ...languages),
        make("td", {}, make("span", { className: "tag" + (good ? " good" : warn ? " warn" : "") }, t("verdict_" + row.verdict)),
          make("span", { className: "why" }, t("why_" + row.verdict, { n: row.probation }),
            row.connected || row.verdict === "away" ? "" : " " + t("not_connected"))),
        cell("influence", row.influence === null ? "–" : percent(row.influence)),
        cell("cut_share", row.cut_share === null ? "–" : percent(row.cut_share)),
        cell("distance", row.distance === null ? "–" : figures(row.distance)));
    }));
  },

  left(left) {
    say("l-sum", left.readable ? t("left_sum", { n: left.entries, size: bytes(left.bytes) }) : t("left_unreadable"));
    show("l-table", left.kinds.length);
    $("l-body").replaceChildren(...left.kinds.map((row) => make("tr", {},
      make("td", {}, kind(row.kind)),
      make("td", { className: "num" }, number(row.entries)), make("td", { className: "num" }, bytes(row.bytes)))));
    $("l-recent").replaceChildren(...left.recent.map((row) => make("li", {},
      `${time(row.at)} · ${kind(row.kind)} · ${bytes(row.bytes)}`)));
    show("l-bars", left.dense_bytes);
    if (left.dense_bytes) $("l-bars").replaceChildren(
      bar("ours", t("bar_ours", { size: bytes(left.differences_bytes) }), left.differences_bytes / left.dense_bytes),
      bar("dense", t("bar_dense", { size: bytes(left.dense_bytes) }), 1),
      make("span", {}, t("bar_share", { share: percent(left.differences_bytes / left.dense_bytes) })));
  },

  loss({ points }) {
    const enough = points.length > 1;
    show("p-none", !enough);
    show("plot", enough);
    show("p-words", enough);
    if (!enough) return;
    const last = points[points.length - 1], first = points[0];
    say("p-words", t("curve_words", { from: figures(first[1]), first: first[0], to: figures(last[1]), last: last[0] }));
    curve("plot", "term_round", [points.map((p) => p[0]), points.map((p) => p[1])], [{ colour: "--lead" }]);
  },

  gain({ unit, curves, now, gains, apart, failed }) {
    const there = MODELS.filter((name) => now[name] !== null), drawn = there.filter((name) => curves[name].length > 1);
    show("w-none", !there.length && !failed);
    show("w-failed", failed);
    show("w-plot", drawn.length);
    $("w-words").replaceChildren(...there.map((name) => {
      const gain = gains[name] ?? null, model = t(LINES[name].word), value = figures(now[name]);
      const mark = drawing("svg", { viewBox: "0 0 28 8", width: 28, height: 8, class: "mark " + name, "aria-hidden": "true" },
        drawing("line", { x1: 0, y1: 4, x2: 28, y2: 4, "stroke-width": 3, "stroke-dasharray": LINES[name].dash?.join(" ") ?? "none" }));
      const said = gain === null ? t("gain_plain", { model, value })
        : t(gain < 0 ? "gain_worse" : "gain_better", { model, value, share: percent1(Math.abs(gain)) });
      return make("li", {}, mark, " ", said, name === "alone" ? " " + t("gain_share") : "");
    }));
    show("w-apart", apart);
    if (apart) say("w-apart", t("gain_apart", { share: percent1(apart) }));
    show("w-unit", words.en["measure_" + unit]);
    if (words.en["measure_" + unit]) say("w-unit", t("measure_" + unit));
    $("w-plot").setAttribute("aria-label", $("w-words").textContent);
    if (!drawn.length) return;
    const tables = drawn.map((name) => [curves[name].map((p) => p[0]), curves[name].map((p) => p[1])]);
    curve("w-plot", "own_steps", uPlot.join(tables), drawn.map((name) => LINES[name]));
  },

  languages({ rows }) {
    show("s-none", !rows.length);
    show("s-table", rows.length);
    show("s-who", rows.length);
    const value = (number) => (number === null ? "–" : figures(number)), text = (row) => isolate(row.language || t("nameless"));
    $("s-body").replaceChildren(...rows.map((row) => make("tr", {}, make("th", { scope: "row" }, text(row)),
      worth("members_counted", number(row.members)), ...MODELS.map((name) => worth(LINES[name].word, value(row[name]))))));
    $("s-claims").replaceChildren(...rows.flatMap((row) => row.claims.map((claim) => make("li", {}, text(row), " · ", ...called(claim),
      " · ", MODELS.filter((name) => claim[name] !== null).map((name) => t(LINES[name].word) + " " + value(claim[name])).join(" · "),
      claim.counted ? "" : " · " + t("not_counted")))));
  },

  log({ rows }) {
    show("g-none", !rows.length);
    const list = $("log"), below = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
    list.replaceChildren(...rows.map((row) => make("li", { className: row.level + "-line" },
      `${row.at.slice(11, 19)} ${row.level} ${row.message}`)));
    if (below) list.scrollTop = list.scrollHeight;
  },
};

const say2 = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const cell = (name, text) => make("td", { className: "num", "data-label": t("term_" + name) }, text);
const worth = (label, text) => make("td", { className: "num", "data-label": t(label) }, text);
const kind = (name) => (words.en["kind_" + name] ? t("kind_" + name) : isolate(name));

function bar(name, text, share) {
  const rect = drawing("rect", { width: Math.max(0.5, 100 * Math.min(1, share)), height: 10 });
  const box = drawing("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, rect);
  return make("div", { className: name }, make("span", {}, text), make("div", { className: "bar" }, box));
}

function curve(id, label, data, lines) {
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
  const width = Math.max(200, $(id).clientWidth), looks = language + colour("--lead") + lines.length;
  const plot = plots[id];
  if (plot && plot.looks === looks) {
    if (plot.width !== width) plot.setSize({ width, height: 220 });
    plot.setData(data);
    return;
  }
  if (plot) plot.destroy();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") },
    values: (_, splits) => splits.map((v) => figures(v)) };
  plots[id] = new uPlot({ width, height: 220, legend: { show: false }, cursor: { show: false }, scales: { x: { time: false } },
    axes: [{ ...axis, incrs: STEPS, label: t(label), labelSize: 22 }, { ...axis, size: 56 }],
    series: [{}, ...lines.map((line) => ({ stroke: colour(line.colour), dash: line.dash, width: 2, spanGaps: true, points: { show: false } }))] },
  data, $(id));
  plots[id].looks = looks;
}

// ---- asking -------------------------------------------------------------------------------------

const post = (verb, body = {}, more = {}) => fetch("/api/" + verb, { method: "POST", body: JSON.stringify(body), cache: "no-store",
  headers: { "Content-Type": "application/json", "X-Tapestry-Key": sessionStorage.getItem(KEY) ?? "" }, ...more });

async function ask(verb, body) {
  let answer;
  try { answer = await post(verb, body); } catch { throw new Error(t("lost_what")); }
  if (answer.status === 401) throw new Error(t("key_what"));
  const found = await answer.json().catch(() => ({ error: "failed" }));
  if (!answer.ok) throw new Error(worded(found));
  return found;
}

const worded = (found) => t("error_" + found.error) + (found.detail && found.error === "failed" ? " " + isolate(found.detail) : "");

function doing(id, said, work) {
  $(id).addEventListener("click", async () => {
    $(id).disabled = true;
    say(said, t("wait"));
    try { say(said, (await work()) ?? ""); } catch (error) { say(said, error.message); }
    $(id).disabled = false;
    if (document.activeElement === document.body) $(id).focus(); // a disabled button lost it
  });
}

function wire() {
  doing("pause", "pause-said", async () => {
    const verb = $("pause").dataset.verb, found = await ask(verb);
    if (verb === "pause") return t("paused_said");
    return found.paused.length ? t("resumed_but") : t("resumed_said");
  });
  doing("invite", "invite-said", async () => {
    const { link, qr } = await ask("invite");
    $("link").value = link;
    const path = qr.flatMap((row, y) => [...row].map((bit, x) => (bit === "1" ? `M${x + 4} ${y + 4}h1v1h-1z` : ""))).join("");
    const size = qr.length + 8;
    $("qr").replaceChildren(...(qr.length ? [drawing("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": t("qr"), "shape-rendering": "crispEdges" },
      drawing("path", { d: path, fill: "#000" }))] : []));
    show("invited", true);
  });
  doing("copy", "copy-said", async () => {
    $("link").select();
    try { await navigator.clipboard.writeText($("link").value); return t("copied"); } catch { return t("copy_by_hand"); }
  });
  doing("export", "export-said", async () => {
    const { path } = await ask("export");
    return t("exported", { path });
  });
  doing("measure", "measure-said", async () => {
    const { tables } = await ask("evaluate");
    const named = tables.filter((table) => words.en["measure_" + table.measure]);
    $("known").replaceChildren(...named.map((table) => make("table", {},
      make("caption", {}, t("measure_" + table.measure)),
      make("tbody", {}, ...table.rows.map(([text, value]) => make("tr", {},
        make("th", { scope: "row" }, text === "own" ? t("own_text") : isolate(text)), make("td", { className: "num" }, figures(value))))))));
  });
  $("try").addEventListener("submit", (event) => { event.preventDefault(); write(); });
  $("halt").addEventListener("click", () => writing?.abort());
  $("language").addEventListener("change", () => { localStorage.setItem(CHOSEN, $("language").value); speak($("language").value); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);
}

function redraw() { for (const name of ["loss", "gain"]) if (shown[name]) draw[name](shown[name]); }

async function write() {
  const prompt = $("prompt").value, out = document.createTextNode("");
  writing = new AbortController();
  $("text").replaceChildren(make("b", {}, prompt), out);
  show("text", true); show("halt", true);
  $("write").disabled = true;
  say("try-said", t("writing"));
  try {
    const answer = await post("generate", { prompt, model: $("model").value, bytes: +$("length").value, temperature: +$("daring").value }, { signal: writing.signal });
    if (!answer.ok) throw new Error(answer.status === 401 ? t("key_what") : worded(await answer.json().catch(() => ({ error: "failed" }))));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const found = JSON.parse(line);
        if (found.error) throw new Error(worded(found));
        out.appendData(found.text);
      }
    }
    say("try-said", t("written"));
  } catch (error) {
    say("try-said", error.name === "AbortError" ? t("halted") : error instanceof TypeError ? t("lost_what") : error.message);
  }
  writing = null;
  show("halt", false);
  $("write").disabled = false;
}

// ---- live ---------------------------------------------------------------------------------------

function put(name, value) { shown[name] = value; draw[name](value); }

async function listen() {
  let ticket;
  try {
    const answer = await post("ticket");
    if (answer.status === 401) return put("state", { situation: { code: "key" }, me: null });
    if (!answer.ok) return again();
    ticket = (await answer.json()).ticket;
  } catch { return again(); }
  const source = new EventSource("/api/events?ticket=" + encodeURIComponent(ticket));
  for (const name in draw) source.addEventListener(name, (event) => { failures = 0; put(name, JSON.parse(event.data)); });
  source.onerror = () => { source.close(); again(); };
}

function again() {
  if (failures++ > 1) put("state", { situation: { code: "lost" }, me: null });
  setTimeout(listen, RETRY_MS[Math.min(failures, RETRY_MS.length) - 1]);
}

async function begin() {
  const found = new URLSearchParams(location.hash.slice(1)).get("key");
  if (found) {
    sessionStorage.setItem(KEY, found);
    history.replaceState(null, "", "/");
  }
  words = await (await fetch("/words.json")).json();
  $("language").append(...Object.entries(LANGUAGES).map(([code, name]) => make("option", { value: code, lang: code }, name)));
  const asked = [localStorage.getItem(CHOSEN), ...navigator.languages].filter(Boolean).map((tag) => tag.slice(0, 2).toLowerCase());
  wire();
  speak(asked.find((code) => code in LANGUAGES) ?? "en");
  listen();
}

begin();
