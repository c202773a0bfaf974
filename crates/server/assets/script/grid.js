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
    point(grid, ...(cursor ? [cursor[0] + by[0], cursor[1] + by[1]] : [grid.heads.length - 1, 0]));
  });
  // The cursor, as near to there as the grid reaches.
  const point = (grid, column, row) => {
    if (!grid.heads.length || !grid.names.length) return;
    const clamp = (value, most) => Math.min(Math.max(value, 0), most - 1);
    cursor = [clamp(column, grid.heads.length), clamp(row, grid.names.length)];
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
  };
  document.addEventListener("focusin", (event) => {
    const grid = cursor && event.target.matches?.(".grid-card") && parts();
    if (grid) point(grid, ...cursor);
  });
  document.addEventListener("focusout", (event) => {
    if (!event.target.matches?.(".grid-card")) return;
    // A grid that is drawn anew has the focus again at once.
    setTimeout(() => { if (!document.activeElement?.matches(".grid-card")) { cursor = null; hide(); } });
  });
}
