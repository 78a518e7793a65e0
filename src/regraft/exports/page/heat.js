// Draws over a photo where the model finds what speaks for a class: the picture that `regraft explain` draws.
const STOPS = ["0d0887", "46039f", "7201a8", "9c179e", "bd3786", "d8576b", "ed7953", "fb9f3a", "fdca26", "f0f921"];
const TABLE = STOPS.map((stop) => [0, 2, 4].map((at) => parseInt(stop.slice(at, at + 2), 16)));
const OPAQUE = 0.6; // where it is hottest
const UNSEEN = 0.35; // brightness of what the network did not see
const [SMALLEST, LARGEST] = [256, 512]; // longest side, in pixels

/** Return the rectangle that the network saw, in pixels of the upright photo; a padded one reaches beyond it. */
function viewOf(width, height) {
  const { resize, crop_fraction: kept, size } = facts.view;
  if (resize === "squash") return { left: 0, top: 0, width, height };
  const scales = [size[1] / width, size[0] / height];
  if (resize === "crop") {
    const scale = Math.max(...scales) / kept;
    const [wide, tall] = [Math.min(size[1] / scale, width), Math.min(size[0] / scale, height)];
    return { left: (width - wide) / 2, top: (height - tall) / 2, width: wide, height: tall };
  }
  const scale = Math.min(...scales);
  const inner = (wanted, side) => Math.max(1, Math.min(wanted, Math.round(side * scale)));
  const [wide, tall] = [inner(size[1], width), inner(size[0], height)];
  const [across, down] = [wide / width, tall / height];
  const [left, top] = [Math.floor((size[1] - wide) / 2), Math.floor((size[0] - tall) / 2)];
  return { left: -left / across, top: -top / down, width: size[1] / across, height: size[0] / down };
}

/** Return for each of `num` pixels along a side the four places that it is made of, with their weights; null outside. */
function taps(num, side, start, reach, places) {
  return Array.from({ length: num }, (_, pixel) => {
    const at = ((((pixel + 0.5) * side) / num - start) * places) / reach;
    if (at < 0 || at >= places) return null;
    const first = Math.floor(at - 0.5);
    const d = at - 0.5 - first;
    const inside = [-1, 0, 1, 2].map((step) => Math.min(places - 1, Math.max(0, first + step)));
    const weights = [((2 - d) * d - 1) * d, (d - 2) * d * d + 1, ((1 - d) * d + 1) * d, (d - 1) * d * d];
    return inside.map((place, tap) => [place, weights[tap]]);
  });
}

function colourOf(heat) {
  const place = heat * (TABLE.length - 1);
  const low = Math.min(Math.floor(place), TABLE.length - 2);
  return TABLE[low].map((value, at) => value + (TABLE[low + 1][at] - value) * (place - low));
}

/** Return a canvas of a photo in grey with the heat of one class over it. */
function heatPanel(image, heat, place) {
  const [wide, tall] = [image.naturalWidth, image.naturalHeight];
  const scale = Math.min(Math.max(wide, tall, SMALLEST), LARGEST) / Math.max(wide, tall);
  const canvas = make("canvas", "heat");
  [canvas.width, canvas.height] = [wide, tall].map((side) => Math.max(1, Math.round(side * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const drawn = context.getImageData(0, 0, canvas.width, canvas.height);
  const view = viewOf(wide, tall);
  const columns = taps(canvas.width, wide, view.left, view.width, heat.width);
  const rows = taps(canvas.height, tall, view.top, view.height, heat.height);
  const size = heat.width * heat.height;
  const values = heat.values.slice(place * size, (place + 1) * size).map((value) => Math.max(0, value));
  const largest = Math.max(...values);
  rows.forEach((row, y) => {
    columns.forEach((column, x) => {
      const at = 4 * (y * canvas.width + x);
      const [red, green, blue] = drawn.data.subarray(at, at + 3);
      const grey = 0.299 * red + 0.587 * green + 0.114 * blue;
      if (!row || !column) return drawn.data.set([grey * UNSEEN, grey * UNSEEN, grey * UNSEEN], at);
      let sum = 0;
      for (const [down, weight] of row) {
        for (const [across, other] of column) sum += weight * other * values[down * heat.width + across];
      }
      const hot = largest > 0 ? Math.min(1, Math.max(0, sum / largest)) : 0;
      const colour = colourOf(hot);
      drawn.data.set(colour.map((value) => grey + (value - grey) * OPAQUE * hot), at);
    });
  });
  context.putImageData(drawn, 0, 0);
  return canvas;
}

/** Let a card show the heat of one class over its photo, drawn when it is asked for first. */
function explainable(card, heat, place) {
  const shown = card.querySelector(".shown");
  const image = shown.querySelector("img");
  if (!image) return;
  const toggle = make("button", "why", say("Heat map"));
  toggle.type = "button";
  const told = "Where the model finds what speaks for {}: what it used, not whether it is right to.";
  toggle.title = say(told, facts.names[place]);
  toggle.setAttribute("aria-pressed", "false");
  let panel;
  toggle.addEventListener("click", () => {
    panel ??= heatPanel(image, heat, place);
    panel.setAttribute("role", "img");
    panel.setAttribute("aria-label", say("Heat map of {}", facts.names[place]));
    const pressed = panel.isConnected;
    if (pressed) panel.remove();
    else image.after(panel);
    toggle.setAttribute("aria-pressed", String(!pressed));
  });
  shown.append(toggle);
}
