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
const catchUp = () => setTimeout(() => { for (const [id, html] of [...waiting]) replace(id, html); });

// What is being pressed: without it there would be no click.
let pressed = null;

function isBusy(part) {
  const active = document.activeElement;
  // A frame that is being read, or a form that is being used, is not taken away.
  return part.contains(pressed) || (part.contains(active) && active.matches("input:not([type=checkbox]), textarea, select"))
    || part.querySelector("details.menu[open], dialog[open]")
    || [...part.querySelectorAll("iframe")].some((frame) => frame.closest("details")?.open);
}

function replace(id, html) {
  const old = document.getElementById(id);
  const box = document.createElement("template");
  box.innerHTML = html;
  const fresh = box.content.firstElementChild;
  waiting.delete(id);
  if (!old || !fresh) return;
  // What the script itself did to the old one is done to the new one too: then only what is news differs.
  keepOpen(old, fresh);
  tick(old);
  tick(fresh);
  enhance(fresh);
  if (old.outerHTML === fresh.outerHTML) return;
  if (old.dataset.newest && old.dataset.newest !== fresh.dataset.newest && !location.search.includes("attempt=")) {
    location.reload();
    return;
  }
  if (isBusy(old)) {
    waiting.set(id, html);
    return;
  }
  const focus = old.contains(document.activeElement) && place(document.activeElement);
  const boxes = (part) => [...part.querySelectorAll(".graph-card, .scroll")];
  const scrolled = boxes(old).map((box) => [box.scrollLeft, box.scrollTop]);
  for (const box of old.querySelectorAll("input[type=checkbox]:checked")) {
    const same = fresh.querySelector(`input[name="${box.name}"][value="${CSS.escape(box.value)}"]`);
    if (same) same.checked = true;
  }
  old.replaceWith(fresh);
  boxes(fresh).forEach((box, at) => { if (scrolled[at]) [box.scrollLeft, box.scrollTop] = scrolled[at]; });
  if (focus) fresh.querySelector(focus)?.focus({ preventScroll: true });
}

// What finds the same link or button in the part that takes the place of this one.
function place(element) {
  const href = element.getAttribute("href");
  if (href) return `a[href="${CSS.escape(href)}"]`;
  const action = element.form?.getAttribute("action");
  return action ? `form[action="${CSS.escape(action)}"] button` : element.tagName === "SUMMARY" && "summary";
}

document.addEventListener("focusout", catchUp);
document.addEventListener("pointerdown", (event) => { pressed = event.target; });
for (const over of ["pointerup", "pointercancel"]) document.addEventListener(over, () => { pressed = null; catchUp(); });

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

