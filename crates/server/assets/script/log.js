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
