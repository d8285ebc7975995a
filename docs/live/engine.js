// Asks the workers: one for what must follow the hand, one for all that takes longer.

const workers = new Map();
const waiting = new Map();
let count = 0;

function worker(lane) {
  if (!workers.has(lane)) {
    const made = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: lane });
    made.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    };
    made.onerror = (event) => {
      for (const { reject } of waiting.values()) reject(new Error(event.message || "a worker could not be started"));
      waiting.clear();
    };
    workers.set(lane, made);
  }
  return workers.get(lane);
}

export function ask(operation, request, lane = "slow") {
  return new Promise((resolve, reject) => {
    const id = count++;
    waiting.set(id, { resolve, reject });
    worker(lane).postMessage({ id, operation, request });
  });
}

// A function that runs one call at a time; of those that come meanwhile, only the newest is kept.
export function newest(work) {
  let running = false;
  let next = null;
  return async function call(...args) {
    if (running) {
      next = args;
      return;
    }
    running = true;
    try {
      await work(...args);
    } finally {
      running = false;
      const kept = next;
      next = null;
      if (kept) call(...kept);
    }
  };
}

// A draggable point in a square [-1, 1]^2, by pointer, touch or arrow keys; `moved` is told its place.
export function pad(element, place, moved) {
  const set = (x, y) => {
    place.x = Math.max(-1, Math.min(1, x));
    place.y = Math.max(-1, Math.min(1, y));
    moved();
  };
  const drag = (event) => {
    const box = element.getBoundingClientRect();
    set((2 * (event.clientX - box.left)) / box.width - 1, 1 - (2 * (event.clientY - box.top)) / box.height);
  };
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    drag(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) drag(event);
  });
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  element.addEventListener("keydown", (event) => {
    const step = keys[event.key];
    if (!step) return;
    event.preventDefault();
    const size = event.shiftKey ? 0.2 : 0.05;
    set(place.x + size * step[0], place.y + size * step[1]);
  });
}
