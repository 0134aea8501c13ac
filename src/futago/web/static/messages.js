// The live view of received messages: a stream that is asked for again, with what the form wants, until it is switched off.
//
// As in futago.js the stream is read with fetch, and silence counts: a member that lost its power says nothing.
"use strict";

const LIVE_SILENCE_MS = 2500;
const LIVE_AGAIN_MS = 400;
const ROWS_MAX = 500;

const form = document.getElementById("message-filter");
const live = document.getElementById("live");
const liveRows = document.getElementById("live-rows");
const liveLine = document.getElementById("live-line");
let running = null; // the abort of the present stream
let skippedInAll = 0;

function wanted() {
  const params = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) params.set(name, value);
  return params;
}

async function watch() {
  while (live.checked) {
    running = new AbortController();
    try {
      await readMessages(running);
    } catch {
      // the member went away, or the wish changed: ask again
    }
    running.abort();
    liveLine.dataset.state = "connecting";
    await new Promise((resolve) => setTimeout(resolve, LIVE_AGAIN_MS));
  }
  liveLine.dataset.state = "off";
}

async function readMessages(abort) {
  let silence = setTimeout(() => abort.abort(), LIVE_SILENCE_MS);
  try {
    const answer = await fetch(`/api/v1/messages/stream?${wanted()}`, { signal: abort.signal, cache: "no-store" });
    if (!answer.ok) return;
    liveLine.dataset.state = "live";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), LIVE_SILENCE_MS);
      const pieces = (rest + value).split("\n\n");
      rest = pieces.pop();
      for (const piece of pieces) if (piece.startsWith("event: messages\n")) show(JSON.parse(piece.slice(piece.indexOf("data: ") + 6)));
    }
  } finally {
    clearTimeout(silence);
  }
}

function show(told) {
  skippedInAll += told.skipped;
  if (told.skipped) {
    const line = document.getElementById("live-skipped");
    line.textContent = line.dataset.text.replace("%n", skippedInAll.toLocaleString());
    line.hidden = false;
  }
  if (!told.messages.length) return;
  const made = told.messages.map(row).reverse();
  liveRows.prepend(...made.slice(0, ROWS_MAX));
  while (liveRows.childElementCount > ROWS_MAX) liveRows.lastElementChild.remove();
}

function row(message) {
  const made = document.createElement("tr");
  const time = document.createElement("td");
  time.className = "mono";
  time.textContent = new Date(message.received_utc).toLocaleTimeString(document.documentElement.lang, { hour12: false });
  const cells = [message.host_name, message.kind, message.text].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  cells[2].className = "message";
  cells[2].title = message.text;
  made.append(time, ...cells);
  return made;
}

live.addEventListener("change", () => {
  document.getElementById("live-panel").hidden = !live.checked;
  if (live.checked) watch();
  else if (running) running.abort();
});
form.addEventListener("change", () => { if (running) running.abort(); });
form.addEventListener("submit", (event) => { event.preventDefault(); if (running) running.abort(); });
