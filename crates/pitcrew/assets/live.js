// The one script of the pages. Everything works without it; with it pages follow what happens.
//
// - A page names the stream of its live parts in `data-live`; each event holds parts as HTML by the id of the element
//   that they replace. The server escapes what they show.
// - A log names its own stream in `data-log`; lines are added as they are written.
// - Times become the reader's own, and count.
// Streams are closed while the page is hidden: a browser has only a few connections to a server.
"use strict";

const now = () => Date.now();
const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function span(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const at = units.findIndex(([, size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [unit, size] = units[at];
  const next = units[at + 1];
  const rest = next && Math.floor((seconds % size) / next[1]);
  return `${Math.floor(seconds / size)} ${unit}` + (next && rest && unit !== "d" ? ` ${rest} ${next[0]}` : "");
}

// One unit is enough to say how long ago something was.
function ago(seconds) {
  const distance = Math.abs(seconds);
  if (distance < 5) return "now";
  const [unit, size] = units.find(([, size]) => distance >= size);
  const text = `${Math.floor(distance / size)} ${unit}`;
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

function tick(root = document) {
  for (const time of root.querySelectorAll("time[data-ago], time[data-since], time[data-clock]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const seconds = (now() - at) / 1000;
    if (!time.title) time.title = at.toLocaleString();
    if ("ago" in time.dataset) time.textContent = ago(seconds);
    else if ("since" in time.dataset) time.textContent = span(seconds);
    else time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  }
}

// What the reader opened stays open when a part is replaced.
function keepOpen(old, fresh) {
  const was = [...old.querySelectorAll("details")].map((d) => [d.querySelector("summary")?.textContent, d.open]);
  const open = new Map(was);
  for (const details of fresh.querySelectorAll("details")) {
    const state = open.get(details.querySelector("summary")?.textContent);
    if (state !== undefined) details.open = state;
  }
}

function replace(id, html) {
  const old = document.getElementById(id);
  const box = document.createElement("template");
  box.innerHTML = html;
  const fresh = box.content.firstElementChild;
  if (!old || !fresh || old.outerHTML === fresh.outerHTML) return;
  if (old.dataset.newest && old.dataset.newest !== fresh.dataset.newest && !location.search.includes("attempt=")) {
    location.reload();
    return;
  }
  // A frame that is being read, or a form that is being used, is not taken away.
  if ([...old.querySelectorAll("iframe")].some((frame) => frame.closest("details")?.open)) return;
  const focus = document.activeElement?.closest(`#${CSS.escape(id)} a, #${CSS.escape(id)} summary`)?.getAttribute("href");
  const scrolled = [...old.querySelectorAll(".graph-card")].map((card) => card.scrollLeft);
  keepOpen(old, fresh);
  tick(fresh);
  old.replaceWith(fresh);
  [...fresh.querySelectorAll(".graph-card")].forEach((card, at) => { card.scrollLeft = scrolled[at] ?? 0; });
  if (focus) fresh.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
}

const streams = [];

// A stream that is there while the page is seen; `address` is asked anew each time.
function follow(address, events) {
  const stream = { source: null };
  stream.open = () => {
    if (stream.source || stream.ended) return;
    const source = new EventSource(address());
    stream.source = source;
    const offline = document.querySelector(".offline");
    source.onopen = () => { if (offline) offline.hidden = true; };
    source.onerror = () => { if (offline) offline.hidden = false; };
    for (const [name, handle] of Object.entries(events)) source.addEventListener(name, (event) => handle(event, stream));
  };
  stream.close = () => { stream.source?.close(); stream.source = null; };
  streams.push(stream);
  if (!document.hidden) stream.open();
}

document.addEventListener("visibilitychange", () => {
  for (const stream of streams) document.hidden ? stream.close() : stream.open();
});
addEventListener("pagehide", () => streams.forEach((stream) => stream.close()));

if (document.body.dataset.live) {
  follow(() => document.body.dataset.live, {
    parts: (event) => { for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html); },
  });
}

const log = document.getElementById("log");
if (log) {
  const maxLines = 20000;
  const box = (name) => document.querySelector(name);
  const search = box(".log-search"), followBox = box(".log-follow"), wrap = box(".log-wrap");
  for (const hidden of [search, ...document.querySelectorAll(".script-only")]) hidden.hidden = false;

  const matches = (line) => !search.value || line.textContent.toLowerCase().includes(search.value.toLowerCase());
  const filter = () => { for (const line of log.querySelectorAll("p")) line.hidden = !matches(line); };
  search.addEventListener("input", filter);
  wrap.addEventListener("change", () => log.classList.toggle("nowrap", !wrap.checked));
  const toEnd = () => { if (followBox.checked) log.scrollTop = log.scrollHeight; };
  followBox.addEventListener("change", toEnd);
  // Who scrolls up wants to read; who scrolls to the end wants to follow.
  log.addEventListener("scroll", () => {
    followBox.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  }, { passive: true });

  const stepOf = (number) => {
    let step = log.querySelector(`.step[data-step="${number}"]`);
    if (!step) {
      step = document.createElement("details");
      step.className = "step";
      step.open = true;
      step.dataset.step = number;
      const summary = document.createElement("summary");
      summary.textContent = `step ${number + 1}`;
      const lines = document.createElement("div");
      lines.className = "lines";
      step.append(summary, lines);
      log.append(step);
    }
    return step.querySelector(".lines");
  };

  const add = ({ step, stream, join, after, html }) => {
    const lines = stepOf(step);
    const last = join !== "new" && [...lines.querySelectorAll(`p.${stream}`)].pop();
    if (last) {
      const text = last.querySelector("span");
      if (join === "append") text.insertAdjacentHTML("beforeend", html);
      else text.innerHTML = html;
      return;
    }
    const line = document.createElement("p");
    line.className = stream;
    const time = document.createElement("time");
    time.textContent = after;
    const text = document.createElement("span");
    text.innerHTML = html;
    line.append(time, text);
    line.hidden = !matches(line);
    lines.append(line);
  };

  // What is over is read from its beginning.
  if (log.dataset.log) toEnd();
  else followBox.checked = false;
  if (log.dataset.log) {
    // A stream that was closed while the page was hidden goes on where it was.
    let at = null;
    const address = () => {
      if (!at) return log.dataset.log;
      const [offset, open = ""] = at.split(" ");
      return `${log.dataset.log.split("?")[0]}?offset=${offset}&open=${encodeURIComponent(open)}`;
    };
    follow(address, {
      lines: (event) => {
        at = event.lastEventId;
        log.querySelector(".log-empty")?.remove();
        JSON.parse(event.data).forEach(add);
        const lines = log.getElementsByTagName("p");
        while (lines.length > maxLines) lines[0].remove();
        toEnd();
      },
      end: (_, stream) => { stream.ended = true; stream.close(); },
    });
  }
}

// Keys: `data-key` names the key that reaches a field or follows a link.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
  const target = [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === event.key);
  if (!target) return;
  event.preventDefault();
  if (target.matches("input")) target.focus();
  else target.click();
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// A choice in a filter is enough; nobody needs the button.
for (const select of document.querySelectorAll(".filter select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

tick();
setInterval(() => { if (!document.hidden) tick(); }, 1000);
