// Runs in a worker, behind onnxruntime-web, which defines `ort`.

const MOST_PIXELS = 16e6; // larger images are halved, thirded ... first: a phone has little memory
let session, background;
let last = Promise.resolve();

async function start(binary, model) {
  ort.env.wasm.numThreads = 1; // more need headers that a file does not have
  ort.env.wasm.wasmBinary = binary;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

/** Return what Pillow would: no colour management, upright, transparent pixels over the background. */
async function pixelsOf(file) {
  const image = await createImageBitmap(file, {
    colorSpaceConversion: "none",
    imageOrientation: "from-image",
    premultiplyAlpha: "none",
  });
  const factor = Math.ceil(Math.sqrt((image.width * image.height) / MOST_PIXELS));
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side / factor)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${background.join()})`;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  image.close();
  const from = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(3 * width * height);
  for (let to = 0, at = 0; to < pixels.length; at += 4) {
    pixels[to++] = from[at];
    pixels[to++] = from[at + 1];
    pixels[to++] = from[at + 2];
  }
  return new ort.Tensor("uint8", pixels, [1, height, width, 3]);
}

function sharesOf(places) {
  const counts = new Array(256).fill(0);
  for (const place of places) counts[place]++;
  return counts.map((count) => count / places.length);
}

async function answerOf(file) {
  let images;
  try {
    images = await pixelsOf(file);
  } catch {
    throw new Error("This file cannot be read as an image.");
  }
  const { probabilities, typicality, mask, heat } = await session.run({ images });
  if (!mask) {
    const map = heat && { height: heat.dims[2], width: heat.dims[3], values: heat.data };
    return { shares: [...probabilities.data], typicality: typicality ? typicality.data[0] : null, mask: null, heat: map };
  }
  const [, height, width] = mask.dims;
  return { shares: sharesOf(mask.data), typicality: null, mask: { width, height, places: mask.data } };
}

onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      if (data.model) {
        background = data.background;
        await start(data.binary, data.model);
        postMessage({ started: true });
      } else postMessage({ id: data.id, answer: await answerOf(data.file) });
    } catch (error) {
      postMessage({ id: data.id, error: String((error && error.message) || error).slice(0, 300) });
    }
  });
};
