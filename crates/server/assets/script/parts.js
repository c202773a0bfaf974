// Live parts: streams of events, and parts of the page that are replaced when they change.

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
  if (element.matches(".grid-card")) return ".grid-card";
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
    source.onerror = () => {
      if (offline) offline.hidden = false;
      // Browsers come back to a server that was away, but not to one whose proxy has answered for it.
      if (source.readyState !== EventSource.CLOSED) return;
      stream.close();
      setTimeout(() => { if (!document.hidden) stream.open(); }, 10000);
    };
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
