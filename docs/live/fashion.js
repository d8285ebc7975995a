// Fashion-MNIST: one evaluation an image, so that the image can follow the pointer.

import { ask, newest, pad } from "./engine.js";

const CLASSES = ["T-shirt", "Trousers", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"];
const SIDE = 32;
const NETWORKS = {
  latents: { model: "fashion-imf", size: 4 * 8 * 8, noise: "noise.bin" },
  pixels: { model: "fashion-pixels", size: SIDE * SIDE, noise: "noise-pixels.bin" },
};
const COMPARED = [
  { id: "imf1", steps: 1 },
  { id: "imf2", steps: 2 },
  { id: "imf4", steps: 4 },
  { id: "fm64", model: "fashion-fm", steps: 64, euler: true }, // of latents
];
const GUIDANCE = ["omega", "t_min", "t_max"];

const at = (id) => document.getElementById(id);
const place = { x: 0, y: 0 };
const state = { y: 0, omega: 2, t_min: 0, t_max: 1 };
const times = [];
let network = NETWORKS.latents;
let noise;
let idle;

const corner = (k) => noise.subarray(k * network.size, (k + 1) * network.size);

// A plane through three draws of noise, scaled back to the length that noise has.
export function noiseAt(a, b, c, x, y) {
  const scale = 1 / Math.sqrt(1 + x * x + y * y);
  return a.map((value, i) => scale * (value + x * b[i] + y * c[i]));
}

function paint(canvas, grey, k = 0) {
  const picture = new ImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) {
    picture.data.fill(grey[k * SIDE * SIDE + i], 4 * i, 4 * i + 3);
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

const draw = newest(async () => {
  const z = noiseAt(corner(0), corner(1), corner(2), place.x, place.y);
  const request = { model: network.model, z, count: 1, steps: 1, cond: { ...state, y: [state.y] } };
  const { grey, evaluation, decoder } = await ask("images", request, "fast");
  if (request.model !== network.model) return; // another was chosen meanwhile
  paint(at("image"), grey);
  times.push(evaluation + decoder);
  const middle = times.slice(-50).sort((a, b) => a - b)[Math.floor(Math.min(times.length, 50) / 2)];
  at("cost").textContent =
    `network ${milliseconds(evaluation)}, ${decoder ? `decoder ${milliseconds(decoder)}` : "no decoder"}; median of the last ` +
    `${Math.min(times.length, 50)}: ${milliseconds(middle)}`;
  at("image").dataset.median = middle;
  at("image").dataset.drawn = times.length;
});

const drawGrid = newest(async () => {
  const cond = { ...state, y: CLASSES.map((_, k) => k) };
  const z = noise.subarray(3 * network.size);
  const request = { model: network.model, z, count: CLASSES.length, steps: 1, cond };
  const { grey } = await ask("images", request, "fast");
  CLASSES.forEach((_, k) => paint(at(`class${k}`), grey, k));
});

const compare = newest(async () => {
  const z = noiseAt(corner(0), corner(1), corner(2), place.x, place.y);
  const { model } = network;
  for (const { id, ...how } of COMPARED) {
    if (how.model && network !== NETWORKS.latents) continue;
    const cond = { ...state, y: [state.y] };
    const { grey, evaluation } = await ask("images", { model, z, count: 1, cond, ...how });
    if (model !== network.model) return;
    paint(at(id), grey);
    at(`${id}-cost`).textContent = milliseconds(evaluation);
  }
});

function mark() {
  const context = at("pad").getContext("2d");
  const size = at("pad").width;
  const [x, y] = [((1 + place.x) * size) / 2, ((1 - place.y) * size) / 2];
  context.clearRect(0, 0, size, size);
  context.strokeStyle = "#9aa0a6";
  context.beginPath();
  context.moveTo(size / 2, 0);
  context.lineTo(size / 2, size);
  context.moveTo(0, size / 2);
  context.lineTo(size, size / 2);
  context.stroke();
  context.fillStyle = "#0072B2";
  context.beginPath();
  context.arc(x, y, 9, 0, 2 * Math.PI);
  context.fill();
  at("pad").setAttribute("aria-valuetext", `noise at ${place.x.toFixed(2)}, ${place.y.toFixed(2)}`);
}

// The image at once; the slow comparison when the hand rests.
function changed() {
  mark();
  draw();
  clearTimeout(idle);
  idle = setTimeout(compare, 250);
}

const floats = async (file) =>
  new Float32Array(await (await fetch(new URL(`./models/${file}`, import.meta.url))).arrayBuffer());

// Another network: its noise, and the sliders for what it takes.
const choose = newest(async (name) => {
  const chosen = NETWORKS[name];
  const [about, its] = [await ask("load", { name: chosen.model }, "fast"), await floats(chosen.noise)];
  [network, noise] = [chosen, its];
  for (const input of GUIDANCE) at(input).disabled = !(input in about.inputs);
  for (const { id, model } of COMPARED) at(id).parentElement.hidden = Boolean(model) && name !== "latents";
  at("about-fm").hidden = name !== "latents";
  times.length = 0;
  Object.assign(at("image").dataset, { network: name, drawn: 0 });
  changed();
  drawGrid();
});

function slider(name) {
  const input = at(name);
  const show = () => {
    state[name] = Number(input.value);
    at(`${name}-value`).textContent = input.value;
  };
  input.addEventListener("input", () => {
    show();
    changed();
    drawGrid();
  });
  show();
}

function small(parent, id, label, below = "") {
  const figure = document.createElement("figure");
  figure.innerHTML = `<canvas id="${id}" width="${SIDE}" height="${SIDE}" role="img"></canvas><figcaption></figcaption>`;
  figure.querySelector("canvas").setAttribute("aria-label", label);
  figure.querySelector("figcaption").innerHTML = `${label}${below}`;
  at(parent).append(figure);
}

export async function start() {
  CLASSES.forEach((name, k) => {
    const button = document.createElement("button");
    button.textContent = name;
    button.setAttribute("aria-pressed", String(k === state.y));
    button.addEventListener("click", () => {
      state.y = k;
      [...at("classes").children].forEach((other, i) => other.setAttribute("aria-pressed", String(i === k)));
      changed();
    });
    at("classes").append(button);
    small("grid", `class${k}`, name);
  });
  for (const { id, steps, euler } of COMPARED) {
    const label = `${euler ? "flow matching" : "iMF"}, ${steps} ${steps > 1 ? "evaluations" : "evaluation"}`;
    small("compared", id, label, `<br><output id="${id}-cost"></output>`);
  }
  GUIDANCE.forEach(slider);
  at("network").addEventListener("change", () => choose(at("network").value));
  pad(at("pad"), place, changed);
  mark();
  noise = await floats(network.noise);
  await ask("load", { name: "fashion-imf" }, "fast"); // so that no time is that of loading
  await ask("load", { name: "fashion-decoder" }, "fast");
  await draw();
  await drawGrid();
}

// What takes longer, when the rest of the page is there.
export async function finish() {
  for (const name of ["fashion-imf", "fashion-decoder", "fashion-fm"]) await ask("load", { name });
  await compare();
  at("network").disabled = false;
}
