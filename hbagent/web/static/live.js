// Keeps a page up to date by the live feed, and takes its colour away when the feed stops.
//
// The server has rendered everything already; what comes here says which texts are others now. It is only ever set as
// text and as class names that the legend knows: nothing that comes over the network becomes markup.
"use strict";

const OLD_MS = 3000;          // six ticks: a page that has heard nothing for so long says nothing about now
const RELOAD_MS = 2000;       // a node's page is read anew at most this often when its node changes...
const AGES_MS = 15000;        // ...and this often anyway, for what only grows
const AGAIN_MS = 2000;        // a feed that ended for good (the server was restarted, or full) is tried again

const body = document.body;
const base = body.dataset.base;
const symbols = new Map();
const tones = new Map();
const cells = new Map();
const racks = new Map();

let heardAt = Date.now();
let heardTick = performance.now();
let reloadAt = 0;

function byId(id) {
  return document.getElementById(id);
}

function make(tag, text, name) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function nodeLink(node) {
  return base + "node/" + node.split("/").map(encodeURIComponent).join("/");
}

function rackOf(node) {
  return node.slice(0, node.lastIndexOf("/"));
}

function learn() {
  for (const cell of document.querySelectorAll(".legend [data-look]")) {
    symbols.set(cell.dataset.look, cell.textContent);
    tones.set(cell.dataset.look, [...cell.classList].find((name) => name !== "cell"));
  }
  for (const cell of document.querySelectorAll("a.cell")) cells.set(cell.dataset.node, cell);
  for (const rack of document.querySelectorAll(".rack")) racks.set(rack.dataset.rack, rack);
}

// ---- what comes in --------------------------------------------------------------------------------------------

function showPlate([name, state, tone, nodes, leaders]) {
  let rack = racks.get(name);
  if (!rack) {
    rack = make("article", "", "rack");
    rack.dataset.rack = name;
    const title = make("h3", name + " ");
    title.append(make("span", "", "state"));
    rack.append(title, make("p", "", "nodes"), make("div", "", "cells"), make("p", "", "leaders"));
    document.querySelector(".racks").append(rack);
    racks.set(name, rack);
  }
  const word = rack.querySelector(".state");
  word.textContent = state;
  word.className = "state " + tone;
  rack.querySelector(".nodes").textContent = nodes;
  rack.querySelector(".leaders").textContent = leaders;
}

function showCell([node, look, title, marks]) {
  let cell = cells.get(node);
  if (!cell) {
    const rack = racks.get(rackOf(node));
    if (!rack) return;
    cell = make("a", "");
    cell.dataset.node = node;
    cell.href = nodeLink(node);
    rack.querySelector(".cells").append(cell);
    cells.set(node, cell);
  }
  cell.textContent = symbols.get(look) || "?";
  cell.className = "cell " + (tones.get(look) || "unknown") + (marks ? " " + marks : "");
  cell.title = title;
  cell.setAttribute("aria-label", title);
}

function showTable(name, table) {
  const found = byId(name);
  if (!found) return;
  const rows = table.rows.map((row) => {
    const line = document.createElement("tr");
    for (const [text, tone, link] of row) {
      const item = make("td", link ? "" : text, tone);
      if (link) {
        const made = make("a", text);
        made.href = base + link;
        item.append(made);
      }
      line.append(item);
    }
    return line;
  });
  found.querySelector("tbody").replaceChildren(...rows);
  found.hidden = !rows.length;
  byId(name + "-note").textContent = table.note;
}

function show(told) {
  if (told.headline) {
    const verdict = byId("verdict");
    verdict.textContent = told.headline.verdict;
    verdict.className = told.headline.tone;
    byId("text").textContent = told.headline.text;
    byId("warnings").replaceChildren(...told.headline.warnings.map((text) => make("li", text)));
    document.title = told.headline.verdict + " " + byId("name").textContent;
  }
  told.racks.forEach(showPlate);
  told.cells.forEach(showCell);
  for (const node of told.gone) {
    const cell = cells.get(node);
    if (cell) cell.remove();
    cells.delete(node);
  }
  for (const [name, table] of Object.entries(told.tables)) showTable(name, table);
  for (const [look, count] of Object.entries(told.counts || {})) {
    const place = document.querySelector('[data-count="' + look + '"]');
    if (place) place.textContent = count.toLocaleString("en");
  }
}

function forget() {
  for (const rack of racks.values()) rack.remove();
  racks.clear();
  cells.clear();
}

function heard(told) {
  heardAt = Date.now();
  heardTick = performance.now();
  byId("at").textContent = told.at;
  age();
}

// ---- how old it is --------------------------------------------------------------------------------------------

// Two clocks, and the one that says more: one stands still while this computer sleeps, the other may be set back.
function silentFor() {
  return Math.max(Date.now() - heardAt, performance.now() - heardTick);
}

function age() {
  const silent = silentFor();
  const old = silent > OLD_MS;
  body.classList.toggle("old", old);
  byId("alarm").hidden = !old;
  byId("age").textContent = old ? "no news for " + Math.round(silent / 1000) + " s" : "live";
  if (old && body.dataset.kind === "index") document.title = "? " + byId("name").textContent;
}

// ---- the feed -------------------------------------------------------------------------------------------------

function reload() {
  const wait = Math.max(0, reloadAt - performance.now());
  if (reloadAt !== Infinity) setTimeout(() => location.reload(), wait);
  reloadAt = Infinity;
}

function onIndex(event, whole) {
  const told = JSON.parse(event.data);
  if (whole) forget();
  show(told);
  heard(told);
}

function onNode(event, whole) {
  const told = JSON.parse(event.data);
  heard(told);
  if (whole || told.cells.some(([node]) => node === body.dataset.about) || told.gone.includes(body.dataset.about)) {
    reload();
  }
}

function follow(position) {
  const take = body.dataset.kind === "index" ? onIndex : onNode;
  const feed = new EventSource(base + "events" + (position ? "?after=" + encodeURIComponent(position) : ""));
  let last = position;
  const hear = (whole) => (event) => {
    last = event.lastEventId;
    take(event, whole);
  };
  feed.addEventListener("all", hear(true));
  feed.addEventListener("some", hear(false));
  feed.addEventListener("error", () => {
    if (feed.readyState === EventSource.CLOSED) setTimeout(() => follow(last), AGAIN_MS);
  });
}

if (body.dataset.kind === "index" || body.dataset.kind === "node") {
  learn();
  if (body.dataset.kind === "node") {
    reloadAt = performance.now() + RELOAD_MS;
    setInterval(() => {
      if (silentFor() < OLD_MS) reload();
    }, AGES_MS);
  }
  if (!body.classList.contains("old")) age();
  setInterval(age, 500);
  document.addEventListener("visibilitychange", age);
  follow(body.dataset.position);
} else {
  setTimeout(() => location.reload(), 5000);
}
