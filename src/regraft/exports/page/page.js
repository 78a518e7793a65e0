"use strict";
// Photos in, cards out. `ask(file)`, which stands before this, gives {shares, typicality, mask, heat}, or throws.
const facts = JSON.parse(document.getElementById("facts").textContent);
const results = document.getElementById("results");
const MOST_BARS = 5;
const MOST_WAITING = 200; // photos shown at once
const ADDRESSES = new Set();
const CHINESE = navigator.language.toLowerCase().startsWith("zh");

/** Return a text in the browser's language, its gaps filled in order. */
function say(text, ...values) {
  const parts = ((CHINESE && facts.zh[text]) || text).split("{}");
  return parts.map((part, place) => part + (place < parts.length - 1 ? values[place] : "")).join("");
}

if (CHINESE) {
  document.documentElement.lang = "zh";
  for (const element of document.querySelectorAll("[data-zh]")) element.textContent = element.dataset.zh;
}

function make(kind, css, text) {
  const element = document.createElement(kind);
  if (css) element.className = css;
  if (text !== undefined) element.textContent = text;
  return element;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

/** Return the places that are named: as `regraft predict` chooses them. */
function chosenPlaces(shares) {
  if (facts.output === "multilabel") return [...shares.keys()].filter((place) => shares[place] >= facts.thresholds[place]);
  if (facts.output === "binary") return [shares[1] >= facts.thresholds[1] ? 1 : 0];
  return [shares.indexOf(Math.max(...shares))];
}

function ranked(shares) {
  return [...shares.keys()].sort((one, other) => shares[other] - shares[one]);
}

function bar(place, share, chosen) {
  const row = make("div", chosen ? "row chosen" : "row");
  const label = make("span", "label", facts.names[place]);
  label.title = facts.names[place];
  if (facts.colours) {
    const swatch = make("span", "swatch");
    swatch.style.background = `rgb(${facts.colours[place].join()})`;
    label.prepend(swatch);
  }
  const meter = make("span", "meter");
  const filled = make("i");
  filled.style.width = `${100 * share}%`;
  if (facts.colours) filled.style.background = `rgb(${facts.colours[place].join()})`;
  meter.append(filled);
  if (facts.output === "multilabel") {
    const mark = make("b");
    mark.style.left = `calc(${100 * facts.thresholds[place]}% - 1px)`;
    mark.title = say("named from {} on", percent(facts.thresholds[place]));
    meter.append(mark);
  }
  row.append(label, meter, make("span", "share", percent(share)));
  return row;
}

function bars(shares, chosen) {
  const order = ranked(shares);
  const first = make("div", "bars");
  first.append(...order.slice(0, MOST_BARS).map((place) => bar(place, shares[place], chosen.includes(place))));
  if (order.length <= MOST_BARS) return [first];
  const more = make("details");
  const rest = make("div", "bars");
  more.append(make("summary", "", say("{} more", order.length - MOST_BARS)), rest);
  more.addEventListener("toggle", () => {
    if (!rest.firstChild) {
      rest.append(...order.slice(MOST_BARS).map((place) => bar(place, shares[place], chosen.includes(place))));
    }
  });
  return [first, more];
}

function headline(shares, chosen, isUnknown) {
  if (isUnknown) {
    const beside = "It resembles none of the images that the model was validated on. If it is one of its classes at all:";
    return [make("p", "name unknown", say("Don’t know")), make("p", "beside", say(beside))];
  }
  if (facts.output === "multilabel") {
    const names = ranked(shares).filter((place) => chosen.includes(place)).map((place) => facts.names[place]);
    return [make("p", "name", names.join(", ") || say("No label"))];
  }
  const [place] = chosen;
  const name = make("p", "name", facts.names[place]);
  name.append(" ", make("small", "", percent(shares[place])));
  const others = ranked(shares).filter((other) => other !== place && 1 - shares[other] <= facts.set_limit);
  if (facts.set_limit === null || !others.length) return [name];
  const listed = others.slice(0, MOST_BARS).map((other) => facts.names[other]).join(", ");
  const left = others.length - MOST_BARS;
  const beside = make("p", "beside", left > 0 ? say("or {} or {} more", listed, left) : say("or {}", listed));
  beside.title = say("Sets like this one hold the right class in 90% of the images.");
  return [name, beside];
}

function overlay(mask) {
  const canvas = make("canvas");
  [canvas.width, canvas.height] = [mask.width, mask.height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(mask.width, mask.height);
  mask.places.forEach((place, pixel) => image.data.set([...facts.colours[place], place ? 255 : 0], 4 * pixel));
  context.putImageData(image, 0, 0);
  return canvas;
}

function answered(card, answer) {
  const said = card.querySelector(".said");
  const file = said.querySelector(".file");
  if (answer.mask) {
    const shown = card.querySelector(".shown");
    shown.classList.add("masked");
    shown.append(overlay(answer.mask));
    const present = ranked(answer.shares).filter((place) => answer.shares[place] > 0);
    const rows = make("div", "bars");
    rows.append(...present.map((place) => bar(place, answer.shares[place], false)));
    card.dataset.shares = JSON.stringify(answer.shares);
    said.replaceChildren(file, make("p", "name", say("Share of the pixels")), rows);
    return;
  }
  const { shares, typicality } = answer;
  const isUnknown = facts.unknown_below !== null && typicality !== null && typicality <= facts.unknown_below;
  const chosen = isUnknown ? [] : chosenPlaces(shares);
  card.dataset.prediction = isUnknown ? "unknown" : chosen.map((place) => facts.names[place]).join("|");
  card.dataset.shares = JSON.stringify(shares);
  said.replaceChildren(file, ...headline(shares, chosen, isUnknown), ...bars(shares, chosen));
  if (facts.view && answer.heat) {
    const first = ranked(shares);
    explainable(card, answer.heat, first.find((place) => chosen.includes(place)) ?? first[0]);
  }
}

function failed(card, reason) {
  const said = card.querySelector(".said");
  card.classList.add("failed");
  card.querySelector(".shown").replaceChildren();
  said.replaceChildren(said.querySelector(".file"), make("p", "name", say(reason)));
}

function cardOf(file) {
  const card = make("article", "photo");
  card.setAttribute("aria-busy", "true");
  const shown = make("div", "shown");
  const image = make("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  ADDRESSES.add(image.src);
  image.addEventListener("error", () => image.remove());
  shown.append(image);
  const said = make("div", "said");
  const name = make("p", "file", file.name);
  name.title = file.name;
  said.append(name, make("p", "name waiting", say("Looking …")));
  card.append(shown, said);
  return card;
}

function count() {
  const num = results.childElementCount;
  document.querySelector(".bar-above").hidden = !num;
  document.getElementById("count").textContent = num === 1 ? say("1 photo") : say("{} photos", num);
}

async function look(files) {
  const pairs = [...files].slice(0, MOST_WAITING).map((file) => [file, cardOf(file)]);
  results.prepend(...pairs.map(([, card]) => card));
  count();
  await Promise.all(
    pairs.map(async ([file, card]) => {
      try {
        answered(card, await ask(file));
      } catch (error) {
        failed(card, error.message);
      }
      card.setAttribute("aria-busy", "false");
    }),
  );
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    look(input.files);
    input.value = "";
  });
}
document.getElementById("clear").addEventListener("click", () => {
  ADDRESSES.forEach((address) => URL.revokeObjectURL(address));
  ADDRESSES.clear();
  results.replaceChildren();
  count();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  look(event.dataTransfer.files);
});
addEventListener("paste", (event) => look(event.clipboardData.files));
