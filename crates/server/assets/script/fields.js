// Forms made from a schema: a list is a row per item instead of a text of lines, and what HTML cannot check is checked
// before anything is sent, with the message at the field. The server checks all of it again.

function startFields() {
  for (const box of document.querySelectorAll("[data-items]")) startRows(box);
  for (const area of document.querySelectorAll("textarea[data-json]")) {
    area.check = () => jsonTrouble(area);
    // What is taken back while the reader types moves no button that is about to be pressed.
    area.addEventListener("input", () => complain(area, ""));
    area.addEventListener("change", () => complain(area, area.check()));
  }
  document.addEventListener("submit", (event) => {
    const checked = [...event.target.querySelectorAll("[data-items], [data-json]")].filter((part) => part.check);
    const wrong = checked.filter((part) => complain(part, part.check()));
    if (!wrong.length) return;
    event.preventDefault();
    (wrong[0].querySelector?.("input, select, button") ?? wrong[0]).focus();
  });
}

// Says at the field what is wrong with it, and takes back what was said before.
function complain(part, text) {
  const field = part.closest(".field");
  field.classList.toggle("wrong", Boolean(text));
  for (const old of field.querySelectorAll(":scope > div > .error, :scope > .error")) old.remove();
  if (!text) {
    part.removeAttribute("aria-invalid");
    return false;
  }
  part.setAttribute("aria-invalid", "true");
  const error = document.createElement("p");
  error.className = "error";
  error.setAttribute("role", "alert");
  error.textContent = text;
  part.after(error);
  return true;
}

function jsonTrouble(area) {
  const wanted = area.dataset.json;
  // A list may also be texts with commas between them.
  if (!area.value.trim() || (wanted === "array" && !/^\s*[\[{]/.test(area.value))) return "";
  let value;
  try { value = JSON.parse(area.value); } catch (error) { return `this is not JSON: ${error.message}`; }
  // Whether it may be null, the server knows.
  if (value === null || (Array.isArray(value) ? "array" : typeof value) === wanted) return "";
  return wanted === "array" ? 'this must be a JSON list, such as ["a", "b"]' : 'this must be a JSON object, such as {"key": "value"}';
}

// The rows of a list. The text that is sent is the list as JSON; it is written anew at each change.
function startRows(box) {
  const text = box.querySelector("textarea"), control = box.querySelector("template").content.querySelector("input, select");
  const name = box.closest(".field").querySelector("label").firstChild.textContent.trim();
  const { kind, least = 0, most = Infinity, empty = "" } = box.dataset;
  const rows = document.createElement("ol");
  rows.className = "items";
  const add = button("Add an item", "quiet");
  const controls = () => [...rows.querySelectorAll("input, select")];
  const filled = () => controls().filter((one) => one.value.trim() || one.validity.badInput);

  const json = (one) => {
    if (kind === "json") return one.value;
    if (kind === "text") return JSON.stringify(one.value);
    return /^-?(0|[1-9]\d*)$/.test(one.value) ? one.value : String(Number(one.value));
  };
  const write = () => {
    text.value = filled().length ? `[${filled().map(json).join(", ")}]` : empty;
    controls().forEach((one, at) => {
      one.setAttribute("aria-label", `${name}, item ${at + 1}`);
      one.nextElementSibling.setAttribute("aria-label", `Remove item ${at + 1} of ${name}`);
    });
    add.disabled = controls().length >= most;
  };
  const row = (value, after) => {
    const line = document.createElement("li"), one = control.cloneNode(true);
    if (value !== undefined) one.value = value;
    one.setAttribute("aria-describedby", `${text.id}-about`);
    line.append(one, button("×", "quiet remove"));
    after ? after.after(line) : rows.append(line);
    return one;
  };

  rows.addEventListener("input", ({ target }) => {
    complain(box, "");
    target.removeAttribute("aria-invalid");
    target.parentElement.querySelector(".error")?.remove();
    write();
  });
  rows.addEventListener("click", (event) => {
    const line = event.target.closest(".remove")?.parentElement;
    if (!line) return;
    const next = line.nextElementSibling ?? line.previousElementSibling;
    line.remove();
    complain(box, "");
    write();
    (next?.querySelector("input, select") ?? add).focus();
  });
  rows.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches("input")) return;
    event.preventDefault();
    if (!add.disabled && event.target.value) row(undefined, event.target.parentElement).focus();
    write();
  });
  // Lines that are pasted become an item each.
  rows.addEventListener("paste", (event) => {
    const lines = event.clipboardData.getData("text").split("\n").map((line) => line.trim()).filter(Boolean);
    if (!event.target.matches("input") || lines.length < 2) return;
    event.preventDefault();
    let last = event.target;
    last.value = lines.shift();
    for (const line of lines) last = row(line, last.parentElement);
    last.focus();
    write();
  });
  add.addEventListener("click", () => { row().focus(); write(); });

  // Not the same item twice, and no more or fewer than the schema allows.
  box.check = () => {
    const values = filled().map(json);
    if (!values.length && ("needed" in box.dataset || (empty && least > 0))) return "this needs an item";
    if (values.length && values.length < least) return `this needs at least ${least} items, and has ${values.length}`;
    if (values.length > most) return `this takes at most ${most} items, and has ${values.length}`;
    const twice = "unique" in box.dataset && filled().find((_, at) => values.indexOf(values[at]) !== at);
    return twice ? `${twice.value} is here twice` : "";
  };

  let values = JSON.parse(box.dataset.items);
  // A browser that comes back to a form puts back what was typed in the text.
  if (text.value !== text.defaultValue) {
    try { values = JSON.parse(text.value || "[]").map((value) => (kind === "json" ? JSON.stringify(value) : String(value))); } catch { return; }
  }
  const was = text.value;
  values.forEach((value) => row(value));
  write();
  text.value = was;
  text.hidden = true;
  text.required = false;
  for (const hint of box.querySelectorAll(":scope > .hint")) hint.hidden = true;
  box.closest(".field").querySelector("label").removeAttribute("for");
  box.append(rows, add);
  for (const error of box.closest(".field").querySelectorAll(".error[data-item]")) {
    const one = controls()[error.dataset.item];
    one?.setAttribute("aria-invalid", "true");
    one?.parentElement.append(error);
  }
}

function button(text, kind) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = kind;
  made.textContent = text;
  return made;
}
