// Starts both halves of the page, and says so where that cannot be done.

import { finish, start as fashion } from "./fashion.js";
import { start as plane } from "./plane.js";

const message = document.getElementById("message");

try {
  if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly, in which the networks run");
  message.textContent = "Loading the networks (about 20 MB, from this site) …";
  await fashion();
  message.hidden = true;
  await plane();
  await finish();
  document.body.dataset.ready = "true";
} catch (error) {
  message.hidden = false;
  message.textContent =
    `The networks cannot run here: ${error.message}. ` +
    "The pictures of the lessons show what they make; a recent Firefox, Chrome or Safari runs them.";
  message.classList.add("failed");
}
