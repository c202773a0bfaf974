// Times as a reader says them: how long something takes, how long ago it was.

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
