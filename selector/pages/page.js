"use strict";
const number = (text) => {
  const found = text.replace(/,/g, "").match(/[-−+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
  return found ? Number(found[0].replace("−", "-")) : null;
};
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [row.cells[column].textContent.trim(), row]);
    const numeric = rows.every(([text]) => !/[0-9]/.test(text) || /^[-−+\d.]/.test(text));
    rows.sort(([one], [other]) => {
      const a = numeric ? number(one) : one, b = numeric ? number(other) : other;
      if (a === null || a === "") return b === null || b === "" ? 0 : 1;
      if (b === null || b === "") return -1;
      return (numeric ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
const tip = document.getElementById("tip");
const show = (lines, box) => {
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  const limit = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(left, limit)) + scrollX}px`;
  tip.style.top = `${Math.max(box.top + 8, 8) + scrollY}px`;
};
for (const chart of document.querySelectorAll(".chart")) {
  const tips = JSON.parse(chart.querySelector("script").textContent);
  const marks = Object.keys(tips).map((id) => chart.querySelector(`[id="${id}"]`)).filter(Boolean);
  const reach = (one) => marks.forEach((mark) => { mark.tabIndex = mark === one ? 0 : -1; });
  reach(marks[0]);
  for (const mark of marks) {
    const lines = tips[mark.id];
    mark.classList.add("hot");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", lines.join(", "));
    const open = () => show(lines, mark.getBoundingClientRect());
    mark.addEventListener("focus", () => {
      reach(mark);
      mark.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    const close = () => { tip.hidden = true; };
    for (const event of ["mouseenter", "focus"]) mark.addEventListener(event, open);
    for (const event of ["mouseleave", "blur"]) mark.addEventListener(event, close);
    mark.addEventListener("keydown", (event) => {
      const next = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!next) return;
      marks[(marks.indexOf(mark) + next + marks.length) % marks.length].focus();
      event.preventDefault();
    });
  }
  const select = chart.parentElement.querySelector("select");
  if (!select) continue;
  const choose = () => {
    for (const option of select.options) {
      chart.querySelector(`[id="${option.value}"]`)
        ?.classList.toggle("hidden", option.value !== select.value);
    }
  };
  select.addEventListener("change", choose);
  choose();
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
