"""The example browser's data: what it shows is what the run holds, within its size, and gaps are said."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from mechvrp.errors import RunFolderError
from mechvrp.store import RunFolder
from mechvrp.study import report
from mechvrp.study.browsing import Browser, example_browser
from mechvrp.study.pictures import browsed, small_picture
from mechvrp.study.report import render_report
from mechvrp.study.schema import Summary
from tests.support.reports import browsable_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return browsable_run(tmp_path_factory.mktemp("browsing") / "run", "a", "b")


def browser_of(run: RunFolder, budget: int = 4_000_000) -> Browser:
    found = example_browser(run, Summary.from_json(run.read_summary()).sections, 0, budget)
    assert found is not None
    return found


def test_it_shows_what_the_run_holds(run: RunFolder) -> None:
    browser = browser_of(run)
    data = json.loads(browser.data)
    assert (browser.shown, browser.total, browser.gaps) == (60, 60, ())
    table = run.read_examples()
    table = table[table["model"] == "b"].reset_index(drop=True)
    own = data["models"][1]
    for i in (0, 7, 59):
        row = table.loc[i]
        assert data["question"][i] == row["question"]
        assert data["tasks"][data["task"][i]] == row["task"]
        assert data["heldout"][i] == (row["split"] == "heldout")
        assert own["correct"][i] == row["correct"]
        assert own["probability"][i] == pytest.approx(row["answer_probability"], rel=1e-3)
        names = [signal["name"] for signal in data["signals"]]
        assert own["signals"][names.index("cluster_count")][i] == row["cluster_count"]
    held = table["split"] == "heldout"
    assert [value is not None for value in own["probe"]] == held.tolist()
    scores = table["probe_score"][held].to_numpy(float)
    assert np.allclose(
        [v for v in own["probe"] if v is not None], 1 / (1 + np.exp(-scores)), rtol=1e-3
    )


def test_maps_and_margins_are_those_observed(run: RunFolder) -> None:
    data = json.loads(browser_of(run).data)
    pieces = run.written_chunks("observe")["0-a"]
    maps = pieces.table(["map"])["map"]
    own = data["models"][0]
    for i in (0, 40):
        rows, peak, code = own["maps"][i]
        found = np.frombuffer(base64.b64decode(code), np.uint8) * peak / 255
        assert rows == 4
        assert np.abs(found - maps[i]).max() <= peak / 255
        assert found.argmax() == i % 12
        assert own["votes"][i] == [["yes", 2], ["no", 1]]
        assert own["own"][i][0] == i
        assert np.allclose(own["own"][i][1:], _post(pieces, i), rtol=1e-3)
    assert own["truth"][4] is None  # no such pair of tokens
    assert own["truth"][3] is not None


def _post(pieces, example: int) -> np.ndarray:
    parts = [part["own_post"] for part in pieces.arrays(["own_post"])]
    return np.concatenate(parts, axis=1)[:, example]


def test_examples_of_one_image_share_a_picture(run: RunFolder) -> None:
    data = json.loads(browser_of(run).data)
    assert len(data["pictures"]) == len(set(data["image_id"])) == 20
    assert data["picture"][:6] == [0, 0, 0, 1, 1, 1]
    content = base64.b64decode(data["pictures"][0].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).size == (24, 24)


def test_what_an_old_run_does_not_keep_is_said(tmp_path) -> None:
    run = browsable_run(tmp_path / "old", "a", observed=False, crops=None)
    table = run.read_examples()
    table.loc[6:, "gallery"] = None
    run.write_examples(table)
    browser = browser_of(run)
    assert "pictures of 54 of 60 examples" in browser.gaps[0]
    assert browser.gaps[1:] == ("attention maps and sampled answers of a", "margins by layer of a")
    data = json.loads(browser.data)
    assert data["models"][0]["maps"] is None
    assert data["picture"][5:7] == [1, -1]
    page = render_report(run)
    assert "This run does not keep" in page
    assert "pictures of 54 of 60 examples" in page


def page_of(text: str) -> int:
    """Bytes of a page beside plotly.js."""
    return len(text.encode()) - len(get_plotlyjs().encode())


def test_a_run_that_does_not_fit_says_what_is_shown(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = browser_of(run)
    budget = len(whole.data) // 2
    browser = browser_of(run, budget=budget)
    assert len(browser.data) <= budget
    assert 10 < browser.shown < 60
    assert browser.total == 60
    data = json.loads(browser.data)
    # All questions about an image, or none.
    assert all(data["image_id"].count(i) == 3 for i in set(data["image_id"]))
    monkeypatch.setattr(
        "mechvrp.study.report.PAGE", page_of(render_report(run)) - len(whole.data) // 3
    )
    page = " ".join(render_report(run).split())
    assert page_of(page) <= report.PAGE
    assert re.search(
        r"<strong>\d\d of the run's 60 examples</strong>, so that the page stays small", page
    )
    assert "images drawn at random (seed 0), whatever the answers" in page


def test_models_asked_different_questions_are_refused(tmp_path) -> None:
    run = browsable_run(tmp_path / "run", "a", "b", parts=False)
    table = run.read_examples()
    table.loc[table.index[-1], "question"] = "another?"
    run.write_examples(table)
    with pytest.raises(RunFolderError, match="b was asked other questions"):
        browser_of(run)


def test_images_are_drawn_whole_and_a_smaller_draw_is_part_of_a_larger() -> None:
    ids = np.repeat(np.arange(100).astype(str), 6)
    assert browsed(ids, 0, 600).tolist() == list(range(600))
    large, small = browsed(ids, 0, 300), browsed(ids, 0, 90)
    assert len(large) == 300
    assert len(small) == 90
    assert set(small) < set(large)
    assert set(np.unique(ids[small], return_counts=True)[1]) == {6}
    assert set(browsed(ids, 1, 90)) != set(small)
    assert len(browsed(np.array(["one"] * 50), 0, 20)) == 20  # an image that is too large by itself


@pytest.mark.parametrize("at_most", [2_000, 8_000])
def test_a_picture_fits_its_share(at_most: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    suffix, content = small_picture(Image.fromarray(noise), at_most)
    assert suffix == ".webp"
    assert len(content) <= at_most
    picture = Image.open(io.BytesIO(content))
    assert max(picture.size) <= 160
    assert picture.size[0] / picture.size[1] == pytest.approx(4 / 3, rel=0.05)


def test_a_small_image_keeps_its_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 84, 3), dtype=np.uint8)
    suffix, content = small_picture(Image.fromarray(noise), 20_000)
    assert suffix == ".png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), noise)


@pytest.mark.slow
def test_a_thousand_examples_of_a_large_model_stay_below_five_megabytes(tmp_path) -> None:
    """LLaVA-1.5's layers and patches, an image for each question, and images with detail."""
    run = browsable_run(
        tmp_path / "large", "a", n=1000, per_image=1, size=(320, 240), grid=(24, 24), layers=32
    )
    page = render_report(run)
    assert page_of(page) <= report.PAGE == 5_000_000
    assert "All 1000 examples of the run" in page
    assert len(re.findall("data:image/webp;base64,", page)) == 1000
