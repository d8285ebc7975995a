// Runs the networks, away from the page: one request at a time, in the order in which they come. The fast worker asks
// for its networks while WebAssembly starts.

import * as ort from "./vendor/ort.wasm.bundle.min.mjs";

ort.env.wasm.wasmPaths = { wasm: new URL("./vendor/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more would need headers that a static server does not send

const coming = new Map();
const sessions = new Map();
const abouts = new Map();

// A network's files, asked for once.
function get(name) {
  const read = async (file) => {
    const response = await fetch(new URL(`./models/${file}`, import.meta.url));
    if (!response.ok) throw new Error(`${file}: ${response.status}`);
    return response;
  };
  if (!coming.has(name)) {
    const files = [read(`${name}.json`).then((r) => r.json()), read(`${name}.onnx`).then((r) => r.arrayBuffer())];
    coming.set(name, Promise.all(files));
  }
  return coming.get(name);
}

async function load(name) {
  if (!sessions.has(name)) {
    const [about, bytes] = await get(name);
    abouts.set(name, about);
    sessions.set(name, await ort.InferenceSession.create(bytes));
    coming.delete(name);
  }
  return abouts.get(name);
}

if (self.name === "fast") for (const name of ["fashion-imf", "fashion-decoder"]) get(name).catch(() => {});

const filled = (count, value) => new ort.Tensor("float32", new Float32Array(count).fill(value), [count]);

// u(z, r, t | conditions) for `count` samples; of the conditions, those that the network takes.
async function u(name, z, count, r, t, cond) {
  const about = await load(name);
  const feeds = { z: new ort.Tensor("float32", z, [count, ...about.shape]), r: filled(count, r), t: filled(count, t) };
  if ("y" in about.inputs) feeds.y = new ort.Tensor("int64", BigInt64Array.from(cond.y, BigInt), [count]);
  if ("omega" in about.inputs) feeds.omega = filled(count, cond.omega);
  if ("t_min" in about.inputs) {
    feeds.t_min = filled(count, cond.t_min);
    feeds.t_max = filled(count, cond.t_max);
  }
  return (await sessions.get(name).run(feeds)).u.data;
}

// From noise to data in equal steps: along u, or, for flow matching, along the velocity u(z, t, t).
async function sample({ model, z, count, steps, cond = {}, euler = false }) {
  let now = Float32Array.from(z);
  for (let k = 0; k < steps; k++) {
    const [t, r] = [1 - k / steps, 1 - (k + 1) / steps];
    const slope = await u(model, now, count, euler ? t : r, t, cond);
    now = now.map((value, i) => value - (t - r) * slope[i]);
  }
  return now;
}

// Pixels in [-1, 1] to grey levels: clip, then round, as the library does.
const greys = (pixels) => Uint8ClampedArray.from(pixels, (value) => (value + 1) * 127.5);

// Latents to grey levels.
async function decode(z, count) {
  const about = await load("fashion-decoder");
  const feeds = { z: new ort.Tensor("float32", z, [count, ...about.shape]) };
  const { x } = await sessions.get("fashion-decoder").run(feeds);
  return greys(x.data);
}

const operations = {
  load: ({ name }) => load(name),
  async points(request) {
    const start = performance.now();
    return { x: await sample(request), ms: performance.now() - start };
  },
  async images(request) {
    const start = performance.now();
    const made = await sample(request);
    const between = performance.now();
    if ((await load(request.model)).shape[0] === 1) return { grey: greys(made), evaluation: between - start, decoder: 0 };
    const grey = await decode(made, request.count);
    return { grey, evaluation: between - start, decoder: performance.now() - between };
  },
};

let queue = Promise.resolve();
self.onmessage = ({ data: { id, operation, request } }) => {
  queue = queue.then(async () => {
    try {
      self.postMessage({ id, result: await operations[operation](request) });
    } catch (error) {
      self.postMessage({ id, error: String(error) });
    }
  });
};
