"""How fast the atlas of a large run opens and answers, in Chromium without a window.

`python benchmarks/atlas.py [FOLDER]` measures the atlas in a folder, or generates one of 7 layers,
4,096 units and 10 nets first (tests/generated_run.py), which takes minutes and 2 GB. Needs
Debian's chromium and chromium-driver, and selenium.
"""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from common import header

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

# A view that is opened by its address, in a browser that has read nothing of the run.
VIEWS = ("overview", "gallery", "map", "curve", "matrix", "units")
# What a person does, as a script that ends once the page has answered.
ANSWERS = {
    "next unit": "go({unit: {net: 'net1', number: state.unit.number + 1}, with: null})",
    "partner": "go({unit: {net: 'net2', number: 40 + Math.floor(4000 * Math.random())}})",
    "sort": "go({view: 'units', sort: state.sort === 'mean' ? '-semi' : 'mean'})",
    "filter": "go({view: 'gallery', filter: state.filter === 'all' ? 'matched' : 'all'})",
    "scroll": "document.getElementById('tiles').scrollTop += 2000",
    "to the curve": "go({view: state.view === 'curve' ? 'units' : 'curve'})",
    "to the map": "go({view: state.view === 'map' ? 'units' : 'map'})",
}
RUNS = 9


def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for switch in ("headless", "no-sandbox", f"user-data-dir={tempfile.mkdtemp()}"):
        options.add_argument(f"--{switch}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    made = webdriver.Chrome(options=options, service=service)
    made.set_window_size(1400, 900)
    made.set_script_timeout(60)
    return made


# Waits until all that was asked for is drawn, and the browser has painted it.
SETTLED = """
const done = arguments[arguments.length - 1], start = performance.now();
const past = () => done(performance.now() - start);
const painted = () => requestAnimationFrame(() => setTimeout(past));
"""


def opening(chromium, atlas, view):
    """Milliseconds from an address to a page that is drawn."""
    chromium.get("about:blank")
    chromium.get(f"file://{atlas}/index.html#layer=conv1&a=net1&b=net2&view={view}")
    return chromium.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const look = () => ("ready" in document.body.dataset
          ? requestAnimationFrame(() => done(performance.now())) : setTimeout(look, 5));
        look();"""
    )


def busy(chromium):
    """Seconds of processor time that the page's thread has taken."""
    metrics = chromium.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")


def answer(chromium, act):
    """Milliseconds from an act to its answer, and those of the page's thread among them."""
    before = busy(chromium)
    took = chromium.execute_async_script(
        SETTLED + f"{act}; Promise.resolve(rendering).then(painted);"
    )
    return took, 1000 * (busy(chromium) - before)


def main():
    header()
    if len(sys.argv) > 1:
        atlas = Path(sys.argv[1]).resolve()
    else:
        from generated_run import generate

        atlas = generate(tempfile.mkdtemp())
    chromium = browser()
    # On a busy machine the processor time of the page's thread tells more than the clock.
    chromium.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    for view in VIEWS:
        times, own = [], []
        for _ in range(3):
            times.append(opening(chromium, atlas, view))
            own.append(1000 * busy(chromium))
        print(
            f"opens {view}: {statistics.median(times):.0f} ms (most {max(times):.0f}), "
            f"{statistics.median(own):.0f} ms of processor time"
        )
    opening(chromium, atlas, "gallery")
    for name, act in ANSWERS.items():
        answer(chromium, act)  # reads what it needs
        times, own = zip(*(answer(chromium, act) for _ in range(RUNS)), strict=True)
        print(
            f"answers {name}: {statistics.median(times):.0f} ms (most {max(times):.0f}), "
            f"{statistics.median(own):.0f} ms of processor time"
        )
    chromium.quit()


if __name__ == "__main__":
    main()
