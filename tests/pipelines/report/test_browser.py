"""The report in a real browser without a network, where Chromium is installed."""

import json
import re
import shutil
import subprocess

import pytest
import torch

from pipelines.report.page import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")

# Put into a copy of the page: says how it was laid out, and what went wrong.
PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message || event.target.src)), true);
addEventListener("load", () => {
  const page = document.documentElement;
  const images = [...document.images];
  parent.postMessage({
    width: innerWidth,
    scrollWidth: page.scrollWidth,
    errors: errors,
    broken: images.filter((image) => !image.naturalWidth).length,
    images: images.length,
    zooms: images.map((image) => image.getBoundingClientRect().width / image.naturalWidth),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => !name.startsWith("data:")),
    ground: getComputedStyle(document.body).backgroundColor,
    boxes: [...document.querySelectorAll("h1, h2, p, figure, table, dl, nav")]
      .filter((node) => !node.closest(".scroll"))
      .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
      .map((node) => node.outerHTML.slice(0, 80)),
  }, "*");
});
</script>"""

# A window cannot be as narrow as a phone, a frame can: its width is what the page's style sees.
FRAME = """<!DOCTYPE html><iframe src="page.html" width="{width}" height="800"></iframe>
<pre id="found"></pre><script>addEventListener("message", (event) => {{
  document.getElementById("found").textContent = JSON.stringify(event.data);
}});</script>"""


def laid_out(report, folder, width, *flags):
    """What the probe says of a copy of `report`, shown `width` pixels wide."""
    page = report.read_text(encoding="utf-8").replace("</head>", PROBE + "</head>")
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    result = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--window-size=1600,1000", "--virtual-time-budget=20000"),
            *(f"--user-data-dir={folder / 'profile'}", "--proxy-server=127.0.0.1:9"),
            *flags,
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', result.stdout, re.DOTALL)[1]
    return json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def report(tmp_path_factory, rgb_run, evaluation):
    """Of an evaluated run whose classes have long names."""
    run = tmp_path_factory.mktemp("browser") / "a-run-with-quite-a-long-name-of-its-own"
    shutil.copytree(rgb_run, run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["class_names"] = ["w" * 90, "long names of classes " * 5]
    (run / "config.json").write_text(json.dumps(config))
    evaluation().write(run / "evaluation.json")
    return write_report(run, device=torch.device("cpu"))


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_page_fits_its_window_and_loads_whole(report, tmp_path, width):
    found = laid_out(report, tmp_path, width)
    assert found["width"] == width
    assert found["scrollWidth"] <= width
    assert found["boxes"] == []
    assert found["errors"] == []
    assert found["images"] > 0
    assert found["broken"] == 0
    assert found["loaded"] == []
    assert all(zoom == round(zoom) >= 1 for zoom in found["zooms"])


@pytest.mark.parametrize(("scheme", "dark"), [("0", True), ("1", False)])
def test_page_is_dark_where_the_reader_prefers_it(report, tmp_path, scheme, dark):
    found = laid_out(report, tmp_path, 1280, f"--blink-settings=preferredColorScheme={scheme}")
    red, green, blue = map(int, re.findall(r"\d+", found["ground"])[:3])
    assert (max(red, green, blue) < 64) == dark
    assert (min(red, green, blue) > 192) == (not dark)
