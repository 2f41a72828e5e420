"""The page in a real browser that reaches nothing but the file: links, buttons, numbers, access."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.publish.conftest import load_plan, make_runs
from tests.unit.publish.pages import HOSTILE, data_of, hostile, make_page, write_page

from cliptrase.publish import run_pairs, run_report
from cliptrase.publish.page import kept_pictures
from cliptrase.publish.run_folders import Folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no chromium; apt-get install chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def smoke():
    """Three tables of the suite, of 336 and 224 pixels, and the grid."""
    suite = load_plan("smoke")
    names = ("table1_main", "table6_metrics_224", "fig7_sensitivity", "table_discrepancies")
    tables = {name: suite.tables[name] for name in names}
    shown = {cell.run for table in tables.values() for row in table.rows for cell in row.cells}
    runs = {name: run for name, run in suite.runs.items() if name in shown}
    return replace(suite, tables=tables, runs=runs)


@pytest.fixture(scope="module")
def results(smoke, tmp_path_factory):
    results = tmp_path_factory.mktemp("page")
    make_page(smoke, results)
    return results


@pytest.fixture
def opened(browser):
    """opened(file, …): the page of a file, in a browser without a network. Fails afterwards where
    it said anything or asked for anything else."""
    contexts, faults = [], []

    def at(file, **options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        asked = [f"file://{file}"]
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith("data:") or request.url in asked
                else faults.append(request.url)
            ),
        )
        page.goto(asked[0])
        return page

    yield at
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(opened, results):
    return opened(results / "smoke" / "index.html")


def of_folder(results, name):
    return Folder(results / "runs" / name)


def wait_for_dialog(page, kind):
    """The browser follows a link after it has answered the click: wait for what it opens."""
    page.wait_for_selector(f"#{kind}[open]")


def escape(page):
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('dialog[open]')")


def violations(page):
    found = axe.Axe().run(page).response["violations"]
    return [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_a_reader_out(opened, results, scheme):
    page = opened(results / "smoke" / "index.html", color_scheme=scheme)
    page.check("#more")
    assert violations(page) == []
    page.locator("td a").first.click()
    wait_for_dialog(page, "run")
    assert page.locator("#run").is_visible() and violations(page) == []
    escape(page)
    page.locator(".gallery a").first.click()
    wait_for_dialog(page, "picture")
    assert violations(page) == []


def test_it_fits_a_phone_and_a_sheet_of_paper(opened, results):
    page = opened(results / "smoke" / "index.html", viewport=PHONE)
    for opening in ("table td a", ".gallery a"):
        page.locator(opening).first.click()
        page.wait_for_selector("dialog[open]")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        dialog = "document.querySelector('dialog[open]')"
        assert page.evaluate(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
        escape(page)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible() and not page.locator("#compare").is_visible()
    assert page.locator("#table1_main td").first.is_visible()


def test_every_link_leads_somewhere(page, results):
    (outside,) = {
        href
        for href in page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
        if not href.startswith("#")
    }
    assert outside == "tables/"
    links = page.locator("a[href^='#']")
    opening = 0
    for href in sorted({each.get_attribute("href") for each in links.all()}):
        kind = re.match(r"#(run|picture)=", href)
        if kind is None:
            assert page.locator(href).count() == 1, href
        elif opening % 7 == 0 or kind[1] == "picture":
            page.locator(f"a[href='{href}']").first.click()
            wait_for_dialog(page, kind[1])
            assert page.locator(f"#{kind[1]} h2").inner_text()
            escape(page)
        opening += kind is not None
    assert opening > 20


def test_every_button_does_something_and_nothing_breaks(page):
    for button in page.locator("main button:visible").all():
        before = page.evaluate("document.body.innerHTML")
        button.click()
        if page.locator("dialog[open]").count():
            page.locator("dialog[open] form button").click()
            assert page.locator("dialog[open]").count() == 0
        else:
            assert page.evaluate("document.body.innerHTML") != before


def test_a_run_is_shown_as_its_folder_has_it(page, results):
    link = page.locator("#table1_main td a").nth(1)
    name = link.get_attribute("href").removeprefix("#run=")
    value = link.inner_text()
    link.focus()
    page.keyboard.press("Enter")  # without a mouse
    wait_for_dialog(page, "run")
    facts = run_report.report(of_folder(results, name))
    assert page.locator("#run-head").inner_text() == name
    text = page.locator("#run-body").inner_text()
    own = facts["scores"][facts["rule"]]
    assert value == f"{own['mIoU'][0]:.2f}"
    for scores in facts["scores"].values():
        for number, low, high in scores.values():
            assert f"{number:.2f} [{low:.2f}, {high:.2f}]" in text
    rows = page.locator("#run [aria-label='Classes'] tbody tr").all_inner_texts()
    classes = sorted(facts["classes"], key=lambda each: -each["value"])
    assert [row.split("\t")[:2] for row in rows] == [
        [each["name"], f"{each['value']:.1f}"] for each in classes
    ]
    confusions = page.locator("#run [aria-label='Confusions'] tbody tr").all_inner_texts()
    assert [row.split("\t")[:3] for row in confusions] == [
        [each["truth"], each["predicted"], str(each["pixels"])] for each in facts["confusions"]
    ]
    config = (results / "runs" / name / "config.yaml").read_text(encoding="utf-8")
    assert page.locator("[aria-label=configuration]").text_content() == config
    escape(page)
    assert not page.locator("#run").is_visible()


def compared(page, first, second):
    """What the page says of two runs: metrics, classes and images."""
    page.select_option("#first", first)
    page.select_option("#second", second)
    labels = ("Metrics", "Classes", "Images")
    rows = {
        label: page.locator(f"#compared [aria-label^='{label}'] tbody tr").all_inner_texts()
        for label in labels
    }
    return [[row.replace("−", "-").split("\t") for row in rows[label]] for label in labels]


def test_two_runs_are_compared_as_the_command_does(page, results, smoke):
    rows = {row.name: row for row in smoke.tables["table_discrepancies"].rows}
    names = [
        next(cell.run for cell in rows[name].cells if cell.run)
        for name in ("D-05 rows as they are", "D-26 rule mmseg", "cliptrase_paper")
    ]
    for first, second in [(0, 2), (2, 0), (0, 1), (1, 0)]:
        facts = run_pairs.compare(*(of_folder(results, names[each]) for each in (first, second)))
        metrics, classes, images = compared(page, names[first], names[second])
        expected = [
            [name, f"{a:.2f}", f"{b:.2f}", f"{gap:+.2f} [{low:+.2f}, {high:+.2f}]"]
            for name, (a, b, gap, low, high) in facts["metrics"].items()
        ]
        assert [row[:4] for row in metrics] == expected
        for shown, moved in ((classes, facts["classes"]), (images, facts["by_image"])):
            values = {
                each["name"]: [
                    f"{each['value']:.1f}",
                    f"{each['other']:.1f}",
                    f"{each['difference']:+.1f}",
                ]
                for each in moved
            }
            assert shown
            assert [row[1:4] for row in shown] == [values[row[0]] for row in shown]
            sizes = [abs(float(row[3])) for row in shown]
            assert sizes == sorted(sizes, reverse=True)
        assert len(classes) == len(facts["classes"])
        assert images[0][0] == facts["by_image"][0]["name"]


def test_the_heat_of_a_patch_is_what_was_kept(page, results, smoke):
    kept = kept_pictures.read(kept_pictures.file_of(results, "smoke", "shapes_bg"))
    page.locator(".gallery a").nth(2).click()
    wait_for_dialog(page, "picture")
    canvas = page.locator("#heat")
    drawn = set()
    box = canvas.bounding_box()
    for patch in (0, 6, 15):
        row, column = divmod(patch, 4)
        place = {
            "x": (column + 0.5) * box["width"] / 4,
            "y": (row + 0.5) * box["height"] / 4,
        }
        canvas.hover(position=place)
        drawn.add(canvas.evaluate("canvas => canvas.toDataURL()"))
        like, attended = kept.correlation[2, patch], kept.attention[2, patch]
        others = np.delete(like, patch) / 255 * 2 - 1
        most = int(attended.argmax())
        text = page.locator("#patch").inner_text().replace("−", "-")
        assert text == (
            f"Patch {patch}, row {row}, column {column}. Correlation with the others: "
            f"{others.min():+.2f} to {others.max():+.2f}. Most attention: "
            f"{100 * kept.attention_top[2] * attended[most] / 255:.2f} % to patch {most}."
        )
    canvas.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#patch").inner_text().startswith("Patch 10, row 2, column 2.")
    for _ in range(6):  # not beyond the edge
        page.keyboard.press("ArrowDown")
    assert page.locator("#patch").inner_text().startswith("Patch 14, row 3")
    drawn.add(canvas.evaluate("canvas => canvas.toDataURL()"))
    page.locator("#blend").focus()
    page.keyboard.press("End")
    drawn.add(canvas.evaluate("canvas => canvas.toDataURL()"))
    assert len(drawn) == 5
    maps = page.locator("#maps img").all()
    assert len(maps) == 4 and all(each.get_attribute("alt") for each in maps)


def test_a_cell_leads_to_its_worst_picture_a_patch_and_the_command_in_four_clicks(page):
    page.locator("#table6_metrics_224 td a").first.click()
    page.locator("#run [aria-label='Worst images'] a").first.click()
    wait_for_dialog(page, "picture")
    page.locator("#heat").click()
    page.locator("#maps a").last.click()
    wait_for_dialog(page, "run")
    assert page.locator("[aria-label=command]").is_visible()
    assert not page.locator("#picture").is_visible()
    page.locator("#run form button").click()
    assert page.locator("dialog[open]").count() == 0


def test_tables_are_switched_sorted_filtered_and_copied(page, results):
    intervals = page.locator("#table1_main td .more").first
    assert not intervals.is_visible()
    page.check("#more")
    assert intervals.is_visible()
    page.uncheck("#more")
    cells = page.locator("#table1_main tbody tr td:nth-child(2) a")
    before = cells.all_inner_texts()
    head = page.locator("#table1_main .sort").first
    orders = []
    for _ in range(3):
        head.press("Enter")
        orders.append(cells.all_inner_texts())
    assert orders == [sorted(before, key=float, reverse=True), sorted(before, key=float), before]
    page.fill("#filter", "sclip")
    shown = page.locator(".numbers tbody th[scope=row]:visible").all_inner_texts()
    assert shown and all("SCLIP" in each for each in shown)
    assert not page.locator("#fig7_sensitivity").is_visible()
    page.fill("#filter", "")
    data = data_of((results / "smoke" / "index.html").read_text(encoding="utf-8"))
    for kind in ("CSV", "Markdown", "LaTeX"):
        page.locator(f"#table1_main .copy[data-kind={kind}]").click()
        assert page.input_value("#copied-text") == data["files"]["table1_main"][kind]
        escape(page)


def test_the_keyboard_reaches_what_the_mouse_does(page):
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    focusable = "a, button, input, select, summary, .scroll"
    hidden = page.eval_on_selector_all(
        focusable, "all => all.filter(each => each.tabIndex < 0).length"
    )
    assert hidden == 0
    page.locator(".gallery a").last.press("Enter")
    wait_for_dialog(page, "picture")
    inside = "document.querySelector('#picture').contains(document.activeElement)"
    assert page.evaluate(inside)  # and back again, where it is closed
    escape(page)
    assert page.locator(":focus").get_attribute("data-image")


def test_a_tap_shows_a_patch(opened, results):
    page = opened(results / "smoke" / "index.html", viewport=PHONE, has_touch=True)
    page.locator(".gallery a").first.click()
    wait_for_dialog(page, "picture")
    page.locator("#heat").tap(position={"x": 3, "y": 3})
    assert page.locator("#patch").inner_text().startswith("Patch 0,")


def test_an_address_that_cannot_be_read_names_nothing(page):
    page.evaluate("location.hash = '#run=%zz'")
    page.wait_for_function("location.hash === '#run=%zz'")
    assert not page.locator("dialog[open]").count()


def test_a_run_goes_to_the_comparison(page):
    link = page.locator("#table1_main td a").last
    name = link.get_attribute("href").removeprefix("#run=")
    link.click()
    page.get_by_role("button", name="Compare it with another run").click()
    assert page.input_value("#first") == name and not page.locator("#run").is_visible()
    assert page.locator("#compared").inner_text().startswith(name)


def test_hostile_names_are_shown_as_text(opened, smoke, tmp_path):
    suite = hostile(load_plan("smoke"))
    make_runs(suite, tmp_path)
    write_page(suite, tmp_path)
    page = opened(tmp_path / "smoke" / "index.html", viewport=PHONE)
    assert page.locator("h1").inner_text() == HOSTILE[0]
    assert page.title().startswith(HOSTILE[0])
    shown = page.locator("#tables").inner_text()
    assert HOSTILE[0] in shown and HOSTILE[1] in shown and HOSTILE[2] in shown
    page.locator("#tables td a").first.click()
    wait_for_dialog(page, "run")
    assert HOSTILE[1] in page.locator("#run-body").inner_text()
    escape(page)
    assert HOSTILE[2] in page.locator("#second").inner_text() + page.locator("#first").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
