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
