// What the page does by itself: it follows the stream of changes, survives a switch, and keeps times fresh.
//
// The stream is read with fetch, not EventSource: after a power cut the old connection stays silent for minutes, so
// silence itself must count. The server ticks every second; after SILENCE_MS without a word the stream is given up and
// asked for again, with a new connection each time, until the member that serves now answers.
"use strict";

const SILENCE_MS = 2500;
const AGAIN_MS = 400;
const PATIENCE_MS = 4000; // then say where the service is, if it is not coming back here
const SHOWN_MS = 15000;

const body = document.body;
const line = document.getElementById("line");
const banner = document.getElementById("banner");
const bannerText = document.getElementById("banner-text");
const bannerLink = document.getElementById("banner-link");

let heardAt = 0; // the last word from the stream
let lostAt = 0; // since when there is none; 0: all is well
let wasLive = false;
let known = null; // the newest counters

// --- the stream -----------------------------------------------------------------------------------------------------

async function follow() {
  for (;;) {
    try {
      await readStream();
    } catch (error) {
      if (error.message === "login") {
        location.assign("/login");
        return;
      }
    }
    await sleep(AGAIN_MS);
    if (lostAt === 0) lostAt = heardAt || Date.now();
    setTimeout(noteLoss, 300);
    lookAround();
  }
}

async function readStream() {
  const abort = new AbortController();
  let silence = setTimeout(() => abort.abort(), SILENCE_MS);
  try {
    const answer = await fetch("/api/v1/stream", { signal: abort.signal, cache: "no-store", headers: { Accept: "text/event-stream" } });
    if (answer.status === 401) throw new Error("login");
    if (!answer.ok) throw new Error("not serving");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_MS);
      const pieces = (rest + value).split("\n\n");
      rest = pieces.pop();
      pieces.forEach(take);
    }
  } finally {
    clearTimeout(silence);
    abort.abort();
  }
}

function take(piece) {
  let name = "";
  let data = "";
  for (const row of piece.split("\n")) {
    if (row.startsWith("event: ")) name = row.slice(7);
    else if (row.startsWith("data: ")) data += row.slice(6);
  }
  if (!name) return;
  heardAt = Date.now();
  if (name === "hello") noteLive(JSON.parse(data));
  else if (name === "counters") compare(JSON.parse(data));
  else if (name === "pair") refresh("pair");
  else if (name === "operation") refresh("operation");
}

function compare(counters) {
  const before = known || {};
  known = counters;
  const differs = (name) => before[name] !== counters[name];
  if (differs("last_event_id")) refresh("events");
  if (differs("runs_digest")) refresh("runs");
  if (differs("hosts_digest")) refresh("hosts");
}

// --- live, switching, back ------------------------------------------------------------------------------------------

function noteLive(hello) {
  if (body.dataset.switching === "yes") {
    const seconds = (Date.now() - lostAt) / 1000;
    tell("ok", body.dataset.textResumed.replace("%s", seconds.toFixed(1)).replace("%p", hello.member));
    setTimeout(() => { if (body.dataset.switching !== "yes") banner.hidden = true; }, SHOWN_MS);
    body.dataset.switching = "no";
    known = null;
    refresh("pair");
  }
  lostAt = 0;
  wasLive = true;
  line.dataset.state = "live";
}

function tell(tone, text) {
  bannerText.textContent = text;
  banner.dataset.tone = tone;
  banner.hidden = false;
  bannerLink.hidden = true;
}

function noteLoss() {
  if (!lostAt || !wasLive || body.dataset.switching === "yes") return;
  line.dataset.state = "switching";
  body.dataset.switching = "yes";
  tell("warn", body.dataset.textSwitching);
}

