"""The live page as one HTML file, which opens from a disk: `python docs/one_file.py`, after `make book`.

Browsers start no module workers, and fetch no files, for a page opened from a disk. So all modules, networks and
WebAssembly are embedded as text; modules are loaded from blob addresses, workers from one classic script.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

LIVE = Path(__file__).parent / "live"
OUT = Path(__file__).parent / "_build" / "html" / "live" / "one-file.html"
MODULES = ("engine.js", "field.js", "fashion.js", "plane.js", "main.js")  # each after those that it imports
WASM = "vendor/ort-wasm-simd-threaded.wasm"
ELSEWHERE = re.compile(r"new URL\(([^,()]+), import\.meta\.url\)(\.href)?")
BOOT = """
const kept = JSON.parse(document.getElementById("kept").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const files = Object.fromEntries(Object.entries(kept.files).map(([name, text]) => [name, bytes(text)]));
const address = (text) => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
globalThis.fetchKept = async (name) => new Response(files[name.replace("./", "")]);
globalThis.startWorker = (lane) => {
  const worker = new Worker(address(kept.worker), { name: lane });
  worker.postMessage({ files });
  return worker;
};
const made = {};
for (const [name, text] of Object.entries(kept.modules))
  made[name] = address(text.replace(/from "\\.\\/([^"]+)"/g, (_, file) => `from "${made[file]}"`));
import(made["main.js"]);
"""
WORKER = """
const files = new Promise((resolve) =>
  self.addEventListener("message", (event) => {
    if (!event.data.files) return;
    event.stopImmediatePropagation();
    ort.env.wasm.wasmBinary = event.data.files["WASM"].buffer;
    resolve(event.data.files);
  }),
);
const fetchKept = async (name) => new Response((await files)[name.replace("./", "")]);
""".replace("WASM", WASM)


def runtime() -> str:
    """onnxruntime-web as a classic script: what its module exports becomes `ort`."""
    text = (LIVE / "vendor" / "ort.wasm.bundle.min.mjs").read_text()
    text = text.replace("import.meta.url", '"https://kept.invalid/ort.mjs"')  # an address that nothing is read from
    (exports,) = re.findall(r"export\s*\{([^}]*)\};?", text)
    names = [(words[0], words[-1]) for words in map(str.split, exports.split(","))]
    members = ", ".join(f'"{outside}": {inside}' for inside, outside in names)
    body = re.sub(r"export\s*\{[^}]*\};?", f"return {{{members}}};", text)
    return f"const ort = (() => {{\n{body}\n}})();\n"


def script(name: str) -> str:
    """A file of ours that asks for its files here."""
    text = (LIVE / name).read_text()
    text = re.sub(r"new Worker\([^;]*\);", "startWorker(lane);", text)
    text = re.sub(r'import \* as ort from "[^"]*";\n', "", text)
    text = re.sub(r"ort\.env\.wasm\.wasmPaths = [^;]*;\n", "", text)
    return re.sub(r"\bfetch\(", "fetchKept(", ELSEWHERE.sub(r"\1", text))


def page() -> str:
    """index.html with everything inside. Raises ValueError where it is not as expected here."""
    html = (LIVE / "index.html").read_text()
    html = html.replace(
        '<link rel="stylesheet" href="style.css">', f"<style>\n{(LIVE / 'style.css').read_text()}</style>"
    )
    binaries = [WASM, *(f"models/{path.name}" for path in sorted((LIVE / "models").iterdir()))]
    kept = {
        "modules": {name: script(name) for name in MODULES},
        "worker": runtime() + WORKER + script("worker.js"),
        "files": {name: base64.b64encode((LIVE / name).read_bytes()).decode() for name in binaries},
    }
    text = json.dumps(kept).replace("</", "<\\/")
    scripts = f'<script type="application/json" id="kept">{text}</script>\n<script type="module">{BOOT}</script>'
    start, end = html.index("<script>"), html.index("</script>") + len("</script>")
    made = html[:start] + scripts + html[end:]
    if "style.css" in html or "<script" in html[end:] or "import.meta" in kept["worker"] + str(kept["modules"]):
        raise ValueError("docs/live has changed: adapt the substitutions in docs/one_file.py.")
    return made


if __name__ == "__main__":
    OUT.write_text(page())
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.0f} MB")
