// In the plane: a cloud of noise carried to the data, and one point of it that can be dragged.

import { ask, newest, pad } from "./engine.js";
import { path } from "./field.js";

const METHODS = { fm: "flow matching", mf: "MeanFlow", imf: "improved MeanFlow" };
const COLORS = { fm: "#56B4E9", mf: "#D55E00", imf: "#0072B2" };
const COUNT = 1000;
const REACH = 3; // of the axes, on either side

const at = (id) => document.getElementById(id);
const place = { x: 0.25, y: -0.2 };
let mixture;
let cloud;
let steps = 1;

// Numbers that are the same in every visit (mulberry32), and normal ones made of them.
function uniform(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function normal(count, seed) {
  const next = uniform(seed);
  return Float32Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

const screen = (canvas, [x, y]) => [((x / REACH + 1) * canvas.width) / 2, ((1 - y / REACH) * canvas.height) / 2];

function dots(context, points, color, radius) {
  context.fillStyle = color;
  for (let i = 0; i < points.length; i += 2) {
    const [x, y] = screen(context.canvas, [points[i], points[i + 1]]);
    context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
  }
}

function line(context, points, color, dash = []) {
  context.strokeStyle = color;
  context.lineWidth = 2;
  context.setLineDash(dash);
  context.beginPath();
  points.forEach((point, k) => context[k ? "lineTo" : "moveTo"](...screen(context.canvas, point)));
  context.stroke();
  context.setLineDash([]);
}

// Where the data are: two standard deviations around each mode.
function modes(context) {
  context.fillStyle = "rgba(128, 128, 128, 0.25)";
  for (const mean of mixture.means) {
    context.beginPath();
    context.arc(...screen(context.canvas, mean), (mixture.std / REACH) * context.canvas.width, 0, 2 * Math.PI);
    context.fill();
  }
}

function ring(context, point, color, filled) {
  context.beginPath();
  context.arc(...screen(context.canvas, point), 6, 0, 2 * Math.PI);
  context.strokeStyle = context.fillStyle = color;
  if (filled) context.fill();
  context.stroke();
}

const draw = newest(async () => {
  const e = [REACH * place.x, REACH * place.y];
  const truth = path(e, mixture);
  const z = Float32Array.from([...e, ...cloud]);
  for (const name of Object.keys(METHODS)) {
    const request = { model: `plane-${name}`, z, count: COUNT + 1, steps, euler: name === "fm" };
    const { x, ms } = await ask("points", request);
    const canvas = at(`plane-${name}`);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    modes(context);
    dots(context, cloud, "#B8B8B8", 0.75);
    dots(context, x.subarray(2), COLORS[name], 1);
    line(context, truth, "#888888");
    line(context, [e, [x[0], x[1]]], COLORS[name], [5, 4]);
    ring(context, e, "#888888", false);
    ring(context, [x[0], x[1]], COLORS[name], true);
    Object.assign(canvas.dataset, { start: JSON.stringify(e), steps });
    canvas.dataset.landed = JSON.stringify([x[0], x[1]]);
    canvas.dataset.truth = JSON.stringify(truth.at(-1));
    at(`plane-${name}-cost`).textContent = `${COUNT + 1} points: ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  }
});

export async function start() {
  for (const [name, label] of Object.entries(METHODS)) {
    const figure = document.createElement("figure");
    figure.innerHTML =
      `<canvas id="plane-${name}" width="320" height="320" tabindex="0" role="slider" aria-valuenow="0"></canvas>` +
      `<figcaption>${label}<br><output id="plane-${name}-cost"></output></figcaption>`;
    figure.firstChild.setAttribute("aria-label", `${label}: a point of noise, and where it lands. Arrow keys move it.`);
    at("planes").append(figure);
    pad(figure.firstChild, place, draw);
  }
  at("steps").addEventListener("input", (event) => {
    steps = Number(event.target.value);
    draw();
  });
  for (const name of Object.keys(METHODS)) mixture = (await ask("load", { name: `plane-${name}` })).data;
  cloud = normal(2 * COUNT, 1);
  await draw();
}