// The log of an attempt: a window of lines that is filtered, followed, and grows at both ends.
function startLog(log) {
  const most = 5000;
  const find = (name) => document.querySelector(name);
  const search = find(".log-search"), followBox = find(".log-follow"), wrap = find(".log-wrap"), fold = find(".log-fold");
  const earlier = find(".log-earlier"), names = JSON.parse(log.dataset.steps);

  const matches = (line) => !search.value || line.textContent.toLowerCase().includes(search.value.toLowerCase());
  // What is found is in sight, also in a step that was folded.
  search.addEventListener("input", () => {
    for (const line of log.querySelectorAll("p")) line.hidden = !matches(line);
    for (const step of log.querySelectorAll(".step")) if (search.value && step.querySelector("p:not([hidden])")) step.open = true;
  });
  wrap.addEventListener("change", () => log.classList.toggle("nowrap", !wrap.checked));
  fold.addEventListener("click", () => {
    const steps = [...log.querySelectorAll(".step")];
    const open = !steps.some((step) => step.open);
    for (const step of steps) step.open = open;
  });
  // Steps are folded one by one too, and the button says what it does now. This event does not bubble.
  log.addEventListener("toggle", () => { fold.textContent = log.querySelector(".step[open]") ? "Fold steps" : "Unfold steps"; }, true);
  const toEnd = () => { if (followBox.checked) log.scrollTop = log.scrollHeight; };
  followBox.addEventListener("change", toEnd);
  // Who scrolls up wants to read; who scrolls to the end wants to follow.
  log.addEventListener("scroll", () => {
    followBox.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  }, { passive: true });

  const stepOf = (number, first) => {
    let step = log.querySelector(`.step[data-step="${number}"]`);
    if (!step) {
      step = document.createElement("details");
      step.className = "step";
      step.open = true;
      step.dataset.step = number;
      const summary = document.createElement("summary");
      summary.textContent = names[number] ?? `step ${number + 1}`;
      const lines = document.createElement("div");
      lines.className = "lines";
      step.append(summary, lines);
      if (first) log.prepend(step);
      else log.append(step);
    }
    return step.querySelector(".lines");
  };

  const made = ({ at, stream, after, html }) => {
    const line = document.createElement("p");
    line.className = stream;
    line.id = `b${at}`;
    const link = document.createElement("a");
    link.textContent = after;
    link.href = `?attempt=${log.dataset.path.split("/").pop()}&at=${at}#b${at}`;
    const text = document.createElement("span");
    text.innerHTML = html;
    line.append(link, text);
    line.hidden = !matches(line);
    return line;
  };

  const add = (part) => {
    const lines = stepOf(part.step);
    const last = part.join !== "new" && [...lines.querySelectorAll(`p.${part.stream}`)].pop();
    if (!last) {
      lines.append(made(part));
      return;
    }
    const text = last.querySelector("span");
    if (part.join === "append") text.insertAdjacentHTML("beforeend", part.html);
    else text.innerHTML = part.html;
  };

  // What leaves the window at its top can be had again.
  const beginAt = (offset) => {
    log.dataset.from = offset;
    earlier.hidden = offset === 0;
    earlier.querySelector("a").href = `?attempt=${log.dataset.path.split("/").pop()}&offset=${Math.max(0, offset - 262144)}`;
    earlier.querySelector(".dim").textContent = "";
  };
  const trim = () => {
    const lines = log.getElementsByTagName("p");
    if (lines.length <= most) return;
    for (let over = lines.length - most; over > 0; over--) lines[0].remove();
    for (const step of log.querySelectorAll(".step")) if (!step.querySelector("p")) step.remove();
    beginAt(Number(lines[0].id.slice(1)));
  };
  earlier.querySelector("a").addEventListener("click", async (event) => {
    event.preventDefault();
    const to = Number(log.dataset.from);
    const answer = await fetch(`${log.dataset.path}/part?from=${Math.max(0, to - 262144)}&to=${to}`);
    if (!answer.ok) return;
    const [from, parts] = await answer.json();
    const height = log.scrollHeight;
    for (const part of parts.reverse()) stepOf(part.step, true).prepend(made(part));
    log.scrollTop += log.scrollHeight - height;
    beginAt(parts.length ? from : 0);
  });

  // What is over is read from its beginning, and a line that a link names is where to begin.
  const named = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (named) {
    named.scrollIntoView({ block: "center" });
    followBox.checked = false;
  } else if (log.dataset.log) toEnd();
  else followBox.checked = false;
  if (!log.dataset.log) return;
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
      if (followBox.checked) trim();
      toEnd();
    },
    gap: (event) => {
      at = event.lastEventId;
      log.replaceChildren();
      beginAt(Number(at.split(" ")[0]));
    },
    end: (_, stream) => { stream.ended = true; stream.close(); },
  });
}

