// The one script of the pages. Everything works without it; with it pages follow what happens.
//
// - A page names the stream of its live parts in `data-live`; each event holds parts as HTML by the id of the element
//   that they replace. The server escapes what they show.
// - A log names its own stream in `data-log`; lines are added as they are written.
// - Times become the reader's own, and count.
// - `data-key` names the key that reaches a field or presses a button, `data-go` the key that leads to a page after `g`.
// Streams are closed while the page is hidden: a browser has only a few connections to a server.
"use strict";

// Before anything is painted: the colours that the reader chose, kept in the browser.
const kept = (() => { try { return localStorage; } catch { return null; } })();
const theme = kept?.getItem("theme") ?? "";
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

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

// Parts that came while the reader was busy in the old ones.
const waiting = new Map();

function isBusy(part) {
  const active = document.activeElement;
  // A frame that is being read, or a form that is being used, is not taken away.
  return (part.contains(active) && active.matches("input, textarea, select"))
    || part.querySelector("details.menu[open], dialog[open], input[type=checkbox]:checked")
    || [...part.querySelectorAll("iframe")].some((frame) => frame.closest("details")?.open);
}

function replace(id, html) {
  const old = document.getElementById(id);
  const box = document.createElement("template");
  box.innerHTML = html;
  const fresh = box.content.firstElementChild;
  waiting.delete(id);
  if (!old || !fresh || old.outerHTML === fresh.outerHTML) return;
  if (old.dataset.newest && old.dataset.newest !== fresh.dataset.newest && !location.search.includes("attempt=")) {
    location.reload();
    return;
  }
  if (isBusy(old)) {
    waiting.set(id, html);
    return;
  }
  const focus = old.contains(document.activeElement) && place(document.activeElement);
  const scrolled = [...old.querySelectorAll(".graph-card")].map((card) => card.scrollLeft);
  keepOpen(old, fresh);
  tick(fresh);
  enhance(fresh);
  old.replaceWith(fresh);
  [...fresh.querySelectorAll(".graph-card")].forEach((card, at) => { card.scrollLeft = scrolled[at] ?? 0; });
  if (focus) fresh.querySelector(focus)?.focus({ preventScroll: true });
}

// What finds the same link or button in the part that takes the place of this one.
function place(element) {
  const href = element.getAttribute("href");
  if (href) return `a[href="${CSS.escape(href)}"]`;
  const action = element.form?.getAttribute("action");
  return action ? `form[action="${CSS.escape(action)}"] button` : element.tagName === "SUMMARY" && "summary";
}

document.addEventListener("focusout", () => setTimeout(() => { for (const [id, html] of [...waiting]) replace(id, html); }));

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

// The log of an attempt: filtered, followed, added to.
function startLog(log) {
  const maxLines = 20000;
  const box = (name) => document.querySelector(name);
  const search = box(".log-search"), followBox = box(".log-follow"), wrap = box(".log-wrap");

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

// Keys. A `g` waits a moment for the letter that says where to go.
let goes = 0;

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog[open]")) return;
  const wanted = goes > now() ? "go" : "key";
  goes = event.key === "g" && wanted === "key" ? now() + 1500 : 0;
  if (goes) return;
  if (wanted === "key" && (event.key === "j" || event.key === "k")) {
    step(event.key === "j" ? 1 : -1);
    event.preventDefault();
    return;
  }
  const found = [...document.querySelectorAll(`[data-${wanted}]`)].find((element) => element.dataset[wanted] === event.key);
  if (!found) return;
  event.preventDefault();
  if (found.matches("input")) found.focus();
  else found.click();
}

// To the next or previous row of the lists on the page.
function step(by) {
  const rows = [...document.querySelectorAll("main .list > tbody > tr, main .rows > li")].filter((row) => row.offsetParent && row.querySelector("a"));
  if (!rows.length) return;
  const active = document.activeElement;
  let at = rows.findIndex((row) => row.contains(active));
  if (at < 0) {
    // From nowhere: the first row that is in sight.
    at = rows.findIndex((row) => row.getBoundingClientRect().top >= 48);
    at = Math.max(at, 0) - (by > 0 ? 1 : 0);
  }
  const row = rows[Math.min(Math.max(at + by, 0), rows.length - 1)];
  row.querySelector("a").focus();
  row.scrollIntoView({ block: "nearest" });
}

// What only works with the script is shown by it; a choice in a filter is enough, nobody needs the button.
function enhance(root) {
  for (const hidden of root.querySelectorAll(".script-only")) hidden.hidden = false;
  for (const select of root.querySelectorAll(".filter select")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
}

function startTheme() {
  for (const choice of document.querySelectorAll("input[name=theme]")) {
    choice.checked = choice.value === theme;
    choice.addEventListener("change", () => {
      kept?.setItem("theme", choice.value);
      if (choice.value) document.documentElement.dataset.theme = choice.value;
      else delete document.documentElement.dataset.theme;
    });
  }
}

function closeMenus(but) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== but) menu.open = false;
}

document.addEventListener("keydown", onKey);
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest?.("details.menu[open]");
  if (menu) menu.querySelector("summary").focus();
  if (event.key === "Escape") closeMenus();
});
document.addEventListener("click", (event) => {
  closeMenus(event.target.closest?.("details.menu"));
  const opener = event.target.closest?.("[data-opens]");
  if (!opener) return;
  closeMenus();
  document.getElementById(opener.dataset.opens)?.showModal();
});
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
document.addEventListener("DOMContentLoaded", () => {
  startTheme();
  enhance(document);
  tick();
  setInterval(() => { if (!document.hidden) tick(); }, 1000);
  const log = document.getElementById("log");
  if (log) startLog(log);
  if (document.body.dataset.live) {
    follow(() => document.body.dataset.live, {
      parts: (event) => { for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html); },
    });
  }
});
