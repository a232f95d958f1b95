"""The page in a browser: what moves, what a keyboard and a screen reader get, what it asks for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from previews import write_preview
from test_report import CLASSES, write_results

from selftrain.report.page import write_report
from selftrain.report.summary import write_summary
from selftrain.settings.report import PageSettings, ReportSettings, RoundReport

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: chromium)"),
]
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

MODELS = ["pretrained/base/seed-0", "st/seed-0/round-2", "NA/seed-0/round-1"]
IMAGES = [f"image-{number}" for number in (3, 0, 4)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def written(folder: Path, **page) -> Path:
    settings = write_results(folder, seeds=(0, 1))
    for position in range(5):  # only two images show the last class
        truth = np.full((6, 8), position % 3, np.uint8)
        truth[0, 0] = 3 if position in (0, 4) else 255
        Image.fromarray(truth).save(folder / f"{position}-label.png")
    write_preview(folder / "preview.h5", CLASSES, dict.fromkeys(IMAGES, (6, 8)), MODELS)
    task = settings.tasks[0].model_copy(update={"preview": str(folder / "preview.h5")})
    settings = settings.model_copy(update={"tasks": (task,), "page": PageSettings(**page)})
    return report(settings, folder)


def report(settings: ReportSettings, folder: Path) -> Path:
    write_summary(settings, folder / "summary.csv")
    write_report(settings, folder / "summary.csv", folder / "report/index.html")
    return folder / "report/index.html"


@pytest.fixture(scope="module", params=["inside", "beside"])
def place(request, tmp_path_factory) -> Path:
    """A page with its images inside or beside it."""
    return written(tmp_path_factory.mktemp(request.param), embedded=16 if request.param == "inside" else 0)


@pytest.fixture
def open_page(chromium):
    """Opens a page from disk; at the end, no error was printed and nothing was asked for but what lies beside it."""
    told, asked, pages = [], [], []

    def opened(place: Path, width: int = 1400, scheme: str = "light"):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append((place, request.url)))
        page.goto(place.as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert told == []
    for place, url in asked:
        assert url.startswith(("data:", place.parent.as_uri())), url


def browser_of(page):
    """The browser of images, when it has drawn."""
    root = page.locator(".browser")
    root.scroll_into_view_if_needed()
    root.locator(".scene figure").first.wait_for()
    return root


def pixels(canvas) -> np.ndarray:
    """What a canvas shows, (h, w, 4)."""
    read = "c => [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    height, width, values = canvas.evaluate(read)
    return np.array(values).reshape(height, width, 4)


def column(page, table: int, at: int) -> list[str]:
    read = "(rows, at) => rows.map(row => row.cells[at].firstChild.textContent)"
    return page.locator("table.sortable").nth(table).locator("tbody tr").evaluate_all(read, at)


def test_tables_sort_by_mouse_and_keyboard(place, open_page):
    page = open_page(place)
    heading = page.locator("table.sortable").nth(0).locator("thead tr").last.locator("th")
    assert column(page, 0, 0) == ["st", "NA"]
    heading.nth(4).locator("button").click()
    assert heading.nth(4).get_attribute("aria-sort") == "descending"
    assert column(page, 0, 4) == ["+12.0 ± 0.0", "+5.0 ± 0.0"]
    heading.nth(4).locator("button").press("Enter")
    assert heading.nth(4).get_attribute("aria-sort") == "ascending"
    assert column(page, 0, 4) == ["+5.0 ± 0.0", "+12.0 ± 0.0"]
    heading.nth(0).locator("button").press("Enter")
    assert column(page, 0, 0) == ["NA", "st"] and heading.nth(4).get_attribute("aria-sort") is None
    for _ in range(2):
        heading.nth(3).locator("button").click()
        assert column(page, 0, 3)[-1] == "–", "what does not exist is last either way"


def test_the_slider_moves_the_border_between_two_pictures(place, open_page):
    root = browser_of(open_page(place))
    left, wipe = root.locator("canvas.left"), root.locator("[name=wipe]")
    shown = "c => getComputedStyle(c).clipPath"
    assert left.evaluate(shown) == "inset(0px 50% 0px 0px)"
    wipe.press("ArrowRight")
    assert left.evaluate(shown) == "inset(0px 49% 0px 0px)"
    wipe.fill("0")
    assert left.evaluate(shown) == "inset(0px 100% 0px 0px)"
    wipe.scroll_into_view_if_needed()
    box, mouse = root.locator(".stage").bounding_box(), root.page.mouse
    middle = box["y"] + box["height"] / 2
    mouse.move(box["x"] + 5, middle)
    mouse.down()
    mouse.move(box["x"] + 0.75 * box["width"], middle)
    mouse.up()
    assert wipe.input_value() == "75" and left.evaluate(shown) == "inset(0px 25% 0px 0px)"
    assert root.locator(".reading").inner_text().startswith("before: base: ")


def test_the_class_filter_leaves_the_images_that_show_it_and_that_class_alone(place, open_page):
    root = browser_of(open_page(place))
    image, count = root.locator("[name=image]"), root.locator("[name=count]")
    assert image.locator("option").all_inner_texts() == IMAGES and count.inner_text() == "1 of 3"
    root.locator("[name=left]").select_option("truth")
    before = pixels(root.locator("canvas.left"))
    root.locator("[name=class]").select_option(label="NA")
    assert image.locator("option").all_inner_texts() == ["image-0", "image-4"] and count.inner_text() == "1 of 2"
    root.locator(".scene figure").first.wait_for()
    root.page.wait_for_function(
        "() => document.querySelector('canvas.left').getAttribute('aria-label').includes('image-0')"
    )
    truth, photo = pixels(root.locator("canvas.left")), pixels(root.locator(".scene canvas").first)
    assert (truth[1:] == photo[1:]).all() and (truth[0, 1:] == photo[0, 1:]).all(), "other classes are clear"
    assert (truth[0, 0] != photo[0, 0]).any() and before.shape == truth.shape
    root.locator("[name=class]").select_option(label="$x_1$")
    assert image.locator("option").count() == 0 or count.inner_text() != "no image shows this class"
    root.locator("[name=class]").select_option("")
    assert count.inner_text() == "1 of 3"


def test_images_are_ordered_and_turned_over(place, open_page):
    root = browser_of(open_page(place))
    names = root.locator("[name=image] option")
    root.locator("[name=order]").select_option("name")
    assert names.all_inner_texts() == sorted(IMAGES)
    root.locator("[name=order]").select_option("rarity")
    assert names.all_inner_texts() == IMAGES
    previous, following, count = (root.locator(f"[name={name}]") for name in ("previous", "next", "count"))
    assert previous.is_disabled()
    following.press("Enter")
    following.press("Enter")
    assert count.inner_text() == "3 of 3" and following.is_disabled() and not previous.is_disabled()
    label = "() => document.querySelector('canvas.right').getAttribute('aria-label')"
    root.page.wait_for_function(f"() => ({label})().startsWith('image-4, after round 2, ')")


def test_an_experiment_has_layers_of_its_own(place, open_page):
    root = browser_of(open_page(place))
    captions = root.locator(".scene figcaption")
    titles = lambda: [text.split("  ")[0].split("\n")[0] for text in captions.all_inner_texts()]  # noqa: E731
    assert any("after round 2" in title for title in titles())
    root.locator("[name=experiment]").select_option("NA")
    root.page.wait_for_function("() => !document.querySelector('.scene').innerText.includes('round 2')")
    assert any("after round 1" in title for title in titles())


def test_colors_are_those_of_the_classes(place, open_page):
    root = browser_of(open_page(place))
    root.locator("[name=left]").select_option("truth")
    root.locator("[name=opacity]").fill("100")
    told = json.loads(root.page.locator("#told").text_content())["tasks"][0]
    seen = pixels(root.locator("canvas.left"))
    position = int(IMAGES[0][-1])
    assert seen[1, 1, :3].tolist() == told["colors"][position % 3]
    root.locator("[name=opacity]").fill("0")
    photo = pixels(root.locator(".scene canvas").first)
    assert (pixels(root.locator("canvas.left"))[1:] == photo[1:]).all()
    assert (pixels(root.locator("canvas.left"))[0, 0] != photo[0, 0]).any(), "what is ignored stays dark"


def test_the_name_filter_leaves_rows_and_figures(place, open_page):
    page = open_page(place)
    page.locator("#filter").fill("St")
    rows = page.locator(".task table.sortable tbody tr:visible th:first-child")
    assert set(rows.all_inner_texts()) == {"st"}
    captions = page.locator(".of-each figure:visible figcaption").all_inner_texts()
    assert captions and all(caption.startswith("st") for caption in captions)
    page.locator("#filter").fill("")
    assert "NA" in rows.all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 700])
def test_it_is_readable_light_and_dark_wide_and_narrow(place, open_page, scheme, width):
    page = open_page(place, width, scheme)
    browser_of(page)
    for folded in page.locator("details").all():
        folded.evaluate("one => { one.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page, options=RULES)
    told = [
        (one["id"], one["help"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in found.response["violations"]
    ]
    assert told == []


def test_a_missing_file_beside_the_page_is_told(open_page, chromium, tmp_path):
    place = written(tmp_path, embedded=0)
    shutil.rmtree(tmp_path / "report/images/tiny")
    page = chromium.new_page()
    page.goto(place.as_uri())
    page.locator(".browser").scroll_into_view_if_needed()
    page.locator(".reading", has_text="is missing").wait_for()
    assert page.locator(".reading").inner_text().endswith("images/tiny/0.js is missing: it belongs beside the page")
    page.close()


def test_fifty_experiments_and_a_thousand_images_stay_usable(open_page, tmp_path):
    """Images lie beside the page, which has one of them at a time; long sections begin folded."""
    settings = write_results(tmp_path)
    (last,) = [one for one in settings.rounds if one.experiment == "st" and one.round == 2]
    start = settings.rounds[0]
    rounds: list[RoundReport] = []
    for number in range(50):
        folder = tmp_path / f"e{number}/seed-0/round-1"
        shutil.copytree(last.folder, folder)
        name = {"experiment": f"experiment-{number}", "seed": 0}
        rounds += [start.model_copy(update=name)]
        rounds += [last.model_copy(update=name | {"round": 1, "folder": str(folder)})]
    names = [f"image-{number}" for number in range(1000)]
    table = pd.read_csv(tmp_path / "images.csv")
    table = table.iloc[np.arange(1000) % len(table)].assign(image=names)
    table.to_csv(tmp_path / "images.csv", index=False)
    models = ["pretrained/base/seed-0", *(f"e{number}/seed-0/round-1" for number in range(50))]
    write_preview(tmp_path / "preview.h5", CLASSES, dict.fromkeys(names, (6, 8)), models)
    task = settings.tasks[0].model_copy(update={"preview": str(tmp_path / "preview.h5")})
    page_settings = PageSettings(embedded=4)
    place = report(ReportSettings(page=page_settings, tasks=(task,), rounds=tuple(rounds)), tmp_path)
    assert place.stat().st_size < 16 * 2**20
    assert len(list(place.parent.glob("images/tiny/*.js"))) == 1000
    page = open_page(place)
    root = browser_of(page)
    root.locator("[name=image]").select_option(label="image-999")
    page.wait_for_function(
        "() => document.querySelector('canvas.left').getAttribute('aria-label').includes('image-999')"
    )
    assert page.locator("head script").count() == 0, "what was shown before is let go"
    page.locator("#filter").fill("experiment-49")
    assert page.locator("table.sortable").first.locator("tbody tr:visible").count() == 1
    assert page.locator(".of-each figure:visible").count() == 0, "they are folded"
