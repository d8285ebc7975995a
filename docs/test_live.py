"""The live page and the book in a real browser: `make test-browser`. Pages are served on loopback only."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from imf_lite.data.images import to_uint8
from imf_lite.data.normalisation import Latents
from imf_lite.pretrained import weights
from imf_lite.sampling import sample
from toy_experiments.ground_truth.datasets import EIGHT
from toy_experiments.ground_truth.exact import runge_kutta

DOCS = Path(__file__).parent
SITE = DOCS / "_build" / "html"
NETWORKS = DOCS.parent / "imf_lite" / "pretrained" / "fashion" / "networks"
FASHION, PIXELS = NETWORKS / "fashion_imf", NETWORKS / "fashion_pixels"
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

if not (SITE / "live" / "index.html").exists():
    pytest.exit("the book is not built: `make book`", 1)
if CHROMIUM is None:
    pytest.exit("Chromium is missing: `apt-get install chromium`, or set CHROMIUM to its path", 1)
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="session")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Visit:
    """A page with what it said and asked for."""

    def __init__(self, browser, url: str, width: int = 1280, wait: str = "body[data-ready]", **options):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page, self.said, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector(wait, state="attached", timeout=60_000)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_) -> None:
        self.context.close()

    def grey(self, canvas: str) -> torch.Tensor:
        """The image on a canvas, (32, 32)."""
        found = self.page.evaluate(
            "id => { const c = document.getElementById(id);"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }",
            canvas,
        )
        return torch.tensor(found).view(32, 32, 4)[..., 0]

    def drawn(self) -> int:
        return int(self.page.get_attribute("#image", "data-drawn"))

    def until_drawn(self, more_than: int) -> None:
        self.page.wait_for_function(
            "n => Number(document.getElementById('image').dataset.drawn) > n", arg=more_than, timeout=20_000
        )

    def set(self, slider: str, value: float) -> None:
        before = self.drawn()
        self.page.eval_on_selector(
            f"#{slider}", "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", str(value)
        )
        self.until_drawn(before)


@pytest.fixture(scope="module")
def live(browser, address):
    with Visit(browser, f"{address}/live/index.html") as visit:
        yield visit


def made_by_pytorch(y: list[int], noise: torch.Tensor, omega: float, steps: int = 1) -> torch.Tensor:
    latents = Latents(**weights.read_notes(FASHION)["latents"])
    z = sample(weights.load(FASHION), noise, torch.tensor(y), steps, omega, (0.0, 1.0))
    return latents.images(z)[:, 0].long()


def noise(name: str = "noise.bin", *shape: int) -> torch.Tensor:
    stored = bytearray((DOCS / "live" / "models" / name).read_bytes())
    return torch.frombuffer(stored, dtype=torch.float32).view(-1, *(shape or (4, 8, 8)))


def test_images_are_those_of_pytorch_within_a_grey_level(live):
    live.page.click("#classes button:has-text('Bag')")
    live.set("omega", 4)
    expected = made_by_pytorch([8], noise()[:1], 4.0)[0]
    assert (live.grey("image") - expected).abs().max() <= 1
    grid = made_by_pytorch(list(range(10)), noise()[3:], 4.0)
    live.page.wait_for_timeout(1500)
    for k in range(10):
        assert (live.grey(f"class{k}") - grid[k]).abs().max() <= 1, k
    live.page.wait_for_function("document.getElementById('fm64-cost').textContent", timeout=60_000)
    live.page.wait_for_timeout(3000)
    assert (live.grey("imf4") - made_by_pytorch([8], noise()[:1], 4.0, 4)[0]).abs().max() <= 1


def test_pixels_are_those_of_pytorch_and_take_no_decoder(live):
    shape, net = (1, 32, 32), weights.load(PIXELS)
    e = noise("noise-pixels.bin", *shape)
    live.page.click("#classes button:has-text('Bag')")
    live.page.wait_for_function("!document.getElementById('network').disabled", timeout=60_000)
    live.page.select_option("#network", "pixels")
    live.page.wait_for_function("document.getElementById('image').dataset.network === 'pixels'", timeout=20_000)
    live.until_drawn(0)  # counted per network
    live.page.wait_for_timeout(3000)
    assert (live.grey("image") - to_uint8(sample(net, e[:1], torch.tensor([8]), 1))[0, 0].long()).abs().max() <= 1
    grid = to_uint8(sample(net, e[3:], torch.arange(10), 1))[:, 0].long()
    assert max((live.grey(f"class{k}") - grid[k]).abs().max() for k in range(10)) <= 1
    assert "no decoder" in live.page.text_content("#cost") and live.page.is_disabled("#omega")
    assert not live.page.is_visible("#fm64")
    live.page.focus("#pad")
    for k in range(20):
        before = live.drawn()
        live.page.keyboard.press("ArrowLeft" if k % 2 else "ArrowRight")
        live.until_drawn(before)
    print(f"pixels, median: {float(live.page.get_attribute('#image', 'data-median')):.1f} ms")
    live.page.select_option("#network", "latents")
    live.page.wait_for_function("!document.getElementById('omega').disabled", timeout=20_000)
    live.page.wait_for_timeout(1000)
    assert live.page.is_visible("#fm64") and "ms; median" in live.page.text_content("#cost")


def test_omega_the_class_and_the_noise_change_the_image(live):
    live.page.click("#classes button:has-text('Boot')")
    live.set("omega", 1)
    plain = live.grey("image")
    live.set("omega", 8)
    strong = live.grey("image")
    assert (plain - strong).abs().float().mean() > 1
    before = live.drawn()
    live.page.focus("#pad")
    for _ in range(6):
        live.page.keyboard.press("Shift+ArrowRight")
    live.until_drawn(before)
    live.page.wait_for_timeout(300)
    assert (live.grey("image") - strong).abs().float().mean() > 1
    assert live.page.get_attribute("#pad", "aria-valuetext") == "noise at 1.00, 0.00"


def test_the_keyboard_is_enough(live):
    live.page.focus("#classes button:nth-child(2)")
    before = live.drawn()
    live.page.keyboard.press("Enter")
    live.until_drawn(before)
    assert live.page.get_attribute("#classes button:nth-child(2)", "aria-pressed") == "true"
    live.page.focus("#omega")
    before, value = live.drawn(), live.page.input_value("#omega")
    live.page.keyboard.press("ArrowLeft")
    live.until_drawn(before)
    assert live.page.input_value("#omega") != value
    landed = live.page.get_attribute("#plane-imf", "data-landed")
    live.page.focus("#plane-imf")
    live.page.keyboard.press("Shift+ArrowUp")
    live.page.wait_for_function(
        "old => document.getElementById('plane-imf').dataset.landed !== old", arg=landed, timeout=20_000
    )


def test_a_finger_moves_the_noise(browser, address):
    with Visit(browser, f"{address}/live/index.html", 400, has_touch=True, is_mobile=True) as visit:
        before = visit.drawn()
        visit.page.tap("#pad", position={"x": 40, "y": 200})
        visit.until_drawn(before)
        assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        visit.page.screenshot(path=DOCS / "_build" / "live-400.png", full_page=True)


def test_the_drawn_path_is_the_true_one_and_the_networks_land_near_it(live):
    """The path ends where the flow does: followed back by another integrator, it leads to the dragged point."""
    live.page.select_option("#steps", "64")
    live.page.wait_for_function("document.getElementById('plane-imf').dataset.steps === '64'", timeout=30_000)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for name in ("fm", "mf", "imf"):
        data = live.page.eval_on_selector(f"#plane-{name}", "e => ({...e.dataset})")
        start, truth, landed = (torch.tensor(json.loads(data[k])).double() for k in ("start", "truth", "landed"))
        back = runge_kutta(EIGHT.v, truth[None], one, zero, 2000)[-1][0]
        assert (back - start).norm() < 0.05
        assert (landed - truth).norm() < 0.4, name
    live.page.select_option("#steps", "1")
    size = live.page.locator("#plane-fm").bounding_box()["width"]
    for x, y in ((0.2, 0.7), (0.8, 0.55), (0.42, 0.3)):  # away from the axes of the modes, too
        before = live.page.get_attribute("#plane-fm", "data-start")
        live.page.click("#plane-fm", position={"x": x * size, "y": y * size})
        live.page.wait_for_function("old => document.getElementById('plane-fm').dataset.start !== old", arg=before)
        data = live.page.eval_on_selector("#plane-fm", "e => ({...e.dataset})")
        start, truth = (torch.tensor(json.loads(data[k])).double() for k in ("start", "truth"))
        assert (runge_kutta(EIGHT.v, truth[None], one, zero, 2000)[-1][0] - start).norm() < 0.05, (x, y)


def test_an_image_takes_no_longer_than_a_few_frames(live):
    took = []
    live.page.focus("#pad")
    for k in range(60):
        before = live.drawn()
        live.page.keyboard.press("ArrowLeft" if k % 2 else "ArrowRight")
        live.until_drawn(before)
        took.append(float(live.page.get_attribute("#image", "data-median")))
    print(f"network and decoder, median of 50: {took[-1]:.1f} ms")
    assert statistics.median(took) < 1000  # what it is depends on the machine; that it is said does not


def test_the_first_image_comes_soon_and_nothing_comes_from_elsewhere(browser, address):
    with Visit(browser, f"{address}/live/index.html", wait="#image[data-drawn]") as visit:
        first = visit.page.evaluate("performance.now()")
        print(f"first image after {first / 1000:.1f} s")
        visit.page.wait_for_selector("body[data-ready]", state="attached", timeout=60_000)
        visit.page.wait_for_timeout(500)
        assert visit.said == [] and all(url.startswith((address, "data:", "blob:")) for url in visit.asked)
        visit.page.screenshot(path=DOCS / "_build" / "live-1280.png", full_page=True)
        models = sum(p.stat().st_size for p in (DOCS / "live" / "models").iterdir())
        assert models < 10e6


def test_without_webassembly_the_page_says_so(browser, address):
    context = browser.new_context()
    context.add_init_script("delete window.WebAssembly")
    page = context.new_page()
    page.goto(f"{address}/live/index.html")
    page.wait_for_selector("#message.failed", timeout=20_000)
    assert "no WebAssembly" in page.text_content("#message")
    context.close()


def test_from_a_disk_the_page_runs_as_one_file(browser):
    with Visit(browser, (SITE / "live" / "index.html").as_uri(), wait="body[data-ready]") as visit:
        assert visit.page.url.endswith("one-file.html") and visit.said == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in visit.asked)
        assert (visit.grey("image") - made_by_pytorch([0], noise()[:1], 2.0)[0]).abs().max() <= 1
        visit.page.screenshot(path=DOCS / "_build" / "live-file.png", full_page=True)


PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if not {"_static", "live"} & set(p.parts))
FROM_DISK = ("index.html", "two_losses.html", "lessons/07_fashion_mnist.html", "api/core.html", "search.html")


@pytest.mark.parametrize("served", [True, False])
def test_every_page_of_the_book_stands_alone(browser, address, served):
    """From a server and from the disk: no error, no request elsewhere, formulas set, pictures there."""
    with Visit(browser, f"{address}/index.html", wait="body") as visit:
        for name in PAGES if served else FROM_DISK:
            visit.page.goto(f"{address}/{name}" if served else (SITE / name).as_uri())
            if visit.page.locator(".math").count():
                visit.page.wait_for_selector("mjx-container", state="attached", timeout=20_000)
                visit.page.evaluate("MathJax.startup.promise.then(() => 0)")
                wrong = visit.page.locator("mjx-merror").all()
                assert [e.get_attribute("data-mjx-error") for e in wrong] == [], name
            broken = visit.page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length")
            asked = [u for u in visit.asked if not u.startswith((address, "file:", "data:", "blob:"))]
            assert (visit.said, asked, broken) == ([], [], 0), name


def test_in_the_book_the_page_is_as_dark_as_the_book(browser, address):
    with Visit(browser, f"{address}/live.html", wait="iframe.live", color_scheme="light") as visit:
        frame = visit.page.frame_locator("iframe.live")
        frame.locator("#image[data-drawn]").wait_for(state="attached", timeout=60_000)
        ground = "getComputedStyle(document.body).backgroundColor"
        light = frame.locator("body").evaluate(ground)
        visit.page.evaluate("document.documentElement.dataset.theme = 'dark'")
        visit.page.wait_for_timeout(200)
        assert light == "rgb(255, 255, 255)" != frame.locator("body").evaluate(ground)
        assert visit.said == []


def test_the_search_finds_a_lesson(browser, address):
    with Visit(browser, f"{address}/search.html?q=tangent", wait="#search-results li") as visit:
        assert visit.page.locator("#search-results li").count() > 3
