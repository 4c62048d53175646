"use strict";

const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];
const tip = document.getElementById("tip");

// Trial number -> its row and marks.
const elementsOf = new Map();
for (const element of document.querySelectorAll("[data-trial]")) {
  const others = elementsOf.get(element.dataset.trial) ?? [];
  elementsOf.set(element.dataset.trial, others.concat(element));
}
const rowOf = (trial) => document.getElementById(`trial-${trial}`);

// Sorts numbers before words; empty cells stay last in both directions.
function compare(a, b, sign) {
  if (a === b) return 0;
  if (a === "") return 1;
  if (b === "") return -1;
  const [x, y] = [Number(a), Number(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return sign * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
}

function sortBy(column) {
  const sign = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => compare(value(a), value(b), sign));
  heads.forEach((head) => head.setAttribute("aria-sort", "none"));
  heads[column].setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  body.append(...rows);
}

let lit = null;

function light(trial) {
  if (trial === lit) return;
  for (const element of elementsOf.get(lit) ?? []) element.classList.remove("lit");
  for (const element of elementsOf.get(trial) ?? []) {
    element.classList.add("lit");
    if (element.tagName !== "TR" && element.nextSibling) element.parentNode.append(element); // drawn above its neighbours
  }
  lit = trial;
}

function describe(trial) {
  const cells = [...rowOf(trial).cells];
  const lines = cells.map((cell, i) => [heads[i].textContent, cell.textContent]);
  return lines.filter(([, text]) => text !== "").map((line) => line.join(": ")).join("\n");
}

function point(event) {
  const mark = event.target.closest("[data-trial]");
  light(mark ? mark.dataset.trial : null);
  tip.hidden = !mark || mark.tagName === "TR";
  if (tip.hidden) return;
  tip.textContent = describe(lit);
  const [right, below] = [event.clientX + 14, event.clientY + 14];
  tip.style.left = `${Math.max(4, Math.min(right, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : Math.max(4, event.clientY - tip.offsetHeight - 14)}px`;
}

heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => sortBy(i)));
document.addEventListener("pointerover", point);
document.addEventListener("pointerdown", point);
document.addEventListener("click", (event) => {
  const mark = event.target.closest("svg [data-trial]");
  if (mark) rowOf(mark.dataset.trial).scrollIntoView({ block: "center", inline: "nearest" });
});
