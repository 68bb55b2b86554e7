import { besideOf, byId, element, milliseconds, nameOf, pickButton, rankedRow, say } from "/drawing.js";

const SHOWN = 20;
const TYPING_PAUSE = 120;
const NOT_YET = 409;
const ASK_AGAIN_PAUSE = 500;

const session = [];
const followed = new Map();
let newestSequence = 0;
let rankings = 0;
let searches = 0;
let firstRanked = null;

async function ask(path, given) {
  const options = given === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(given),
  };
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("The playground itself does not answer. Is `llmgr serve playground` still running?");
  }
  const result = await reply.json();
  if (!reply.ok) {
    const error = new Error(result.field ? `${result.error} (${result.field})` : result.error);
    error.status = reply.status;
    throw error;
  }
  return result;
}

async function showServices() {
  try {
    const state = await ask("/api/state");
    const lines = ["ranking", "embedding"].map((service) => {
      const facts = state[service];
      const text = facts.error ? facts.error : `${service}: ${facts.items} items at ${facts.address}`;
      return element("li", { className: facts.error ? "down" : "" }, text);
    });
    const reading = state.titles_complete ? "" : " so far";
    lines.push(element("li", {}, `${state.titles} titles${reading}`));
    byId("services").replaceChildren(...lines);
    if (!state.titles_complete) setTimeout(showServices, 1000);
  } catch (error) {
    byId("services").replaceChildren(element("li", { className: "down" }, error.message));
  }
}

async function find() {
  const search = ++searches;
  try {
    const { items } = await ask(`/api/items?q=${encodeURIComponent(byId("query").value)}`);
    if (search !== searches) return;
    say("find-error", "");
    byId("found").replaceChildren(...items.map((item) => element("li", {}, pickButton(item, "Add", click))));
    if (!items.length) byId("found").replaceChildren(element("li", { className: "hint" }, "Nothing found."));
  } catch (error) {
    if (search === searches) say("find-error", error.message);
  }
}

function click(item) {
  session.push(item);
  showSession();
  rank();
}

function showSession() {
  const rows = session.map((item, place) => {
    const remove = element("button", { type: "button", "aria-label": `Remove click ${place + 1}: ${nameOf(item)}` }, "×");
    remove.addEventListener("click", () => {
      session.splice(place, 1);
      showSession();
      rank();
      (byId("clicks").querySelectorAll("button")[Math.min(place, session.length - 1)] ?? byId("query")).focus();
    });
    const name = element("span", { className: "name" }, nameOf(item));
    name.append(element("span", { className: "beside" }, besideOf(item)));
    return element("li", {}, name, remove);
  });
  if (!rows.length) rows.push(element("li", { className: "hint" }, "None yet: the ranking is by popularity."));
  byId("clicks").replaceChildren(...rows);
}

async function rank() {
  const ranking = ++rankings;
  const section = byId("ranking-section");
  section.setAttribute("aria-busy", "true");
  try {
    const result = await ask("/api/rank", {
      item_ids: session.map((item) => item.item_id),
      followed: [...followed.keys()],
      top_k: SHOWN,
      include_seen: byId("seen").checked ? true : null,
      min_sequence: newestSequence,
    });
    if (ranking !== rankings) return;
    say("rank-error", "");
    showRanking(result);
  } catch (error) {
    if (ranking !== rankings) return;
    if (error.status === NOT_YET) {
      say("rank-error", `${error.message} Asking again …`);
      setTimeout(() => ranking === rankings && rank(), ASK_AGAIN_PAUSE);
    } else {
      say("rank-error", error.message);
    }
  } finally {
    if (ranking === rankings) section.setAttribute("aria-busy", "false");
  }
}

function showRanking(result) {
  const top = result.items.filter((item) => item.place <= SHOWN);
  const highest = top.length ? top[0].probability : 1;
  firstRanked = top[0] ?? null;
  byId("ranking").replaceChildren(...top.map((item) => rankedRow(item, highest, followed.has(item.item_id), click)));
  const facts = [
    `answered in ${milliseconds(result.ms)}, of which the ranker took ${milliseconds(result.model_ms)}`,
    `bundle ${result.model_version}`,
    `change ${result.sequence}`,
  ];
  if (result.fallback) facts.unshift("by popularity");
  if (result.unknown_item_ids.length) facts.push(`not known to the ranker: ${result.unknown_item_ids.join(", ")}`);
  say("facts", facts.join(" · "));
  showFollowed(result, highest);
}

function showFollowed(result, highest) {
  const found = new Map(result.items.map((item) => [item.item_id, item]));
  const rows = [...followed.values()].map((item) => {
    const ranked = found.get(item.item_id);
    if (ranked) return rankedRow(ranked, highest, true, click);
    const clicked = session.some((one) => one.item_id === item.item_id);
    const place = clicked ? "clicked" : `> ${result.searched}`;
    return rankedRow({ ...item, place, probability: null }, highest, true, click);
  });
  rows.forEach((row, place) => {
    const item = [...followed.values()][place];
    const remove = element("button", { type: "button", "aria-label": `Delete ${nameOf(item)}` }, "Delete");
    remove.addEventListener("click", () => removeItem(item));
    row.lastChild.append(remove);
  });
  byId("followed").replaceChildren(...rows);
  byId("followed-box").hidden = !rows.length;
}

async function insert(event) {
  event.preventDefault();
  say("insert-error", "");
  say("inserted", "Reading the text …");
  const form = byId("insert");
  try {
    const result = await ask("/api/insert", Object.fromEntries(new FormData(form)));
    const how = result.cached ? "its text was known" : `the language model took ${milliseconds(result.model_ms)}`;
    say("inserted", `${nameOf(result.item)} is stored as ${result.item.item_id}, in ${milliseconds(result.ms)}: ${how}.`);
    followed.set(result.item.item_id, result.item);
    newestSequence = Math.max(newestSequence, result.sequence);
    form.reset();
    await rank();
    find();
    showServices();
  } catch (error) {
    say("inserted", "");
    say("insert-error", error.message);
  }
}

async function removeItem(item) {
  try {
    const result = await ask("/api/delete", { item_id: item.item_id });
    followed.delete(item.item_id);
    newestSequence = Math.max(newestSequence, result.sequence);
    say("inserted", `${nameOf(item)} is deleted.`);
    byId("title").focus();
    await rank();
    find();
  } catch (error) {
    say("insert-error", error.message);
  }
}

function writeAlike() {
  if (!firstRanked) return;
  for (const field of ["title", "brand", "category"]) byId(field).value = firstRanked[field];
  byId("item_id").value = "";
  byId("title").focus();
}

function moveInFound(event) {
  const buttons = [...byId("found").querySelectorAll("button")];
  const here = buttons.indexOf(document.activeElement);
  if (event.key === "ArrowDown" && here + 1 < buttons.length) buttons[here + 1].focus();
  else if (event.key === "ArrowUp" && here >= 0) (buttons[here - 1] ?? byId("query")).focus();
  else if (event.key === "Escape" && here >= 0) byId("query").focus();
  else if (event.key === "Enter" && document.activeElement === byId("query") && buttons.length) buttons[0].click();
  else return;
  event.preventDefault();
}

let typing;
byId("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, TYPING_PAUSE);
});
byId("query").addEventListener("keydown", moveInFound);
byId("found").addEventListener("keydown", moveInFound);
byId("clear").addEventListener("click", () => {
  session.length = 0;
  showSession();
  rank();
});
byId("seen").addEventListener("change", rank);
byId("insert").addEventListener("submit", insert);
byId("alike").addEventListener("click", writeAlike);

showServices();
showSession();
find();
rank();