// This address may be the one of a member that is standby now: then say where the service is.
async function lookAround() {
  try {
    const answer = await fetch("/api/v1/health", { signal: AbortSignal.timeout(1000), cache: "no-store" });
    const health = await answer.json();
    const elsewhere = !health.serving && health.primary && health.primary !== health.member;
    if (lostAt && elsewhere && Date.now() - lostAt > PATIENCE_MS && location.hostname !== health.floating_ip) {
      bannerText.textContent = body.dataset.textElsewhere.replace("%p", health.primary);
      if (!health.floating_ip && health.primary_address) bannerLink.href = `https://${health.primary_address}/`;
      bannerLink.hidden = false;
    }
  } catch {
    // nobody answers yet
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// --- parts ----------------------------------------------------------------------------------------------------------

const GENTLE_MS = 1000; // a part is not asked for more often than this
const asked = new Map();

function refresh(subject) {
  for (const part of document.querySelectorAll("[data-follows]")) {
    if (part.dataset.follows.split(" ").includes(subject)) ask(part);
  }
}

function ask(part) {
  const since = Date.now() - (asked.get(part) || 0);
  if (part.dataset.due === "yes") return;
  part.dataset.due = "yes";
  setTimeout(() => {
    part.dataset.due = "no";
    if (part.querySelector("dialog[open]")) return; // someone is deciding
    if (part.closest("dialog:not([open]), [hidden]")) return; // nobody sees it; it is asked for when it is opened
    asked.set(part, Date.now());
    window.htmx.trigger(part, "refresh");
  }, Math.max(0, GENTLE_MS - since));
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const part = event.detail.target;
  if ("follows" in part.dataset && part.querySelector("dialog[open]")) event.detail.shouldSwap = false; // asked for before it opened
});

setInterval(() => {
  if (line.dataset.state !== "live" || document.hidden) return;
  for (const part of document.querySelectorAll("[data-every]")) {
    if (Date.now() - (asked.get(part) || 0) > Number(part.dataset.every) * 1000) ask(part);
  }
}, 1000);

// --- times ----------------------------------------------------------------------------------------------------------

const language = document.documentElement.lang;
const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "short" });
const dayAndTime = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });

function ago(instant) {
  const seconds = Math.round((instant - Date.now()) / 1000);
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return relative.format(Math.min(seconds, 0), "second");
}

function clock(instant) {
  const pad = (n) => String(n).padStart(2, "0");
  const time = [instant.getHours(), instant.getMinutes(), instant.getSeconds()].map(pad).join(":");
  const today = instant.toDateString() === new Date().toDateString();
  return today ? time : `${pad(instant.getMonth() + 1)}-${pad(instant.getDate())} ${time}`;
}

function freshen(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    if (!element.dateTime) continue;
    const instant = new Date(element.dateTime);
    if ("ago" in element.dataset) element.textContent = ago(instant);
    else if ("clock" in element.dataset) element.textContent = clock(instant);
    else if ("local" in element.dataset) element.textContent = dayAndTime.format(instant);
    element.title = dayAndTime.format(instant);
  }
}

document.addEventListener("htmx:afterSwap", (event) => freshen(event.target));
setInterval(() => freshen(document), 5000);
freshen(document);

// --- buttons --------------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.opens) document.getElementById(button.dataset.opens).showModal();
  if ("closes" in button.dataset) button.closest("dialog").close();
  if (button.dataset.copies) copy(button);
  if (button.dataset.unfolds) fold(button);
});

// A net in a run: what lies in it is asked for when it is opened, and outlives the reload of what lies around it.
function fold(button) {
  const inner = document.getElementById(button.dataset.unfolds);
  inner.hidden = !inner.hidden;
  button.setAttribute("aria-expanded", String(!inner.hidden));
  if (!inner.hidden) for (const level of inner.querySelectorAll(".level")) if (!level.parentElement.closest("[hidden]")) ask(level);
}

document.addEventListener("htmx:afterSwap", (event) => {
  for (const button of event.target.querySelectorAll("[data-unfolds]")) {
    button.setAttribute("aria-expanded", String(!document.getElementById(button.dataset.unfolds).hidden));
  }
});

// A form with a key that got no answer, or one that nobody knows: what it asked for may have happened, and it may be sent again.
document.addEventListener("htmx:afterRequest", (event) => {
  const notice = event.detail.elt.querySelector(":scope > [data-unanswered]");
  if (notice) notice.hidden = ![0, 502, 503, 504].includes(event.detail.xhr.status);
});

async function copy(button) {
  const text = document.getElementById(button.dataset.copies).textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = body.dataset.textCopied;
  } catch {
    getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
  }
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

follow();
