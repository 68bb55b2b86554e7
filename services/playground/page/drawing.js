// Elements of the page. Everything from the services goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const nameOf = (item) => item.title || item.item_id;

export function besideOf(item) {
  const parts = [item.brand, item.category, item.title ? item.item_id : ""];
  return parts.filter(Boolean).join(" · ");
}

export function pickButton(item, label, onPick) {
  const button = element("button", { type: "button", className: "pick", "aria-label": `${label} ${nameOf(item)}` }, nameOf(item));
  const beside = besideOf(item);
  if (beside) button.append(element("span", { className: "beside" }, beside));
  button.addEventListener("click", () => onPick(item));
  return button;
}

export function percent(probability) {
  if (probability === null) return "";
  const value = probability * 100;
  return value >= 0.01 ? `${value.toFixed(value >= 10 ? 1 : 2)} %` : "< 0.01 %";
}

export function rankedRow(item, highest, isMine, onPick) {
  const chance = element("span", { className: "chance" }, percent(item.probability));
  if (item.probability !== null) {
    chance.append(element("meter", { min: 0, max: highest || 1, value: item.probability, "aria-hidden": "true" }));
  }
  const row = element("li", { "data-item": item.item_id });
  row.append(element("span", { className: "place" }, String(item.place)), pickButton(item, "Click", onPick), chance);
  if (isMine) row.classList.add("mine");
  return row;
}

export function say(id, message) {
  const place = byId(id);
  place.textContent = message;
  if (place.classList.contains("error")) place.hidden = !message;
}

export const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;