// The grid: what is under the pointer, or under the cursor that the arrow keys move, is named, and leads to its page.
function startGrid() {
  const pitch = 16, line = 20;
  const tip = document.createElement("div");
  tip.className = "grid-tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  let cursor = null;

  // The grid is drawn anew when something changes, so its parts are looked up each time.
  const parts = () => {
    const card = document.querySelector(".grid-card");
    return card && {
      card, cells: card.querySelector(".grid-cells"),
      names: [...card.querySelectorAll(".grid-names li")], heads: [...card.querySelectorAll(".grid-head a")],
    };
  };
  const show = (grid, column, row, x, y) => {
    const name = grid.names[row], head = grid.heads[column];
    if (!name || !head) return hide();
    grid.cells.querySelector(".grid-col").setAttribute("x", column * pitch);
    grid.cells.querySelector(".grid-row").setAttribute("y", row * line);
    const under = document.elementFromPoint(x, y)?.closest("[data-state]");
    const state = grid.cells.contains(under) ? under.dataset.state : "";
    const title = document.createElement("b");
    title.textContent = name.dataset.task ?? name.textContent;
    tip.replaceChildren(title, state || "not in this run", document.createElement("br"), head.getAttribute("aria-label"));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
    grid.cells.classList.toggle("found", Boolean(state));
    return state && address(name, head);
  };
  const hide = () => {
    tip.hidden = true;
    const grid = parts();
    grid?.cells.querySelector(".grid-col").setAttribute("x", -pitch);
    grid?.cells.querySelector(".grid-row").setAttribute("y", -line);
  };
  const address = (name, head) => {
    const run = head.getAttribute("href");
    return name.dataset.task ? `${run}/tasks/${encodeURIComponent(name.dataset.task)}` : run;
  };
  const at = (grid, event) => {
    const box = grid.cells.getBoundingClientRect();
    return [Math.floor((event.clientX - box.left) / pitch), Math.floor((event.clientY - box.top) / line)];
  };
  document.addEventListener("pointermove", (event) => {
    const grid = event.target.closest?.(".grid-cells") && parts();
    if (grid) show(grid, ...at(grid, event), event.clientX, event.clientY);
    else if (!tip.hidden && !cursor) hide();
  }, { passive: true });
  document.addEventListener("click", (event) => {
    const grid = event.target.closest?.(".grid-cells") && parts();
    const to = grid && show(grid, ...at(grid, event), event.clientX, event.clientY);
    if (to) open(to, event.ctrlKey || event.metaKey ? "_blank" : "_self", "noopener");
  });
  document.addEventListener("keydown", (event) => {
    const grid = event.target.matches?.(".grid-card") && parts();
    if (!grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && cursor) {
      const [column, row] = cursor;
      location.href = address(grid.names[row], grid.heads[column]);
    }
    if (!by) return;
    event.preventDefault();
    const clamp = (value, most) => Math.min(Math.max(value, 0), most - 1);
    cursor = cursor
      ? [clamp(cursor[0] + by[0], grid.heads.length), clamp(cursor[1] + by[1], grid.names.length)]
      : [grid.heads.length - 1, 0];
    grid.names[cursor[1]].scrollIntoView({ block: "nearest" });
    const spot = () => {
      const box = grid.cells.getBoundingClientRect();
      return [box.left + (cursor[0] + 0.5) * pitch, box.top + (cursor[1] + 0.5) * line];
    };
    const card = grid.card.getBoundingClientRect();
    const left = grid.names[0].getBoundingClientRect().right + pitch, right = card.right - pitch;
    if (spot()[0] < left) grid.card.scrollLeft -= left - spot()[0];
    if (spot()[0] > right) grid.card.scrollLeft += spot()[0] - right;
    show(grid, ...cursor, ...spot());
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.matches?.(".grid-card")) { cursor = null; hide(); }
  });
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
  if (found.matches("input:not([type=checkbox])")) found.focus();
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

// The reader's own time zone is one to choose.
function startZones() {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const select of document.querySelectorAll("select[data-zones]")) {
    if (own && ![...select.options].some((option) => option.value === own)) select.add(new Option(own));
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
  if (document.querySelector(".grid-card")) startGrid();
  startZones();
  if (document.body.dataset.live) {
    follow(() => document.body.dataset.live, {
      parts: (event) => { for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html); },
    });
  }
});
