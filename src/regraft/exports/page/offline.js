"use strict";
// Answers inside this file: the model runs in a worker, from bytes that the page holds.
async function unpacked(name) {
  const element = document.getElementById(name);
  const text = element.textContent;
  element.remove();
  const packed = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

const waiting = new Map();
const working = (async () => {
  const state = document.getElementById("state");
  const [runtime, binary, model] = await Promise.all(["runtime", "binary", "model"].map(unpacked));
  const code = new Blob([runtime, document.getElementById("worker").textContent], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(code));
  const background = JSON.parse(document.getElementById("facts").textContent).background;
  await new Promise((resolve, reject) => {
    worker.onerror = () => reject(new Error("This browser cannot run the model."));
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve());
    worker.postMessage({ binary, model, background }, [binary, model]);
  }).catch((error) => {
    state.textContent = say(error.message);
    state.classList.add("failed");
    throw error;
  });
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data.answer);
  };
  return worker;
})();
working.catch(() => {}); // said where it happened

let asked = 0;
async function ask(file) {
  const worker = await working;
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, file });
  });
}
