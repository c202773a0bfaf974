// The one script of the pages, sent as one file: this part first, then those beside it. Everything works without it; with
// it pages follow what happens.
//
// - A page names the stream of its live parts in `data-live`; each event holds parts as HTML by the id of the element
//   that they replace. The server escapes what they show.
// - A log names its own stream in `data-log`; lines are added as they are written.
// - Times become the reader's own, and count.
// - A list of a form is a row per item, and is checked before it is sent.
// - `data-key` names the key that reaches a field or presses a button, `data-go` the key that leads to a page after `g`.
// Streams are closed while the page is hidden: a browser has only a few connections to a server.
"use strict";

// Before anything is painted: the colours that the reader chose, kept in the browser.
const kept = (() => { try { return localStorage; } catch { return null; } })();
const theme = kept?.getItem("theme") ?? "";
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

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

// Of a graph that is larger than its box, the part that matters is in sight: what failed, what runs, or where it begins.
function showGraphs() {
  for (const box of document.querySelectorAll(".graph-card")) {
    const node = [".state-failed", ".state-running", ".node"].map((one) => box.querySelector(one)).find(Boolean);
    if (!node) continue;
    const [at, around] = [node.getBoundingClientRect(), box.getBoundingClientRect()];
    box.scrollBy(at.x + at.width / 2 - around.x - around.width / 2, at.y + at.height / 2 - around.y - around.height / 2);
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
// The box above a column of boxes.
document.addEventListener("change", (event) => {
  const name = event.target.dataset?.all;
  if (name) for (const box of document.querySelectorAll(`input[name="${name}"]`)) box.checked = event.target.checked;
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
  showGraphs();
  startFields();
  if (document.body.dataset.live) {
    follow(() => document.body.dataset.live, {
      parts: (event) => { for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html); },
    });
  }
});
